"""A loss of one's own: a subclass with one term more, one made of nothing but `terms`, one made of a `Batch`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner, MetricLoss, SoftBinomialDevianceLoss, make_batch
from eet_tf.losses.batch import Remembered

LABELS = np.array([3, 0, 1, 3, 1, 0])
IMAGES = np.random.default_rng(2).normal(size=[6, 5]).astype(np.float32)
ATTRIBUTES = np.random.default_rng(3).integers(-1, 2, size=[6, 3])


class WithLength(EETLoss):
    """EET, and how far the embeddings are from length 1: a term for which the embedder must have three dimensions."""

    def terms(self, labels, embeddings, memory=None):
        """One more than those of EET."""
        lengths = tf.reduce_sum(embeddings * tf.ones([3]) * embeddings, axis=1)
        return {**super().terms(labels, embeddings, memory), "length": 0.1 * tf.square(lengths - 1.0)}


class Named(EETLoss):
    """Says itself what its terms are called."""

    @property
    def term_names(self):
        """Those of EET and one."""
        return (*super().term_names, "sum")

    def terms(self, labels, embeddings, memory=None):
        """One more than those of EET."""
        return {**super().terms(labels, embeddings, memory), "sum": tf.reduce_sum(embeddings, axis=1)}


class WithLogits(SoftBinomialDevianceLoss):
    """Of two heads."""

    def terms(self, targets, outputs, memory=None):
        """One more, of the logits."""
        more = tf.reduce_mean(tf.square(outputs["attributes"]), axis=1)
        return {**super().terms(targets, outputs, memory), "logits": more}


class Spread(MetricLoss):
    """Nothing but terms."""

    def terms(self, labels, embeddings, memory=None):
        """One."""
        return {"spread": tf.reduce_sum(tf.abs(embeddings), axis=1)}


class Contrastive(MetricLoss):
    """The example of the documentation."""

    def terms(self, labels, embeddings, memory=None):
        """Two."""
        batch = make_batch(labels, embeddings, memory=memory)
        is_positive, is_negative = batch.pair_masks()
        distances = batch.distances("euclidean")
        pull = tf.where(is_positive, tf.square(distances), 0.0)
        push = tf.where(is_negative, tf.square(tf.nn.relu(0.5 - distances)), 0.0)
        means = {"pull": tf.reduce_mean(pull, axis=1), "push": tf.reduce_mean(push, axis=1)}
        return {name: batch.loss_of_photos(values) for name, values in means.items()}


def looped_contrastive(labels, embeddings, num_own):
    """Of the first rows, the anchors, against all: `[num_own]` of each term."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pull, push = np.zeros(num_own), np.zeros(num_own)
    for anchor in range(num_own):
        for other in range(len(labels)):
            distance = np.linalg.norm(unit[anchor] - unit[other])
            if labels[anchor] != labels[other]:
                push[anchor] += max(0.5 - distance, 0.0) ** 2 / len(labels)
            elif anchor != other:
                pull[anchor] += distance**2 / len(labels)
    return {"pull": pull, "push": push}


def make_embedder(has_two_heads=False):
    keras.utils.set_random_seed(4)
    images = keras.Input([5])
    embedding = keras.layers.Dense(3)(images)
    heads = {"embedding": embedding, "attributes": keras.layers.Dense(3)(images)} if has_two_heads else embedding
    return keras.Model(images, heads)


def fit(model, loss, targets):
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model.fit(IMAGES, targets, batch_size=6, shuffle=False, verbose=0).history


@pytest.mark.parametrize("loss, more", [(WithLength(), "length"), (Named(), "sum")], ids=["unnamed", "named"])
@pytest.mark.parametrize("memory_size", [0, 4])
def test_one_term_more_is_logged_and_added(loss, more, memory_size):
    learner = MetricLearner(make_embedder(), memory_size, memory_start=0)
    terms = loss.terms(LABELS, learner.embedder(IMAGES))
    history = fit(learner, loss, LABELS)
    assert set(history) == {"loss", "margin", "equidistant", "max_min", "equal_minima", more}
    assert history[more][0] == pytest.approx(np.mean(terms[more]), rel=1e-5)
    assert history["loss"][0] == pytest.approx(sum(values[0] for name, values in history.items() if name != "loss"))
    assert fit(make_embedder(), loss, LABELS)["loss"][0] == pytest.approx(
        np.mean(tf.add_n(list(terms.values()))), rel=1e-5
    )


def test_one_term_more_of_two_heads():
    targets = {"label": LABELS, "attributes": ATTRIBUTES}
    history = fit(MetricLearner(make_embedder(True)), WithLogits(), targets)
    assert set(history) == {"loss", "positive_pairs", "negative_pairs", "logits"}
    assert history["loss"][0] == pytest.approx(sum(values[0] for name, values in history.items() if name != "loss"))


def test_a_loss_of_terms_alone_has_keras_defaults():
    loss = Spread()
    assert loss.reduction in ("sum_over_batch_size", "auto")
    assert Spread.from_config(loss.get_config()).get_config() == loss.get_config()
    assert loss.term_names == ("spread",)
    expected = np.abs(IMAGES).sum(axis=1)
    assert float(loss(LABELS, IMAGES)) == pytest.approx(expected.mean(), rel=1e-6)
    np.testing.assert_allclose(Spread(reduction="none")(LABELS, IMAGES), expected, rtol=1e-6)
    assert set(fit(MetricLearner(make_embedder()), loss, LABELS)) == {"loss", "spread"}


def test_masks_and_sample_weights_are_keras_own():
    """A mask that the model hands on leaves photos out, in the sum and in what it is divided by."""

    class Masked(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_sum(tf.abs(y_pred), axis=1)

    embeddings, other = tf.constant(IMAGES), tf.constant(IMAGES)
    for each in (embeddings, other):
        each._keras_mask = tf.constant([True, False, True, True, False, True])
    weights = np.linspace(0, 1, 6).astype(np.float32)
    for kept in (None, weights):
        expected = float(Masked()(LABELS, other, kept))
        assert float(Spread()(LABELS, embeddings, kept)) == pytest.approx(expected, rel=1e-6)


def test_a_loss_made_of_a_batch_is_that_of_loops():
    remembered = np.random.default_rng(5).normal(size=[3, 5]).astype(np.float32)
    memory = Remembered(remembered / np.linalg.norm(remembered, axis=1, keepdims=True), np.array([1, 7, 3]))
    found = Contrastive().terms(LABELS, IMAGES)
    for name, values in looped_contrastive(LABELS, IMAGES, 6).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
    found = Contrastive().terms(LABELS, IMAGES, memory)
    both = np.concatenate([LABELS, [1, 7, 3]]), np.concatenate([IMAGES, remembered])
    for name, values in looped_contrastive(*both, 6).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_size", [0, 4])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_loss_made_of_a_batch_trains(memory_size, jit_compile):
    keras.utils.set_random_seed(6)
    learner = MetricLearner(make_embedder(), memory_size, memory_start=1)
    learner.compile(keras.optimizers.SGD(0.1), Contrastive(), jit_compile=jit_compile)
    history = learner.fit(IMAGES, LABELS, batch_size=6, shuffle=False, epochs=4, verbose=0).history
    assert set(history) == {"loss", "pull", "push"}
    first, last = (history["loss"][0], history["loss"][-1]) if not memory_size else history["loss"][1::2]
    assert last < first


def test_a_batch_that_is_no_number_makes_every_term_one():
    images = IMAGES.copy()
    images[2, 1] = np.nan
    assert all(np.isnan(values).all() for values in Contrastive().terms(LABELS, images).values())


def test_triplets_of_a_batch_are_the_hardest():
    batch = make_batch(LABELS, IMAGES)
    distances, triplets = np.array(batch.distances("squared")), batch.triplets()
    same = LABELS[:, np.newaxis] == LABELS
    np.fill_diagonal(distances, 0.0)
    np.testing.assert_array_equal(triplets.positives, np.where(same, distances, -1.0).argmax(axis=1))
    np.testing.assert_array_equal(triplets.negatives, np.where(same, 9.0, distances).argmin(axis=1))
    assert np.asarray(triplets.is_valid).all()


@pytest.mark.parametrize(
    "call", [lambda b: b.distances("manhattan"), lambda b: b.triplets("all"), lambda b: b.triplets(negatives="easy")]
)
def test_what_a_batch_does_not_know_is_refused(call):
    with pytest.raises(ValueError, match=r"^`(kind|positives|negatives)` must be one of .* Received: "):
        call(make_batch(LABELS, IMAGES))
