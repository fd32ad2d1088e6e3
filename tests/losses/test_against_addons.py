"""`TripletLoss` against tensorflow-addons as an oracle: equal where both mean the same, and where they do not, how.

tests/losses/test_triplet.py has small batches in which every class has two photos or more. Here are classes of one,
larger batches, labels in columns, half precision, and what Addons does at the edges.
"""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import TripletLoss, compat

pytestmark = pytest.mark.skipif(not compat.KERAS_2, reason="tensorflow-addons needs Keras 2: make test-addons")

DISTANCES = {"euclidean": "L2", "squared": "squared-L2", "cosine": "angular"}
every_distance = pytest.mark.parametrize("distance", DISTANCES)


@pytest.fixture(scope="module")
def losses():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons
    return tensorflow_addons.losses


def make_batch(seed, sizes, dim=8):
    """Embeddings of classes of the given sizes, in no order; not of unit length."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)) * 3 + 1, sizes))
    return labels, tf.constant(rng.normal(size=[len(labels), dim]), tf.float32)


def value_and_gradient(loss, labels, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x)
    return float(value), np.asarray(tape.gradient(value, x))


def assert_same(ours, theirs, labels, x):
    """Ours normalises, theirs is given unit vectors; "angular" normalises once more, which changes nothing."""
    value, gradient = value_and_gradient(ours, labels, x)
    expected, slope = value_and_gradient(lambda labels, x: theirs(labels, tf.math.l2_normalize(x, 1)), labels, x)
    assert expected > 0.01
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)


@every_distance
@pytest.mark.parametrize("margin", [0.1, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_semi_hard_is_the_same_with_classes_of_one_too(seed, margin, distance, losses):
    """Both take the mean over positive pairs, of which a class of one has none; its photo is a negative of others."""
    sizes = np.random.default_rng(seed).integers(1, 7, size=12)
    ours = TripletLoss(margin, "all", "semi_hard", distance)
    theirs = losses.TripletSemiHardLoss(margin, DISTANCES[distance])
    assert 1 in sizes
    assert_same(ours, theirs, *make_batch(seed, sizes))


@every_distance
@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("seed", range(4))
def test_hard_is_the_same_in_larger_batches(seed, soft, distance, losses):
    sizes = np.random.default_rng(seed).integers(2, 7, size=12)
    ours = TripletLoss(1.0, "hard", "hard", distance, soft)
    assert_same(ours, losses.TripletHardLoss(1.0, soft, DISTANCES[distance]), *make_batch(seed, sizes))


@pytest.mark.parametrize("negatives", ["hard", "semi_hard"])
def test_labels_in_a_column_are_the_same(negatives, losses):
    labels, x = make_batch(1, [3, 2, 4])
    pair = {
        "hard": (TripletLoss(0.5), losses.TripletHardLoss(0.5)),
        "semi_hard": (TripletLoss(0.5, "all", "semi_hard"), losses.TripletSemiHardLoss(0.5)),
    }[negatives]
    assert_same(*pair, labels[:, np.newaxis], x)


@every_distance
def test_both_calculate_half_precision_in_float32(distance, losses):
    """Theirs then rounds the loss itself to bfloat16, which has 8 bits: 2**-8 of the value."""
    labels, x = make_batch(2, [3, 2, 4])
    x = tf.cast(tf.math.l2_normalize(x, 1), tf.bfloat16)
    ours = TripletLoss(0.5, distance=distance, from_normalized=True)(labels, x)
    theirs = losses.TripletHardLoss(0.5, distance_metric=DISTANCES[distance])(labels, x)
    assert (ours.dtype, theirs.dtype) == (tf.float32, tf.bfloat16)
    assert float(ours) == pytest.approx(float(theirs), rel=2**-8)


# Where they differ


def test_hard_lets_a_photo_without_positive_be_its_own(losses):
    """Points at 0, 90 and 180 degrees, the first two of one class, margin 2. At 0: d+ = sqrt 2, d- = 2. At 90: d+ =
    d- = sqrt 2. At 180 there is no positive: theirs counts 0 - sqrt 2 + 2, ours 0."""
    root = np.sqrt(2)
    x, labels = tf.constant([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), [0, 0, 1]
    both = (root - 2 + 2) + (root - root + 2)
    assert float(losses.TripletHardLoss(2.0)(labels, x)) == pytest.approx((both + 2 - root) / 3, rel=1e-5)
    assert float(TripletLoss(2.0)(labels, x)) == pytest.approx(both / 3, rel=1e-5)


@pytest.mark.parametrize("soft, of_each", [(False, 0.5), (True, np.log(2))])
def test_hard_takes_the_farthest_positive_for_a_negative_where_there_is_none(soft, of_each, losses):
    """A batch of one class: theirs is the margin, or log(1 + exp 0), and pulls nothing; ours is 0."""
    x = tf.math.l2_normalize(make_batch(0, [5])[1], 1)
    value, gradient = value_and_gradient(losses.TripletHardLoss(0.5, soft), np.zeros(5, int), x)
    assert value == pytest.approx(of_each, rel=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert float(TripletLoss(0.5, soft_margin=soft)(np.zeros(5, int), x)) == 0.0


def test_semi_hard_puts_a_missing_negative_at_distance_0(losses):
    """Two photos of one class at a right angle: sqrt 2 - 0 + 1, as in Addons' own example; ours is 0."""
    x = tf.constant([[0.0, 1.0], [1.0, 0.0]])
    assert float(losses.TripletSemiHardLoss()([0, 0], x)) == pytest.approx(np.sqrt(2) + 1, rel=1e-5)
    assert float(TripletLoss(1.0, "all", "semi_hard")([0, 0], x)) == 0.0


def test_semi_hard_without_positives_is_nan(losses):
    """The mean over no pairs; ours is 0, gradient included."""
    labels, x = make_batch(0, [1, 1, 1])
    assert np.isnan(losses.TripletSemiHardLoss()(labels, x))
    value, gradient = value_and_gradient(TripletLoss(1.0, "all", "semi_hard"), labels, x)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_their_soft_margin_overflows(losses):
    """log(1 + exp 100) is 100 to every digit, but exp 100 is no float32: vectors that are not normalised get there."""
    labels, x = [0, 0, 1, 1], tf.constant([[0.0], [10.0], [0.0], [10.0]])
    assert np.isinf(losses.TripletHardLoss(soft=True, distance_metric="squared-L2")(labels, x))
    ours = TripletLoss(distance="squared", soft_margin=True, from_normalized=True)
    assert float(ours(labels, x)) == pytest.approx(100.0)


def test_their_euclidean_distance_of_close_photos_is_noise(losses):
    """Unit vectors 1e-4 apart. From |a|^2 + |b|^2 - 2ab, in float32 to about 1e-7, the square root is off by up to
    3e-4; ours is the length of the difference. The negatives are opposite, at distance 2: loss 1e-4 - 2 + 2 = 1e-4."""
    angles = np.array([0.0, 1e-4, np.pi, np.pi + 1e-4])
    x = tf.constant(np.stack([np.cos(angles), np.sin(angles)], axis=1), tf.float32)
    ours = float(TripletLoss(2.0, from_normalized=True)([0, 0, 1, 1], x))
    theirs = float(losses.TripletHardLoss(2.0)([0, 0, 1, 1], x))
    assert ours == pytest.approx(1e-4, rel=0.02)
    assert theirs != pytest.approx(1e-4, rel=0.1)


def test_they_return_one_number_and_ours_one_for_each_anchor(losses):
    labels, x = make_batch(0, [3, 2])
    assert losses.TripletHardLoss().call(labels, x).shape == []
    assert TripletLoss().call(labels, x).shape == [5]
