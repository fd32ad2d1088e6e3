"""What XLA makes of every loss on two replicas: the numbers of the loops, at sizes that users have."""

import json

import numpy as np
import tensorflow as tf

from eet_tf import make_strategy, plans, replicas
from tests.losses.settings import COMPARED, expected_of

ON_TWO = [
    ("eet", 20),
    ("eet", 64),
    ("eet", 257),
    ("eet", 1024),
    ("batch-hard", 257),
    ("batch-all", 64),
    ("deviance", 257),
    ("multi-similarity", 257),
    ("contrastive", 257),
    ("smooth-ap", 64),
    ("roadmap", 257),
    ("recall", 64),
    ("prefixes", 257),
]


def report():
    """Runs in a process of its own: {setting: [rows, error of the value, error of the gradient]}, plain and compiled.

    The first replica has some more rows than the second; classes lie on both.
    """
    replicas.split_cpu(2)
    strategy, results = make_strategy("mirrored"), {}
    for name, num_rows in ON_TWO:
        batch, expected, expected_gradient = expected_of(name, num_rows, "uneven")
        for is_compiled in (False, True):
            value, gradient = on_two_replicas(strategy, COMPARED[name][0], batch, is_compiled)
            error = np.max(np.abs(gradient - expected_gradient)) / np.max(np.abs(expected_gradient))
            results[f"{name}, {num_rows}, {is_compiled}"] = [abs(value / expected - 1), float(error)]
    print(json.dumps(results))


def on_two_replicas(strategy, loss, batch, is_compiled):
    labels, embeddings, _ = batch
    middle = (len(labels) + 3) // 2

    def shared(array):
        parts = array[:middle], array[middle:]
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    @tf.function
    def step(labels, embeddings):
        with plans.compiling_parts(is_compiled), tf.GradientTape() as tape:
            tape.watch(embeddings)
            total = tf.reduce_sum(tf.add_n(list(loss.terms(labels, embeddings).values())))
        return total, tape.gradient(total, embeddings)

    total, gradient = strategy.run(step, args=(shared(labels), shared(embeddings)))
    totals, gradients = (strategy.experimental_local_results(each) for each in (total, gradient))
    size = len(labels)
    return float(sum(totals)) / size, np.concatenate([np.asarray(each) for each in gradients]) / size


def test_two_replicas_have_the_loops_value_and_gradient(run_python):
    printed = run_python("from tests.losses import test_compiled_replicas; test_compiled_replicas.report()")
    results = json.loads(printed[0].splitlines()[-1])
    assert len(results) == 2 * len(ON_TWO)
    for name, (value_error, gradient_error) in results.items():
        assert value_error < 1e-5, name
        assert gradient_error < 5e-5, name
