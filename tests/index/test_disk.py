"""An index on disk: it comes back the same from anywhere, damage is named, a crash leaves the old index or the new."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

import eet_tf.index
from eet_tf.index import (
    CatalogIndexError,
    ExactIndex,
    MilvusIndex,
    ScannConfiguration,
    ScannIndex,
    attribute_values,
    folder,
    load_index,
    lookup_photos,
    verify,
)
from tests.reference_index import InCluster, where_installed

REPOSITORY = pathlib.Path(eet_tf.index.__file__).parents[2]
KINDS = {
    "exact": (ExactIndex, {}),
    "scann_brute_force": (ScannIndex, {}),
    "scann_hashing": (ScannIndex, {"configuration": ScannConfiguration(30)}),
    "scann_tree": (ScannIndex, {"configuration": ScannConfiguration(30, 7, 3)}),
    "scann_prefix": (ScannIndex, {"configuration": ScannConfiguration(30, 7, 3, 6)}),
    "milvus": (MilvusIndex, {}),
    "milvus_cluster": (InCluster, {}),
}


def unit_vectors(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 16)) + 0.1
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@functools.cache  # ScaNN draws a tree's centres at random: only one object can be compared with what it saved
def make_index(name="exact", count=60, seed=0):
    kind, extra = KINDS[name]
    skus = [f"becher-{row % 9}-ü" for row in range(count)]
    photos = [f"{seed}/{row}.jpg" for row in range(count)]
    facts = {"fingerprint": "embedder-1", "metadata": {"model": "m/1", "k": [1, 2]}}
    return kind.build(unit_vectors(count, seed), skus, photos, **facts, **extra)


def assert_same(actual, expected):
    assert type(actual) is type(expected)
    assert repr(actual) == repr(expected) and actual.metadata == expected.metadata
    assert actual.is_exact == expected.is_exact
    queries = unit_vectors(6, seed=9)
    for k in (1, 50):
        ours, theirs = actual.search(queries, k=k), expected.search(queries, k=k)
        assert ours.skus.tolist() == theirs.skus.tolist() and ours.photos.tolist() == theirs.photos.tolist()
        np.testing.assert_array_equal(ours.scores, theirs.scores)


def contents_of(path):
    return path / json.loads((path / "manifest.json").read_text())["contents"]


# --- round trips


@pytest.mark.parametrize("name", where_installed(KINDS))
def test_a_moved_index_is_the_same(name, tmp_path):
    """Saved under one path, copied to one with a space, a quote and an umlaut, and the original deleted."""
    index = make_index(name)
    index.save(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / 'mö ved "twice"')
    shutil.rmtree(tmp_path / "first")
    loaded = load_index(tmp_path / 'mö ved "twice"')
    assert_same(loaded, index)
    loaded.save(tmp_path / "again")  # a loaded index saves, too
    assert_same(load_index(str(tmp_path / "again")), index)


@pytest.mark.parametrize("name", where_installed(KINDS))
def test_loading_writes_nothing(name, tmp_path):
    make_index(name).save(tmp_path / "index")
    for path in (tmp_path / "index").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "index").chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    try:
        assert_same(load_index(tmp_path / "index"), make_index(name))
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    finally:
        for path in (tmp_path / "index", *filter(pathlib.Path.is_dir, (tmp_path / "index").rglob("*"))):
            path.chmod(0o755)


@pytest.mark.parametrize("name", where_installed(KINDS))
def test_what_lies_on_disk(name, tmp_path):
    """Relative names only, no pickle (protocol 2 and later begin with 0x80), nothing that the manifest omits."""
    make_index(name).save(tmp_path / "index")
    contents = contents_of(tmp_path / "index")
    files = {path.relative_to(contents).as_posix(): path for path in contents.rglob("*") if path.is_file()}
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert set(manifest["files"]) == set(files)
    ours = {"vectors.npy", "skus.npy", "sku-names.json", "photos.npy"}
    assert set(files) >= ours if "milvus" not in name else all(file.startswith("milvus/") for file in files)
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == sorted(["manifest.json", contents.name])
    for path in files.values():
        assert (
            path.suffix != ".pkl"
            and path.read_bytes()[:1] != b"\x80"
            and str(tmp_path).encode() not in path.read_bytes()
        )
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)


def test_a_relative_folder_and_its_missing_parents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_index("scann_tree").save("a/b/index")
    monkeypatch.chdir(tmp_path / "a")
    assert_same(load_index("b/index"), make_index("scann_tree"))


def test_vectors_are_mapped_not_read(tmp_path):
    make_index().save(tmp_path / "index")
    assert isinstance(load_index(tmp_path / "index").embeddings, np.memmap)


# --- replacing


def test_saving_replaces_an_index_and_keeps_a_loaded_one_working(tmp_path):
    make_index("scann_tree", seed=1).save(tmp_path / "index")
    old = load_index(tmp_path / "index")
    (tmp_path / "index" / "notes.txt").write_text("mine")
    make_index("exact", seed=2).save(tmp_path / "index")
    assert_same(load_index(tmp_path / "index"), make_index("exact", seed=2))
    assert_same(old, make_index("scann_tree", seed=1))
    assert (tmp_path / "index" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "index").glob("contents-*"))) == 1


def test_a_loaded_index_saves_over_itself(tmp_path):
    make_index().save(tmp_path / "index")
    load_index(tmp_path / "index").save(tmp_path / "index")
    assert_same(load_index(tmp_path / "index"), make_index())


@pytest.mark.parametrize("name", ["photo.jpg", "manifest.json", "contents-2024"])
def test_a_folder_of_something_else_is_refused_and_untouched(name, tmp_path):
    (tmp_path / name).write_text('{"name": "a web application"}')
    with pytest.raises(
        CatalogIndexError, match=f"`folder` must be new, empty or a saved index.*'{name}'.*another folder"
    ):
        make_index().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"name": "a web application"}'


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "index").write_text("mine")
    with pytest.raises(CatalogIndexError, match="`folder` must be new, empty or a saved index"):
        make_index().save(tmp_path / "index")
    assert (tmp_path / "index").read_text() == "mine"


def test_an_index_of_format_version_2_is_read_and_replaced_like_a_new_one(tmp_path):
    """It had names as NumPy's strings."""
    index = make_index()
    index.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for file in contents_of(tmp_path).glob("*-names.json"):
        np.save(file.with_suffix(".npy"), np.asarray(json.loads(file.read_text()), np.str_), allow_pickle=False)
        del manifest["files"][file.name]
        content = file.with_suffix(".npy").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][f"{file.stem}.npy"] = {"bytes": len(content), "sha256": digest}
        file.unlink()
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format_version": 2}))
    old = load_index(tmp_path)
    assert_same(old, index)
    make_index(seed=2).save(tmp_path)
    assert_same(load_index(tmp_path), make_index(seed=2))
    assert json.loads((tmp_path / "manifest.json").read_text())["format_version"] == 3


def test_only_several_strings_need_a_newer_version(tmp_path):
    """Earlier versions of this code read all others, and refuse that one by its number."""
    for values, version in [(["a", "b"], 3), ([("a", "b"), ()], 4)]:
        ExactIndex.build(np.eye(2), ["x", "y"], attributes={"tags": values}).save(tmp_path)
        assert json.loads((tmp_path / "manifest.json").read_text())["format_version"] == version
        assert attribute_values(load_index(tmp_path), "tags").tolist() == values


def test_one_long_text_takes_no_room_in_the_other_rows(tmp_path):
    """3,000 descriptions of which one has 100,000 characters: as NumPy's strings 1.2 GB, in memory and on disk."""
    texts = [f"text {row}" for row in range(3000)]
    texts[11] = "x" * 100_000
    vectors = np.eye(4, dtype=np.float32)[np.arange(3000) % 4]
    tracemalloc.start()
    index = ExactIndex.build(vectors, ["a"] * 3000, [f"{row}.jpg" for row in range(3000)], {"text": texts})
    index.save(tmp_path)
    loaded = load_index(tmp_path)
    found = lookup_photos(loaded, ["11.jpg", "12.jpg"])
    assert loaded.search(vectors[:1], 5, where={"text": texts[11]}).photos[0].tolist() == ["11.jpg"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.attributes["text"].tolist() == [texts[11], "text 12"]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 1e6
    assert peak < 20e6


def test_an_index_of_an_older_version_is_replaced(tmp_path):
    make_index().save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({"format": manifest["format"], "format_version": 1}))
    with pytest.raises(
        CatalogIndexError, match="format version 1, and this eet_tf reads 2 to 4.*run `eet index build` again"
    ):
        load_index(tmp_path)
    make_index(seed=2).save(tmp_path)
    assert_same(load_index(tmp_path), make_index(seed=2))
    assert len(list(tmp_path.glob("contents-*"))) == 1


def test_an_empty_folder_is_taken(tmp_path):
    make_index().save(tmp_path)
    assert_same(load_index(tmp_path), make_index())


# --- damage


def damage_missing(contents):
    (contents / "skus.npy").unlink()


def damage_truncated(contents):
    os.truncate(contents / "vectors.npy", 1000)


def damage_changed(contents):
    data = bytearray((contents / "photos.npy").read_bytes())
    data[-1] ^= 1
    (contents / "photos.npy").write_bytes(data)


def damage_scann(contents):
    (contents / "scann" / "dataset.npy").unlink()


def damage_manifest_missing(contents):
    (contents.parent / "manifest.json").unlink()


def damage_manifest_truncated(contents):
    os.truncate(contents.parent / "manifest.json", 100)


def damage_contents_missing(contents):
    shutil.rmtree(contents)


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_missing, r"contents-\w+/skus.npy is missing"),
        (damage_truncated, r"contents-\w+/vectors.npy has 1000 bytes, \d+ were saved"),
        (damage_changed, r"contents-\w+/photos.npy has another checksum"),
        (damage_scann, r"contents-\w+/scann/dataset.npy is missing"),
        (damage_manifest_missing, "manifest.json is missing: .*first save was interrupted"),
        (damage_manifest_truncated, "manifest.json is not readable as JSON"),
        (damage_contents_missing, r"contents-\w+/\S+ is missing"),
    ],
)
def test_damage_is_named(damage, message, tmp_path):
    make_index("scann_brute_force").save(tmp_path / "index")
    damage(contents_of(tmp_path / "index"))
    with pytest.raises(
        CatalogIndexError, match=f"Received: folder='.*index', where {message}.*run `eet index build` again"
    ):
        load_index(tmp_path / "index")


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("format", "keras", "is not one of an index"),
        ("format_version", 5, "format version 5, and this eet_tf reads 2 to 4. Upgrade eet_tf"),
        ("kind", "faiss", "kind exact or scann or milvus. Received: .*kind='faiss'"),
        ("contents", "../contents-0123456789ab", "contents"),
        ("unheard_of", 1, "unheard_of"),
    ],
)
def test_a_manifest_of_something_else_is_refused(field, value, message, tmp_path):
    make_index().save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    (tmp_path / "index" / "manifest.json").write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(CatalogIndexError, match=message):
        load_index(tmp_path / "index")


def test_no_such_folder(tmp_path):
    with pytest.raises(CatalogIndexError, match="there is no such folder"):
        load_index(tmp_path / "nowhere")


def test_files_that_scann_cannot_read_are_named(tmp_path, monkeypatch):
    """As after a change of ScaNN's own format: the files are whole, and ScaNN refuses them."""
    make_index("scann_tree").save(tmp_path / "index")
    (contents_of(tmp_path / "index") / "scann" / "scann_config.pb").write_bytes(b"not a protocol buffer")
    monkeypatch.setattr(eet_tf.index.local, "check_files", lambda path, manifest: path / manifest.contents)
    with pytest.raises(CatalogIndexError, match=r"installed ScaNN reads.*run `eet index build` again"):
        load_index(tmp_path / "index")


def test_a_pickle_planted_for_scann_is_not_opened(tmp_path):
    """ScaNN's own loader would unpickle a `scann_docids.pkl`, that is run whatever a stranger put there."""
    make_index("scann_tree").save(tmp_path / "index")
    planted = contents_of(tmp_path / "index") / "scann" / "scann_docids.pkl"
    planted.write_bytes(b"cposix\nsystem\n(S'touch " + os.fsencode(tmp_path / "ran") + b"'\ntR.")
    load_index(tmp_path / "index").search(unit_vectors(1))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_vector_that_is_no_number_is_found_where_all_is_verified(value, tmp_path, monkeypatch):
    """Though the file is as it was written."""
    make_index().save(tmp_path / "index")
    file = contents_of(tmp_path / "index") / "vectors.npy"
    vectors = np.load(file)
    vectors[17] = value
    np.save(file, vectors)
    monkeypatch.setattr(eet_tf.index.local, "check_files", lambda path, manifest: path / manifest.contents)
    monkeypatch.setattr(verify, "check_files", lambda path, manifest, **_: path / manifest.contents)
    with pytest.raises(CatalogIndexError, match="a vector that is not of length 1, row 17"):
        verify.verify_index(load_index(tmp_path / "index"), tmp_path / "index")


def test_large_files_are_compared_by_size_only_but_where_all_is_verified(tmp_path, monkeypatch):
    make_index().save(tmp_path / "index")
    damage_changed(contents_of(tmp_path / "index"))
    some = functools.partial(folder.check_files, largest_hashed=100)
    monkeypatch.setattr(eet_tf.index.local, "check_files", some)
    index = load_index(tmp_path / "index")
    assert len(index) == 60
    with pytest.raises(CatalogIndexError, match=r"photos.npy has another checksum"):
        verify.verify_index(index, tmp_path / "index")


# --- crashes

STEPS = {
    "np.save": (np, "save"),
    "write_text": (pathlib.Path, "write_text"),
    "mkdir": (pathlib.Path, "mkdir"),
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
    "rmtree": (shutil, "rmtree"),
}


class Crash(BaseException):
    """Not an Exception, so that nothing tidies up after it."""


def crash_at(monkeypatch, step, number):
    """Makes the `number`-th call of `step` crash before it does anything."""
    owner, name = STEPS[step]
    original, calls = getattr(owner, name), []

    def crashing(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            raise Crash
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, crashing)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("name", ["exact", "scann_tree"])
def test_a_crash_at_any_step_leaves_the_old_or_the_new_index(name, step, number, tmp_path):
    make_index(name, seed=1).save(tmp_path / "index")
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, step, number)
        with contextlib.suppress(Crash):
            make_index(name, count=70, seed=2).save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert_same(loaded, make_index(name, seed=1) if len(loaded) == 60 else make_index(name, count=70, seed=2))
    make_index(name, count=80, seed=3).save(tmp_path / "index")  # the next save works and tidies up
    assert len(load_index(tmp_path / "index")) == 80
    assert len(list((tmp_path / "index").iterdir())) == 2


@pytest.mark.parametrize("step", ["np.save", "fsync", "replace"])
def test_a_crash_of_the_first_save_says_so_and_can_be_repeated(step, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        crash_at(patch, step, 1)
        with pytest.raises(Crash):
            make_index().save(tmp_path / "index")
    with pytest.raises(CatalogIndexError, match="first save was interrupted"):
        load_index(tmp_path / "index")
    make_index().save(tmp_path / "index")
    assert_same(load_index(tmp_path / "index"), make_index())
    assert len(list((tmp_path / "index").iterdir())) == 2


def test_repeated_crashes_do_not_fill_the_disk(tmp_path):
    make_index().save(tmp_path)
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            crash_at(patch, "replace", 1)
            make_index().save(tmp_path)
    assert len(list(tmp_path.glob("contents-*"))) == 2


def test_kill_9_while_saving_leaves_a_whole_index(tmp_path):
    """A process that saves two indexes in turn is killed five times, each time a little later."""
    make_index(count=5).save(tmp_path)
    code = (
        "import sys; import numpy as np; from eet_tf.index import ExactIndex\n"
        "indexes = [ExactIndex.build(np.eye(n, 400), range(n)) for n in (300, 400)]\n"
        "while True:\n"
        "    for index in indexes: index.save(sys.argv[1]); sys.stdout.write('saved\\n'); sys.stdout.flush()\n"
    )
    for attempt in range(5):
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
            for _ in range(attempt + 1):
                process.stdout.readline()
            deadline = time.monotonic() + 0.002 * attempt
            while time.monotonic() < deadline:
                pass
            process.send_signal(signal.SIGKILL)
        index = load_index(tmp_path)
        assert len(index) in (300, 400)
        assert index.search(np.eye(1, 400)[0], k=1).photos.tolist() == [["0"]]


def test_an_index_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    make_index(seed=1).save(tmp_path)
    check, checked = eet_tf.index.local.check_files, []

    def replace_first(path, manifest):
        checked.append(manifest.contents)
        if len(checked) == 1:
            make_index(count=70, seed=2).save(tmp_path)
        return check(path, manifest)

    monkeypatch.setattr(eet_tf.index.local, "check_files", replace_first)
    assert len(load_index(tmp_path)) == 70 and len(checked) == 2
