"""A batch in which no photo has another one of its class is no silent loss of 0: it warns."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    BinomialDevianceLoss,
    EETLoss,
    MetricLearner,
    RoadmapLoss,
    SoftBinomialDevianceLoss,
    TripletLoss,
    eet_loss,
)

IMAGES = np.random.default_rng(0).normal(size=[8, 5]).astype(np.float32)
ALONE, PAIRS = np.arange(8), np.array([3, 1, 4, 1, 5, 9, 2, 6])
WARNING = "No photo of this batch has a partner.*array_dataset"


def make_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input([5]), keras.layers.Dense(4)])


def fit(model, labels):
    return model.fit(IMAGES, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)


@pytest.mark.parametrize(
    "loss", [EETLoss(), TripletLoss(), BinomialDevianceLoss(), RoadmapLoss()], ids=lambda loss: loss.name
)
def test_a_loss_that_is_called_warns(loss):
    with pytest.warns(UserWarning, match=WARNING):
        loss(ALONE, IMAGES)
    loss(PAIRS, IMAGES)  # warnings are errors


def test_the_loss_of_two_heads_warns():
    attributes = np.zeros([8, 2], np.float32)
    with pytest.warns(UserWarning, match=WARNING):
        SoftBinomialDevianceLoss()(
            {"label": ALONE, "attributes": attributes}, {"embedding": IMAGES, "attributes": attributes}
        )


def test_a_graph_warns_once():
    loss = tf.function(eet_loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            loss(ALONE, IMAGES)
    assert len(caught) == 1
    loss(PAIRS, IMAGES)


def test_fit_of_a_plain_model_warns():
    model = make_model()
    model.compile("sgd", EETLoss())
    with pytest.warns(UserWarning, match=WARNING):
        fit(model, ALONE)
    fit(model, PAIRS)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_of_a_learner_warns_compiled_too(jit_compile):
    learner = MetricLearner(make_model())
    learner.compile("sgd", TripletLoss(), jit_compile=jit_compile)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        fit(learner, ALONE)
    assert [str(warning.message)[:20] for warning in caught] == ["No photo of this bat"]
    learner.compile("sgd", TripletLoss(), jit_compile=jit_compile)
    fit(learner, PAIRS)


def test_partners_may_be_remembered_ones():
    learner = MetricLearner(make_model(), memory_size=8, memory_start=0)
    learner.compile("sgd", EETLoss())
    fit(learner, ALONE)


def test_what_is_left_at_the_end_of_an_epoch_is_passed_over():
    eet_loss([1, 2, 3], IMAGES[:3])
