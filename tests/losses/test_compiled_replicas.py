"""What XLA makes of every loss on two replicas: the numbers of the loops, at sizes that users have."""

import json

import numpy as np
import tensorflow as tf

from eet_tf import CombinedLoss, EETLoss, NormalizedSoftmaxLoss, ProxyAnchorLoss, make_strategy, plans, replicas
from tests.losses import test_class_losses as classes
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
# losses with class vectors, and a sum of two losses of which one has them
WITH_CLASSES = (*classes.CASES, "sum", "softmax_sampled")
NUM_CLASSES, NUM_PHOTOS = 90, 257


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


def with_classes(name):
    """The loss, {name: class vectors} and a batch; half of the classes are there, and some photos share theirs."""
    subcenters = 1
    if name == "sum":
        loss = CombinedLoss([EETLoss(), ProxyAnchorLoss(NUM_CLASSES)], [1.0, 0.5])
    elif name == "softmax_sampled":
        loss = NormalizedSoftmaxLoss(NUM_CLASSES, sampled_classes=60)
    else:
        kind, arguments, _ = classes.CASES[name]
        loss, subcenters = kind(NUM_CLASSES, **arguments), arguments.get("subcenters", 1)
    labels, embeddings, vectors = classes.make_batch(NUM_PHOTOS, 3, NUM_CLASSES, subcenters)
    (each,) = loss.class_vectors_shapes(classes.DIM)
    return loss, {each: vectors}, labels, embeddings


def value_and_gradients(loss, vectors, labels, embeddings):
    """The total over the photos, and its gradients to them and to the class vectors."""
    embeddings, vectors = tf.convert_to_tensor(embeddings), tf.nest.map_structure(tf.convert_to_tensor, vectors)
    with tf.GradientTape() as tape:
        tape.watch([embeddings, vectors])
        terms = loss.terms(labels, embeddings, class_vectors=vectors).values()
        total = tf.add_n([tf.reduce_sum(term) for term in terms])
    return total, *tape.gradient(total, [embeddings, *vectors.values()])


def errors_on_two_replicas(strategy, name, is_compiled):
    """Of the value and both gradients, against one device without XLA; the first replica has more photos."""
    loss, vectors, *batch = with_classes(name)
    expected = value_and_gradients(loss, vectors, *batch)

    @tf.function
    def step(labels, embeddings):
        with plans.compiling_parts(is_compiled):
            return value_and_gradients(loss, vectors, labels, embeddings)

    def shared(array):
        parts = np.split(array, [NUM_PHOTOS // 2 + 3])
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    found = strategy.run(step, args=[shared(each) for each in batch])
    totals, of_photos, of_vectors = (strategy.experimental_local_results(each) for each in found)
    found = sum(totals), tf.concat(of_photos, axis=0), tf.add_n(of_vectors)
    return [float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in zip(found, expected)]


def report_classes():
    """Runs in a process of its own: {setting: errors}."""
    replicas.split_cpu(2)
    strategy = make_strategy("mirrored")
    settings = [(name, is_compiled) for name in WITH_CLASSES for is_compiled in (False, True)]
    print(json.dumps({f"{name}, {each}": errors_on_two_replicas(strategy, name, each) for name, each in settings}))


def test_with_class_vectors_two_replicas_give_what_one_device_gives(run_python):
    """To photos and class vectors; the uncompiled one device is compared with the loops in test_class_losses.py."""
    printed = run_python("from tests.losses import test_compiled_replicas; test_compiled_replicas.report_classes()")
    results = json.loads(printed[0].splitlines()[-1])
    assert len(results) == 2 * len(WITH_CLASSES)
    for name, errors in results.items():
        assert max(errors) < 2e-5, (name, errors)
