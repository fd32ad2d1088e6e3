"""Labels on their way into a loss: integers stay what they are, and what is no class number is refused in our words."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf import (
    AttributeLoss,
    BinomialDevianceLoss,
    EETLoss,
    MetricLearner,
    SoftBinomialDevianceLoss,
    TripletLoss,
    triplet_loss,
)
from eet_tf.losses.labels import class_numbers
from eet_tf.training.memory import CrossBatchMemory

RNG = np.random.default_rng(8)
LABELS = np.array([3, 0, 1, 3, 1, 0, 2, 3])
EMBEDDINGS = RNG.normal(size=[8, 6]).astype(np.float32)
ATTRIBUTES = RNG.integers(-1, 2, size=[8, 3])
LOSSES = {
    "eet": EETLoss(),
    "batch-hard": TripletLoss(),
    "batch-all": TripletLoss(positives="all", negatives="all"),
    "deviance": BinomialDevianceLoss(),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
EAN = 4_006_381_333_931
# What integers of several kinds have in common: float32 has one number for all of them
ALIKE = {
    "ean": LABELS + EAN,
    "list": (LABELS + EAN).tolist(),
    "column": (LABELS + EAN)[:, np.newaxis],
    "negative": -LABELS - EAN,
    "uint64": LABELS.astype(np.uint64) + np.uint64(2**64 - 9),
    "int32": (LABELS + 2**30).astype(np.int32),
    "objects": (LABELS + EAN).astype(object),
    "float64": (LABELS + EAN).astype(np.float64),
}


@every_loss
@pytest.mark.parametrize("kind", ALIKE)
def test_large_labels_are_as_small_ones(kind, name):
    expected = float(LOSSES[name](LABELS, EMBEDDINGS))
    assert float(LOSSES[name](ALIKE[kind], EMBEDDINGS)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@every_loss
def test_in_a_graph_too(name, jit_compile):
    function = tf.function(LOSSES[name], jit_compile=jit_compile)
    expected = float(LOSSES[name](LABELS, EMBEDDINGS))
    for kind in ("ean", "uint64"):
        assert float(function(ALIKE[kind], EMBEDDINGS)) == pytest.approx(expected, rel=1e-6)


def test_two_heads_take_them_too():
    outputs = {"embedding": EMBEDDINGS, "attributes": EMBEDDINGS[:, :3]}
    values = [
        float(SoftBinomialDevianceLoss()({"label": labels, "attributes": ATTRIBUTES}, outputs))
        for labels in (LABELS, LABELS + EAN)
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_loss_in_half_precision_keeps_them(dtype):
    """256 of bfloat16 and 2,048 of float16 are the first that have a number in common with the next."""
    values = [float(TripletLoss(dtype=dtype)(labels, EMBEDDINGS)) for labels in (LABELS, LABELS + 2048, LABELS + EAN)]
    assert values[0] > 0.1
    assert values == pytest.approx([values[0]] * 3)


def make_model(kind):
    keras.utils.set_random_seed(0)
    embedder = keras.Sequential([keras.Input([6]), keras.layers.Dense(4)])
    if kind == "keras":
        return embedder
    return MetricLearner(embedder, **({"memory_size": 12, "memory_start": 0} if kind == "memory" else {}))


def trained(kind, loss, labels, **how):
    """The loss of two steps of plain gradient descent: NumPy arrays first, and then a dataset."""
    model = make_model(kind)
    model.compile(keras.optimizers.SGD(0.1), loss, **how)
    dataset = tf.data.Dataset.from_tensor_slices((EMBEDDINGS, labels)).batch(8)
    histories = [model.fit(*data, shuffle=False, verbose=0) for data in ((EMBEDDINGS, labels), (dataset,))]
    return [history.history["loss"][0] for history in histories]


@pytest.mark.parametrize("kind", ["keras", "learner", "memory"])
def test_training_tells_large_labels_apart(kind):
    small = trained(kind, EETLoss(), LABELS)
    assert small[0] != small[1]  # it learns
    for labels in (LABELS + EAN, LABELS.astype(np.uint64) + np.uint64(2**64 - 9)):
        assert trained(kind, EETLoss(), labels) == pytest.approx(small, rel=1e-6)


def test_training_compiled_by_xla_tells_them_apart():
    small, large = (trained("keras", TripletLoss(), labels, jit_compile=True) for labels in (LABELS, LABELS + EAN))
    assert large == pytest.approx(small, rel=1e-6)


def test_a_learner_with_a_dict_of_targets_tells_them_apart():
    losses = []
    for labels in (LABELS, LABELS + EAN):
        model = make_model("learner")
        model.compile("sgd", TripletLoss())
        targets = {"label": labels, "attributes": ATTRIBUTES}
        losses += model.fit(EMBEDDINGS, targets, shuffle=False, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_memory_tells_them_apart():
    memory = CrossBatchMemory(8, 6, start=0)
    memory.add(EMBEDDINGS, (LABELS.astype(np.uint64) + np.uint64(2**64 - 9))[:, np.newaxis])
    rows = memory.rows()
    assert len(np.unique(rows.labels)) == 4
    without = make_values(TripletLoss(), LABELS, eet_tf.losses.batch.Remembered(EMBEDDINGS, LABELS))
    found = make_values(TripletLoss(), ALIKE["uint64"], rows)
    np.testing.assert_allclose(found, without, rtol=1e-5)


def make_values(loss, labels, memory):
    unit = EMBEDDINGS / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
    memory = memory._replace(embeddings=tf.constant(unit))
    return loss.terms(labels, EMBEDDINGS[::-1].copy(), memory)["margin"].numpy()


STRINGS = np.array(["mug", "cup", "mug", "cup", "pot", "pot", "jug", "jug"])
REFUSED = {
    "strings": (STRINGS, "Received: strings. Number the skus: the labels of a Catalog are such numbers"),
    "bytes": (STRINGS.astype(bytes), "Received: strings. Number the skus"),
    "string objects": (STRINGS.astype(object), "Received: strings. Number the skus"),
    "string tensor": (tf.constant(STRINGS), "Received: strings. Number the skus"),
    "list of strings": (STRINGS.tolist(), "Received: strings. Number the skus"),
    "nothing": ([None] * 8, "Received: None in row 0. Number the skus"),
    "mixed": (["a", 1, None, 3, 4, 5, 6, 7], "Received: a str in row 0. Number the skus"),
    "ragged": ([[1], [2, 3]], "Received: rows of several lengths. Number the skus"),
    "complex": (LABELS + 1j, "Received: values of type complex128. Number the skus"),
    "fraction": (LABELS + 0.5, "whole numbers, below .* Received: 3.5 in row 0. Give integers"),
    "nan": (np.where(LABELS == 2, np.nan, LABELS), "whole numbers, .* Received: nan in row 6. Give integers"),
    "infinity": (np.where(LABELS == 2, np.inf, LABELS), "whole numbers, .* Received: inf in row 6"),
    "float32": ((LABELS + EAN).astype(np.float32), "below 16,777,216 where they are float32, .* Received: 4006381"),
    "2^24": (
        tf.constant([0.0] * 7 + [2.0**24]),
        "below 16,777,216 where they are float32.* Received: 16777216 in row 7",
    ),
    "-2^24": (tf.constant([0.0] * 7 + [-(2.0**24)]), "below 16,777,216 where they are float32"),
    "float16": (tf.constant([0.0] * 7 + [2048], tf.float16), "below 2,048 where they are float16"),
    "float64": (np.array([0.0] * 7 + [2.0**53]), "below 9,007,199,254,740,992 where they are float64"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_class_number_is_refused(kind):
    labels, message = REFUSED[kind]
    for function in (lambda labels: EETLoss()(labels, EMBEDDINGS), lambda labels: triplet_loss(labels, EMBEDDINGS)):
        with pytest.raises(ValueError, match=f"`y_true` must be .*{message}"):
            function(labels)
    with pytest.raises(ValueError, match=f"`labels` must be .*{message}"):
        CrossBatchMemory(8, 6).add(EMBEDDINGS, labels)


@pytest.mark.parametrize("kind", ["keras", "learner", "memory"])
def test_training_with_strings_is_refused(kind):
    """Of an array of dtype `<U3` Keras 3 itself says `Invalid dtype: str96` before it knows any loss."""
    labels = STRINGS.astype(object)
    model = make_model(kind)
    model.compile("sgd", EETLoss())
    for batches in ((EMBEDDINGS, labels), (tf.data.Dataset.from_tensor_slices((EMBEDDINGS, labels)).batch(8),)):
        with pytest.raises(ValueError, match="must be integer labels. Received: strings. Number the skus"):
            model.fit(*batches, shuffle=False, verbose=0)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("wrong", [1.5, np.nan, 2.0**24], ids=["fraction", "nan", "2^24"])
def test_in_a_graph_a_wrong_float_makes_the_loss_nan(wrong, jit_compile):
    """Its value cannot be seen there. One trace for right and wrong labels."""
    function = tf.function(TripletLoss(), jit_compile=jit_compile)
    labels = tf.constant(LABELS, tf.float32)
    assert float(function(labels, EMBEDDINGS)) == pytest.approx(float(TripletLoss()(LABELS, EMBEDDINGS)), rel=1e-6)
    assert np.isnan(float(function(tf.tensor_scatter_nd_update(labels, [[2]], [wrong]), EMBEDDINGS)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.float32, np.float64, bool])
def test_numbers_keep_their_order_and_value(dtype):
    labels = np.array([[1], [0], [100]]).astype(dtype)
    np.testing.assert_array_equal(class_numbers(labels)[0], labels.astype(np.int64))


def test_attributes_are_no_labels():
    """Fractions are probabilities there."""
    value = AttributeLoss()([[0.25, 0.75]], [[0.0, 0.0]])
    assert float(value) == pytest.approx(np.log(2), rel=1e-6)


def test_messages_name_no_operation():
    for labels, _ in REFUSED.values():
        with pytest.raises(ValueError) as error:  # noqa: PT011
            TripletLoss()(labels, EMBEDDINGS)
        assert not re.search(r"tf\.|Tensor|np\.str|array\(|\{\{", str(error.value))
