"""A sum of losses with class vectors from flags: trained, gone on with, and gone from what is kept of the embedder."""

import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf.training.run import read_run

FLAGS = [
    *("--loss=eet+arcface", "--loss_weights=1,0.1", "--scale=16", "--subcenters=2", "--sampled_classes=12"),
    *("--trunk_learning_rate=1e-4", "--class_learning_rate=1e-2", "--head_only_steps=3", "--warmup_steps=2"),
]


pytestmark = pytest.mark.slow  # two trainings


@pytest.fixture(scope="module")
def folders(root, tiny, run_script):
    """A run of one epoch, and another that goes on with it for a second one: the same folder, before and after."""
    folder = root / "classes"
    how = [*tiny, "--dataset=csv", f"--data_dir={root / 'photos'}", f"--model_dir={folder}", *FLAGS]
    run_script("train/main.py", *how, "--epochs=1").succeeded()
    first = tf.train.latest_checkpoint(str(folder / "checkpoints"))
    before = {name: tf.train.load_variable(first, name) for name, _ in tf.train.list_variables(first)}
    run_script("train/main.py", f"--flagfile={folder / 'flags.txt'}", "--epochs=2").succeeded()
    return folder, before


def vectors_of(variables):
    ((name, found),) = [each for each in variables.items() if "class_vectors" in each[0] and "vectors_0" in each[0]]
    return found


def test_its_terms_are_logged_and_add_up(folders):
    for row in read_run(str(folders[0])).history:
        terms = ["margin", "equidistant", "max_min", "equal_minima", "arcface"]
        assert row["loss"] == pytest.approx(sum(row[name] for name in terms), rel=1e-4)
    assert int(row["epoch"]) == 2


def test_class_vectors_are_gone_on_with(folders):
    folder, before = folders
    last = tf.train.latest_checkpoint(str(folder / "checkpoints"))
    first = vectors_of(before)
    second = vectors_of({name: tf.train.load_variable(last, name) for name, _ in tf.train.list_variables(last)})
    assert first.ndim == 3 and first.shape[1:] == (2, second.shape[2])
    assert 0 < np.abs(second - first).max() < 0.5 * np.abs(first).max()


def test_the_flags_say_what_was_trained(folders):
    settings = read_run(str(folders[0])).settings
    assert settings["loss"] == "eet+arcface" and settings["loss_weights"] == "1,0.1"
    assert "margin" not in settings  # each loss has its own


def test_the_model_has_no_class_vectors(folders):
    embedder = eet_tf.load_embedder(str(folders[0]))
    assert isinstance(embedder.output_shape, tuple)
    assert not [each for each in embedder.weights if "class" in each.name or "vectors" in each.name]
