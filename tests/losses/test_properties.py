"""What holds of every loss whatever the batch: drawn by hypothesis, labels, sizes, lengths and copies."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import eet_tf
from eet_tf import binomial_deviance, eet_loss, soft_binomial_deviance, triplet_loss

pytestmark = pytest.mark.filterwarnings("ignore:No photo of this batch has a partner")  # as drawn
LOSSES = {
    "eet": eet_loss,
    "eet_symmetric": lambda *batch: eet_loss(*batch, symmetric_margin=True, equidistributed_weight=0.2),
    "batch_hard": triplet_loss,
    "batch_all": lambda *batch: triplet_loss(*batch, positives="all", negatives="all"),
    "semi_hard": lambda *batch: triplet_loss(*batch, positives="all", negatives="semi_hard", distance="squared"),
    "online_sampling": lambda *batch: triplet_loss(*batch, positives="partner", negatives="all"),
    "soft_margin": lambda *batch: triplet_loss(*batch, soft_margin=True, distance="cosine"),
    "deviance": binomial_deviance,
    "multi_similarity": eet_tf.multi_similarity_loss,
    "contrastive": eet_tf.supervised_contrastive_loss,
    "smooth_ap": lambda *batch: eet_tf.smooth_ap_loss(*batch, temperature=0.1),
    "roadmap": lambda *batch: eet_tf.roadmap_loss(*batch, temperature=0.1),
    "recall": lambda *batch: eet_tf.recall_at_k_loss(*batch, temperature=0.1),
    "soft_deviance": lambda labels, embeddings: soft_binomial_deviance(labels, embeddings, attributes_of(labels)),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
drawn = settings(max_examples=8, deadline=None, derandomize=True)
labels = st.lists(st.integers(0, 4), min_size=1, max_size=14).map(np.array)
seeds = st.integers(0, 2**32 - 1)


def attributes_of(labels):
    """Of each class, in {1, 0, -1}: those of the first, second, ... of its labels in their order."""
    return np.random.default_rng(0).integers(-1, 2, size=[14, 6])[np.unique(labels, return_inverse=True)[1]]


def vectors(labels, seed):
    """`[B, D]` of any lengths, all different."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.1, 10, size=[len(labels), 1])
    return (rng.normal(size=[len(labels), rng.integers(2, 7)]) * lengths).astype(np.float32)


@every_loss
@drawn
@given(labels=labels, seed=seeds)
def test_each_anchor_gets_a_finite_loss_and_gradient_even_among_copies(loss, labels, seed):
    rng = np.random.default_rng(seed)
    embeddings = tf.constant(vectors(labels, seed)[rng.integers(0, len(labels), size=len(labels))])
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        values = loss(labels, embeddings)
    gradient = tape.gradient(values, embeddings)
    assert values.shape == labels.shape and values.dtype == tf.float32
    assert np.isfinite(values).all() and np.min(values) >= 0
    assert np.isfinite(tf.convert_to_tensor(gradient)).all()


@every_loss
@drawn
@given(labels=labels, seed=seeds)
def test_lengths_of_vectors_do_not_matter(loss, labels, seed):
    embeddings = vectors(labels, seed)
    factors = np.random.default_rng(seed + 1).uniform(0.01, 100, size=[len(labels), 1]).astype(np.float32)
    np.testing.assert_allclose(loss(labels, embeddings * factors), loss(labels, embeddings), rtol=1e-3, atol=1e-4)


@every_loss
@drawn
@given(labels=labels, seed=seeds, first=st.integers(-(2**62), 2**62), step=st.integers(1, 2**50))
def test_names_of_classes_do_not_matter(loss, labels, seed, first, step):
    """Their order is kept: which of a class's photos is an anchor's partner may depend on it."""
    embeddings = vectors(labels, seed)
    np.testing.assert_array_equal(loss(first + step * labels, embeddings), loss(labels, embeddings))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "online_sampling"])
@drawn
@given(labels=labels, seed=seeds)
def test_the_order_of_photos_does_not_matter(name, labels, seed):
    """Online sampling pairs each photo with the next of its class."""
    loss = LOSSES[name]
    embeddings = vectors(labels, seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    found = loss(labels[order], embeddings[order])
    np.testing.assert_allclose(found, np.asarray(loss(labels, embeddings))[order], rtol=1e-3, atol=1e-4)


@every_loss
@drawn
@given(size=st.integers(1, 6), same=st.booleans(), seed=seeds)
def test_where_there_is_nothing_to_compare_there_is_no_loss(loss, size, same, seed):
    """A batch of one class has no negatives, one of single photos no positives: no triplet, and no pair of one kind."""
    labels = np.full(size, 3) if same else np.arange(size)
    values = np.asarray(loss(labels, vectors(labels, seed)))
    assert np.isfinite(values).all()
    if loss in (triplet_loss, LOSSES["batch_all"], LOSSES["online_sampling"]):
        np.testing.assert_array_equal(values, np.zeros(size))
