"""A last batch that replicas cannot share equally, or at all: one update, as on one device with the same photos.

Keras's own trainer takes the mean over each replica's photos, and then over the replicas.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    AttributeLoss,
    BinomialDevianceLoss,
    EETLoss,
    MetricLearner,
    SoftBinomialDevianceLoss,
    TripletLoss,
    make_strategy,
    replicas,
)

RNG = np.random.default_rng(12)
LABELS = np.array([5, 2, 5, 2, 9, 2, 5, 9, 2])
IMAGES = RNG.normal(size=[9, 6]).astype(np.float32)
ATTRIBUTES = RNG.integers(-1, 2, size=[9, 4])
# Photos of an epoch in batches of 4: a last batch of one, of which the second replica gets none, and one of three
COUNTS = (9, 7)
TRAININGS = {
    "keras": lambda: {"loss": EETLoss(symmetric_margin=True)},
    "keras_of_attributes": lambda: {"loss": AttributeLoss()},
    "learner_compiled_with_memory": lambda: {"loss": TripletLoss(), "memory_size": 6, "jit_compile": True},
    "learner_in_pieces": lambda: {"loss": EETLoss(), "microbatch": 2},
    "learner_of_means": lambda: {"loss": MeanLength(), "attribute_loss": mean_error, "metrics": [mean_length]},
    "learner_of_two_heads": lambda: {
        "loss": SoftBinomialDevianceLoss(negative_cost=2.0, granularity="predictions"),
        "attribute_loss": AttributeLoss(),
        "attribute_weight": 0.5,
    },
}


def mean_length(labels, embeddings):
    return tf.reduce_mean(tf.reduce_sum(tf.square(embeddings), axis=1) / tf.cast(labels, tf.float32))


def mean_error(attributes, predictions):
    return tf.reduce_mean(tf.square(tf.cast(attributes, tf.float32) - predictions))


class MeanLength(keras.losses.Loss):
    """A loss of somebody else's that takes the mean itself."""

    def call(self, y_true, y_pred):
        return mean_length(y_true, y_pred)


def make_embedder(has_two_heads):
    images = keras.Input([6])
    hidden = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.05))(images)
    embedding = keras.layers.Dense(4)(hidden)
    heads = {"embedding": embedding, "attributes": keras.layers.Dense(4)(hidden)} if has_two_heads else embedding
    return keras.Model(images, heads)


def make_dataset(targets, count):
    targets = tf.nest.map_structure(lambda each: each[:count], targets)
    return tf.data.Dataset.from_tensor_slices((IMAGES[:count], targets)).batch(4)


def train(name, strategy):
    """Three steps and two of plain gradient descent: the histories, an evaluation, and every weight."""
    keras.utils.set_random_seed(7)
    targets = ATTRIBUTES if name == "keras_of_attributes" else LABELS
    with strategy.scope():
        arguments = TRAININGS[name]()
        memory_size = arguments.pop("memory_size", 0)
        has_two_heads = "attribute_loss" in arguments
        embedder = make_embedder(has_two_heads)
        model = MetricLearner(embedder, memory_size, memory_start=1) if name.startswith("learner") else embedder
        model.compile(optimizer=keras.optimizers.SGD(0.2), **arguments)
    if has_two_heads:
        targets = {"label": LABELS, "attributes": ATTRIBUTES}
    histories = [model.fit(make_dataset(targets, count), shuffle=False, verbose=0).history for count in COUNTS]
    evaluated = model.evaluate(make_dataset(targets, 9), verbose=0, return_dict=True)
    held = [] if not memory_size else [field.numpy().tolist() for field in model.memory.rows()]
    weights = [weight.tolist() for weight in embedder.get_weights()]
    return {"histories": histories, "evaluated": evaluated, "weights": weights, "memory": held}


def train_of_images(strategy):
    """Of a network that a CPU cannot run without an image: the losses, and whether each weight is a number."""
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
    with strategy.scope():
        model = MetricLearner(keras.Sequential([keras.Input([6, 6, 3]), *layers]))
        model.compile(keras.optimizers.SGD(0.1), TripletLoss(positives="all", negatives="all"))
    images = np.random.default_rng(1).normal(size=[9, 6, 6, 3]).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4)
    losses = [
        *model.fit(dataset, verbose=0, shuffle=False).history["loss"],
        model.evaluate(dataset, verbose=0, return_dict=True)["loss"],
    ]
    return losses, [bool(np.isfinite(weight).all()) for weight in model.get_weights()]


def nan_on_one_replica(strategy):
    """The losses that each replica of two has of a batch with a NaN on the second."""
    rows = IMAGES[:8].copy()
    rows[6, 1] = np.nan
    found = {}

    def share(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(np.split(array, 2)[context.replica_id_in_sync_group])
        )

    for name, loss in {"triplet": TripletLoss(), "deviance": BinomialDevianceLoss()}.items():
        losses = strategy.run(tf.function(loss.call), args=(share(LABELS[:8]), share(rows)))
        found[name] = [bool(np.isnan(each).all()) for each in strategy.experimental_local_results(losses)]
    return found


def report(strategy_name):
    """Runs in a process of its own: trains under a strategy and prints what came out."""
    if strategy_name == "mirrored":
        replicas.split_cpu(2)
    strategy = make_strategy(strategy_name)
    result = {name: train(name, strategy) for name in TRAININGS}
    if strategy_name == "mirrored":
        result |= {"images": train_of_images(strategy), "nan": nan_on_one_replica(strategy)}
    print(json.dumps({"num_replicas": strategy.num_replicas_in_sync, **result}))


@pytest.fixture(scope="module")
def trainings(run_python):
    """What was trained on one replica and on two."""
    code = "from tests.training import test_ragged_batches; test_ragged_batches.report({!r})"
    printed = run_python(*[code.format(name) for name in ("default", "mirrored")])
    one, two = (json.loads(text.splitlines()[-1]) for text in printed)
    assert (one.pop("num_replicas"), two.pop("num_replicas")) == (1, 2)
    return one, two


@pytest.mark.parametrize("name", TRAININGS)
def test_the_update_is_that_of_one_device(name, trainings):
    one, two = (each[name] for each in trainings)
    for expected, weight in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(weight, expected, rtol=0, atol=2e-6)
    for expected, field in zip(one["memory"], two["memory"], strict=True):
        np.testing.assert_allclose(field, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", TRAININGS)
def test_what_is_logged_is_that_of_one_device(name, trainings):
    one, two = (each[name] for each in trainings)
    for expected, history in zip(one["histories"], two["histories"], strict=True):
        assert set(history) == set(expected)
        for logged, values in expected.items():
            assert history[logged] == pytest.approx(values, rel=1e-5, abs=1e-6), logged
    assert two["evaluated"] == pytest.approx(one["evaluated"], rel=1e-5, abs=1e-6)


def test_a_replica_without_an_image_does_not_fail_and_spoils_no_statistics(trainings):
    losses, are_numbers = trainings[1]["images"]
    assert np.isfinite(losses).all() and len(losses) == 2
    assert all(are_numbers)


def test_nan_on_one_replica_is_nan_on_all(trainings):
    assert trainings[1]["nan"] == {name: [True, True] for name in ("triplet", "deviance")}


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    "loss",
    [EETLoss(), TripletLoss(), TripletLoss(positives="all", negatives="semi_hard"), BinomialDevianceLoss()],
    ids=["eet", "hard", "semi-hard", "deviance"],
)
def test_a_batch_without_photos_loses_nothing(loss, jit_compile):
    """In one trace with a batch that has some."""

    @tf.function(
        jit_compile=jit_compile, input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 6], tf.float32)]
    )
    def both(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return value, tape.gradient(value, embeddings)

    value, gradient = both(LABELS, IMAGES)
    assert float(value) == pytest.approx(float(loss(LABELS, IMAGES)), rel=1e-5)
    assert gradient.shape == [9, 6]
    value, gradient = both(LABELS[:0], IMAGES[:0])
    assert float(value) == 0.0
    assert gradient.shape == [0, 6]
    assert float(loss(LABELS[:0], IMAGES[:0])) == 0.0
    assert loss.call(LABELS[:0], IMAGES[:0]).shape == [0]


def test_two_heads_without_photos_lose_nothing():
    targets = {"label": LABELS[:0], "attributes": ATTRIBUTES[:0]}
    outputs = {"embedding": IMAGES[:0], "attributes": IMAGES[:0, :4]}
    assert float(SoftBinomialDevianceLoss()(targets, outputs)) == 0.0
    assert float(AttributeLoss()(ATTRIBUTES[:0], IMAGES[:0, :4])) == 0.0


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_reductions_of_nothing_are_numbers(reduction):
    assert TripletLoss(reduction=reduction)(LABELS[:0], IMAGES[:0]).shape == []
