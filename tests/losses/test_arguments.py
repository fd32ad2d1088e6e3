"""A function of a loss refuses what its class refuses: a value that is not understood is no default."""

import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf import BinomialDevianceLoss, EETLoss, TripletLoss, binomial_deviance, eet_loss, triplet_loss

LABELS, EMBEDDINGS = [0, 0, 1, 1], [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]
WRONG = [
    (EETLoss, eet_loss, {"margin": -0.1}),
    (EETLoss, eet_loss, {"equidistributed_weight": "x"}),
    (TripletLoss, triplet_loss, {"margin": None}),
    (TripletLoss, triplet_loss, {"positives": "none"}),
    (TripletLoss, triplet_loss, {"negatives": "easy"}),
    (TripletLoss, triplet_loss, {"distance": "manhattan"}),
    (BinomialDevianceLoss, binomial_deviance, {"alpha": 0.0}),
    (eet_tf.MultiSimilarityLoss, eet_tf.multi_similarity_loss, {"positive_scale": 0}),
    (eet_tf.MultiSimilarityLoss, eet_tf.multi_similarity_loss, {"threshold": 50}),
    (eet_tf.MultiSimilarityLoss, eet_tf.multi_similarity_loss, {"epsilon": -0.1}),
    (eet_tf.SupervisedContrastiveLoss, eet_tf.supervised_contrastive_loss, {"temperature": 0.0}),
    (eet_tf.SmoothAPLoss, eet_tf.smooth_ap_loss, {"temperature": float("nan")}),
    (eet_tf.RoadmapLoss, eet_tf.roadmap_loss, {"calibration_weight": 1.5}),
    (eet_tf.RoadmapLoss, eet_tf.roadmap_loss, {"delta": None}),
    (eet_tf.RecallAtKLoss, eet_tf.recall_at_k_loss, {"ks": []}),
    (eet_tf.RecallAtKLoss, eet_tf.recall_at_k_loss, {"ks": [0]}),
    (eet_tf.RecallAtKLoss, eet_tf.recall_at_k_loss, {"rank_temperature": -1}),
    (BinomialDevianceLoss, binomial_deviance, {"negative_cost": float("nan")}),
]


@pytest.mark.parametrize(
    "loss_class, function, argument", WRONG, ids=lambda each: next(iter(each), "") if isinstance(each, dict) else ""
)
def test_class_and_function_refuse_the_same_in_the_same_words(loss_class, function, argument):
    with pytest.raises(ValueError) as of_class:
        loss_class(**argument)
    with pytest.raises(ValueError) as of_function:
        function(LABELS, EMBEDDINGS, **argument)
    assert str(of_function.value) == str(of_class.value)
    assert str(of_class.value).startswith(f"`{next(iter(argument))}` must be ")


def test_a_margin_may_change_while_training():
    margin = tf.Variable(0.2)
    function = tf.function(lambda: triplet_loss(LABELS, EMBEDDINGS, margin=margin))
    for value in (0.2, 0.9):
        margin.assign(value)
        np.testing.assert_allclose(function(), triplet_loss(LABELS, EMBEDDINGS, margin=value), atol=1e-6)
