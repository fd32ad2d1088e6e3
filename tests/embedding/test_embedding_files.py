"""Embedding files: what is written comes back in any order, and nothing else ever does."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import eet_tf.embedding.files as embedding_files
from eet_tf.embedding.files import EmbeddingFilesError, EmbeddingFolder, choose_num_shards, find_folder, open_folder

DIM = 5
NUM_SHARDS = 4


def vectors_of(photos):
    """One random row for each name, the same at every call; no two alike."""
    return np.array([np.random.default_rng(list(photo.encode())).normal(size=DIM) for photo in photos], np.float32)


@pytest.fixture
def photos():
    """40 names over 4 shards, not in alphabetical order, one of them not ASCII."""
    names = [f"shelf {number % 7}/photo-{number * 37 % 101}.jpg" for number in range(39)]
    return [*names, "Größe/ö.jpg"]


@pytest.fixture
def files(tmp_path):
    """A folder with no files yet."""
    made = EmbeddingFolder(str(tmp_path / "embeddings"), "f00d", DIM, NUM_SHARDS, "../serving/1")
    made.save()
    return made


def fill(files, photos, broken=()):
    """Writes every shard that has some of `photos`; those in `broken` are no images."""
    for shard in np.flatnonzero([len(rows) for rows in files.deal(photos)]).tolist():
        names = shard_with_photos(files, photos, shard)
        files.write(shard, names, vectors_of(names), np.array([name not in broken for name in names], np.bool_))


def shard_with_photos(files, photos, shard):
    return [photos[row] for row in files.deal(photos)[shard]]


def test_the_vectors_come_back_in_the_order_asked_for(files, photos):
    fill(files, photos)
    for order in (photos, photos[::-1], np.random.default_rng(3).permutation(photos), photos[5:9]):
        found = files.read(order)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, vectors_of([str(name) for name in order]))


def test_the_folder_says_what_it_is_and_can_be_moved(files, photos, tmp_path):
    fill(files, photos)
    os.rename(files.folder, tmp_path / "moved")
    moved = open_folder(tmp_path / "moved")
    assert (moved.fingerprint, moved.embedding_dim, moved.num_shards) == ("f00d", DIM, NUM_SHARDS)
    assert moved.saved_model == "../serving/1"
    np.testing.assert_array_equal(moved.read(photos), vectors_of(photos))


def test_each_photo_is_in_one_shard_by_its_path_alone(files, photos):
    """The rows of all shards are all rows; without 3 photos the others stay where they were."""
    dealt = files.deal(photos)
    assert len(dealt) == NUM_SHARDS
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(photos)))
    assert all(len(rows) for rows in dealt)
    fewer = photos[3:]
    for shard in range(NUM_SHARDS):
        kept = [name for name in shard_with_photos(files, photos, shard) if name in fewer]
        assert shard_with_photos(files, fewer, shard) == kept


def test_the_shard_of_a_photo_is_the_same_in_every_process(files):
    """The first 8 bytes of SHA-256, computed elsewhere; Python's own hash differs from process to process."""
    code = "import hashlib; print(int(hashlib.sha256(b'a.jpg').hexdigest()[:16], 16) % 4)"
    shard = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert [len(rows) for rows in files.deal(["a.jpg"])] == [number == shard for number in range(NUM_SHARDS)]


def test_more_shards_than_photos(tmp_path):
    files = EmbeddingFolder(str(tmp_path / "many"), "f00d", DIM, 50, "serving")
    fill(files, ["a.jpg", "b.jpg"])
    np.testing.assert_array_equal(files.read(["b.jpg", "a.jpg"]), vectors_of(["b.jpg", "a.jpg"]))
    empty = next(shard for shard, rows in enumerate(files.deal(["a.jpg", "b.jpg"])) if not len(rows))
    assert not os.path.exists(files.file(empty))
    assert files.is_done(empty, [])
    assert files.read(["a.jpg", "b.jpg"]).shape == (2, DIM)


# When a shard is done


def test_done_is_exactly_these_photos_in_any_order(files, photos):
    names = shard_with_photos(files, photos, 2)
    assert not files.is_done(2, names)
    fill(files, photos)
    assert files.is_done(2, names)
    assert files.is_done(2, names[::-1])
    assert not files.is_done(2, names[1:])
    assert not files.is_done(2, [*names, "new.jpg"])
    assert not files.is_done(2, [*names[1:], names[1]])


def test_a_shard_with_a_photo_that_is_no_image_is_not_done(files, photos):
    broken = photos[7]
    fill(files, photos, broken=[broken])
    done = [files.is_done(shard, shard_with_photos(files, photos, shard)) for shard in range(NUM_SHARDS)]
    assert done == [broken not in shard_with_photos(files, photos, shard) for shard in range(NUM_SHARDS)]
    assert files.unreadable(photos) == [7]


def test_a_shard_of_another_embedder_is_not_done(files, photos):
    fill(files, photos)
    other = EmbeddingFolder(files.folder, "beef", DIM, NUM_SHARDS, "../serving/2")
    assert not other.is_done(0, shard_with_photos(files, photos, 0))


def test_no_damage_passes_for_done_or_gives_other_vectors(files, photos):
    """Cut anywhere, or with any one byte inverted, a file is refused, or else gives exactly what was written."""
    fill(files, photos)
    path, names = files.file(1), shard_with_photos(files, photos, 1)
    with open(path, "rb") as file:
        whole = file.read()
    rng = np.random.default_rng(11)
    damaged = [whole[:size] for size in (0, 1, len(whole) // 2, len(whole) - 1)]
    for place in rng.integers(len(whole), size=300).tolist():
        damaged.append(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    num_refused = 0
    for content in damaged:
        with open(path, "wb") as file:
            file.write(content)
        if files.is_done(1, names):
            np.testing.assert_array_equal(files.read(names), vectors_of(names))
        else:
            num_refused += 1
    assert num_refused > 200


def test_a_file_that_holds_a_pickle_is_not_opened(files, photos):
    fill(files, photos)
    names = shard_with_photos(files, photos, 0)
    content = {"embeddings": vectors_of(names), "ok": np.ones(len(names), np.bool_), "fingerprint": "f00d"}
    np.savez(files.file(0), photos=np.array(names, dtype=object), **content)
    assert not files.is_done(0, names)


def test_a_write_that_is_killed_leaves_the_old_file_and_its_rest_is_removed(files, photos):
    fill(files, photos)
    program = (
        "import os, signal, sys\n"
        "import numpy as np\n"
        "from eet_tf.embedding.files import open_folder\n"
        "np.savez = lambda path, **content: (open(path, 'wb').write(b'half'), os.kill(os.getpid(), signal.SIGKILL))\n"
        f"open_folder(sys.argv[1]).write(0, ['x'], np.zeros([1, {DIM}], np.float32), np.array([True]))\n"
    )
    assert subprocess.run([sys.executable, "-c", program, files.folder]).returncode == -9
    hidden = [name for name in os.listdir(files.folder) if name.startswith(".")]
    assert len(hidden) == 1
    np.testing.assert_array_equal(files.read(photos), vectors_of(photos))
    files.save()
    assert not [name for name in os.listdir(files.folder) if name.startswith(".")]


# What is refused


def refuses(*patterns):
    return pytest.raises(EmbeddingFilesError, match="(?s)" + ".*".join(patterns))


def test_missing_files_are_counted_and_the_first_named(files, photos):
    fill(files, photos)
    for shard in (1, 3):
        os.remove(files.file(shard))
    with refuses(
        re.escape(files.folder), "2 of 4 files are missing, first embeddings-00001-of-00004.npz", "eet embed` again"
    ):
        files.read(photos)


def test_a_damaged_file_is_named(files, photos):
    fill(files, photos)
    with open(files.file(2), "r+b") as file:
        file.truncate(200)
    with refuses("embeddings-00002-of-00004.npz is damaged", "eet embed` again"):
        files.read(photos)


def test_photos_that_are_not_in_it_are_counted_and_named(files, photos):
    fill(files, photos)
    with refuses("2 of 42 photos are not in it", "'new 1.jpg', 'new 2.jpg'", "eet embed` again"):
        files.read([*photos, "new 1.jpg", "new 2.jpg"])


def test_photos_that_are_no_images_are_refused_only_if_asked_for(files, photos):
    fill(files, photos, broken=photos[10:17])
    with refuses("7 of 40 photos are no images", re.escape(repr(photos[10])), "Replace them or delete their rows"):
        files.read(photos)
    np.testing.assert_array_equal(files.read(photos[:10]), vectors_of(photos[:10]))


def test_embeddings_of_two_embedders_are_not_mixed(files, photos):
    fill(files, photos)
    other = EmbeddingFolder(files.folder, "beef", DIM, NUM_SHARDS, "../serving/2")
    other.save()
    other.write(0, *_one_shard(other, photos, 0))
    with refuses("of the embedder 'f00d', and embeddings.json of 'beef'", "eet embed` again"):
        open_folder(files.folder).read(photos)


def _one_shard(files, photos, shard):
    names = shard_with_photos(files, photos, shard)
    return names, vectors_of(names), np.ones(len(names), np.bool_)


@pytest.mark.parametrize(
    "embeddings, ok",
    [
        (np.zeros([2, DIM], np.float32), np.ones(3, np.bool_)),
        (np.zeros([3, DIM + 1], np.float32), np.ones(3, np.bool_)),
        (np.zeros([3, DIM], np.float64), np.ones(3, np.bool_)),
        (np.zeros([3, DIM], np.float32), np.ones(2, np.bool_)),
        (np.zeros([3, DIM], np.float32), np.ones(3, np.int64)),
    ],
)
def test_a_shard_of_wrong_shape_or_kind_is_not_written(files, embeddings, ok):
    with refuses("the arrays of embeddings-00000-of-00004.npz do not fit"):
        files.write(0, ["a", "b", "c"], embeddings, ok)
    assert os.listdir(files.folder) == [embedding_files.MANIFEST]


def test_a_folder_that_is_none(tmp_path):
    with refuses("embeddings.json is missing", "Make it with `eet embed`"):
        open_folder(tmp_path)
    (tmp_path / "file").write_text("")
    with refuses("embeddings.json is missing"):
        open_folder(tmp_path / "file")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 1}', '{"format": 1, "colour": "red"}'])
def test_a_manifest_that_cannot_be_read(tmp_path, content):
    (tmp_path / "embeddings.json").write_text(content)
    for read in (open_folder, find_folder):
        with refuses("embeddings.json cannot be read", "Run `eet embed` again with another output_dir"):
            read(tmp_path)


def test_a_newer_format(files):
    path = os.path.join(files.folder, "embeddings.json")
    with open(path) as file:
        facts = json.load(file)
    with open(path, "w") as file:
        json.dump({**facts, "format": 2}, file)
    with refuses("another format than 1", "Upgrade eet_tf"):
        open_folder(files.folder)


def test_somebody_elses_folder_is_not_written_to(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for folder in (tmp_path, tmp_path / "thesis.txt"):
        with refuses("'thesis.txt' and no embeddings.json", "Choose another folder"):
            find_folder(folder)


def test_a_new_and_an_empty_folder_and_one_killed_at_once_hold_nothing(tmp_path, files):
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".0a1b2c3d4e5f.embeddings.json").write_text("{")
    for name in ("new", "empty", "killed"):
        assert find_folder(tmp_path / name) is None
    assert find_folder(files.folder) == files


def test_how_many_shards(files):
    """One for each 5,000 photos; the folder's own once there is one; as asked."""
    assert [choose_num_shards(None, None, photos) for photos in (1, 5_000, 5_001, 1_000_000)] == [1, 1, 2, 200]
    assert choose_num_shards(7, None, 1) == 7
    assert choose_num_shards(None, files, 1_000_000) == NUM_SHARDS
    assert choose_num_shards(NUM_SHARDS, files, 1) == NUM_SHARDS
    with refuses("must be the folder's 4", "Received: num_shards=5", "Leave it out"):
        choose_num_shards(5, files, 1)
