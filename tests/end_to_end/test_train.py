"""What training leaves in its folder, and everything it refuses before it starts, each in one line."""

import concurrent.futures
import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import eet_tf
from eet_tf.evaluation.comparison import ClassResults
from eet_tf.training.run import read_run
from tests import reference


def test_training_leaves_what_it_promises(trained, root):
    folder, outcome = trained
    left = {file.name for file in folder.iterdir()}
    promised = {"model.keras", "history.csv", "metrics.json", "before.json", "curves.png", "flags.txt", "logs"}
    promised |= {"classes.csv", "classes_in_whole_catalogue.csv", "before_in_whole_catalogue.json", "before_model.json"}
    assert promised <= left
    assert left - promised == {"checkpoints", ".lock"}
    assert list(folder.glob("logs/**/events.out.tfevents.*"))
    with Image.open(folder / "curves.png") as curves:
        assert curves.format == "PNG"
    assert f"The embedder is {folder}/model.keras." in outcome.printed
    assert "Traceback" not in outcome.errors


def test_history_has_a_row_for_each_epoch(trained):
    with open(trained[0] / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "val_recall@1", "val_map@r", "max_min", "equidistant"} <= rows[0].keys()
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


@pytest.mark.compiled
def test_compiled_it_trains_alike(trained, root, tiny, run_script):
    """The same training with --jit=on: the losses of both epochs to what two epochs make of rounding."""
    folder = root / "compiled"
    flags = ["--epochs=2", "--strategy=mirrored", "--virtual_devices=2", "--microbatch=2", "--jit=on"]
    run_script(
        "train/main.py", *tiny, "--dataset=csv", f"--data_dir={root / 'photos'}", f"--model_dir={folder}", *flags
    ).succeeded()
    plain, compiled = (read_run(str(each)).history for each in (trained[0], folder))
    assert [row["epoch"] for row in compiled] == [1, 2]
    for row, expected in zip(compiled, plain):
        assert row["loss"] == pytest.approx(expected["loss"], rel=0.02)
    assert "--jit=on" in (folder / "flags.txt").read_text()


def test_figures_are_of_unseen_products_before_and_after(trained):
    """8 test photos of 2 products; one in seven others is a fair guess for R@1 only when all is lost."""
    folder, outcome = trained
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["measured_on"] == "test"
    assert metrics["epochs"] == 2
    assert metrics["best_epoch"] in (1, 2)
    assert metrics["chosen_on"] == {"num_photos": 8, "num_products": 2, "num_searched": 24}
    of = "over 8 photos of 2 products that were kept aside, among 24 photos."
    assert f"Epoch {metrics['best_epoch']} of 2 is the best by mAP@R {of}" in outcome.printed
    assert metrics["before"] == json.loads((folder / "before.json").read_text())
    for when in ("before", "after"):
        assert 0 <= metrics[when]["recall@1"] <= metrics[when]["recall@10"] == 1
    after = 100 * metrics["after"]["recall@1"]
    assert f"{after:.1f} % after" in outcome.printed


def test_the_figures_are_those_of_the_saved_embedder(trained, root):
    """Measured again, in this process, from the file that a person would use."""
    from eet_tf import data
    from eet_tf.evaluation.callback import embed
    from eet_tf.evaluation.metrics import rank_queries

    catalog = data.load_csv(str(root / "photos")).split("test")
    embedder = eet_tf.load_embedder(str(trained[0]))
    embeddings = embed(embedder, data.gallery_dataset(catalog, 32))
    result = rank_queries(embeddings, catalog.labels)
    again = {**result.summary((1, 10, 100)), **result.of_products((1, 10, 100))}
    written = read_run(str(trained[0])).metrics["after"]
    assert again == {name: pytest.approx(value, abs=1e-6) for name, value in written.items()}


@pytest.mark.parametrize("name, in_whole", [("classes.csv", False), ("classes_in_whole_catalogue.csv", True)])
def test_figures_by_product_add_up_to_the_figures(trained, name, in_whole):
    """2 test products of 4 photos each, every photo a query; the shares are hits divided by queries."""
    results = ClassResults.read(trained[0] / name)
    metrics = read_run(str(trained[0])).metrics
    written = (metrics["whole_catalogue"] if in_whole else metrics)["after"]
    assert results.num_queries.tolist() == [4, 4]
    for name in ("recall@1", "recall@10", "map@r", "r_precision"):
        assert results.mean(name) == pytest.approx(written[name])


def test_figures_by_category_add_up_to_the_figures(trained, root):
    """2 test products, each in the category that the list gives; every photo is a query."""
    from eet_tf import data

    categories = data.load_csv(str(root / "photos")).split("test").categories.tolist()
    metrics = read_run(str(trained[0])).metrics
    for written in (metrics, metrics["whole_catalogue"]):
        by_category = written["by_category"]
        assert {name: figures["num_queries"] for name, figures in by_category.items()} == {
            name: categories.count(name) for name in categories
        }
        for name in ("recall@1", "map@r"):
            sums = [figures[name] * figures["num_queries"] for figures in by_category.values()]
            assert sum(sums) / len(categories) == pytest.approx(written["after"][name])


def test_without_categories_there_are_no_figures_of_them(refusals):
    assert "by_category" not in read_run(str(refusals["mended"][1])).metrics


@pytest.mark.long
def test_its_flagfile_runs_it_again(trained, tmp_path, run_script):
    """And the settings it then keeps are the same but for the folder."""
    folder, _ = trained
    run_script("train/main.py", f"--flagfile={folder / 'flags.txt'}", f"--model_dir={tmp_path / 'again'}").succeeded()
    first, again = read_run(str(folder)), read_run(str(tmp_path / "again"))
    assert {**first.settings, "model_dir": ""} == {**again.settings, "model_dir": ""}
    assert [row["epoch"] for row in again.history] == [1, 2]
    assert (tmp_path / "again" / "model.keras").is_file()


def test_a_finished_run_is_left_as_it_is(trained, run_script):
    """The same command once more trains nothing and says the same figures."""
    folder, outcome = trained
    before = {name: (folder / name).read_bytes() for name in ("model.keras", "history.csv", "before.json")}
    again = run_script("train/main.py", f"--flagfile={folder / 'flags.txt'}").succeeded()
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert outcome.printed.splitlines()[-2:] == again.printed.splitlines()[-2:]


# Refusals


def listed(folder, root, rows):
    """A list of (path, sku) or (path, sku, split) over copies of drawn photos; returns the photos' folder."""
    photos = sorted((root / "photos" / "photos").glob("*.jpg"))
    folder.mkdir()
    for number, (path, *_) in enumerate(rows):
        shutil.copy(photos[number], folder / path)
    with open(folder / "catalog.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "sku", "split")[: len(rows[0])], *rows])
    return folder


def pairs(num_products):
    """Rows of two photos of each product."""
    return [(f"{product}-{number}.jpg", f"sku{product}") for product in range(num_products) for number in range(2)]


@pytest.fixture(scope="module")
def refusals(root, trained, tmp_path_factory, run_script, tiny):
    """Every run that must be refused, two at a time: {name: how it ended}."""
    folder = tmp_path_factory.mktemp("bad")
    spoilt = listed(folder / "spoilt", root, pairs(8))
    (spoilt / "2-1.jpg").write_bytes(b"<html>Not found</html>")
    (spoilt / "5-0.jpg").write_bytes((spoilt / "5-0.jpg").read_bytes()[:300])
    empty = listed(folder / "empty", root, pairs(8))
    (empty / "3-0.jpg").write_bytes(b"")
    missing = listed(folder / "missing", root, pairs(8))
    (missing / "4-1.jpg").unlink()
    single = listed(folder / "single", root, [*pairs(8), ("lonely.jpg", "lonely")])
    one = listed(folder / "one", root, [("a.jpg", "mug"), ("b.jpg", "mug")])
    marks = ["TRAIN", "training"] * 5 + ["Val"] * 2 + ["Testing"] * 4
    split = listed(folder / "split", root, [(*row, mark) for row, mark in zip(pairs(8), marks)])
    shutil.copy(split / "0-1.jpg", split / "7-0.jpg")
    marked = [(*row, "test" if row[1] == "sku7" else "") for row in pairs(8)]
    mistyped = [(*row, "test" if row[1] == "sku7" else "trian") for row in pairs(8)]
    shared = [(*row, "test" if row[0] in ("6-1.jpg", "7-0.jpg") else "train") for row in pairs(8)]
    good = root / "photos"
    weights = folder / "weights.h5"
    weights.write_bytes(b"no weights")
    runs = {
        "unreadable": (spoilt, "--hold_out=0"),
        "unchecked": (spoilt, "--hold_out=0", "--nocheck_photos"),
        "empty": (empty,),
        "missing": (missing,),
        "single": (single,),
        "one product": (one,),
        "marked": (listed(folder / "marked", root, marked), "--hold_out=0"),
        "mistyped": (listed(folder / "mistyped", root, mistyped), "--hold_out=0"),
        "shared": (listed(folder / "shared", root, shared), "--hold_out=0"),
        "split": (split, "--epochs=1"),
        "no folder": (folder / "none",),
        "replicas": (good, "--strategy=mirrored", "--virtual_devices=3"),
        "pieces": (good, "--microbatch=3"),
        "classes": (good, "--classes_per_batch=9"),
        "backbone": (good, "--backbone=resnet51"),
        "no weights": (good, f"--weights={folder / 'none.h5'}"),
        "bad weights": (good, f"--weights={weights}"),
        "image size": (good, "--image_size=8"),
        "nan": (good, "--learning_rate=1e30", "--optimizer=sgd", "--epochs=30"),
        "no categories": (listed(folder / "plain", root, pairs(8)), "--category_probability=0.8"),
        "no such column": (good, "--category_column=brand"),
        "no attributes": (good, "--loss=soft_binomial_deviance"),
        "no such attribute": (good, "--attributes=colour,brand"),
        "warm-up of steps": (good, "--schedule=step", "--warmup_steps=3"),
        "crops of squares": (good, "--photo_crop=0.5", "--cache"),
        "other settings": (good, "--margin=0.7", f"--model_dir={trained[0]}"),
        "mended": (
            single,
            "--drop_singles",
            "--epochs=1",
            "--mixed_precision=bfloat16",
            "--clip_norm=1",
            "--weights=imagenet",
            "--weights=none",
        ),
    }

    def train(name):
        data_dir, *flags = runs[name]
        model_dir = folder / "runs" / name.replace(" ", "_")
        common = (*tiny, "--dataset=csv", f"--data_dir={data_dir}", f"--model_dir={model_dir}", *flags)
        return run_script("train/main.py", *common), model_dir

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(runs, pool.map(train, runs)))


@pytest.mark.parametrize(
    "name, patterns",
    {
        "pieces": ("`microbatch` must divide .* microbatch=3",),
        "unreadable": (
            "2 of 16 photos cannot be read",
            r"catalog\.csv:7: '.*/2-1\.jpg': a ",
            r"catalog\.csv:12: '.*/5-0\.jpg': a ",
        ),
        "unchecked": ("2 of 16 photos cannot be read", r"catalog\.csv:12: '.*/5-0\.jpg': a "),
        "empty": (r"catalog\.csv:8: photo file '.*/3-0\.jpg' is empty",),
        "missing": (r"catalog\.csv:11: photo file '.*/4-1\.jpg' does not exist",),
        "single": (r"catalog\.csv:18: product 'lonely' has one photo", "--drop_singles"),
        "one product": (r"catalog\.csv has only one product, 'mug'",),
        "marked": (r"catalog\.csv: no photo has the split 'train'", "14 of '', 2 of 'test'"),
        "mistyped": (r"catalog\.csv:2: a split must be one of train", "Received: 'trian', and in 13 other rows"),
        "shared": (r"catalog\.csv:14: product 'sku6' .*1 in test, 1 in train", r"catalog\.csv:16: product 'sku7'"),
        "no folder": (r"bad\d*/none, which does not exist",),
        "replicas": ("multiple of the 3 replicas", "batch_size=8"),
        "classes": ("`classes_per_batch` must be at most the number of classes, 4", "classes_per_batch=9"),
        "backbone": (r"`backbone` must be one of .*small_cnn", "backbone='resnet51'"),
        "no weights": ("--weights must be none, imagenet or the path of a backbone's weights", r"none\.h5"),
        "bad weights": ("`weights` could not be loaded into small_cnn", r"weights\.h5"),
        "image size": ("--image_size must be from 32", "--image_size=8"),
        "nan": (r"(The loss|A weight) is .* epoch \d+, step \d+", "Lower --learning_rate"),
        "no categories": ("--category_probability needs categories", r"--category_column; there are none"),
        "no such column": ("brand", "colour"),
        "no attributes": ("needs --attributes=", "'colour', 'emblem', 'pattern', 'shape'"),
        "no such attribute": ("brand", "colour"),
        "warm-up of steps": ("--warmup_steps needs --schedule=cosine",),
        "crops of squares": ("--photo_crop needs photos as they are. Received: --cache",),
        "other settings": ("--margin was '0.3', is '0.7'", "--flagfile="),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_in_one_line_that_names_the_culprit(refusals, name, patterns):
    outcome, _ = refusals[name]
    outcome.refused(*patterns)


def test_refusals_come_before_training(refusals):
    for name, (_, model_dir) in refusals.items():
        if name not in ("nan", "mended", "split"):
            assert not (model_dir / "checkpoints").exists(), name
            assert not (model_dir / "history.csv").exists(), name
            assert not (model_dir / "model.keras").exists(), name


def test_after_nan_the_last_good_epoch_is_kept(refusals):
    _, model_dir = refusals["nan"]
    history = read_run(str(model_dir)).history
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert not (model_dir / "metrics.json").exists()


def test_dropping_singles_mends_it(refusals):
    outcome, model_dir = refusals["mended"]
    outcome.succeeded()
    assert (model_dir / "model.keras").is_file()
    assert read_run(str(model_dir)).metrics["measured_on"] == "validation"


def test_a_list_with_all_splits_is_learned_and_measured_as_it_says(refusals):
    """10 photos to learn from; the 2 products to test on have 4, of which one is a copy of one of the 10."""
    outcome, model_dir = refusals["split"]
    outcome.succeeded()
    assert "Training on 10 photos of 5 products" in outcome.printed
    assert (
        "1 of the 4 photos to measure on are copies of photos to learn from, e.g. 7-0.jpg of 0-1.jpg."
        in outcome.printed
    )
    assert "R@1 on test products, among the test photos alone: " in outcome.printed
    assert "unseen" not in outcome.printed
    metrics = read_run(str(model_dir)).metrics
    assert (metrics["measured_on"], metrics["copies_of_training_photos"]) == ("test", 1)
    assert metrics["after"]["num_queries"] == 4


def test_figures_of_unseen_products_are_called_so_where_nothing_was_learned_of_them(trained):
    printed, metrics = trained[1].printed, read_run(str(trained[0])).metrics
    assert "R@1 on unseen test products, in the whole catalogue of 32 photos: " in printed
    assert "R@1 on unseen test products, among the test photos alone: " in printed
    assert metrics["copies_of_training_photos"] == 0


def test_figures_in_the_whole_catalogue_are_those_of_the_saved_model(trained, root):
    """The 8 test photos searched among all 32, by loops; more photos to be mistaken for can only lower R@1."""
    from eet_tf import data
    from eet_tf.evaluation.callback import embed

    catalog = data.load_csv(str(root / "photos"))
    embeddings = embed(eet_tf.load_embedder(str(trained[0])), data.gallery_dataset(catalog, 32))
    metrics = read_run(str(trained[0])).metrics
    whole = metrics["whole_catalogue"]
    assert whole["num_photos"] == len(catalog) == 32
    firsts = []
    for query in np.flatnonzero(catalog.splits == "test"):
        others = np.arange(32) != query
        places = reference.places_of_right(
            embeddings[query], catalog.skus[query], embeddings[others], catalog.skus[others]
        )
        firsts.append(places[0] == 1)
    assert whole["after"]["recall@1"] == pytest.approx(np.mean(firsts))
    assert whole["after"]["num_queries"] == 8
    for when in ("before", "after"):
        assert whole[when]["recall@1"] <= metrics[when]["recall@1"]
