"""NaN in, NaN out: every loss in every setting, and what a training then does. And vectors of zeros, which have no
direction: they stay finite.

Guards keep a loss finite for equal photos or for a class alone. They must not make a number of what is none: a training
whose network is dead would go on at the margin for ever.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    AttributeLoss,
    DistillationLoss,
    EETLoss,
    MetricLearner,
    PrefixLoss,
    SoftBinomialDevianceLoss,
    TripletLoss,
    attribute_loss,
)
from eet_tf.losses.batch import Remembered
from eet_tf.pairs import pairwise
from eet_tf.training.memory import CrossBatchMemory
from eet_tf.training.run import RunError, StopOnNaN
from tests.losses.settings import ALL, COMPARED, NAMES, NUM_ATTRIBUTES, loss_function, make_batch, make_memory

LABELS, EMBEDDINGS, ATTRIBUTES = make_batch(20)


def spoilt(kind, row=7):
    """The batch with one embedding that is not a number, in one place or in all, or is too long for float32."""
    rows = EMBEDDINGS.copy()
    if kind == "one number":
        rows[row, 3] = np.nan
    elif kind == "infinity":
        rows[row, 0] = -np.inf
    elif kind == "too long":
        rows[row] = 1e25
    else:
        rows[row] = np.nan
    return rows


def kind_for(loss, number):
    """Unit vectors and logits may be long; of an infinite logit the test makes a probability."""
    if isinstance(loss, AttributeLoss) or getattr(loss, "from_normalized", False):
        return ["one number", "all"][number % 2]
    return ["one number", "infinity", "too long", "all"][number % 4]


@pytest.mark.parametrize("number, choice", list(enumerate(ALL)), ids=NAMES)
def test_one_embedding_that_is_no_number_makes_the_loss_nan(number, choice):
    """Another kind and another row for each setting; the next test has all kinds."""
    loss = choice[0](**choice[1])
    value, _ = loss_function(loss)(LABELS, tf.constant(spoilt(kind_for(loss, number), number % 20)), ATTRIBUTES)
    assert np.isnan(value)


@pytest.mark.parametrize("mode", [tf.function, tf.function(jit_compile=True)], ids=["graph", "xla"])
@pytest.mark.parametrize("name", COMPARED)
def test_of_every_kind_in_a_graph(name, mode):
    """In every row alike, and with a gradient that says so too: a scaled loss leaves such a step out."""
    function = mode(loss_function(COMPARED[name][0]))
    assert np.isfinite(function(LABELS, tf.constant(EMBEDDINGS), ATTRIBUTES)[0])
    for row, kind in enumerate(["one number", "infinity", "too long", "all"]):
        value, gradient = function(LABELS, tf.constant(spoilt(kind, row)), ATTRIBUTES)
        assert np.isnan(value), kind
        assert np.isnan(gradient[row]).any(), kind


LOSSES = [EETLoss(symmetric_margin=True), TripletLoss(), SoftBinomialDevianceLoss()]
LOSSES += [PrefixLoss(prefixes=[3, 16]), DistillationLoss(), DistillationLoss(SoftBinomialDevianceLoss())]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_term_is_nan(loss):
    targets, outputs = LABELS, spoilt("one number")
    if loss.takes_dicts:
        targets = {"label": targets, "attributes": ATTRIBUTES, "teacher": EMBEDDINGS[:, ::-1]}
        outputs = {"embedding": outputs, "attributes": EMBEDDINGS[:, :NUM_ATTRIBUTES]}
    for name, values in loss.terms(targets, outputs).items():
        assert np.isnan(values).all(), name


@pytest.mark.parametrize("kind", ["one number", "infinity"])
@pytest.mark.parametrize("name", [name for name in COMPARED if name not in ("eet-symmetric", "online-sampling")])
def test_a_memory_that_holds_nan_makes_the_loss_nan(name, kind):
    memory = make_memory()
    embeddings = memory.embeddings.numpy()
    embeddings[5, 2] = np.nan if kind == "one number" else np.inf
    memory = memory._replace(embeddings=tf.constant(embeddings))
    value, _ = loss_function(COMPARED[name][0], memory)(LABELS, tf.constant(EMBEDDINGS), ATTRIBUTES)
    assert np.isnan(value)


def test_a_memory_keeps_nan():
    memory = CrossBatchMemory(4, 3, start=0)
    memory.add([[1.0, np.nan, 0.0], [1e30, 1.0, 0.0], [3.0, 0.0, 4.0]], [0, 1, 2])
    np.testing.assert_allclose(memory.rows().embeddings[:3], [[np.nan] * 3, [np.nan] * 3, [0.6, 0, 0.8]], rtol=1e-6)


def test_attributes_that_are_no_number_make_the_loss_nan():
    """Of the truth, of the network, and of the memory; a photo of which nothing is known included."""
    logits = EMBEDDINGS[:, :NUM_ATTRIBUTES].copy()
    wrong, truth = logits.copy(), ATTRIBUTES.astype(np.float32)
    wrong[4, 1] = np.nan
    wrong_truth = truth.copy()
    wrong_truth[4, 1] = np.nan
    for granularity in ("labels", "predictions"):
        loss = SoftBinomialDevianceLoss(granularity=granularity)
        for spoils, (targets, outputs) in {"labels": (wrong_truth, logits), "predictions": (truth, wrong)}.items():
            terms = loss.terms(
                {"label": LABELS, "attributes": targets}, {"embedding": EMBEDDINGS, "attributes": outputs}
            )
            assert np.isnan(tf.add_n(list(terms.values()))).all() == (spoils == granularity)
    memory = make_memory()
    memory = Remembered(memory.embeddings, memory.labels, memory.attributes * np.nan, memory.is_filled)
    terms = SoftBinomialDevianceLoss().terms(
        {"label": LABELS, "attributes": truth}, {"embedding": EMBEDDINGS, "attributes": logits}, memory
    )
    assert np.isnan(tf.add_n(list(terms.values()))).all()


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_attribute_loss_of_no_number_is_nan(wrong, from_logits):
    """Of the photo that has it alone; also where nothing is known of it."""
    values = attribute_loss(
        [[-1, -1], [0, 1], [1, -1]], [[wrong, 0.5], [0.5, wrong], [0.25, 0.5]], from_logits=from_logits
    )
    np.testing.assert_array_equal(np.isnan(values), [True, True, False])
    values = attribute_loss([[np.nan, 1.0]], [[0.5, 0.5]], from_logits=from_logits)
    assert np.isnan(values).all()


@pytest.mark.parametrize("kind", pairwise.DISTANCES)
def test_distances_of_no_number_are_nan(kind):
    rows = np.array([[np.nan, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    found = pairwise.distance_matrix(tf.constant(rows), tf.constant(rows), kind).numpy()
    np.testing.assert_array_equal(np.isnan(found), [[True] * 3, [True, False, False], [True, False, False]])
    assert np.isnan(pairwise.distance(tf.constant(rows[:1]), tf.constant(rows[1:2]), kind))


@pytest.mark.parametrize("number, choice", list(enumerate(ALL)), ids=NAMES)
def test_a_vector_of_zeros_is_a_number(number, choice):
    """It has no direction and stays as it is, at distance 1 from all others: loss and gradient are finite."""
    rows = EMBEDDINGS.copy()
    rows[[number % 20, (number + 3) % 20]] = 0.0
    value, gradient = loss_function(choice[0](**choice[1]))(LABELS, tf.constant(rows), ATTRIBUTES)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_rows_of_length_one():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0], [1e18, 1e18], [1e20, 0.0], [np.inf, 1.0], [np.nan, 1.0]])
    expected = [[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5] * 2, [np.nan] * 2, [np.nan] * 2, [np.nan] * 2]
    np.testing.assert_allclose(pairwise.unit_rows(tf.constant(rows, tf.float32)), expected, rtol=1e-6)
    as_before = tf.math.l2_normalize(tf.constant(EMBEDDINGS), axis=-1)
    np.testing.assert_array_equal(pairwise.unit_rows(tf.constant(EMBEDDINGS)), as_before)


def make_model(wrapped):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([16]), keras.layers.Dense(4)])
    return MetricLearner(model) if wrapped else model


@pytest.mark.parametrize("wrapped", [False, True], ids=["keras", "learner"])
@pytest.mark.parametrize("name", ["eet", "batch-all", "deviance"])
def test_a_training_stops_at_the_step(name, wrapped):
    """The last photo of the first of five batches is no number: the batch is the last one, and the epoch too."""
    images = np.concatenate([EMBEDDINGS] * 5)
    images[19, 2] = np.nan
    labels = np.concatenate([LABELS] * 5)
    steps = []
    notes = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: steps.append(logs["loss"]))
    stops = keras.callbacks.TerminateOnNaN()
    model = make_model(wrapped)
    model.compile("sgd", COMPARED[name][0])
    history = model.fit(images, labels, batch_size=20, epochs=3, shuffle=False, verbose=0, callbacks=[notes, stops])
    assert len(history.history["loss"]) == 1
    assert np.isnan(steps[0])
    model = make_model(wrapped)
    model.compile("sgd", COMPARED[name][0])
    with pytest.raises(RunError, match="The loss is nan at epoch 1, step 1"):
        model.fit(images, labels, batch_size=20, epochs=3, shuffle=False, verbose=0, callbacks=[StopOnNaN()])
