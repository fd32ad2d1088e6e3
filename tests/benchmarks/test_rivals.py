"""The rivals of the comparison of methods against plain loops."""

import numpy as np

from benchmarks import rivals
from tests import reference


def make_batch(seed):
    """Random embeddings of four classes in no order."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat([4, 7, 8, 9], [3, 1, 4, 2])), rng.normal(size=[10, 5]).astype(np.float32)


def test_normalized_logits_are_cosines_over_the_temperature():
    embeddings = reference.unit(make_batch(0)[1])
    layer = rivals.NormalizedLogits(num_classes=6, temperature=0.1)
    logits = layer(embeddings)
    proxies = reference.unit(layer.get_weights()[0])
    np.testing.assert_allclose(logits, embeddings @ proxies.T / 0.1, rtol=1e-5, atol=1e-5)
