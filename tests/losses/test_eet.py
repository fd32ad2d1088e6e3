"""EET against plain loops: every term, value and gradient; the paper's ablations; and every degenerate batch."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, eet_loss, triplet_loss
from eet_tf.losses import base, eet
from eet_tf.pairs import pairwise
from tests import reference

TERMS = ("margin", "symmetric", "equidistant", "max_min", "equal_minima")
SIZES = {3: 4, 40: 2, 7: 1, 12: 3, 0: 1}  # label -> photos; in no order, two classes with one photo
SEEDS = range(5)


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


@functools.cache
def numeric_gradients(seed):
    """`[B, D]` for each term, by central differences of the loops in float64."""
    labels, embeddings = make_batch(seed)
    gradients = reference.numeric_gradient(lambda x: np.array([reference.eet(labels, x)[t] for t in TERMS]), embeddings)
    return dict(zip(TERMS, np.moveaxis(gradients, -1, 0)))


def means(labels, embeddings, **arguments):
    terms = eet.eet_terms(labels, embeddings, **arguments)
    return {name: float(tf.reduce_mean(term)) for name, term in terms.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_term_is_the_loops_value(seed):
    labels, embeddings = make_batch(seed)
    assert means(labels, embeddings, symmetric_margin=True) == pytest.approx(
        reference.eet(labels, embeddings), rel=1e-5, abs=1e-6
    )


def test_the_batches_have_anchors_on_both_sides_of_the_hinge():
    """Otherwise the comparisons would not see a hinge that is missing."""
    batches = [make_batch(seed) for seed in SEEDS]
    margins = np.concatenate([eet.eet_terms(*batch)["margin"] for batch in batches])
    has_positive = np.concatenate([[SIZES[label] > 1 for label in labels] for labels, _ in batches])
    assert np.sum(margins[has_positive] > 0) >= 5
    assert np.sum(margins[has_positive] == 0) >= 5


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_terms_gradient_is_the_numeric_one(seed, term):
    labels, embeddings = make_batch(seed)
    _, gradient = value_and_gradient(
        lambda x: tf.reduce_mean(eet.eet_terms(labels, x, symmetric_margin=True)[term]), embeddings
    )
    np.testing.assert_allclose(gradient, numeric_gradients(seed)[term], rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_total_is_the_weighted_sum_of_values_and_gradients(seed):
    labels, embeddings = make_batch(seed)
    loss = EETLoss(margin=0.3, equidistant_weight=0.7, equidistributed_weight=1.9)
    value, gradient = value_and_gradient(lambda x: loss(labels, x), embeddings)
    weights = {"margin": 1.0, "equidistant": 0.7, "max_min": 1.9, "equal_minima": 1.9}
    expected, slopes = reference.eet(labels, embeddings), numeric_gradients(seed)
    assert value == pytest.approx(sum(weight * expected[term] for term, weight in weights.items()), rel=1e-5)
    np.testing.assert_allclose(gradient, sum(w * slopes[term] for term, w in weights.items()), rtol=1e-3, atol=5e-6)


@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_margin_moves_both_hinges(margin):
    labels, embeddings = make_batch(0)
    assert means(labels, embeddings, margin=margin, symmetric_margin=True) == pytest.approx(
        reference.eet(labels, embeddings, margin=margin), rel=1e-5, abs=1e-6
    )


def test_labels_may_be_a_column_of_floats():
    """As Keras hands them on."""
    labels, embeddings = make_batch(0)
    column = labels.astype(np.float32)[:, np.newaxis]
    np.testing.assert_array_equal(eet_loss(column, embeddings), eet_loss(labels, embeddings))


def test_order_of_the_batch_and_names_of_classes_do_not_matter():
    labels, embeddings = make_batch(0)
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = eet_loss((labels * 5 + 2)[order], embeddings[order])
    np.testing.assert_allclose(shuffled, np.asarray(eet_loss(labels, embeddings))[order], rtol=1e-5, atol=1e-6)


def test_loss_is_a_vector_of_float32_with_each_anchors_own_triplet():
    """The triplet terms of an anchor stand in its row; class terms are dealt out so that the mean is the paper's."""
    labels, embeddings = make_batch(2)
    f = reference.unit(embeddings.astype(np.float64))
    loss = eet_loss(labels, embeddings, equidistributed_weight=0.0)
    assert loss.shape == [len(labels)]
    assert loss.dtype == tf.float32
    for a in range(len(labels)):
        p, n = reference.hardest(labels, f, a)
        expected = 0.0
        if p is not None:
            to_p, to_n, across = (reference.distance(f[u], f[v]) for u, v in ((a, p), (a, n), (p, n)))
            expected = max(to_p - to_n + 0.3, 0.0) + abs(to_n - across)
        assert float(loss[a]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_class_terms_are_equal_within_a_class_and_dealt_by_its_size():
    """A class's share of the sum over anchors must be its share of a mean over classes, whatever its size."""
    labels, embeddings = make_batch(3)
    term = np.asarray(eet.eet_terms(labels, embeddings)["max_min"])
    f = reference.unit(embeddings.astype(np.float64))
    for c in SIZES:
        decay = np.mean([np.exp(-reference.class_distance(labels, f, c, other)) for other in SIZES if other != c])
        expected = decay * len(labels) / (len(SIZES) * SIZES[c])
        np.testing.assert_allclose(term[labels == c], expected, rtol=1e-5)


def test_all_embeddings_equal():
    """6 classes x 4, margin 0.3: every d is 0, so margin = [0 - 0 + 0.3]_+ = 0.3, equidistant = |0 - 0| = 0, every
    D(c, c') = 0, so max_min = exp(-0) = 1, and all minima are 0, so equal_minima = 0."""
    labels = np.repeat(np.arange(6), 4)
    expected = {"margin": 0.3, "equidistant": 0.0, "max_min": 1.0, "equal_minima": 0.0}
    assert means(labels, np.ones([24, 8], np.float32)) == pytest.approx(expected, abs=1e-6)


def test_one_hot_vector_per_class():
    """6 classes x 4, margin 0.3: d within a class is 0, between classes |e_i - e_j| = sqrt 2 = 1.41421. So margin =
    [0 - 1.414 + 0.3]_+ = 0, equidistant = |sqrt 2 - sqrt 2| = 0, max_min = exp(-sqrt 2) = 0.243117, and every minimum
    is sqrt 2, so equal_minima = 0."""
    labels = np.repeat(np.arange(6), 4)
    expected = {"margin": 0.0, "equidistant": 0.0, "max_min": 0.243117, "equal_minima": 0.0}
    assert means(labels, np.repeat(np.eye(6, dtype=np.float32), 4, axis=0)) == pytest.approx(expected, abs=1e-6)


def test_classes_on_a_line():
    """Points 0, 1 and 3 on a line, each a class of two identical photos, not normalised, margin 0.3.

    D = 1 (0-1), 2 (1-3), 3 (0-3). Minima: m = 1, 1, 2; b(0) = 1, b(1) = 0, b(3) = 1. equal_minima =
    (|1-1| + |1-1| + |2-1|) / 3 = 1/3. max_min = (exp(-1) + exp(-2) + exp(-3)) / 3 = 0.184334. Positives are at 0, so
    margin = [0 - 1 + 0.3]_+ = 0, and d(a,n) = d(p,n), so equidistant = 0."""
    positions = np.array([0, 0, 1, 1, 3, 3], np.float32)[:, np.newaxis]
    expected = {"margin": 0.0, "equidistant": 0.0, "max_min": 0.184334, "equal_minima": 1 / 3}
    found = means(np.array([4, 4, 2, 2, 9, 9]), positions, from_normalized=True)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "weights, terms",
    [
        ((0.0, 0.0), ("margin",)),
        ((1.0, 0.0), ("margin", "equidistant")),
        ((0.0, 1.0), ("margin", "max_min", "equal_minima")),
        ((1.0, 1.0), ("margin", "equidistant", "max_min", "equal_minima")),
    ],
    ids=["MC", "MC+EC1", "MC+EC2", "EET"],
)
def test_the_papers_ablations_are_weights(weights, terms):
    labels, embeddings = make_batch(1)
    loss = EETLoss(equidistant_weight=weights[0], equidistributed_weight=weights[1])
    expected = reference.eet(labels, embeddings)
    assert loss.term_names == terms
    assert tuple(loss.terms(labels, embeddings)) == terms
    assert float(loss(labels, embeddings)) == pytest.approx(sum(expected[term] for term in terms), rel=1e-5)


def test_margin_alone_is_the_triplet_loss():
    labels, embeddings = make_batch(1)
    alone = eet_loss(labels, embeddings, margin=0.5, equidistant_weight=0.0, equidistributed_weight=0.0)
    np.testing.assert_array_equal(alone, triplet_loss(labels, embeddings, margin=0.5))


def test_symmetric_margin_adds_its_term():
    labels, embeddings = make_batch(1)
    loss, plain = EETLoss(symmetric_margin=True), EETLoss()
    assert loss.term_names == ("margin", "symmetric", "equidistant", "max_min", "equal_minima")
    added = float(loss(labels, embeddings)) - float(plain(labels, embeddings))
    assert added == pytest.approx(reference.eet(labels, embeddings)["symmetric"], abs=1e-5)
    assert added > 0.01


def test_from_normalized_takes_embeddings_as_they_are():
    labels, embeddings = make_batch(1)
    unit = reference.unit(embeddings)
    expected = reference.eet(labels, embeddings, normalize=False)
    del expected["symmetric"]
    assert means(labels, embeddings, from_normalized=True) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(
        eet_loss(labels, unit, from_normalized=True), eet_loss(labels, embeddings), rtol=1e-5, atol=1e-6
    )


def test_length_of_an_embedding_does_not_matter_otherwise():
    labels, embeddings = make_batch(1)
    longer = embeddings * np.linspace(0.1, 20, len(labels), dtype=np.float32)[:, np.newaxis]
    np.testing.assert_allclose(eet_loss(labels, longer), eet_loss(labels, embeddings), rtol=1e-4, atol=1e-5)


def test_an_anchor_without_a_positive_contributes_nothing():
    """The photo of label 7 has no positive. Its rows in the triplet terms are 0, and they send nothing back."""
    labels, embeddings = make_batch(0)
    alone = int(np.flatnonzero(labels == 7)[0])
    value, gradient = value_and_gradient(
        lambda x: eet_loss(labels, x, symmetric_margin=True, equidistributed_weight=0.0)[alone], embeddings
    )
    assert value == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(embeddings))


def test_a_batch_of_one_class_is_zero_and_moves_nothing():
    """No anchor has a negative and there is no pair of classes."""
    embeddings = make_batch(0)[1]
    labels = np.full(len(embeddings), 7)
    value, gradient = value_and_gradient(lambda x: eet_loss(labels, x, symmetric_margin=True), embeddings)
    np.testing.assert_array_equal(value, np.zeros(len(labels)))
    np.testing.assert_array_equal(gradient, np.zeros_like(embeddings))


@pytest.mark.filterwarnings("ignore:No photo of this batch has a partner")
def test_a_batch_of_single_photos_has_class_terms_only():
    """Every photo its own class: no anchor has a positive, but the classes still push each other apart."""
    embeddings = make_batch(0)[1]
    labels = np.arange(len(embeddings))
    found, expected = means(labels, embeddings), reference.eet(labels, embeddings)
    assert (found["margin"], found["equidistant"]) == (0.0, 0.0)
    assert found["max_min"] == pytest.approx(expected["max_min"], rel=1e-5)
    assert found["equal_minima"] == pytest.approx(expected["equal_minima"], rel=1e-5)


def test_one_photo_is_zero():
    value, gradient = value_and_gradient(lambda x: eet_loss([3], x), np.ones([1, 4], np.float32))
    np.testing.assert_array_equal(value, [0.0])
    np.testing.assert_array_equal(gradient, np.zeros([1, 4]))


@pytest.mark.parametrize("from_normalized", [False, True])
@pytest.mark.parametrize("kind", ["duplicates_within_classes", "duplicates_across_classes", "all_equal", "all_zero"])
def test_identical_photos_give_no_nan(kind, from_normalized):
    labels = np.array([0, 0, 1, 1, 2, 2])
    eye = np.eye(6, 4, dtype=np.float32)
    embeddings = {
        "duplicates_within_classes": np.repeat(eye[:3], 2, axis=0),
        "duplicates_across_classes": np.tile(eye[:2], [3, 1]),
        "all_equal": np.full([6, 4], 0.5, np.float32),
        "all_zero": np.zeros([6, 4], np.float32),
    }[kind]
    value, gradient = value_and_gradient(
        lambda x: eet_loss(labels, x, symmetric_margin=True, from_normalized=from_normalized), embeddings
    )
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_arithmetic_is_float32_whatever_comes_in(dtype):
    """The loss of half-precision embeddings is the float32 loss of the same numbers, not a half-precision loss."""
    labels, embeddings = make_batch(0)
    given = tf.cast(embeddings, dtype)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = eet_loss(labels, given)
    assert loss.dtype == tf.float32
    np.testing.assert_array_equal(loss, eet_loss(labels, tf.cast(given, tf.float32)))
    gradient = tape.gradient(loss, given)
    assert gradient.dtype == dtype
    assert np.all(np.isfinite(tf.cast(gradient, tf.float32)))


def test_sizes_may_be_known_only_at_run_time():
    @tf.function(input_signature=[tf.TensorSpec([None, 1]), tf.TensorSpec([None, None])])
    def loss(labels, embeddings):
        return eet_loss(labels, tf.ensure_shape(embeddings, [None, 5]))

    labels, embeddings = make_batch(0)
    for rows in (3, len(labels)):
        column = labels[:rows, np.newaxis].astype(np.float32)
        found = loss(column, embeddings[:rows])
        np.testing.assert_allclose(found, eet_loss(labels[:rows], embeddings[:rows]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block_rows", [1, 4])
def test_small_blocks_change_nothing(block_rows, monkeypatch):
    labels, embeddings = make_batch(0)
    whole = value_and_gradient(lambda x: eet_loss(labels, x), embeddings)
    monkeypatch.setattr(pairwise, "block_rows_against", lambda references: block_rows)
    for found, expected in zip(value_and_gradient(lambda x: eet_loss(labels, x), embeddings), whole):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_batch_of_more_than_one_block_is_as_in_one_block(monkeypatch):
    """600 rows are two blocks of 512, the second one padded."""
    rng = np.random.default_rng(0)
    labels, embeddings = rng.integers(150, size=600), rng.normal(size=[600, 8]).astype(np.float32)
    in_two = eet_loss(labels, embeddings)
    monkeypatch.setattr(pairwise, "block_rows_against", lambda references: 600)
    np.testing.assert_allclose(in_two, eet_loss(labels, embeddings), rtol=1e-5, atol=1e-5)


def test_training_reaches_what_the_loss_asks_for():
    """Four classes of three free vectors: after descent every positive is nearer than every negative by the margin."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 3)
    x = tf.Variable(rng.normal(size=[12, 6]).astype(np.float32))

    @tf.function
    def descend():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(eet_loss(labels, x))
        x.assign_sub(tape.gradient(loss, x))

    for _ in range(150):
        descend()
    assert reference.eet(labels, x.numpy())["margin"] < 0.01


@pytest.mark.parametrize(
    "labels, embeddings, message",
    [
        (
            [0, 0],
            [[[1.0]], [[2.0]]],
            r"`y_pred` must be embeddings of shape \[batch, dim\]. Received: shape \(2, 1, 1\)",
        ),
        ([0, 0], [1.0, 2.0], r"`y_pred` must be .* Received: shape \(2,\)"),
        ([[0, 1], [1, 0]], [[1.0], [2.0]], r"`y_true` must be .* Received: shape \(2, 2\).*not one-hot"),
        (0, [[1.0], [2.0]], r"`y_true` must be .* Received: shape \(\)"),
        ([0, 0, 1], [[1.0], [2.0]], "the same batch size. Received: 3 labels, 2 embeddings"),
    ],
)
def test_wrong_shapes_are_named(labels, embeddings, message):
    with pytest.raises(ValueError, match=message):
        eet_loss(np.array(labels), tf.constant(embeddings))


@pytest.mark.parametrize("value", [-0.1, np.nan])
@pytest.mark.parametrize("argument", ["margin", "equidistant_weight", "equidistributed_weight"])
def test_negative_arguments_are_refused_at_construction(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be 0 or more. Received: {argument}={value}"):
        EETLoss(**{argument: value})


@pytest.mark.parametrize("attribute", ["term_names", "terms"])
def test_a_loss_without_terms_says_what_it_lacks(attribute):
    class Unfinished(base.MetricLoss):
        pass

    loss = Unfinished()
    with pytest.raises(TypeError, match="Unfinished must define `terms`"):
        loss.term_names if attribute == "term_names" else loss.terms([0], [[1.0]])
