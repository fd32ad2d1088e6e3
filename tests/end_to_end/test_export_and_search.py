"""From a trained embedder to neighbours on the screen and on a page, moved to another folder on the way."""

import concurrent.futures
import os
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf.data import load_csv
from eet_tf.index import load_index


def at_once(run_script, commands):
    """Runs scripts two at a time: {name: how it ended}."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(lambda name: run_script(*commands[name]), commands)))


@pytest.fixture(scope="module")
def moved(trained, root, tmp_path_factory, run_script):
    """Photos, run, SavedModel and two indexes, made in one folder that then was moved as a whole."""
    old = tmp_path_factory.mktemp("export") / "old"
    shutil.copytree(root, old)
    model_dir = old / "run"
    outcome = run_script("export/main.py", f"--model={model_dir}", f"--output_dir={model_dir / 'serving'}").succeeded()
    assert f"The SavedModel is {model_dir}/serving/1." in outcome.printed
    common = ("export/build_index.py", f"--saved_model={model_dir / 'serving'}", "--dataset=csv", "--batch_size=7")
    data_dir = f"--data_dir={old / 'photos'}"
    built = at_once(
        run_script,
        {
            "scann": (*common, data_dir, f"--output_dir={model_dir / 'index'}"),
            "exact": (*common, data_dir, "--index=exact", "--split=test", f"--output_dir={model_dir / 'exact'}"),
        },
    )
    assert f"The index of 32 photos is {model_dir}/index." in built["scann"].succeeded().printed
    assert f"The index of 8 photos is {model_dir}/exact." in built["exact"].succeeded().printed
    return old.rename(old.parent / "new")


def found(printed):
    """What search.py printed: {query: [(score, sku, photo), ...]}."""
    answers, query = {}, None
    for line in printed.splitlines():
        row = re.fullmatch(r" +\d+ +(-?[\d.]+)  (.*)  \(([^()]*)\)(?:  .*)?", line)
        if row:
            answers[query].append((float(row[1]), row[2], row[3]))
        elif not line.startswith("  rank"):
            query = line
            answers[query] = []
    return {query: rows for query, rows in answers.items() if rows}


@pytest.fixture(scope="module")
def searches(moved, tmp_path_factory, run_script):
    """Everything that is searched, refused and written, two scripts at a time."""
    folder = tmp_path_factory.mktemp("searches")
    serving, index = moved / "run" / "serving", moved / "run" / "index"
    catalog = load_csv(str(moved / "photos"))
    query, other = catalog.files[0], catalog.files[-1]
    (folder / "text.jpg").write_text("no image")
    shutil.copytree(index, folder / "half")
    next((folder / "half").glob("contents-*/vectors.npy")).unlink()
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    (folder / "empty").mkdir()
    keras.utils.set_random_seed(5)
    eet_tf.export_embedder(eet_tf.build_embedder("small_cnn", 16, 32), str(folder / "other"))
    search = ("export/search.py", f"--query={query}")
    build = ("export/build_index.py", "--dataset=csv", f"--data_dir={moved / 'photos'}")
    report = ("export/make_report.py", f"--output={folder / 'run.html'}", "--num_queries=6", "--k=3")
    export = ("export/main.py", f"--model={moved / 'run'}", f"--index_dir={index}")
    commands = {
        "search": (*search, f"--query={other}", f"--index_dir={index}", "--k=4", f"--report={folder / 'found.html'}"),
        "exact": (*search, f"--query={other}", f"--index_dir={moved / 'run' / 'exact'}", "--k=99"),
        "report": (*report, f"--model_dir={moved / 'run'}", f"--index_dir={index}"),
        "half index": (*search, f"--index_dir={folder / 'half'}"),
        "no index": (*search, f"--index_dir={folder / 'empty'}"),
        "other embedder": (*search, f"--index_dir={index}", f"--saved_model={folder / 'other'}"),
        "missing query": ("export/search.py", f"--query={folder / 'none.jpg'}", f"--index_dir={index}"),
        "no image": (*search, f"--query={folder / 'text.jpg'}", f"--index_dir={index}"),
        "not an index": (*build, f"--saved_model={serving}", f"--output_dir={folder / 'mine'}"),
        "no saved model": (*build, f"--saved_model={folder / 'empty'}", f"--output_dir={folder / 'new'}"),
        "no model": ("export/main.py", f"--model={folder / 'empty'}", f"--output_dir={folder / 'served'}"),
        "searching server": (*export, f"--output_dir={folder / 'searching'}", "--k=3", "--catalog_storage=int8"),
        "more than there are": (*export, f"--output_dir={folder / 'served'}", "--k=99"),
        "no run": (*report, f"--model_dir={folder / 'empty'}", f"--index_dir={index}"),
    }
    return folder, catalog, at_once(run_script, commands)


@pytest.mark.parametrize("kind", ["search", "exact"])
def test_a_photo_of_the_catalogue_finds_itself_first(searches, kind):
    """The exact index holds the test split only: there the first query, of the train split, finds another product."""
    _, catalog, outcomes = searches
    answers = found(outcomes[kind].succeeded().printed)
    rows = {"search": (0, -1), "exact": (-1,)}[kind]
    for row in rows:
        score, sku, photo = answers[catalog.files[row]][0]
        assert (sku, photo) == (catalog.skus[row], catalog.paths[row])
        assert score == pytest.approx(1.0, abs=1e-3)
    for neighbors in answers.values():
        scores = [score for score, _, _ in neighbors]
        assert scores == sorted(scores, reverse=True)
        assert len(neighbors) == {"search": 4, "exact": 8}[kind]


def test_a_server_with_the_index_finds_the_same_products(searches):
    """8 products, of which k=3; 4 photos of each."""
    folder, catalog, outcomes = searches
    outcomes["searching server"].succeeded()
    signature = tf.saved_model.load(str(folder / "searching" / "1")).signatures["search"]
    photos = [pathlib.Path(catalog.files[row]).read_bytes() for row in (0, -1)]
    answer = signature(image_bytes=tf.constant([*photos, b"no image"]))
    skus = answer["sku"].numpy().astype(str)
    assert answer["ok"].numpy().tolist() == [True, True, False]
    assert skus[:2, 0].tolist() == [catalog.skus[0], catalog.skus[-1]]
    assert skus.shape == (3, 3) and all(len(set(row)) == 3 for row in skus[:2].tolist())
    outcomes["more than there are"].refused("`k` must be an integer from 1 to the catalogue's 8 products")


def test_neighbours_are_those_of_the_embeddings(searches, moved):
    """The exact index against NumPy, on what it says it holds."""
    _, catalog, outcomes = searches
    answers = found(outcomes["exact"].printed)
    index = load_index(str(moved / "run" / "exact"))
    row = index.photos.tolist().index(catalog.paths[-1])
    order = np.argsort(-index.embeddings @ index.embeddings[row], kind="stable")
    assert [photo for _, _, photo in answers[catalog.files[-1]]] == index.photos[order].tolist()


def test_the_index_holds_what_the_embedder_says(moved, searches):
    """The trained network in this process, on the photos as training decodes them."""
    from eet_tf.data import gallery_dataset
    from eet_tf.evaluation.callback import embed

    _, catalog, _ = searches
    embeddings = embed(eet_tf.load_embedder(str(moved / "run")), gallery_dataset(catalog, 32))
    index = load_index(str(moved / "run" / "index"))
    assert index.photos.tolist() == catalog.paths.tolist()
    assert index.skus.tolist() == catalog.skus.tolist()
    np.testing.assert_allclose(index.embeddings, embeddings, atol=1e-4)


def test_the_page_of_a_search_shows_the_photos(searches):
    """Embedded as data, since a page that is sent to somebody must show them too: a query and 4 neighbours, twice."""
    folder, catalog, outcomes = searches
    assert f"The page is {folder / 'found.html'}." in outcomes["search"].printed
    page = (folder / "found.html").read_text()
    assert page.count("data:image/") >= 10
    assert catalog.skus[0] in page


def test_the_page_of_a_run_shows_curves_figures_and_photos(searches):
    """6 queries with 3 neighbours each."""
    folder, _, outcomes = searches
    printed = outcomes["report"].succeeded().printed
    assert re.search(r"R@1 on unseen products, among the test photos alone: [\d.]+ % before, [\d.]+ % after", printed)
    page = (folder / "run.html").read_text()
    assert page.count("data:image/") >= 24
    assert "small_cnn, 32 px, 16-d" in page
    assert "of 2" in page


@pytest.mark.parametrize(
    "name, patterns",
    {
        "half index": (r"half'", r"vectors\.npy is missing", "run `eet index build` again"),
        "no index": (r"empty'", r"manifest\.json is missing"),
        "other embedder": ("fingerprint|embedder|model",),
        "missing query": (r"a query must be a photo", r"query=.*none\.jpg: the file does not exist"),
        "no image": (r"a query must be a JPEG, PNG", r"query=.*text\.jpg: a text, not a photo"),
        "not an index": (r"mine'",),
        "no saved model": (r"empty'.*Make one with `eet export`",),
        "no model": (r"model\.keras in it.*empty'",),
        "no run": (r"empty' is not the folder of a training run",),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_in_one_line_that_names_the_culprit(searches, name, patterns):
    searches[2][name].refused(*patterns)


def test_what_was_refused_is_left_alone(searches):
    folder, _, _ = searches
    assert os.listdir(folder / "mine") == ["thesis.txt"]
    assert (folder / "mine" / "thesis.txt").read_text() == "years of work"
    assert not (folder / "new").exists()
    assert not (folder / "served").exists()


def test_a_learner_of_ones_own_is_exported_and_searched(root, tmp_path, run_script):
    """Saved whole, as a checkpoint is; it takes images of any size, and its vectors are not of length 1."""
    images = keras.Input([None, None, 3])
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(images))
    learner = eet_tf.MetricLearner(keras.Model(images, keras.layers.Dense(6)(pooled)), memory_size=4)
    learner.compile("adam", eet_tf.EETLoss())
    learner.save(tmp_path / "mine.keras")
    export = ("export/main.py", f"--model={tmp_path / 'mine.keras'}", f"--output_dir={tmp_path / 'served'}")
    build = ("export/build_index.py", f"--saved_model={tmp_path / 'served'}", "--dataset=csv", "--index=exact")
    run_script(*export).refused(
        "`image_size` must be given for a model that takes images of any size", "--image_size=224"
    )
    assert not (tmp_path / "served").exists()
    printed = run_script(*export, "--image_size=40").succeeded().printed
    assert "not of length 1; they are brought to it" in printed
    built = run_script(*build, f"--data_dir={root / 'photos'}", f"--output_dir={tmp_path / 'index'}").succeeded()
    assert f"The index of 32 photos is {tmp_path / 'index'}." in built.printed
    vectors = load_index(str(tmp_path / "index")).search(np.eye(6, dtype=np.float32)[:1], k=1)
    assert vectors.skus.shape == (1, 1)
