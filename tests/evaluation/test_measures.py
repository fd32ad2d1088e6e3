"""Every figure that this package logs or returns has a sentence that says what it means."""

import numpy as np
import pytest

import eet_tf
from eet_tf import evaluate_retrieval
from eet_tf.evaluation.measures import meanings
from tests.losses import settings, test_class_losses


def test_all_of_an_evaluation_are_explained():
    figures = evaluate_retrieval(np.eye(4), [0, 0, 1, 1], ks=(1, 5, 100))
    assert list(meanings(figures)) == list(figures)


def test_all_terms_of_the_losses_are_explained():
    others = (eet_tf.AttributeLoss, eet_tf.CombinedLoss)
    losses = [loss_class() for loss_class in settings.CHOICES if loss_class not in others]
    losses += [loss_class(num_classes=5) for loss_class in test_class_losses.CHOICES]
    names = {name for loss in losses for name in loss.term_names} | {"symmetric", "loss", "attributes"}
    assert len(losses) >= 9 and set(meanings(names)) == names


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
