"""The full-matrix forms that costs are compared with calculate the same loss."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import naive
from eet_tf import binomial_deviance, eet_loss, triplet_loss

FORMS = [(naive.batch_hard, triplet_loss), (naive.eet, eet_loss), (naive.binomial_deviance, binomial_deviance)]


def make_batch():
    """Classes of 2 to 4 photos, each as an anchor with a positive, in no order."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([4, 7, 8, 9], [3, 2, 4, 3]))
    return tf.constant(labels), tf.constant(rng.normal(size=[12, 5]), tf.float32)


@pytest.mark.parametrize("full, ours", FORMS)
def test_the_mean_and_its_gradient_are_ours(full, ours):
    labels, x = make_batch()
    found = []
    for loss in (full, ours):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_mean(loss(labels, x))
        found.append((value, tape.gradient(value, x)))
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
