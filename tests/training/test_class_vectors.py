"""Class vectors are weights of the learner: made by `compile`, trained, saved, gone on with; no embedder has them."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    ArcFaceLoss,
    CombinedLoss,
    EETLoss,
    MetricLearner,
    NormalizedSoftmaxLoss,
    ProxyAnchorLoss,
    build_embedder,
    export_embedder,
    load_embedder,
)
from eet_tf.training.run import Progress, RunFolder

LABELS = np.random.default_rng(1).integers(0, 10, 64)
IMAGES = (np.eye(10, 6)[LABELS] + 0.5 * np.random.default_rng(0).normal(size=[64, 6])).astype(np.float32)


def make_learner(memory_size=0):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(7, activation="tanh"), keras.layers.Dense(4)]
    return MetricLearner(keras.Sequential([keras.Input([6]), *layers]), memory_size)


def compiled(loss, optimizer=None, **arguments):
    learner = make_learner(arguments.pop("memory_size", 0))
    learner.compile(optimizer or keras.optimizers.SGD(0.1), loss, **arguments)
    return learner


def fit(learner, epochs=1, **arguments):
    return learner.fit(IMAGES, LABELS, batch_size=32, epochs=epochs, shuffle=False, verbose=0, **arguments).history


def weights_of(learner):
    return [np.asarray(weight) for weight in learner.trainable_variables]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rate, microbatch", [(None, None), (0.3, 7)])
@pytest.mark.parametrize(
    "loss", [NormalizedSoftmaxLoss(10), ProxyAnchorLoss(10, scale=2.0)], ids=lambda loss: loss.name
)
def test_one_step_is_gradient_descent_on_both(loss, microbatch, rate):
    """At the rate that was given, or the paper's for the proxies."""
    learner = compiled(loss, microbatch=microbatch, class_vectors_rate=rate)
    same = compiled(loss)
    assert_same(weights_of(learner), weights_of(same))
    (name,) = loss.term_names
    with tf.GradientTape() as tape:
        vectors = same.class_vectors.by_name()
        value = tf.reduce_mean(loss.terms(LABELS, same.embedder(IMAGES), class_vectors=vectors)[name])
    gradients = tape.gradient(value, same.trainable_variables)
    learner.fit(IMAGES, LABELS, batch_size=64, verbose=0)
    rates = [0.1] * 4 + [0.1 * (rate or (100 if name == "proxy_anchor" else 1))]
    for found, start, gradient, step in zip(weights_of(learner), weights_of(same), gradients, rates, strict=True):
        np.testing.assert_allclose(found, start - step * gradient, rtol=1e-4, atol=1e-5 * step * 10)


@pytest.mark.parametrize("policy", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.long), "mixed_float16"])
@pytest.mark.parametrize(
    "loss",
    [NormalizedSoftmaxLoss(10), ArcFaceLoss(10, scale=16.0, subcenters=2), ProxyAnchorLoss(10)],
    ids=lambda loss: loss.name,
)
def test_training_lowers_the_loss_in_every_precision(loss, policy, set_policy):
    set_policy(policy)
    learner = compiled(loss, keras.optimizers.Adam(0.01), class_vectors_rate=2.0)
    history = fit(learner, 12)["loss"]
    assert history[-1] < 0.8 * history[0]
    vectors = learner.class_vectors.trainable_variables[0]
    assert vectors.dtype == "float32" and np.isfinite(np.asarray(vectors)).all()


def test_compiled_by_xla_it_is_the_same():
    loss = CombinedLoss([EETLoss(), NormalizedSoftmaxLoss(14, sampled_classes=12), ArcFaceLoss(10, scale=8.0)])
    plain, compiled_by_xla = (compiled(loss, jit_compile=each) for each in (False, True))
    for learner in (plain, compiled_by_xla):
        fit(learner)
    for found, expected in zip(weights_of(compiled_by_xla), weights_of(plain), strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_evaluation_has_the_loss_and_moves_nothing():
    learner = compiled(NormalizedSoftmaxLoss(10))
    before = weights_of(learner)
    found = learner.evaluate(IMAGES, LABELS, batch_size=64, verbose=0, return_dict=True)
    vectors = learner.class_vectors.by_name()
    expected = NormalizedSoftmaxLoss(10).terms(LABELS, learner.embedder(IMAGES), class_vectors=vectors)
    assert found["loss"] == pytest.approx(float(np.mean(expected["normalized_softmax"])), rel=1e-5)
    assert_same(weights_of(learner), before)


# Saved and gone on with


def test_a_saved_learner_goes_on_as_if_it_had_not_been_saved(tmp_path):
    loss = CombinedLoss([ArcFaceLoss(10, scale=8.0), ProxyAnchorLoss(10)], [1.0, 0.1])
    learner = compiled(loss, keras.optimizers.Adam(0.01, use_ema=True), class_vectors_rate=3.0)
    fit(learner)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert_same(loaded.get_weights(), learner.get_weights())
    assert fit(loaded) == {name: pytest.approx(values) for name, values in fit(learner).items()}
    assert_same(weights_of(loaded), weights_of(learner))
    assert list(loaded.class_vectors.by_name()) == ["arcface", "proxy_anchor"]


def test_without_its_compilation_the_vectors_are_there_for_the_next_one(tmp_path):
    learner = compiled(ArcFaceLoss(10))
    fit(learner)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras", compile=False)
    assert_same(weights_of(loaded), weights_of(learner))
    loaded.compile(keras.optimizers.SGD(0.01), ArcFaceLoss(10, margin=0.1))
    assert_same(weights_of(loaded), weights_of(learner))
    fit(loaded)


def test_a_clone_has_vectors_of_its_own():
    learner = compiled(ArcFaceLoss(10))
    clone = keras.models.clone_model(learner)
    assert [each.shape for each in weights_of(clone)] == [each.shape for each in weights_of(learner)]


def test_checkpoints_of_keras_have_them(tmp_path):
    learner = compiled(NormalizedSoftmaxLoss(10))
    whole, alone = (os.fspath(tmp_path / name) for name in ("{epoch}.keras", "{epoch}.weights.h5"))
    checkpoints = [
        keras.callbacks.ModelCheckpoint(whole),
        keras.callbacks.ModelCheckpoint(alone, save_weights_only=True),
    ]
    fit(learner, 2, callbacks=checkpoints)
    assert_same(weights_of(keras.models.load_model(whole.format(epoch=2))), weights_of(learner))
    other = compiled(NormalizedSoftmaxLoss(10), keras.optimizers.SGD(0.1))
    fit(other)
    other.load_weights(alone.format(epoch=2))
    assert_same(weights_of(other), weights_of(learner))


def test_a_run_goes_on_with_them(tmp_path):
    """As `eet train` does: what was trained for one epoch, restored and trained for another, is that of two."""
    whole = compiled(NormalizedSoftmaxLoss(14, sampled_classes=12), keras.optimizers.Adam(0.01))
    fit(whole, 2)
    for epoch in (0, 1):
        learner = compiled(NormalizedSoftmaxLoss(14, sampled_classes=12), keras.optimizers.Adam(0.01))
        run = RunFolder(os.fspath(tmp_path / "run"), {"loss": "normalized_softmax"})
        progress = Progress(run, learner)
        assert progress.restore() == epoch
        fit(learner, epoch + 1, initial_epoch=epoch, callbacks=[progress])
        run._lock.close()
    for found, expected in zip(weights_of(learner), weights_of(whole), strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_embedder_has_none(tmp_path):
    learner = compiled(NormalizedSoftmaxLoss(10))
    fit(learner)
    learner.save(tmp_path / "learner.keras")
    embedder = load_embedder(os.fspath(tmp_path / "learner.keras"))
    count = sum(weight.size for weight in weights_of(learner))
    assert embedder.count_params() == learner.embedder.count_params() == count - 40
    np.testing.assert_array_equal(embedder(IMAGES), learner(IMAGES))
    learner.export(os.fspath(tmp_path / "exported"))
    exported = tf.saved_model.load(os.fspath(tmp_path / "exported"))
    assert sorted(each.shape.as_list() for each in exported.variables) == [[4], [6, 7], [7], [7, 4]]


def test_what_a_server_runs_has_none(tmp_path):
    learner = MetricLearner(build_embedder("small_cnn", 8, image_size=32))
    learner.compile("sgd", NormalizedSoftmaxLoss(num_classes=77))
    export_embedder(learner, os.fspath(tmp_path / "export"))
    (index,) = (tmp_path / "export").rglob("variables.index")
    shapes = [shape for _, shape in tf.train.list_variables(os.fspath(index.with_suffix("")))]
    assert any(8 in shape for shape in shapes) and not any(77 in shape for shape in shapes)


# What does not fit


def test_compiling_again_keeps_them():
    learner = compiled(ArcFaceLoss(10))
    fit(learner)
    before = weights_of(learner)
    learner.compile("adam", ArcFaceLoss(10, margin=0.2))
    assert_same(weights_of(learner), before)


@pytest.mark.parametrize("loss", [ArcFaceLoss(11), ArcFaceLoss(10, subcenters=2), NormalizedSoftmaxLoss(10), EETLoss()])
def test_compiling_again_with_others_is_refused_and_changes_nothing(loss):
    learner = compiled(ArcFaceLoss(10))
    message = r"`loss` must be one whose class vectors are those that this learner has, arcface \[10, 4\]. Received"
    with pytest.raises(ValueError, match=message):
        learner.compile("adam", loss)
    fit(learner)
    other = MetricLearner(learner.embedder)
    other.compile("sgd", loss)
    fit(other)


def test_an_embedder_that_knows_no_shape_yet_is_refused():
    learner = MetricLearner(keras.Sequential([keras.layers.Dense(4)]))
    with pytest.raises(
        ValueError, match="`loss` must have no class vectors where .* keras.Input. Received: loss=ArcFace"
    ):
        learner.compile("sgd", ArcFaceLoss(10))


def test_a_memory_is_refused_where_no_loss_has_a_use_for_it():
    with pytest.raises(ValueError, match="`loss` must compare photos .*Received: ArcFaceLoss.*eet_tf.CombinedLoss"):
        compiled(ArcFaceLoss(10), memory_size=8)
    learner = compiled(CombinedLoss([ArcFaceLoss(10), EETLoss()]), memory_size=8)
    assert set(fit(learner)) == {"loss", "arcface", "margin", "equidistant", "max_min", "equal_minima"}


def test_a_batch_of_different_classes_is_no_reason_to_warn():
    compiled(NormalizedSoftmaxLoss(64)).fit(IMAGES, np.arange(64), batch_size=32, verbose=0)  # warnings are errors
