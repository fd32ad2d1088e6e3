"""Soft binomial deviance against plain loops over pairs: what makes photos alike, the weights, and what they move."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import SoftBinomialDevianceLoss, binomial_deviance, plans, soft_binomial_deviance
from eet_tf.losses.binomial import binomial_deviance_terms
from eet_tf.losses.sgml import semantic_granularity, soft_binomial_deviance_terms
from eet_tf.pairs import pairwise
from tests import reference_sgml as loops
from tests.losses.test_binomial import TERMS, largest_tensor, value_and_gradient
from tests.losses.test_binomial import make_batch as make_embeddings
from tests.reference import numeric_gradient

WEIGHTINGS = [("informativeness", 0.5), ("preserving", 0.5), ("preserving", 1.0)]


def make_batch(seed):
    """Labels, embeddings, and of 4 attributes those that are known; one photo has none that is known."""
    labels, embeddings = make_embeddings(seed)
    attributes = np.random.default_rng(seed + 100).choice([1, 1, 0, -1], size=[len(labels), 4])
    attributes[3] = -1
    return labels, embeddings, attributes


def make_logits(seed):
    return np.random.default_rng(seed + 200).normal(size=[11, 4], scale=2.0).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def dicts(labels, embeddings, attributes, logits):
    """What the class takes."""
    return {"label": labels, "attributes": attributes}, {"embedding": embeddings, "attributes": logits}


# How alike photos are


@pytest.mark.parametrize("kind", ["truth", "probabilities"])
def test_granularity_is_the_loops_cosine(kind):
    rows = make_batch(0)[2] if kind == "truth" else sigmoid(make_logits(0))
    references = make_batch(1)[2][:6] if kind == "truth" else sigmoid(make_logits(1))[:6]
    expected = [[loops.granularity(t, u) for u in references] for t in rows]
    assert np.ptp(expected) > 0.4
    np.testing.assert_allclose(semantic_granularity(rows, references), expected, rtol=1e-5)


def test_granularity_by_hand():
    """(1, 1, 0) and (1, 0, 1): 1 / (sqrt 2 sqrt 2). And (1, ?, 1): of the first and third (1, 0) and (1, 1),
    1 / (1 sqrt 2). And (?, ?, 1): (0) and (1), nothing left of the first. And (?, ?, ?): nothing left."""
    others = [[1, 0, 1], [1, -1, 1], [-1, -1, 1], [-1, -1, -1]]
    g = semantic_granularity([[1, 1, 0]], others)
    np.testing.assert_allclose(g, [[0.5, np.sqrt(0.5), 0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(semantic_granularity(others, [[1, 1, 0]]), np.transpose(g))


def test_granularity_of_the_same_attributes_is_exactly_one():
    """So that 1 - g is exactly 0, and never below."""
    attributes = np.random.default_rng(0).integers(0, 2, size=[40, 300])
    assert set(np.diag(semantic_granularity(attributes, attributes))) == {1.0}
    assert np.max(semantic_granularity(sigmoid(make_logits(0)), sigmoid(make_logits(0)))) <= 1.0


# The loss as a function


@pytest.mark.parametrize("weighting, share", WEIGHTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_each_anchors_share_of_each_term_is_the_loops(seed, weighting, share):
    labels, embeddings, attributes = make_batch(seed)
    terms = soft_binomial_deviance_terms(labels, embeddings, attributes, weighting=weighting, preserved_share=share)
    expected = loops.deviance(labels, embeddings, weights=loops.soft_weights(attributes, weighting, share))
    plain = loops.deviance(labels, embeddings)
    assert tuple(terms) == TERMS
    for term in TERMS:
        np.testing.assert_allclose(terms[term], len(labels) * expected[term], rtol=2e-4, atol=1e-6)
        if (term, weighting) != ("positive_pairs", "preserving"):  # whose weights are 1
            assert expected[term].sum() != pytest.approx(plain[term].sum(), rel=1e-3)


@pytest.mark.parametrize("weighting, share", WEIGHTINGS)
@pytest.mark.parametrize("kind", ["truth", "probabilities"])
def test_value_and_gradient_are_the_loops(kind, weighting, share):
    labels, embeddings, attributes = make_batch(4)
    attributes = attributes if kind == "truth" else sigmoid(make_logits(4))
    arguments = {"alpha": 3.0, "beta": 0.1, "negative_cost": 4.0}
    value, gradient = value_and_gradient(
        lambda x: tf.reduce_mean(
            soft_binomial_deviance(labels, x, attributes, weighting=weighting, preserved_share=share, **arguments)
        ),
        embeddings,
    )
    weights = loops.soft_weights(attributes, weighting, share)

    def expected(x):
        return loops.total(labels, x, **arguments, weights=weights)

    assert value == pytest.approx(expected(embeddings), rel=1e-5)
    np.testing.assert_allclose(gradient, numeric_gradient(expected, embeddings), rtol=1e-3, atol=2e-5)


def test_weights_by_hand():
    """One class of three photos at products 0, 0 and 1, alpha = 1, beta = 0: deviances log 2, log 2 and
    log(1 + 1/e). Attributes (1, 0), (0, 1), (1, 0): g = 0 between the second and the others, else 1, so w+ = 2, 2 and
    1, and each is met in both directions: (2 log 2 + 2 log 2 + log(1 + 1/e)) / 5 = 0.6171700, unweighted 0.5665190."""
    points, attributes = np.array([[1.0], [0.0], [1.0]], np.float32), [[1, 0], [0, 1], [1, 0]]
    arguments = {"alpha": 1.0, "beta": 0.0, "from_normalized": True}
    loss = soft_binomial_deviance([5, 5, 5], points, attributes, **arguments)
    assert float(tf.reduce_mean(loss)) == pytest.approx(0.6171700, rel=1e-6)
    assert float(tf.reduce_mean(binomial_deviance([5, 5, 5], points, **arguments))) == pytest.approx(0.5665190)


@pytest.mark.parametrize("weighting", ["informativeness", "preserving"])
@pytest.mark.parametrize("same", [[1, 1, 0, 1], [-1, -1, -1, -1], [0, 0, 0, 0]])
def test_with_the_same_attributes_everywhere_it_is_binomial_deviance(same, weighting):
    """All g are 1, or all 0: weights are equal, and their mean is 1."""
    labels, embeddings, _ = make_batch(0)
    attributes = np.tile(same, [len(labels), 1])
    soft = value_and_gradient(lambda x: soft_binomial_deviance(labels, x, attributes, weighting=weighting), embeddings)
    for found, expected in zip(soft, value_and_gradient(lambda x: binomial_deviance(labels, x), embeddings)):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("weighting, share", WEIGHTINGS)
def test_weights_have_mean_one(weighting, share):
    """Where all embeddings are equal so are the deviances of a term, and weights of mean 1 leave their mean."""
    labels, embeddings, attributes = make_batch(2)
    embeddings = np.ones_like(embeddings)
    arguments = {"beta": 0.9, "negative_cost": 2.0}
    soft = soft_binomial_deviance_terms(
        labels, embeddings, attributes, weighting=weighting, preserved_share=share, **arguments
    )
    for term, plain in binomial_deviance_terms(labels, embeddings, **arguments).items():
        assert float(tf.reduce_mean(soft[term])) == pytest.approx(float(tf.reduce_mean(plain)), rel=1e-5)


def test_preserving_nothing_is_binomial_deviance():
    labels, embeddings, attributes = make_batch(0)
    soft = soft_binomial_deviance(labels, embeddings, attributes, weighting="preserving", preserved_share=0.0)
    np.testing.assert_array_equal(soft, binomial_deviance(labels, embeddings))


def test_preserving_all_leaves_negatives_of_the_same_attributes_alone():
    """All weights are 1 - 1 * 1 = 0: the term is exactly 0 and moves nothing."""
    labels, embeddings, _ = make_batch(0)
    attributes = np.tile([1, 1, 0, 1], [len(labels), 1])
    value, gradient = value_and_gradient(
        lambda x: soft_binomial_deviance_terms(labels, x, attributes, weighting="preserving", preserved_share=1.0)[
            "negative_pairs"
        ],
        embeddings,
    )
    np.testing.assert_array_equal(value, np.zeros(len(labels)))
    np.testing.assert_array_equal(gradient, np.zeros_like(embeddings))


@pytest.mark.filterwarnings("ignore:No photo of this batch has a partner")
@pytest.mark.parametrize(
    "labels, empty", [(np.arange(11), "positive_pairs"), (np.full(11, 7), "negative_pairs")], ids=["no_pos", "no_neg"]
)
def test_a_term_without_pairs_is_zero_and_moves_nothing(labels, empty):
    _, embeddings, attributes = make_batch(0)
    value, gradient = value_and_gradient(
        lambda x: soft_binomial_deviance_terms(labels, x, attributes)[empty], embeddings
    )
    np.testing.assert_array_equal(value, np.zeros(11))
    np.testing.assert_array_equal(gradient, np.zeros_like(embeddings))


def test_no_gradient_reaches_attributes():
    labels, embeddings, _ = make_batch(0)
    embeddings, probabilities = tf.constant(embeddings), tf.constant(sigmoid(make_logits(0)))
    with tf.GradientTape() as tape:
        tape.watch([embeddings, probabilities])
        loss = soft_binomial_deviance(labels, embeddings, probabilities)
    of_embeddings, of_probabilities = tape.gradient(loss, [embeddings, probabilities])
    assert np.abs(of_embeddings).max() > 0
    assert of_probabilities is None


def test_no_gradient_reaches_attributes_alone():
    """Where embeddings need none, nothing but the loss itself keeps one from the attributes."""
    labels, embeddings, _ = make_batch(0)
    probabilities = tf.constant(sigmoid(make_logits(0)))
    with tf.GradientTape() as tape:
        tape.watch(probabilities)
        loss = soft_binomial_deviance(labels, embeddings, probabilities)
    assert tape.gradient(loss, probabilities) is None


@pytest.mark.parametrize("block_rows", [1, 4])
def test_small_blocks_change_nothing(block_rows, monkeypatch):
    labels, embeddings, attributes = make_batch(0)
    whole = value_and_gradient(lambda x: soft_binomial_deviance(labels, x, attributes), embeddings)
    in_blocks = functools.partial(pairwise.reduce_row_blocks, block_rows=block_rows)
    monkeypatch.setattr(pairwise, "reduce_row_blocks", in_blocks)
    again = value_and_gradient(lambda x: soft_binomial_deviance(labels, x, attributes), embeddings)
    for found, expected in zip(again, whole):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_no_tensor_of_all_pairs_is_ever_made(monkeypatch):
    """Neither of similarities nor of attributes: 1,536 photos are three blocks of 512 rows."""
    monkeypatch.setattr(plans, "block_limits", lambda: (512, 2**21))

    def gradient(y, x, t):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = soft_binomial_deviance(y, x, t)
        return loss, tape.gradient(loss, x)

    largest, shapes = largest_tensor(gradient, tf.zeros([1536], tf.int32), tf.zeros([1536, 8]), tf.zeros([1536, 5]))
    assert "512,1536" in shapes
    assert largest == 512 * 1536


@pytest.mark.parametrize("attributes", [[1, 0, 1], [[1, 0], [0, 1]], [[[1, 0]]] * 3])
def test_wrong_shapes_are_named(attributes):
    with pytest.raises(ValueError, match=r"shape \[batch, num_attributes\], .* Received: shape .* for 3 embeddings"):
        soft_binomial_deviance([0, 0, 1], np.eye(3, dtype=np.float32), attributes)


# The loss as a Keras class


def test_granularity_labels_is_the_truth():
    labels, embeddings, attributes = make_batch(0)
    loss = SoftBinomialDevianceLoss(reduction="none")(*dicts(labels, embeddings, attributes, make_logits(0)))
    np.testing.assert_allclose(loss, soft_binomial_deviance(labels, embeddings, attributes), rtol=1e-6)


def test_granularity_predictions_is_the_sigmoid_of_the_logits():
    """And what is unknown of the truth does not matter."""
    labels, embeddings, attributes = make_batch(0)
    loss = SoftBinomialDevianceLoss(granularity="predictions", reduction="none")
    found = loss(*dicts(labels, embeddings, attributes, make_logits(0)))
    np.testing.assert_allclose(found, soft_binomial_deviance(labels, embeddings, sigmoid(make_logits(0))), rtol=1e-5)
    np.testing.assert_array_equal(found, loss(*dicts(labels, embeddings, -np.ones_like(attributes), make_logits(0))))


@pytest.mark.parametrize("granularity", ["labels", "predictions"])
def test_no_gradient_reaches_the_attribute_head(granularity):
    labels, embeddings, attributes = make_batch(0)
    embeddings, logits = tf.constant(embeddings), tf.constant(make_logits(0))
    with tf.GradientTape() as tape:
        tape.watch([embeddings, logits])
        terms = SoftBinomialDevianceLoss(granularity=granularity).terms(*dicts(labels, embeddings, attributes, logits))
        loss = tf.add_n(list(terms.values()))
    of_embeddings, of_logits = tape.gradient(loss, [embeddings, logits])
    assert np.abs(of_embeddings).max() > 0
    assert of_logits is None


def test_the_class_hands_its_arguments_on():
    labels, embeddings, attributes = make_batch(1)
    embeddings /= 3.0
    arguments = {"alpha": 3.0, "beta": 0.1, "negative_cost": 4.0, "from_normalized": True}
    soft = {"weighting": "preserving", "preserved_share": 0.8}
    loss = SoftBinomialDevianceLoss(**arguments, **soft)
    expected = soft_binomial_deviance(labels, embeddings, attributes, **arguments, **soft)
    inputs = dicts(labels, embeddings, attributes, make_logits(0))
    assert float(loss(*inputs)) == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-6)
    assert loss.term_names == tuple(loss.terms(*inputs)) == TERMS


@pytest.mark.parametrize("granularity", ["labels", "predictions"])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_arithmetic_is_float32_whatever_comes_in(dtype, granularity):
    labels, embeddings, attributes = make_batch(0)
    halves = [tf.cast(array, dtype) for array in (embeddings, make_logits(0))]
    loss = SoftBinomialDevianceLoss(granularity=granularity)
    found = loss.call(*dicts(labels, halves[0], attributes, halves[1]))
    exact = loss.call(*dicts(labels, *[tf.cast(array, tf.float32) for array in (halves[0], attributes, halves[1])]))
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("granularity", ["labels", "predictions"])
def test_compiled_by_xla_it_is_the_same(granularity):
    labels, embeddings, attributes = make_batch(0)
    loss = SoftBinomialDevianceLoss(granularity=granularity)

    def both(*arrays):
        with tf.GradientTape() as tape:
            tape.watch(arrays[1])
            value = loss.call(*dicts(*arrays))
        return value, tape.gradient(value, arrays[1])

    arrays = [tf.constant(array) for array in (labels, embeddings, attributes, make_logits(0))]
    for compiled, eager in zip(tf.function(both, jit_compile=True)(*arrays), both(*arrays)):
        np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "missing, granularity, message",
    [
        ("y_true", "labels", "`y_true` must be a dict with 'label'. Received: y_true is no dict"),
        ("y_pred", "labels", "`y_pred` must be a dict with 'embedding'. Received: y_pred is no dict"),
        ("label", "labels", "`y_true` must be a dict with 'label'. Received: y_true is a dict of attributes"),
        ("attributes", "labels", "`y_true` must be a dict with 'attributes'. Received: y_true is a dict of label"),
        ("logits", "predictions", "`y_pred` must be a dict with 'attributes'. Received: y_pred is a dict of embedding"),
    ],
)
def test_what_is_missing_is_named_with_the_mend(missing, granularity, message):
    labels, embeddings, attributes = make_batch(0)
    y_true, y_pred = dicts(labels, embeddings, attributes, make_logits(0))
    if missing in ("y_true", "y_pred"):
        y_true, y_pred = (labels, y_pred) if missing == "y_true" else (y_true, embeddings)
    else:
        del (y_pred if missing == "logits" else y_true)["attributes" if missing == "logits" else missing]
    with pytest.raises(ValueError, match=message + ".*need eet_tf.MetricLearner.*attribute_names=.*'attributes': "):
        SoftBinomialDevianceLoss(granularity=granularity)(y_true, y_pred)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weighting": "even"}, "`weighting` must be one of informativeness, preserving. Received: weighting='even'"),
        ({"granularity": "truth"}, "`granularity` must be one of labels, predictions. Received: granularity='truth'"),
        ({"preserved_share": 1.1}, r"`preserved_share` must be in \[0, 1\]. Received: preserved_share=1.1"),
        ({"preserved_share": -0.1}, r"`preserved_share` must be in \[0, 1\]. Received: preserved_share=-0.1"),
        ({"alpha": 0.0}, "`alpha` must be above 0. Received: alpha=0.0"),
        ({"negative_cost": -1.0}, "`negative_cost` must be above 0. Received: negative_cost=-1.0"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        SoftBinomialDevianceLoss(**arguments)
