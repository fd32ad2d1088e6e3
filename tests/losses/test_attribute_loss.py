"""The loss of an attribute head against Keras where all is known, and against plain loops where it is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import AttributeLoss, attribute_loss
from tests import reference_sgml as loops


def make_batch(seed, lowest=-1):
    """Attributes of 7 photos, of 5 binary ones, from `lowest` to 1; and logits. The last photo has none that is 1."""
    rng = np.random.default_rng(seed)
    attributes = rng.integers(lowest, 2, size=[7, 5])
    attributes[-1] = np.minimum(attributes[-1], 0)
    return attributes, rng.normal(size=[7, 5], scale=2.0).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_where_all_is_known_it_is_keras_binary_cross_entropy(seed, from_logits):
    attributes, logits = make_batch(seed, lowest=0)
    predictions = logits if from_logits else sigmoid(logits).astype(np.float32)
    theirs = keras.losses.BinaryCrossentropy(from_logits=from_logits, reduction="none")
    ours = AttributeLoss(from_logits=from_logits, reduction="none")
    np.testing.assert_allclose(ours(attributes, predictions), theirs(attributes, predictions), rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_unknown_is_left_out(seed, from_logits):
    attributes, logits = make_batch(seed)
    predictions = logits if from_logits else sigmoid(logits).astype(np.float32)
    loss = attribute_loss(attributes, predictions, from_logits=from_logits)
    assert (loss.shape, loss.dtype) == ([7], tf.float32)
    np.testing.assert_allclose(loss, loops.cross_entropy(attributes, sigmoid(logits)), rtol=1e-5)


def test_gradient_is_that_of_what_is_known():
    """Of the mean over n known attributes, (sigmoid(logit) - truth) / n to each; exactly 0 to the others."""
    attributes, logits = make_batch(0)
    with tf.GradientTape() as tape:
        x = tf.constant(logits)
        tape.watch(x)
        loss = attribute_loss(attributes, x)
    known = attributes >= 0
    expected = np.where(known, sigmoid(logits) - attributes, 0.0) / known.sum(axis=1, keepdims=True)
    gradient = np.asarray(tape.gradient(loss, x))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    assert not gradient[~known].any()


def test_a_photo_of_which_nothing_is_known_counts_with_0():
    """log 2 of the other photo, an even chance, is halved by the mean over two."""
    attributes, logits = [[-1, -1], [1, -1]], tf.zeros([2, 2])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = attribute_loss(attributes, logits)
    np.testing.assert_allclose(loss, [0.0, np.log(2)], rtol=1e-6)
    assert float(AttributeLoss()(attributes, logits)) == pytest.approx(np.log(2) / 2, rel=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits), [[0.0, 0.0], [-0.5, 0.0]])


@pytest.mark.parametrize("from_logits, predictions", [(True, [[1e4, -1e4, 1e4]]), (False, [[1.0, 0.0, 1.0]])])
def test_predictions_that_are_sure_stay_finite(from_logits, predictions):
    """Right, wrong, and of something unknown: the wrong one makes all of the loss."""
    x = tf.constant(predictions)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = attribute_loss([[1, 1, -1]], x, from_logits=from_logits)
    assert np.isfinite(loss[0]) and loss[0] > 5
    assert np.all(np.isfinite(tape.gradient(loss, x)))


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_arithmetic_is_float32_whatever_comes_in(dtype):
    attributes, logits = make_batch(1)
    given = tf.cast(logits, dtype)
    loss = attribute_loss(tf.cast(attributes, dtype), given)
    assert loss.dtype == tf.float32
    np.testing.assert_array_equal(loss, attribute_loss(attributes, tf.cast(given, tf.float32)))


@pytest.mark.parametrize("attributes", [[0, 1], [[0, 1]], [[0, 1, 1], [0, 1, 1]], [[[0, 1], [0, 1]]]])
def test_wrong_shapes_are_named(attributes):
    with pytest.raises(
        ValueError, match=r"both have the shape \[batch, num_attributes\]. Received: shapes .* \(2, 2\)"
    ):
        attribute_loss(attributes, [[0.0, 1.0], [2.0, 3.0]])
