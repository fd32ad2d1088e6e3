"""Binomial deviance against plain loops over pairs: value, gradient, every degenerate batch, and memory."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import BinomialDevianceLoss, binomial_deviance, plans
from eet_tf.losses.binomial import binomial_deviance_terms
from eet_tf.pairs import pairwise
from tests import reference_sgml as loops
from tests.reference import numeric_gradient

SIZES = {3: 4, 40: 2, 7: 1, 12: 3, 0: 1}  # label -> photos; in no order, two classes with one photo
SEEDS = range(3)
TERMS = ("positive_pairs", "negative_pairs")
ARGUMENTS = [{}, {"alpha": 5.0, "beta": -0.2, "negative_cost": 3.0}, {"negative_cost": 1.0, "beta": 0.0}]


def make_batch(seed):
    """Asymmetric: labels neither dense, sorted nor contiguous, classes of 1 to 4 photos that partly overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    centres = {label: rng.normal(size=5) for label in SIZES}
    noise = rng.normal(size=[len(labels), 5], scale=0.6)
    return labels, (np.stack([centres[label] for label in labels]) + noise).astype(np.float32)


def value_and_gradient(function, x):
    """A function of the embeddings and its gradient, as arrays."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    gradient = tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return np.asarray(value), np.asarray(gradient)


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_anchors_share_of_each_term_is_the_loops(seed, arguments):
    """Times B, so that the mean over anchors is the sum over pairs divided by their number."""
    labels, embeddings = make_batch(seed)
    terms = binomial_deviance_terms(labels, embeddings, **arguments)
    assert tuple(terms) == TERMS
    for term, expected in loops.deviance(labels, embeddings, **arguments).items():
        np.testing.assert_allclose(terms[term], len(labels) * expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_value_and_gradient_are_the_loops(seed, arguments):
    labels, embeddings = make_batch(seed)
    value, gradient = value_and_gradient(
        lambda x: tf.reduce_mean(binomial_deviance(labels, x, **arguments)), embeddings
    )

    def expected(x):
        return loops.total(labels, x, **arguments)

    assert value == pytest.approx(expected(embeddings), rel=1e-5)
    np.testing.assert_allclose(gradient, numeric_gradient(expected, embeddings), rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("term", TERMS)
def test_each_terms_gradient_is_the_numeric_one(term):
    labels, embeddings = make_batch(0)
    _, gradient = value_and_gradient(lambda x: tf.reduce_mean(binomial_deviance_terms(labels, x)[term]), embeddings)
    expected = numeric_gradient(lambda x: loops.deviance(labels, x)[term].sum(), embeddings)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=5e-5)


def test_all_embeddings_equal():
    """Every s is 1: positives log(1 + exp(-2 (1 - 0.5))) = log(1 + exp(-1)) = 0.3132617, negatives
    log(1 + exp(2 * 25 * (1 - 0.5))) = log(1 + exp(25)) = 25 to eleven digits."""
    terms = binomial_deviance_terms(np.repeat(np.arange(6), 4), np.ones([24, 8], np.float32))
    np.testing.assert_allclose(tf.reduce_mean(terms["positive_pairs"]), 0.3132617, rtol=1e-6)
    np.testing.assert_allclose(tf.reduce_mean(terms["negative_pairs"]), 25.0, rtol=1e-6)


def test_one_hot_vector_per_class():
    """s = 1 within a class, 0 between classes: positives 0.3132617 as above, negatives
    log(1 + exp(2 * 25 * (0 - 0.5))) = log(1 + exp(-25)) = exp(-25) = 1.3888e-11, which plain float32 would lose."""
    terms = binomial_deviance_terms(np.repeat(np.arange(6), 4), np.repeat(np.eye(6, dtype=np.float32), 4, axis=0))
    np.testing.assert_allclose(tf.reduce_mean(terms["positive_pairs"]), 0.3132617, rtol=1e-6)
    np.testing.assert_allclose(tf.reduce_mean(terms["negative_pairs"]), 1.3888e-11, rtol=1e-3)


def test_means_are_over_pairs_not_over_anchors():
    """Points 0, 1, 1 of one class and 3 of another, not normalised, alpha = 1, beta = 0, C = 1. Ordered positive pairs
    with products 0, 0, 0, 0, 1, 1: (4 log 2 + 2 log(1 + 1/e)) / 6 = 0.5665190. Negative ones with products 0, 3, 3,
    each twice: (2 log 2 + 4 log(1 + e^3)) / 6 = 2.2634410. Anchors differ in how many they have."""
    points = np.array([[0.0], [1.0], [1.0], [3.0]], np.float32)
    loss = binomial_deviance([5, 5, 5, 2], points, alpha=1.0, beta=0.0, negative_cost=1.0, from_normalized=True)
    assert float(tf.reduce_mean(loss)) == pytest.approx(0.5665190 + 2.2634410, rel=1e-6)


def test_loss_is_a_vector_of_float32():
    labels, embeddings = make_batch(0)
    loss = binomial_deviance(labels, embeddings)
    assert (loss.shape, loss.dtype) == ([len(labels)], tf.float32)
    assert float(BinomialDevianceLoss()(labels, embeddings)) == pytest.approx(float(tf.reduce_mean(loss)), rel=1e-6)


def test_the_class_hands_its_arguments_on():
    labels, embeddings = make_batch(0)
    loss = BinomialDevianceLoss(alpha=5.0, beta=-0.2, negative_cost=3.0, from_normalized=True)
    embeddings /= 3.0
    expected = loops.total(labels, embeddings, 5.0, -0.2, 3.0, normalize=False)
    assert float(loss(labels, embeddings)) == pytest.approx(expected, rel=1e-5)
    assert loss.term_names == tuple(loss.terms(labels, embeddings)) == TERMS


def test_order_of_the_batch_and_names_of_classes_do_not_matter():
    labels, embeddings = make_batch(0)
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = binomial_deviance((labels * 5 + 2)[order], embeddings[order])
    np.testing.assert_allclose(shuffled, np.asarray(binomial_deviance(labels, embeddings))[order], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:No photo of this batch has a partner")
@pytest.mark.parametrize(
    "labels, empty", [(np.arange(11), "positive_pairs"), (np.full(11, 7), "negative_pairs")], ids=["no_pos", "no_neg"]
)
def test_a_term_without_pairs_is_zero_and_moves_nothing(labels, empty):
    """The other term is there as ever."""
    embeddings = make_batch(0)[1]
    value, gradient = value_and_gradient(lambda x: binomial_deviance_terms(labels, x)[empty], embeddings)
    np.testing.assert_array_equal(value, np.zeros(11))
    np.testing.assert_array_equal(gradient, np.zeros_like(embeddings))
    assert float(BinomialDevianceLoss()(labels, embeddings)) == pytest.approx(loops.total(labels, embeddings), rel=1e-5)


def test_one_photo_is_zero():
    value, gradient = value_and_gradient(lambda x: binomial_deviance([3], x), np.ones([1, 4], np.float32))
    np.testing.assert_array_equal(value, [0.0])
    np.testing.assert_array_equal(gradient, np.zeros([1, 4]))


@pytest.mark.parametrize("embeddings", [np.full([6, 4], 0.5, np.float32), np.zeros([6, 4], np.float32)])
@pytest.mark.parametrize("alpha", [2.0, 1e4])
def test_identical_photos_and_steep_slopes_give_no_nan(embeddings, alpha):
    """exp(alpha C / 2) overflows float32 for alpha = 1e4; the deviance is then as good as linear."""
    value, gradient = value_and_gradient(lambda x: binomial_deviance([0, 0, 1, 1, 2, 2], x, alpha=alpha), embeddings)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_arithmetic_is_float32_whatever_comes_in(dtype):
    labels, embeddings = make_batch(0)
    given = tf.cast(embeddings, dtype)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = binomial_deviance(labels, given)
    assert loss.dtype == tf.float32
    np.testing.assert_array_equal(loss, binomial_deviance(labels, tf.cast(given, tf.float32)))
    gradient = tape.gradient(loss, given)
    assert gradient.dtype == dtype
    assert np.all(np.isfinite(tf.cast(gradient, tf.float32)))


def test_sizes_may_be_known_only_at_run_time():
    @tf.function(input_signature=[tf.TensorSpec([None, 1]), tf.TensorSpec([None, None])])
    def loss(labels, embeddings):
        return binomial_deviance(labels, tf.ensure_shape(embeddings, [None, 5]))

    labels, embeddings = make_batch(0)
    for rows in (3, len(labels)):
        found = loss(labels[:rows, np.newaxis].astype(np.float32), embeddings[:rows])
        np.testing.assert_allclose(found, binomial_deviance(labels[:rows], embeddings[:rows]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block_rows", [1, 4])
def test_small_blocks_change_nothing(block_rows, monkeypatch):
    labels, embeddings = make_batch(0)
    whole = value_and_gradient(lambda x: binomial_deviance(labels, x), embeddings)
    in_blocks = functools.partial(pairwise.reduce_row_blocks, block_rows=block_rows)
    monkeypatch.setattr(pairwise, "reduce_row_blocks", in_blocks)
    for found, expected in zip(value_and_gradient(lambda x: binomial_deviance(labels, x), embeddings), whole):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def largest_tensor(function, *arguments):
    """How many numbers the largest tensor has that XLA makes for a function, before it fuses any; and all shapes."""
    code = tf.function(function, jit_compile=True).experimental_get_compiler_ir(*arguments)(stage="hlo")
    shapes = set(re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", code))
    return max(np.prod([int(size) for size in shape.split(",")]) for shape in shapes), shapes


def test_no_tensor_of_all_pairs_is_ever_made(monkeypatch):
    """1,536 photos are three blocks of 512 rows; a block against all is there, all against all is not."""
    monkeypatch.setattr(plans, "block_limits", lambda: (512, 2**21))

    def gradient(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = binomial_deviance(y, x)
        return loss, tape.gradient(loss, x)

    largest, shapes = largest_tensor(gradient, tf.zeros([1536], tf.int32), tf.zeros([1536, 8]))
    assert "512,1536" in shapes
    assert largest == 512 * 1536


def test_descent_separates_the_classes():
    """Four classes of three free vectors: similar within a class, dissimilar between classes."""
    labels = np.tile(np.arange(4), 3)
    x = tf.Variable(np.random.default_rng(0).normal(size=[12, 6]).astype(np.float32))

    @tf.function
    def descend():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(binomial_deviance(labels, x))
        x.assign_sub(tape.gradient(loss, x))

    for _ in range(100):
        descend()
    similarity = np.asarray(tf.math.l2_normalize(x, axis=1)) @ np.asarray(tf.math.l2_normalize(x, axis=1)).T
    is_same = labels[:, np.newaxis] == labels
    assert similarity[is_same].min() > 0.8
    assert similarity[~is_same].max() < 0.5


@pytest.mark.parametrize("argument", ["alpha", "negative_cost"])
@pytest.mark.parametrize("value", [0, -0.1, np.nan])
def test_arguments_that_are_not_above_0_are_refused_at_construction(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be above 0. Received: {argument}={value}"):
        BinomialDevianceLoss(**{argument: value})


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"`y_pred` must be embeddings .* Received: shape \(2,\)"):
        binomial_deviance([0, 0], [1.0, 2.0])
