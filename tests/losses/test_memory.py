"""What a loss over all triplets of a large batch needs beyond its inputs, measured in a process of its own."""

import json
import resource

import numpy as np
import tensorflow as tf

from eet_tf import TripletLoss


def report_batch_all(num_rows):
    """Runs in a process of its own: megabytes by which batch-all, forward and backward, raised the peak."""
    loss = TripletLoss(positives="all", negatives="all")

    @tf.function
    def gradient(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return tape.gradient(value, x)

    def inputs(rows):
        rng = np.random.default_rng(0)
        return tf.constant(np.arange(rows) // 4), tf.constant(rng.normal(size=[rows, 128]), tf.float32)

    gradient(*inputs(64))  # what TensorFlow itself takes for a graph
    batch = inputs(num_rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradient(*batch)
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def test_batch_all_of_1024_photos_takes_less_than_100_megabytes(run_python):
    """All triplets at once would be 1,024^3 floats, 4 GB; blocks of 512 rows are 2 MB for each tensor in use."""
    printed = run_python("from tests.losses import test_memory; test_memory.report_batch_all(1024)")
    assert json.loads(printed[0].splitlines()[-1]) < 100
