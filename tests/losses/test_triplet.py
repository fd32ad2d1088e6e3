"""The batch-hard triplet loss against plain loops and against tensorflow-addons."""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import TripletLoss, triplet_loss
from tests import reference

pytestmark = pytest.mark.addons


def make_batch(seed, sizes):
    """Random embeddings of classes of the given sizes, in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)) * 3 + 1, sizes))
    return labels, rng.normal(size=[len(labels), 5]).astype(np.float32)


def value_and_gradient(function, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return np.asarray(value), np.asarray(tape.gradient(value, x))


@pytest.fixture
def addons():
    """tensorflow-addons, which announces the end of its life on import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow_addons", reason="needs Keras 2: make test-addons")


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_are_the_loops(seed, margin):
    labels, embeddings = make_batch(seed, [3, 1, 4, 2])
    value, gradient = value_and_gradient(lambda x: TripletLoss(margin=margin)(labels, x), embeddings)

    def expected(x):
        return reference.eet(labels, x, margin=margin)["margin"]

    assert value == pytest.approx(expected(embeddings), rel=1e-5)
    np.testing.assert_allclose(gradient, reference.numeric_gradient(expected, embeddings), rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("margin", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_tensorflow_addons(seed, margin, addons):
    """Both mine batch-hard in Euclidean distance. Every class has two photos or more: with one, theirs lets an anchor
    be its own positive at distance 0, ours leaves it out. Theirs takes unit vectors and returns the mean."""
    labels, embeddings = make_batch(seed, [3, 2, 4, 2])
    theirs = addons.losses.TripletHardLoss(margin=margin, soft=False, distance_metric="L2")
    value, gradient = value_and_gradient(lambda x: TripletLoss(margin=margin)(labels, x), embeddings)
    expected, slope = value_and_gradient(lambda x: theirs(labels, tf.math.l2_normalize(x, axis=-1)), embeddings)
    assert value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)


def test_loss_is_a_vector_of_float32():
    labels, embeddings = make_batch(0, [3, 2])
    loss = triplet_loss(labels, embeddings)
    assert (loss.shape, loss.dtype) == ([5], tf.float32)
    assert float(tf.reduce_mean(loss)) == pytest.approx(float(TripletLoss()(labels, embeddings)))


def test_an_anchor_without_a_positive_contributes_nothing():
    labels, embeddings = np.array([0, 0, 5]), make_batch(0, [3])[1]
    value, gradient = value_and_gradient(lambda x: triplet_loss(labels, x, margin=9.0)[2], embeddings)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(embeddings))


def test_from_normalized_takes_embeddings_as_they_are():
    """Points 0, 3, 4 on a line, the first two of one class, margin 5. Anchor 0: 3 - 4 + 5 = 4. Anchor 3: 3 - 1 + 5 =
    7. Anchor 4 has no positive: 0."""
    loss = triplet_loss([1, 1, 2], [[0.0], [3.0], [4.0]], margin=5.0, from_normalized=True)
    np.testing.assert_allclose(loss, [4.0, 7.0, 0.0])


def test_only_the_three_of_a_triplet_get_a_gradient():
    """Anchor 0 of class 1 at 0; positives at 1 and 2, negatives at 3 and 9: the hardest are 2 and 3."""
    labels = [1, 1, 1, 2, 2]
    points = np.array([[0.0], [1.0], [2.0], [3.0], [9.0]], np.float32)
    _, gradient = value_and_gradient(lambda x: triplet_loss(labels, x, margin=2.0, from_normalized=True)[0], points)
    np.testing.assert_allclose(gradient[:, 0], [0.0, 0.0, 1.0, -1.0, 0.0], atol=1e-6)


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="`margin` must be 0 or more. Received: margin=-1"):
        TripletLoss(margin=-1)
