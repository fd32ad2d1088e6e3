"""A catalogue embedded by the pipeline: killed, damaged and mended on the way, it ends as if embedded in one go."""

import concurrent.futures
import importlib.util
import os
import shutil
import signal
import time

import keras
import numpy as np
import pytest
from PIL import Image

import eet_tf
from eet_tf.data import load_csv, make_synthetic_catalog
from eet_tf.embedding.files import open_folder
from eet_tf.index import load_index

NUM_SHARDS = 4
NEEDS_BEAM = "Apache Beam does not go with TensorFlow 2.15"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with 32 drawn photos, two SavedModels and an empty folder."""
    folder = tmp_path_factory.mktemp("embed")
    make_synthetic_catalog(folder / "photos", num_products=8, photos_per_product=4, image_size=32)
    for seed, name in enumerate(("serving", "other")):
        keras.utils.set_random_seed(seed)
        eet_tf.export_embedder(eet_tf.build_embedder("small_cnn", 16, image_size=32), str(folder / name))
    (folder / "empty").mkdir()
    return folder


def command(place, output, saved_model="serving", photos="photos"):
    """embed_beam.py, with the flags that it cannot do without."""
    return (
        "export/embed_beam.py",
        f"--saved_model={place / saved_model}",
        "--dataset=csv",
        f"--data_dir={place / photos}",
        f"--output_dir={output}",
        "--batch_size=5",
    )


def build_command(place, output, *flags, photos="photos"):
    common = ("export/build_index.py", "--dataset=csv", f"--data_dir={place / photos}", "--index=exact")
    return (*common, f"--output_dir={output}", *flags)


def times(folder):
    """When each embedding file that a reader sees was written: {name: ns}."""
    names = [name for name in os.listdir(folder) if name.startswith("embeddings-")]
    return {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in names}


@pytest.fixture(scope="module")
def embedded(place, run_script):
    """A folder of embeddings in 4 files, and how the script that made it ended."""
    pytest.importorskip("apache_beam", reason=NEEDS_BEAM)
    output = place / "embeddings"
    return output, run_script(*command(place, output), f"--num_shards={NUM_SHARDS}").succeeded()


@pytest.fixture
def copied(embedded, tmp_path):
    """Its copy, to be damaged."""
    return shutil.copytree(embedded[0], tmp_path / "embeddings")


def test_it_says_what_is_done_and_what_it_did(embedded):
    output, outcome = embedded
    assert "0 of 4 shards are done." in outcome.printed
    assert "Embedded 32 photos, " in outcome.printed
    assert f"The embeddings of 32 photos are in {output}." in outcome.printed
    expected = [f"embeddings-{shard:05d}-of-00004.npz" for shard in range(NUM_SHARDS)]
    assert sorted(os.listdir(output)) == [*expected, "embeddings.json"]


def test_the_index_is_that_of_the_saved_model(embedded, place, run_script, tmp_path):
    """The same rows to 1e-6, the same neighbours, and the same SavedModel to embed a query with."""
    flags = {"files": f"--embeddings_dir={embedded[0]}", "model": f"--saved_model={place / 'serving'}"}
    indexes = {}
    for name, flag in flags.items():
        run_script(*build_command(place, tmp_path / name, flag)).succeeded()
        indexes[name] = load_index(tmp_path / name)
    files, model = indexes["files"], indexes["model"]
    np.testing.assert_allclose(files.embeddings, model.embeddings, atol=1e-6)
    assert files.photos.tolist() == model.photos.tolist()
    assert (files.fingerprint, files.metadata) == (model.fingerprint, model.metadata)
    found = [index.search(model.embeddings, k=5).photos.tolist() for index in (files, model)]
    assert found[0] == found[1]
    query = load_csv(str(place / "photos")).files[0]
    searched = run_script("export/search.py", f"--index_dir={tmp_path / 'files'}", f"--query={query}", "--k=1")
    assert "     1  1.000  " in searched.succeeded().printed


def test_run_again_it_embeds_only_what_is_missing_or_damaged(embedded, copied, place, run_script):
    """The first file is deleted, the second cut short, the third has one byte inverted among its vectors."""
    before = times(copied)
    names = sorted(before)
    os.remove(copied / names[0])
    os.truncate(copied / names[1], 300)
    content = bytearray((copied / names[2]).read_bytes())
    content[content.index(b"embeddings.npy") + 200] ^= 0xFF
    (copied / names[2]).write_bytes(content)
    outcome = run_script(*command(place, copied)).succeeded()
    assert "1 of 4 shards are done." in outcome.printed
    after = times(copied)
    assert [name for name in names if after[name] == before[name]] == [names[3]]
    paths = load_csv(str(place / "photos")).paths
    np.testing.assert_array_equal(open_folder(copied).read(paths), open_folder(embedded[0]).read(paths))


def test_with_nothing_left_to_do_it_touches_nothing(copied, place, run_script):
    before = times(copied)
    outcome = run_script(*command(place, copied)).succeeded()
    assert "4 of 4 shards are done." in outcome.printed
    assert "Embedded" not in outcome.printed
    assert times(copied) == before


def test_killed_it_goes_on(embedded, place, start_script, run_script, tmp_path):
    """Killed as soon as a file is there; whatever is there then is whole, stays, and the end is the same."""
    output = tmp_path / "killed"
    with start_script(*command(place, output), "--num_shards=32", "--batch_size=1") as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if output.is_dir() and times(output):
                process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
    before = times(output)
    run_script(*command(place, output)).succeeded()
    after = times(output)
    assert 0 < len(before) < len(after)
    assert {name: after[name] for name in before} == before
    assert not [name for name in os.listdir(output) if name.startswith(".")]
    paths = load_csv(str(place / "photos")).paths
    expected = open_folder(embedded[0]).read(paths)
    np.testing.assert_allclose(open_folder(output).read(paths), expected, atol=1e-6)


def test_a_photo_that_is_no_image_is_named_and_harms_no_other(embedded, copied, place, run_script, tmp_path):
    """Nor is one of more pixels than the SavedModel takes. Once they are mended, only their file is embedded again."""
    shutil.copytree(place / "photos", tmp_path / "photos")
    catalog = load_csv(str(tmp_path / "photos"))
    (bad,) = [rows[-2:] for rows in open_folder(embedded[0]).deal(catalog.paths) if 5 in rows]
    for row in bad:
        shutil.copyfile(catalog.files[row], tmp_path / f"{row}.jpg")
    with open(catalog.files[bad[0]], "w") as file:
        file.write("no image")
    Image.new("L", (8000, 5001)).save(catalog.files[bad[1]])
    for name in times(copied):
        os.remove(copied / name)
    here = command(place, copied, photos=tmp_path / "photos")
    run_script(*here).refused(
        "2 of 32 photos cannot be read",
        rf"catalog\.csv:{bad[0] + 2}: '.*\.jpg': a text, not a photo",
        rf"catalog\.csv:{bad[1] + 2}: '.*\.jpg': it has more than 40 million pixels, the limit of this model",
        "same command again",
    )
    before = times(copied)
    assert len(before) == NUM_SHARDS
    files, others = open_folder(copied), ~np.isin(np.arange(len(catalog)), bad)
    expected = open_folder(embedded[0]).read(catalog.paths)
    np.testing.assert_allclose(files.read(catalog.paths[others]), expected[others], atol=1e-6)
    build = build_command(place, tmp_path / "index", f"--embeddings_dir={copied}", photos=tmp_path / "photos")
    run_script(*build).refused("2 of 32 photos are no images", str(catalog.paths[bad[0]]))
    for row in bad:
        shutil.copyfile(tmp_path / f"{row}.jpg", catalog.files[row])
    assert "3 of 4 shards are done." in run_script(*here).succeeded().printed
    after = times(copied)
    mended = [shard for shard, rows in enumerate(files.deal(catalog.paths)) if bad[0] in rows]
    assert [os.path.join(copied, name) for name in after if after[name] != before[name]] == [files.file(mended[0])]
    np.testing.assert_allclose(files.read(catalog.paths), expected, atol=1e-6)


def test_embeddings_of_another_model_are_replaced_and_never_mixed(copied, place, run_script, tmp_path):
    """A folder in which half of the files are of another model gives no index; embedded again, it does."""
    before = times(copied)
    outcome = run_script(*command(place, copied, saved_model="other")).succeeded()
    assert "holds embeddings of another model; they are replaced." in outcome.printed
    assert "0 of 4 shards are done." in outcome.printed
    assert not set(times(copied).values()) & set(before.values())
    for name in sorted(before)[:2]:
        shutil.copy(place / "embeddings" / name, copied / name)
    build = build_command(place, tmp_path / "index", f"--embeddings_dir={copied}")
    run_script(*build).refused("of the embedder '", "eet embed` again")
    assert not (tmp_path / "index").exists()


def test_workers_in_processes_of_their_own_do_the_same(embedded, place, run_script, tmp_path):
    output = tmp_path / "embeddings"
    parallel = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    run_script(*command(place, output), "--num_shards=3", *parallel).succeeded()
    paths = load_csv(str(place / "photos")).paths
    expected = open_folder(embedded[0]).read(paths)
    np.testing.assert_allclose(open_folder(output).read(paths), expected, atol=1e-6)


REFUSED = {
    "misspelt flag": ({}, ["--num_shard=3"], ["unknown flag '--num_shard=3'"]),
    "no saved model": ({"saved_model": "empty"}, [], [r"empty'.*Make one with `eet export`"]),
    "no catalogue": ({"photos": "empty"}, [], ["empty"]),
    "other number of shards": ({}, ["--num_shards=5"], ["must be the folder's 4. Received: num_shards=5"]),
    "no shards": ({}, ["--num_shards=0"], ["num_shards"]),
}


def test_refused_in_one_line_before_anything_is_written(embedded, place, run_script):
    """Two scripts at a time."""
    before = times(embedded[0])
    commands = [(*command(place, embedded[0], **folders), *flags) for folders, flags, _ in REFUSED.values()]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda one: run_script(*one), commands))
    for outcome, (_, _, patterns) in zip(outcomes, REFUSED.values()):
        outcome.refused(*patterns)
    assert times(embedded[0]) == before


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="Apache Beam is installed")
def test_without_beam_it_says_how_to_install_it(place, run_script, tmp_path):
    run_script(*command(place, tmp_path / "new")).refused(r"pip install 'eet-tf\[beam\]'")
    assert not (tmp_path / "new").exists()


def test_an_index_needs_a_saved_model_or_embeddings_and_not_both(place, run_script, tmp_path):
    neither = run_script(*build_command(place, tmp_path / "index"))
    both = run_script(*build_command(place, tmp_path / "index", "--saved_model=a", "--embeddings_dir=b"))
    for outcome in (neither, both):
        assert outcome.returncode != 0
        assert "ne of --saved_model and --embeddings_dir must be given. Received: " in outcome.errors
        assert "Traceback" not in outcome.errors


def test_no_embeddings_no_index(place, run_script, tmp_path):
    build = build_command(place, tmp_path / "index", f"--embeddings_dir={place / 'empty'}")
    run_script(*build).refused("empty', where embeddings.json is missing", "Make it with `eet embed`")
