"""Triplet losses in every setting against plain loops, and against tensorflow-addons where it has the same one."""

import itertools
import warnings

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import TripletLoss, triplet_loss
from eet_tf.pairs import pairwise
from tests import reference


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


SETTINGS = list(itertools.product(["hard", "partner", "all"], ["hard", "semi_hard", "all"]))


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("positives, negatives", SETTINGS)
def test_every_setting_is_the_loops(positives, negatives, distance, soft, monkeypatch):
    """Classes side by side in part, so that there are partners; blocks of 4 rows for 10, so that the last is short."""
    monkeypatch.setattr(pairwise.map_row_blocks, "__defaults__", (4,))
    monkeypatch.setattr(pairwise.reduce_row_blocks, "__defaults__", ((), 4))
    labels = np.array([7, 7, 2, 2, 7, 2, 5, 2, 4, 4])
    embeddings = make_batch(11, [4, 4, 2])[1]
    loss = TripletLoss(0.25, positives, negatives, distance, soft)

    def expected(x):
        return reference.triplet(labels, x, 0.25, positives, negatives, distance, soft)

    value, gradient = value_and_gradient(lambda x: loss(labels, x), embeddings)
    assert value == pytest.approx(expected(embeddings), rel=1e-5)
    np.testing.assert_allclose(gradient, reference.numeric_gradient(expected, embeddings), rtol=1e-3, atol=3e-6)


def test_the_loops_tell_the_settings_apart():
    """What the test above compares with differs between any two settings."""
    labels, embeddings = np.array([7, 7, 2, 2, 7, 2, 5, 2, 4, 4]), make_batch(11, [4, 4, 2])[1]
    every = itertools.product(SETTINGS, ["euclidean", "squared", "cosine"], [False, True])
    values = [reference.triplet(labels, embeddings, 0.25, *pair, kind, soft) for pair, kind, soft in every]
    assert len(np.unique(np.round(values, 6))) == len(values)


@pytest.mark.parametrize("positives, negatives", SETTINGS)
def test_every_setting_compiles_with_xla(positives, negatives):
    """57 photos, since XLA was right by chance for 16 and fewer."""
    labels, embeddings = make_batch(4, [5, 9, 1, 12, 7, 3, 20])
    loss = TripletLoss(0.25, positives, negatives)

    @tf.function(jit_compile=True)
    def compiled(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    value, gradient = value_and_gradient(lambda x: loss(labels, x), embeddings)
    value_by_xla, gradient_by_xla = compiled(labels, embeddings)
    assert float(value_by_xla) == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(gradient_by_xla, gradient, atol=1e-6)


@pytest.mark.filterwarnings("ignore:No photo of this batch has a partner")
@pytest.mark.parametrize("positives, negatives", SETTINGS)
@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [0, 1, 2, 3]], ids=["one class", "no positives"])
def test_without_triplets_loss_and_gradient_are_zero(labels, positives, negatives):
    embeddings = make_batch(2, [4])[1]
    value, gradient = value_and_gradient(
        lambda x: TripletLoss(0.5, positives, negatives, soft_margin=True)(labels, x), embeddings
    )
    assert value == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(embeddings))


@pytest.mark.parametrize("positives, negatives", SETTINGS)
def test_gradients_stay_finite_when_photos_are_alike(positives, negatives):
    embeddings = np.repeat(make_batch(2, [3])[1], 4, axis=0)
    labels = np.array([0, 0, 1, 1] * 3)
    _, gradient = value_and_gradient(lambda x: TripletLoss(0.5, positives, negatives)(labels, x), embeddings)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("positives, negatives", [("all", "all"), ("all", "semi_hard"), ("hard", "all")])
def test_nothing_of_batch_by_batch_exists(positives, negatives):
    """No operation, in whatever nested function, gives a tensor with two axes of the batch's 1,100 rows."""
    labels, embeddings = tf.repeat(tf.range(275), 4), tf.random.normal([1100, 5], seed=1)

    @tf.function
    def gradient(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = TripletLoss(0.3, positives, negatives)(labels, x)
        return tape.gradient(value, x)

    concrete = gradient.get_concrete_function(labels, embeddings)
    graphs = [concrete.graph, *(function.graph for function in concrete.graph._functions.values() if function.graph)]
    shapes = [output.shape for graph in graphs for op in graph.get_operations() for output in op.outputs]
    large = [shape for shape in shapes if shape.rank is not None and list(shape).count(1100) > 1]
    assert len(shapes) > 500 and not large


def test_only_queries_are_anchors_in_online_sampling():
    """Rows (q, p) of classes 1 and 2 on a circle; the query at 0 degrees has its partner at 90, so d = 1 - cos 90 = 1,
    and its nearest other at 60: 1 - 1/2; 1 - 0.5 + 0.1 = 0.6. The query at 60 has its partner at 60 (d = 0) and its
    nearest other at 90: 1 - cos 30 = 0.134 > 0.1: no loss. The mean over the two queries is 0.3."""
    angles = np.deg2rad([0.0, 90.0, 60.0, 60.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    loss = TripletLoss(margin=0.1, positives="partner", distance="cosine")
    assert float(loss([1, 1, 2, 2], embeddings)) == pytest.approx(0.3, rel=1e-5)
    np.testing.assert_allclose(loss.terms([1, 1, 2, 2], embeddings)["margin"], [1.2, 0, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("metric, distance", [("L2", "euclidean"), ("squared-L2", "squared"), ("angular", "cosine")])
@pytest.mark.parametrize("seed", range(2))
def test_settings_agree_with_tensorflow_addons(seed, metric, distance, soft, addons):
    """Theirs take unit vectors, but for "angular", which normalises; TripletSemiHardLoss has no soft margin. Every
    class has two photos or more, as below."""
    labels, embeddings = make_batch(seed, [3, 2, 4, 2])
    pairs = [(addons.losses.TripletHardLoss(0.4, soft, metric), TripletLoss(0.4, "hard", "hard", distance, soft))]
    if not soft:
        semi_hard = addons.losses.TripletSemiHardLoss(0.4, metric)
        pairs.append((semi_hard, TripletLoss(0.4, "all", "semi_hard", distance)))
    for theirs, ours in pairs:
        value, gradient = value_and_gradient(lambda x, ours=ours: ours(labels, x), embeddings)
        expected, slope = value_and_gradient(
            lambda x, theirs=theirs: theirs(labels, tf.math.l2_normalize(x, axis=-1)), embeddings
        )
        assert value == pytest.approx(float(expected), rel=1e-5)
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)


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


@pytest.mark.parametrize("margin", [-1, np.nan])
def test_a_negative_margin_is_refused(margin):
    with pytest.raises(ValueError, match=f"`margin` must be 0 or more. Received: margin={margin}"):
        TripletLoss(margin=margin)


@pytest.mark.parametrize("argument", ["positives", "negatives", "distance"])
def test_an_unknown_setting_is_refused(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be one of .*hard|euclidean.*Received: {argument}='other'"):
        TripletLoss(**{argument: "other"})
