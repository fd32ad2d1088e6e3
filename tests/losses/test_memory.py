"""What losses over large batches need beyond their inputs, measured in processes of their own."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.memory import PeakMemory
from eet_tf import (
    EETLoss,
    MultiSimilarityLoss,
    RecallAtKLoss,
    RoadmapLoss,
    SmoothAPLoss,
    SupervisedContrastiveLoss,
    TripletLoss,
)

# the loss, rows, dimensions, and the megabytes over the inputs it must stay below
CASES = {
    "batch_all": (lambda: TripletLoss(positives="all", negatives="all"), 1024, 128, 100),
    "eet": (EETLoss, 8192, 512, 150),
    "multi_similarity": (MultiSimilarityLoss, 16384, 64, 400),
    "contrastive": (SupervisedContrastiveLoss, 16384, 64, 400),
    "smooth_ap": (SmoothAPLoss, 16384, 64, 400),
    "roadmap": (RoadmapLoss, 16384, 64, 400),
    "recall": (RecallAtKLoss, 16384, 64, 400),
}


def report(case):
    """Runs in a process of its own: megabytes by which the loss, forward and backward, raised the peak."""
    make, num_rows, dim, _ = CASES[case]
    loss = make()

    @tf.function
    def gradient(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return tape.gradient(value, x)

    def inputs(rows):
        return tf.constant(np.arange(rows) // 8), tf.random.stateless_normal([rows, dim], [1, 2])

    for rows in (64, 600):  # what TensorFlow itself takes for a graph
        gradient(*inputs(rows))
    batch = inputs(num_rows)
    with PeakMemory() as memory:
        gradient(*batch)
    print(json.dumps(memory.megabytes))


# the others in `make test-long`: a minute for each
OFTEN = ("batch_all", "eet")


@pytest.mark.parametrize(
    "case", [*OFTEN, *(pytest.param(name, marks=pytest.mark.long) for name in CASES if name not in OFTEN)]
)
def test_a_large_batch_takes_little_memory(case, run_python):
    """All triplets of 1,024 photos at once would be 4 GB; one matrix of all pairs of 8,192 268 MB, of 16,384 1,074."""
    printed = run_python(f"from tests.losses import test_memory; test_memory.report({case!r})", fresh=True)
    assert 1 < json.loads(printed[0].splitlines()[-1]) < CASES[case][3]
