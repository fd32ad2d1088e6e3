"""The rivals of the comparison of methods against plain loops."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import rivals
from tests import reference


def make_batch(seed):
    """Random embeddings of four classes in no order."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat([4, 7, 8, 9], [3, 1, 4, 2])), rng.normal(size=[10, 5]).astype(np.float32)


def multi_similarity(labels, embeddings, alpha, beta, base, epsilon):
    """Eq. 11 to 15 of arXiv 1904.06627, pair by pair."""
    f = reference.unit(np.asarray(embeddings, np.float64))
    total = 0.0
    for a in range(len(f)):
        same = [f[a] @ f[j] for j in range(len(f)) if j != a and labels[j] == labels[a]]
        other = [f[a] @ f[j] for j in range(len(f)) if labels[j] != labels[a]]
        positives = [s for s in same if s < max(other) + epsilon]
        negatives = [s for s in other if s > min(same, default=2.0) - epsilon]
        total += np.log(1 + sum(np.exp(-alpha * (s - base)) for s in positives)) / alpha
        total += np.log(1 + sum(np.exp(beta * (s - base)) for s in negatives)) / beta
    return total / len(f)


@pytest.mark.parametrize("seed", range(3))
def test_multi_similarity_is_the_loops(seed):
    labels, embeddings = make_batch(seed)
    loss, x = rivals.MultiSimilarityLoss(2.0, 10.0, 0.3, 0.2), tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x)

    def expected(x):
        return multi_similarity(labels, x, 2.0, 10.0, 0.3, 0.2)

    assert float(value) == pytest.approx(expected(embeddings), rel=1e-5)
    slope = reference.numeric_gradient(expected, embeddings)
    np.testing.assert_allclose(tape.gradient(value, x), slope, rtol=1e-3, atol=1e-5)


def test_normalized_logits_are_cosines_over_the_temperature():
    embeddings = reference.unit(make_batch(0)[1])
    layer = rivals.NormalizedLogits(num_classes=6, temperature=0.1)
    logits = layer(embeddings)
    proxies = reference.unit(layer.get_weights()[0])
    np.testing.assert_allclose(logits, embeddings @ proxies.T / 0.1, rtol=1e-5, atol=1e-5)
