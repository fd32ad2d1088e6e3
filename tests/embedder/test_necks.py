"""The neck: what a loss sees before it, what a search sees after it, and that nobody else hears of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    AttributeLoss,
    EETLoss,
    MetricLearner,
    SoftBinomialDevianceLoss,
    TripletLoss,
    build_embedder,
    export_embedder,
    load_embedder,
)
from eet_tf.embedder.heads import attribute_names
from eet_tf.embedder.necks import NECKS
from eet_tf.evaluation.callback import embed
from eet_tf.losses.base import MetricLoss
from eet_tf.serving import ServedEmbedder, embedder_fingerprint

SIZE, DIM, B = 32, 8, 64
RNG = np.random.default_rng(0)
PHOTOS = RNG.uniform(0, 255, [B, SIZE, SIZE, 3]).astype(np.float32)
LABELS = np.arange(B) // 4
every_neck = pytest.mark.parametrize("neck", NECKS)


class AfterNeck(MetricLoss):
    """The squared first number of each vector, where a loss with vectors of classes looks."""

    looks_after_neck = True

    def terms(self, labels, embeddings, memory=None):
        return {"first": tf.square(tf.cast(embeddings[:, 0], tf.float32))}


class BeforeNeck(AfterNeck):
    """The same, where a loss of pairs looks."""

    looks_after_neck = False


STATISTICS = [RNG.uniform(0.5, 2, DIM), RNG.normal(size=DIM) / 10, RNG.uniform(0.1, 3, DIM)]


def embedder(neck, **arguments):
    keras.utils.set_random_seed(4)
    return build_embedder("small_cnn", DIM, image_size=SIZE, neck=neck, **arguments)


def used(neck, **arguments):
    """With a batch normalisation that changes something, as that of a new model in inference does not."""
    model = embedder(neck, **arguments)
    if neck == "batch_norm":
        model.get_layer("batch_norm_neck").set_weights(STATISTICS)  # no fourth one: an offset
    return model


def numpy_unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def projected(model):
    """What the projection gives, before neck and unit length."""
    return keras.Model(model.input, model.get_layer("projection").output)(PHOTOS).numpy().astype(np.float64)


def test_batch_norm_is_its_formula_in_search():
    """gamma (x - moving mean) / sqrt(moving variance + 1e-5), brought to unit length; no offset."""
    model = used("batch_norm")
    gamma, mean, variance = STATISTICS
    expected = numpy_unit(gamma * (projected(model) - mean) / np.sqrt(variance + 1e-5))
    found = model(PHOTOS, training=False)
    np.testing.assert_allclose(found["embedding"], expected, atol=1e-5)
    np.testing.assert_allclose(found["before_neck"], numpy_unit(projected(model)), atol=1e-5)


def test_layer_norm_is_its_formula_and_learns_nothing():
    model = embedder("layer_norm")
    rows = projected(model)
    centred = rows - rows.mean(axis=1, keepdims=True)
    expected = numpy_unit(centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5))
    np.testing.assert_allclose(model(PHOTOS)["embedding"], expected, atol=1e-5)
    assert model.get_layer("layer_norm_neck").weights == []


def test_without_a_neck_nothing_has_changed():
    model = embedder(None)
    assert model.output_shape == (None, DIM)
    assert not any("neck" in layer.name for layer in model.layers)


@every_neck
def test_each_loss_looks_where_it_should(neck):
    """The logged loss is that of the vectors before the neck, or after it."""
    means = {}
    for loss in (BeforeNeck(), AfterNeck()):
        learner = MetricLearner(used(neck))
        learner.compile("sgd", loss)
        means[type(loss)] = learner.evaluate(PHOTOS, LABELS, batch_size=B, verbose=0, return_dict=True)["loss"]
    found = used(neck)(PHOTOS, training=False)
    assert means[BeforeNeck] == pytest.approx(np.mean(np.square(found["before_neck"][:, 0])), rel=1e-4)
    assert means[AfterNeck] == pytest.approx(np.mean(np.square(found["embedding"][:, 0])), rel=1e-4)
    assert means[BeforeNeck] != pytest.approx(means[AfterNeck], rel=1e-2)


def test_a_keras_loss_and_a_function_look_before_the_neck_and_metrics_after_it():
    def first(labels, embeddings):
        return tf.square(embeddings[:, 0])

    learner = MetricLearner(used("batch_norm"))
    learner.compile("sgd", first, metrics=[first])
    found = learner.evaluate(PHOTOS, LABELS, batch_size=B, verbose=0, return_dict=True)
    outputs = learner.embedder(PHOTOS, training=False)
    assert found["loss"] == pytest.approx(np.mean(np.square(outputs["before_neck"][:, 0])), rel=1e-4)
    assert found["first"] == pytest.approx(np.mean(np.square(outputs["embedding"][:, 0])), rel=1e-4)


@every_neck
@pytest.mark.parametrize("microbatch", [None, 24])
def test_a_pair_loss_moves_all_but_the_neck_itself(neck, microbatch):
    """Under warnings as errors: Keras has nothing to warn of. The scale of the batch normalisation stays 1."""
    learner = MetricLearner(embedder(neck), memory_size=16, memory_start=0)
    learner.compile(keras.optimizers.Adam(1e-2), EETLoss(), microbatch=microbatch)
    before = learner.embedder.get_layer("projection").get_weights()[0]
    learner.fit(PHOTOS, LABELS, batch_size=B, epochs=2, shuffle=False, verbose=0)
    assert np.abs(learner.embedder.get_layer("projection").get_weights()[0] - before).max() > 1e-3
    if neck == "batch_norm":
        gamma, mean, _ = learner.embedder.get_layer("batch_norm_neck").get_weights()
        np.testing.assert_array_equal(gamma, np.ones(DIM))
        assert np.abs(mean).max() > 0


def test_a_loss_after_the_neck_moves_its_scale():
    learner = MetricLearner(embedder("batch_norm"))
    learner.compile(keras.optimizers.Adam(1e-2), AfterNeck())
    learner.fit(PHOTOS, LABELS, batch_size=B, verbose=0)
    assert np.abs(learner.embedder.get_layer("batch_norm_neck").get_weights()[0] - 1).max() > 1e-3


def test_the_memory_holds_what_the_loss_sees():
    learner = MetricLearner(embedder("layer_norm"), memory_size=B, memory_start=0)
    learner.compile(keras.optimizers.SGD(0.0), TripletLoss())
    learner.fit(PHOTOS, LABELS, batch_size=B, shuffle=False, verbose=0)
    expected = embedder("layer_norm")(PHOTOS, training=True)["before_neck"]
    np.testing.assert_allclose(np.asarray(learner.memory.embeddings), expected, atol=1e-5)


def test_with_attributes_there_are_three_outputs():
    learner = MetricLearner(embedder("batch_norm", attribute_names=["red", "blue"]))
    assert sorted(learner.embedder.output) == ["attributes", "before_neck", "embedding"]
    learner.compile("sgd", SoftBinomialDevianceLoss(granularity="predictions"), AttributeLoss())
    targets = {"label": LABELS, "attributes": RNG.integers(-1, 2, [B, 2])}
    history = learner.fit(PHOTOS, targets, batch_size=B, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert attribute_names(learner.embedder) == ("red", "blue")


@every_neck
def test_whoever_opens_it_takes_the_searched_vectors(neck, tmp_path):
    """Saved, opened, embedded, exported: to the last bit those after the neck; the server knows no other output."""
    model = used(neck, attribute_names=["red"])
    expected = model(PHOTOS, training=False)["embedding"].numpy()
    model.save(str(tmp_path / "model.keras"))
    opened = load_embedder(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(opened(PHOTOS, training=False)["embedding"], expected)
    np.testing.assert_allclose(embed(opened, PHOTOS), expected, atol=1e-6)
    assert embedder_fingerprint(opened) == embedder_fingerprint(model)
    served = ServedEmbedder(export_embedder(opened, str(tmp_path / "served")))
    assert set(served._serve.structured_outputs) == {"embedding", "attributes", "ok"}
    pixels = np.round(PHOTOS).astype(np.uint8)
    photos = [tf.io.encode_png(image).numpy() for image in pixels]
    of_pixels = tf.function(model)(pixels.astype(np.float32), training=False)["embedding"]  # a graph, as a server runs
    np.testing.assert_array_equal(served.embed(photos)[0], of_pixels)


def test_another_neck_is_another_fingerprint():
    assert embedder_fingerprint(embedder("layer_norm")) != embedder_fingerprint(embedder(None))


def test_a_neck_computes_in_float32():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = embedder("batch_norm")
        assert {name: out.dtype for name, out in model(PHOTOS).items()} == dict.fromkeys(model.output, tf.float32)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_an_unknown_neck_is_refused():
    with pytest.raises(
        ValueError, match=r"`neck` must be None or one of batch_norm, layer_norm. Received: neck='giraffe'"
    ):
        embedder("giraffe")
