"""Distillation against loops: how far each embedding is from its teacher's, alone and beside another loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    BinomialDevianceLoss,
    CombinedLoss,
    DistillationLoss,
    EETLoss,
    MetricLearner,
    NormalizedSoftmaxLoss,
    PrefixLoss,
    SoftBinomialDevianceLoss,
)
from eet_tf.losses.batch import Remembered
from tests import reference_gradients
from tests.losses.settings import make_batch, make_memory

LABELS, EMBEDDINGS, ATTRIBUTES = make_batch(96)
TEACHER = make_batch(96, seed=5)[1]
TARGETS, OUTPUTS = {"label": LABELS, "teacher": TEACHER}, {"embedding": EMBEDDINGS}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def distances_by_loops(embeddings, teacher):
    """1 - cosine of each photo."""
    found = []
    for f, g in zip(np.float64(embeddings), np.float64(teacher)):
        found.append(1 - sum(a * b for a, b in zip(f, g)) / np.sqrt(sum(f * f) * sum(g * g)))
    return np.array(found)


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_every_photo_is_the_loops(weight):
    terms = DistillationLoss(weight=weight).terms(TARGETS, OUTPUTS)
    assert list(terms) == ["distillation"]
    np.testing.assert_allclose(terms["distillation"], weight * distances_by_loops(EMBEDDINGS, TEACHER), atol=1e-6)


def test_the_gradient_is_the_loops_and_none_flows_to_the_teacher():
    """d(1 - f.g / |f|) / df = (cos f / |f| - g) / |f|, of unit g."""
    embeddings, teacher = tf.constant(EMBEDDINGS), tf.constant(TEACHER)
    with tf.GradientTape() as tape:
        tape.watch([embeddings, teacher])
        loss = DistillationLoss()({"label": LABELS, "teacher": teacher}, {"embedding": embeddings})
    slopes, of_teacher = tape.gradient(loss, [embeddings, teacher])
    assert of_teacher is None
    f, g = np.float64(unit(EMBEDDINGS)), np.float64(unit(TEACHER))
    cosines = np.sum(f * g, axis=1, keepdims=True)
    expected = (cosines * f - g) / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True) / len(LABELS)
    np.testing.assert_allclose(slopes, expected, atol=1e-7)


def test_another_loss_is_added_term_by_term():
    inner, memory = EETLoss(), make_memory()
    terms = DistillationLoss(inner, 0.5).terms(TARGETS, OUTPUTS, memory)
    expected = inner.terms(LABELS, EMBEDDINGS, memory)
    assert list(terms) == [*expected, "distillation"]
    for name, values in expected.items():
        np.testing.assert_array_equal(terms[name], values)
    np.testing.assert_allclose(terms["distillation"], 0.5 * distances_by_loops(EMBEDDINGS, TEACHER), atol=1e-6)


def test_the_teachers_vectors_are_references_that_do_not_move():
    """The other loss's value and gradient are those of loops whose references are the batch and the teacher's."""
    embeddings = tf.constant(EMBEDDINGS)
    loss = DistillationLoss(BinomialDevianceLoss(), 0.0, teacher_references=True)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(TARGETS, {"embedding": embeddings})
    loops = reference_gradients.Batch(LABELS, EMBEDDINGS, np.float64(unit(TEACHER)), LABELS)
    assert float(value) == pytest.approx(reference_gradients.deviance(loops), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(value, embeddings), loops.gradient(), atol=2e-6)


@pytest.mark.parametrize("has_marks", [True, False])
def test_the_teachers_vectors_stand_beside_what_is_remembered(has_marks):
    """With attributes, and with a memory that is not full or that is all there."""
    memory = make_memory()
    memory = memory if has_marks else memory._replace(is_filled=None)
    loss = DistillationLoss(SoftBinomialDevianceLoss(), teacher_references=True)
    targets = {**TARGETS, "attributes": ATTRIBUTES}
    outputs = {**OUTPUTS, "attributes": EMBEDDINGS[:, :6]}
    filled = memory.is_filled.numpy() if has_marks else np.ones(48, bool)
    joined = Remembered(
        tf.constant(np.concatenate([unit(TEACHER), memory.embeddings.numpy()[filled]])),
        tf.constant(np.concatenate([LABELS, memory.labels.numpy()[filled]])),
        tf.constant(np.concatenate([ATTRIBUTES, memory.attributes.numpy()[filled]]).astype(np.float32)),
    )
    expected = loss.loss.terms(targets, outputs, joined)
    found = loss.terms(targets, outputs, memory)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


def test_prefixes_of_the_student_meet_prefixes_of_the_teacher():
    values = PrefixLoss(DistillationLoss(), [4, 16]).call(TARGETS, OUTPUTS)
    expected = [distances_by_loops(EMBEDDINGS[:, :length], TEACHER[:, :length]) for length in (4, 16)]
    np.testing.assert_allclose(values, np.mean(expected, axis=0), atol=1e-6)


def test_a_learner_reaches_its_teacher():
    """A linear student of a linear teacher: pure distillation, without a partner in any batch and without a warning."""
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(1).normal(size=[64, 8]).astype(np.float32)
    teacher = images @ np.random.default_rng(2).normal(size=[8, 4]).astype(np.float32)
    learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4, use_bias=False)]))
    learner.compile(keras.optimizers.Adam(0.05), DistillationLoss(), jit_compile=True)
    targets = {"label": np.arange(64), "teacher": teacher}
    history = learner.fit(images, targets, batch_size=32, epochs=40, verbose=0).history
    assert sorted(history) == ["distillation", "loss"]
    assert history["loss"][-1] < 0.01 < history["loss"][0]


@pytest.mark.parametrize("shape", [(96, 8), (95, 16), (96,)])
def test_a_teacher_of_another_shape_is_refused(shape):
    targets = {"label": LABELS, "teacher": np.zeros(shape, np.float32)}
    with pytest.raises(ValueError, match="`teacher` must have a vector for each embedding.*teacher's embedding_dim"):
        DistillationLoss().terms(targets, OUTPUTS)


def test_a_missing_teacher_is_named():
    learner = MetricLearner(keras.Sequential([keras.Input([16]), keras.layers.Dense(16)]))
    learner.compile("sgd", DistillationLoss())
    with pytest.raises(ValueError, match="`y_true` must be a dict with 'teacher'.*y_true is a dict of label"):
        learner.fit(EMBEDDINGS, LABELS, verbose=0)


@pytest.mark.parametrize("loss", [DistillationLoss(), DistillationLoss(EETLoss()), PrefixLoss(DistillationLoss())])
def test_keras_alone_is_told_what_to_do(loss):
    model = keras.Sequential([keras.Input([16]), keras.layers.Dense(16)])
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match="must be a dict with .* need eet_tf.MetricLearner"):
        model.evaluate(EMBEDDINGS, LABELS, verbose=0)


def test_a_loss_with_class_vectors_beside_the_distillation():
    rng = np.random.default_rng(5)
    labels, vectors = LABELS % 7, rng.normal(size=[7, 16]).astype(np.float32)
    inner = NormalizedSoftmaxLoss(7)
    loss = DistillationLoss(inner, weight=0.5)
    assert loss.class_vectors_shapes(16) == {"normalized_softmax": (7, 16)}
    teacher = rng.normal(size=EMBEDDINGS.shape).astype(np.float32)
    found = loss.terms({"label": labels, "teacher": teacher}, OUTPUTS, class_vectors={"normalized_softmax": vectors})
    alone = inner.terms(labels, EMBEDDINGS, class_vectors={"normalized_softmax": vectors})["normalized_softmax"]
    np.testing.assert_allclose(found["normalized_softmax"], alone, rtol=1e-5)
    np.testing.assert_allclose(found["distillation"], 0.5 * distances_by_loops(EMBEDDINGS, teacher), atol=1e-5)


def test_a_sum_may_have_a_teacher():
    teacher = np.random.default_rng(6).normal(size=EMBEDDINGS.shape).astype(np.float32)
    loss = CombinedLoss([DistillationLoss(), EETLoss()], [2.0, 1.0])
    found = loss.terms({"label": LABELS, "teacher": teacher}, OUTPUTS)
    np.testing.assert_allclose(found["distillation"], 2 * distances_by_loops(EMBEDDINGS, teacher), atol=1e-5)
    np.testing.assert_allclose(found["margin"], EETLoss().terms(LABELS, EMBEDDINGS)["margin"], atol=1e-6)
