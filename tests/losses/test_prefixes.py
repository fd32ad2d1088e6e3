"""A loss on prefixes is the mean of that loss on each of them, in every way in which a loss is called."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf import EETLoss, MetricLearner, PrefixLoss, SoftBinomialDevianceLoss, TripletLoss
from eet_tf.losses.batch import Remembered
from tests import reference
from tests.losses.settings import make_batch, make_memory
from tests.losses.test_own_loss import Contrastive

LENGTHS, WEIGHTS = (3, 8, 16), (2.0, 1.0, 5.0)
# of embeddings of 16 dimensions; each loss of the package that needs nothing but them, and one of one's own
INNER = [
    EETLoss(symmetric_margin=True),
    TripletLoss(positives="all", negatives="all"),
    eet_tf.BinomialDevianceLoss(),
    eet_tf.MultiSimilarityLoss(),
    eet_tf.SupervisedContrastiveLoss(),
    eet_tf.SmoothAPLoss(),
    eet_tf.RoadmapLoss(),
    eet_tf.RecallAtKLoss(),
    Contrastive(),
]


def mean_of(terms_of):
    """The weighted mean of terms, of a function of a prefix's length."""
    total = {}
    for length, weight in zip(LENGTHS, WEIGHTS):
        for name, values in terms_of(length).items():
            total[name] = total.get(name, 0.0) + weight / sum(WEIGHTS) * np.asarray(values, np.float64)
    return total


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("inner", INNER, ids=lambda loss: loss.name)
@pytest.mark.parametrize("num_rows", [20, 96])
def test_terms_are_the_means_of_the_losss_own(inner, num_rows):
    labels, embeddings, _ = make_batch(num_rows)
    found = PrefixLoss(inner, LENGTHS, WEIGHTS).terms(labels, embeddings)
    assert_same(found, mean_of(lambda length: inner.terms(labels, embeddings[:, :length])))


def test_eet_on_prefixes_is_the_loops():
    """Of plain loops that share no code with the loss."""
    labels, embeddings, _ = make_batch(64)
    expected = np.mean([sum(reference.eet(labels, embeddings[:, :length]).values()) for length in LENGTHS])
    assert float(PrefixLoss(EETLoss(symmetric_margin=True), LENGTHS)(labels, embeddings)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("inner", INNER, ids=lambda loss: loss.name)
def test_what_is_remembered_is_cut_to_the_same_prefix(inner):
    """Each prefix of it is a unit vector again; a third of it is not there yet."""
    labels, embeddings, _ = make_batch(64)
    memory = make_memory()

    def terms_of(length):
        rows = memory.embeddings.numpy()[:, :length]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return inner.terms(labels, embeddings[:, :length], memory._replace(embeddings=tf.constant(rows)))

    assert_same(PrefixLoss(inner, LENGTHS, WEIGHTS).terms(labels, embeddings, memory), mean_of(terms_of))


@pytest.mark.parametrize("granularity", ["labels", "predictions"])
def test_a_loss_of_two_heads_sees_the_attributes_with_every_prefix(granularity):
    labels, embeddings, attributes = make_batch(64)
    inner, memory = SoftBinomialDevianceLoss(granularity=granularity), make_memory()
    targets, logits = {"label": labels, "attributes": attributes}, 3.0 * embeddings[:, :6]
    loss = PrefixLoss(inner, LENGTHS, WEIGHTS)

    def terms_of(length):
        rows = tf.math.l2_normalize(memory.embeddings[:, :length], axis=1)
        outputs = {"embedding": embeddings[:, :length], "attributes": logits}
        return inner.terms(targets, outputs, memory._replace(embeddings=rows))

    outputs = {"embedding": embeddings, "attributes": logits}
    assert_same(loss.terms(targets, outputs, memory), mean_of(terms_of))
    np.testing.assert_array_equal(loss.graded_by(targets, outputs), inner.graded_by(targets, outputs))


@pytest.mark.parametrize("dim, expected", [(6, (6,)), (8, (8,)), (9, (9,)), (20, (10, 20)), (64, (8, 16, 32, 64))])
def test_without_prefixes_the_embedding_is_halved_down_to_eight(dim, expected):
    labels, embeddings, _ = make_batch(20, dim=dim)
    found = PrefixLoss(TripletLoss()).call(labels, embeddings)
    np.testing.assert_allclose(found, PrefixLoss(TripletLoss(), expected).call(labels, embeddings), rtol=1e-6)


def test_dimensions_behind_the_last_prefix_have_no_gradient():
    labels, embeddings, _ = make_batch(20)
    embeddings = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        loss = PrefixLoss(EETLoss(), [2, 5])(labels, embeddings)
    gradient = tape.gradient(loss, embeddings).numpy()
    assert np.all(gradient[:, 5:] == 0)
    assert np.all(np.any(gradient[:, :5] != 0, axis=0))


def test_a_learner_logs_the_losss_terms_and_remembers():
    """What is remembered makes the loss larger, once it is there: the hardest of more photos are harder."""
    labels, embeddings, _ = make_batch(64)
    histories = []
    for memory_size in (0, 64):
        keras.utils.set_random_seed(0)
        learner = MetricLearner(keras.Sequential([keras.Input([16]), keras.layers.Dense(8)]), memory_size, 0)
        learner.compile(keras.optimizers.Adam(0.01), PrefixLoss(EETLoss(), [2, 8]))
        histories.append(learner.fit(embeddings, labels, batch_size=32, epochs=3, shuffle=False, verbose=0).history)
        assert sorted(histories[-1]) == ["equal_minima", "equidistant", "loss", "margin", "max_min"]
    alone, remembering = (history["loss"] for history in histories)
    assert alone[-1] < alone[0]
    assert alone[1] < remembering[1]


def test_prefixes_longer_than_the_embedding_are_refused_in_compile():
    learner = MetricLearner(keras.Sequential([keras.Input([16]), keras.layers.Dense(8)]))
    with pytest.raises(ValueError, match=r"`prefixes` must be at most the embedding's 8 dimensions.*\(4, 16\)"):
        learner.compile("sgd", PrefixLoss(EETLoss(), [4, 16]))


def test_a_loss_of_unit_vectors_is_refused():
    with pytest.raises(ValueError, match=r"`loss` must have from_normalized=False.*Received: EETLoss"):
        PrefixLoss(EETLoss(from_normalized=True))


def test_a_map_is_refused():
    with pytest.raises(ValueError, match=r"`y_pred` must be embeddings \[batch, dim\]"):
        PrefixLoss().terms([0, 0], tf.zeros([2, 3, 4]))


def test_memory_without_marks_is_all_there():
    labels, embeddings, _ = make_batch(20)
    memory = Remembered(tf.math.l2_normalize(embeddings[::-1], axis=1), tf.constant(labels[::-1].copy()))
    found = PrefixLoss(TripletLoss(), [16]).terms(labels, embeddings, memory)["margin"]
    np.testing.assert_allclose(found, TripletLoss().terms(labels, embeddings, memory)["margin"], atol=1e-6)


@pytest.mark.parametrize(
    "inner, shape",
    [
        (eet_tf.NormalizedSoftmaxLoss(12), (12, 16)),
        (eet_tf.ArcFaceLoss(12, subcenters=3), (12, 3, 16)),
        (eet_tf.ProxyAnchorLoss(12), (12, 16)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_prefix_meets_the_same_prefix_of_class_vectors(inner, shape):
    rng = np.random.default_rng(2)
    labels, embeddings = rng.integers(0, 12, 64), rng.normal(size=[64, 16]).astype(np.float32)
    (name,) = inner.class_vectors_shapes(16)
    vectors = rng.normal(size=shape).astype(np.float32)
    loss = PrefixLoss(inner, LENGTHS, WEIGHTS)
    assert loss.class_vectors_shapes(16) == {name: shape}
    assert loss.class_vectors_rates() == inner.class_vectors_rates()
    found = loss.terms(labels, embeddings, class_vectors={name: vectors})
    own = {length: {name: vectors[..., :length]} for length in LENGTHS}
    expected = mean_of(lambda length: inner.terms(labels, embeddings[:, :length], class_vectors=own[length]))
    assert_same(found, expected)


def test_class_vectors_are_trained_on_prefixes():
    keras.utils.set_random_seed(0)
    learner = MetricLearner(keras.Sequential([keras.Input([6]), keras.layers.Dense(16)]))
    learner.compile("sgd", PrefixLoss(eet_tf.NormalizedSoftmaxLoss(4), [8, 16]))
    before = learner.class_vectors.by_name()["normalized_softmax"].numpy()
    inputs = np.random.default_rng(0).normal(size=[12, 6]).astype(np.float32)
    history = learner.fit(inputs, np.arange(12) % 4, verbose=0).history
    assert sorted(history) == ["loss", "normalized_softmax"]
    assert not np.allclose(learner.class_vectors.by_name()["normalized_softmax"].numpy(), before)
