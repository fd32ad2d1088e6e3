"""Every figure that this package logs or returns has a sentence that says what it means."""

import pathlib
import re

import numpy as np
import pytest

import eet_tf
from eet_tf import evaluate_retrieval
from eet_tf.evaluation.measures import meanings

ROOT = pathlib.Path(eet_tf.__file__).parent


def test_all_of_an_evaluation_are_explained():
    figures = evaluate_retrieval(np.eye(4), [0, 0, 1, 1], ks=(1, 5, 100))
    assert list(meanings(figures)) == list(figures)


def test_all_terms_of_the_losses_are_explained():
    """They are the keys of what is returned as terms, wherever a loss names one."""
    texts = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "losses").glob("*.py"))
    names = set(re.findall(r'terms\["(\w+)"\]|terms = {"(\w+)"|return {"(\w+)": triplet_loss', texts))
    names = {name for found in names for name in found if name} | {"positive_pairs", "negative_pairs"}
    assert {"margin", "symmetric", "equidistant", "max_min", "equal_minima"} <= names
    assert set(meanings([*names, "loss", "attributes"])) == names | {"loss", "attributes"}


def test_all_of_the_attribute_head_are_explained():
    figures = eet_tf.attribute_accuracy([[1.0]], [[1]], ["red"])["red"]
    assert list(meanings(figures)) == list(figures)


@pytest.mark.parametrize("name", ["recall@0", "recall@", "recall@K", "val_", "", "mine", "val_mine"])
def test_names_that_are_not_ours_are_left_out(name):
    assert meanings([name]) == {}


def test_a_sentence_ends_and_names_the_k():
    found = meanings(["recall@10", "val_recall@1"])
    assert "10 nearest." in found["recall@10"]
    assert found["val_recall@1"].endswith("the same product. Of photos not trained on.")
