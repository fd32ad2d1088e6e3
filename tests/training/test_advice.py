"""Trainings that go wrong say so, once, and others say nothing."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner, SmoothAPLoss, TrainingAdvice, TripletLoss
from eet_tf.training.advice import Signs

LABELS = np.repeat(np.arange(16), 4)
EPOCH = 16  # of many photos: the same ones over and over


def images(noise=1.0, seed=0):
    """64 vectors of 16 products."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=[16, 12])[LABELS] + noise * rng.normal(size=[64, 12])).astype("float32")


def trained(loss, learning_rate, epochs=4, noise=1.0, kernel="glorot_uniform", batch_size=64, times=1, **made):
    """The lines that a training says, and its losses; an epoch shows the 64 photos so many times."""
    keras.utils.set_random_seed(0)
    bias = "ones" if kernel == "zeros" else "zeros"
    dense = keras.layers.Dense(6, kernel_initializer=kernel, bias_initializer=bias)
    learner = MetricLearner(keras.Sequential([keras.Input([12]), dense]), **made)
    learner.compile(keras.optimizers.SGD(learning_rate), loss)
    lines = []
    how = {"batch_size": batch_size, "shuffle": False, "epochs": epochs, "verbose": 0}
    how["callbacks"] = [TrainingAdvice(lines.append)]
    history = learner.fit(np.tile(images(noise), [times, 1]), np.tile(LABELS, times), **how)
    return lines, history.history["loss"]


@pytest.mark.parametrize("rows", [1, 2, 37])
def test_signs_are_means_over_pairs_and_photos(rows):
    rng = np.random.default_rng(rows)
    signs, cosines, shares = Signs(), [], []
    for _ in range(3):
        vectors = rng.normal(loc=0.3, size=[rows, 5]).astype("float32") * 7
        margin, other = rng.integers(0, 2, [rows]) * 1.5, rng.normal(size=[rows])
        signs.update(tf.constant(vectors), {"margin": tf.constant(margin), "other": tf.constant(other)})
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        of_pairs = [unit[i] @ unit[j] for i in range(rows) for j in range(rows) if i != j]
        cosines += [np.mean(of_pairs)] if of_pairs else []
        shares += (margin == 0).tolist()
    found = signs.read()
    assert found.get("mean_cosine") == (pytest.approx(np.mean(cosines), abs=1e-6) if cosines else None)
    assert found["share_without_loss"] == pytest.approx(np.mean(shares))
    assert found["num_photos"] == 3 * rows
    assert signs.read() == {"num_photos": 0}


def test_a_loss_without_a_margin_is_without_loss_where_the_sum_is_0():
    signs = Signs()
    signs.update(tf.eye(3), {"pull": tf.constant([0.0, 1.0, 0.0]), "push": tf.constant([0.0, 0.0, 2.0])})
    assert signs.read()["share_without_loss"] == pytest.approx(1 / 3)


def test_photos_that_all_look_alike_are_told_once():
    lines, losses = trained(TripletLoss(margin=0.3), 1e-3, kernel="zeros")
    assert losses[-1] == pytest.approx(0.3, abs=1e-3)
    assert len(lines) == 1
    assert lines[0].startswith(
        "All photos look alike to the embedder: the mean cosine between photos of a batch is 1.000, and the loss "
        "is 0.3, 0.3 at first. Lower the learning rate to a third"
    )


def told(epochs):
    """The lines about epochs of 64 vectors around one, given how far they scatter and what the loss is."""
    lines, rng = [], np.random.default_rng(0)
    advice = TrainingAdvice(lines.append)
    learner = MetricLearner(keras.Sequential([keras.Input([12]), keras.layers.Dense(6)]))
    learner.compile("sgd", TripletLoss(margin=0.2))
    advice.set_model(learner)
    advice.on_train_begin()
    for epoch, (spread, loss) in enumerate(epochs):
        learner.signs.update(tf.constant(1 + spread * rng.normal(size=[64, 6]).astype("float32")), {})
        advice.on_epoch_end(epoch, {"loss": loss})
    return lines


def test_photos_that_come_to_look_alike_are_told_though_the_loss_falls_to_the_margin():
    (line,) = told([(1.0, 0.6), (0.3, 0.4), (0.01, 0.2), (0.001, 0.2)])
    assert "look alike to the embedder: the mean cosine between photos of a batch is 1.000" in line
    assert "the loss is 0.2, 0.6 at first" in line


def test_photos_that_look_alike_from_the_beginning_may_be_told_apart_all_the_same():
    assert told([(0.1, 0.19), (0.09, 0.15), (0.08, 0.1)]) == []


def test_a_loss_that_rises_is_told_once():
    lines, losses = trained(TripletLoss(), -1.0, epochs=8, noise=0.3)
    assert losses[-1] > 1.25 * losses[0]
    assert len(lines) == 1
    assert "learning rate is probably too high" in lines[0]


def test_a_memory_that_begins_is_no_rise():
    lines, losses = trained(TripletLoss(), 1e-6, noise=0.5, batch_size=8, memory_size=64, memory_start=16)
    assert losses[-1] > 1.25 * losses[0]
    assert lines == []


def test_batches_that_teach_nothing_are_told_once():
    lines, losses = trained(EETLoss(margin=0.0, equidistributed_weight=0.0), 1e-3, noise=0.01, times=EPOCH)
    assert losses[-1] > 0  # of the equidistant term, which never ends
    assert lines == [
        "100 % of the photos have no negative within the margin: batches are too easy to learn from. Put more products "
        "into a batch, draw batches from one category at a time, or raise the margin."
    ]


def test_a_few_photos_may_be_learned_by_heart():
    lines, losses = trained(TripletLoss(margin=0.0), 1e-3, noise=0.01)
    assert losses[-1] == 0
    assert lines == []


@pytest.mark.parametrize("loss", [EETLoss(), TripletLoss(), SmoothAPLoss()])
def test_a_training_that_goes_well_says_nothing(loss):
    lines, losses = trained(loss, 0.05, epochs=20)
    assert losses[-1] < losses[0]
    assert lines == []


def test_fit_warns_by_itself():
    learner = MetricLearner(keras.Sequential([keras.Input([12]), keras.layers.Dense(6)]))
    learner.compile("sgd", TripletLoss(margin=0.0))
    how = {"batch_size": 64, "shuffle": False, "epochs": 2, "verbose": 0}
    with pytest.warns(UserWarning, match="batches are too easy") as caught:
        learner.fit(np.tile(images(0.01), [EPOCH, 1]), np.tile(LABELS, EPOCH), **how)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.evaluate(images(0.01), LABELS, verbose=0)


def test_validation_is_not_taken_for_training():
    learner = MetricLearner(keras.Sequential([keras.Input([12]), keras.layers.Dense(6)]))
    learner.compile("sgd", TripletLoss())
    learner.evaluate(images(), LABELS, verbose=0)
    assert learner.signs.read() == {"num_photos": 0}
