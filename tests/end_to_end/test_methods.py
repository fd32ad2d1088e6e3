"""The other methods from flags to search: two heads that are trained together, exported and used to explain."""

import csv
import json
import pathlib

import numpy as np
import pytest

import eet_tf
from eet_tf.serving import ServedEmbedder
from eet_tf.training.run import read_run

REPOSITORY = pathlib.Path(__file__).parents[2]
FLAGFILES = sorted((REPOSITORY / "train" / "flagfiles").glob("*.flags"))


@pytest.fixture(scope="module")
def two_heads(root, tiny, run_script):
    """A run of SGML with category-favouring batches, and its export: the folders."""
    folder = root / "two_heads"
    run_script(
        "train/main.py",
        *tiny,
        "--dataset=csv",
        f"--data_dir={root / 'photos'}",
        f"--model_dir={folder}",
        "--loss=soft_binomial_deviance",
        "--granularity=predictions",
        "--attributes=colour,emblem",
        "--category_column=pattern",
        "--category_probability=0.8",
        "--schedule=step",
        "--noise=0.02",
        "--cache",
        "--ks=1,3",
        "--epochs=1",
    ).succeeded()
    run_script("export/main.py", f"--model={folder}", f"--output_dir={folder / 'serving'}").succeeded()
    return folder


def test_both_heads_are_trained_and_logged(two_heads):
    (row,) = read_run(str(two_heads)).history
    assert {"loss", "attributes", "positive_pairs", "negative_pairs", "val_recall@1"} <= row.keys()
    assert row["loss"] == pytest.approx(row["attributes"] + row["positive_pairs"] + row["negative_pairs"], rel=1e-4)


def test_asked_for_ks_are_measured(two_heads):
    after = read_run(str(two_heads)).metrics["after"]
    assert {name for name in after if name.startswith("recall")} == {"recall@1", "recall@3"}


def test_the_bundle_names_and_predicts_the_attributes_of_the_list(two_heads, root):
    """The names are the words of the training rows; the probabilities are those of the saved model, photo by photo."""
    with open(root / "photos" / "catalog.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    words = {f"{column}={row[column]}" for row in rows for column in ("colour", "emblem")}
    served = ServedEmbedder(str(two_heads / "serving"))
    assert set(served.attribute_names) <= words and served.attribute_names
    photo = (root / "photos" / rows[0]["path"]).read_bytes()
    logits = eet_tf.load_embedder(str(two_heads))(eet_tf.data.decode_and_resize(photo, 32)[np.newaxis], training=False)[
        "attributes"
    ]
    np.testing.assert_allclose(served.predict_attributes([photo]), 1 / (1 + np.exp(-np.asarray(logits))), atol=1e-5)


def test_the_settings_of_triplets_are_flags(root, tiny, run_script):
    folder = root / "triplet"
    settings = ["--positives=all", "--negatives=all", "--distance=cosine", "--soft_margin", "--hold_out=0"]
    data = ["--dataset=csv", f"--data_dir={root / 'photos'}", f"--model_dir={folder}"]
    run_script("train/main.py", *tiny, *data, "--loss=triplet", *settings, "--epochs=1").succeeded()
    assert np.isfinite(json.loads((folder / "metrics.json").read_text())["after"]["recall@1"])


def test_every_recipe_is_made_of_flags_that_exist(run_python):
    """Each is read by the script's own flags, in one process; that stops at the first unknown or impossible one."""
    code = f"""
from eet_tf.cli import door, training_parts
from eet_tf.cli.train import COMMAND
for file in {[str(file) for file in FLAGFILES]}:
    door.parsed(COMMAND, "eet train", ["--flagfile=" + file])
    assert training_parts._loss(num_classes=100).name, file
print("read")
"""
    assert run_python(code)[0].strip() == "read"


@pytest.mark.parametrize("file", FLAGFILES, ids=lambda file: file.stem)
def test_every_recipe_says_how_it_is_run_and_what_it_reaches(file):
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    text = " ".join(header)
    assert f"--flagfile=train/flagfiles/{file.name}" in text
    assert f"--model_dir=runs/{file.stem}" in text
    assert "What it reaches" in text
