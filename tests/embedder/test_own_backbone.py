"""Backbones that are not in the list: a Keras model of one's own, in memory or in a file, and what is no backbone."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import MetricLearner, TripletLoss, build_embedder, load_embedder
from eet_tf.compat import KERAS_2
from eet_tf.embedder.features import backbone_features, whitened
from eet_tf.embedder.pixels import PIXEL_SCALINGS, PixelScaling
from eet_tf.embedder.pooling import ClassToken, PatchTokens
from eet_tf.evaluation.postprocessing import fit_whitening

layers = keras.layers
RNG = np.random.default_rng(0)
PHOTOS = RNG.uniform(0, 255, size=[64, 32, 32, 3]).astype(np.float32)


def images(size=32, **given):
    return keras.Input([size, size, 3], **given)


def map_model(size=32):
    """32 x 32 pixels to 4 x 4 places; with batch norm and a network within."""
    inner = keras.Sequential(
        [layers.Conv2D(8, 3, 2, "same", name="inner_conv"), layers.BatchNormalization(name="norm")]
    )
    inputs = images(size)
    x = layers.Conv2D(6, 5, 4, "same", name="first")(inputs)
    return keras.Model(inputs, layers.ReLU(name="last")(inner(x)), name="my_model")


def token_model():
    """17 tokens of 8 channels, of which the first could be a class token."""
    inputs = images()
    x = layers.Reshape([16, 8])(layers.Conv2D(8, 8, 8)(inputs))
    first = layers.Dense(8)(layers.GlobalMaxPooling1D(keepdims=True)(x))
    return keras.Model(inputs, layers.Concatenate(axis=1)([first, x]))


def vector_model():
    return keras.Sequential([images(), layers.Conv2D(8, 3, 2), layers.GlobalAveragePooling2D()], name="vectors")


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


MADE = {"map": map_model, "tokens": token_model, "vectors": vector_model}


@pytest.mark.parametrize("kind, pooled", [("map", 8), ("tokens", 8), ("vectors", 8)])
@pytest.mark.parametrize("embedding_dim", [5, None])
def test_maps_tokens_and_vectors_make_embedders(kind, pooled, embedding_dim, tmp_path):
    model = MADE[kind]()
    embedder = build_embedder(model, embedding_dim, image_size=32, pixel_scaling="unit")
    assert embedder.output_shape == (None, embedding_dim or pooled)
    embeddings = embedder(PHOTOS)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), np.ones(64), rtol=1e-5)
    embedder.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(load_embedder(os.fspath(tmp_path / "model.keras"))(PHOTOS), embeddings)
    learner = MetricLearner(embedder)
    learner.compile("adam", TripletLoss())
    before = [weight.copy() for weight in model.get_weights()]
    learner.fit(PHOTOS, np.arange(64) // 4, batch_size=64, verbose=0)
    assert any(np.any(old != new) for old, new in zip(before, model.get_weights()))


def test_default_poolings_are_the_means_they_should_be():
    """Of tokens the mean, of vectors nothing, of a map the generalised mean with exponent 3; features at length 1."""
    scaled = PHOTOS / 255
    tokens, vectors, places = token_model(), vector_model(), map_model()
    found = {
        kind: np.asarray(build_embedder(model, None, 32, pixel_scaling="unit")(PHOTOS))
        for kind, model in (("tokens", tokens), ("vectors", vectors), ("map", places))
    }
    np.testing.assert_allclose(found["tokens"], unit(np.mean(tokens(scaled), axis=1)), atol=1e-5)
    np.testing.assert_allclose(found["vectors"], unit(vectors(scaled)), atol=1e-5)
    cubes = np.maximum(np.asarray(places(scaled), np.float64), 1e-6) ** 3
    np.testing.assert_allclose(found["map"], unit(cubes.mean(axis=(1, 2)) ** (1 / 3)), atol=1e-4)


def test_class_token_and_gem_of_tokens():
    model = token_model()
    tokens = np.asarray(model(PHOTOS), np.float64)
    of_class = build_embedder(model, None, 32, pixel_scaling="none", pooling="cls")
    np.testing.assert_allclose(of_class(PHOTOS), unit(tokens[:, 0]), atol=1e-5)
    gem = build_embedder(model, None, 32, pixel_scaling="none", pooling="gem")
    expected = (np.maximum(tokens, 1e-6) ** 3).mean(axis=1) ** (1 / 3)
    np.testing.assert_allclose(gem(PHOTOS), unit(expected), atol=1e-4)


def test_tokens_become_the_map_that_they_are():
    tokens = RNG.normal(size=[2, 2 + 9, 5]).astype(np.float32)
    grid = PatchTokens(2)(tokens)
    assert grid.shape == (2, 3, 3, 5)
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(grid[:, row, column], tokens[:, 2 + 3 * row + column])
    assert PatchTokens(1)(tokens).shape == (2, 10, 1, 5)
    np.testing.assert_array_equal(ClassToken()(tokens), tokens[:, 0])
    again = PatchTokens.from_config(PatchTokens(2).get_config())
    np.testing.assert_array_equal(again(tokens), grid)


@pytest.mark.parametrize("mode", PIXEL_SCALINGS)
def test_stated_scaling_is_what_the_model_gets(mode):
    """Against torchvision's and OpenAI's published means and deviations; the others as keras.applications has them."""
    rgb = PHOTOS.astype(np.float64)
    expected = {
        "none": rgb,
        "unit": rgb / 255,
        "tf": rgb / 127.5 - 1,
        "caffe": rgb[..., ::-1] - [103.939, 116.779, 123.68],
        "imagenet": (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "clip": (rgb / 255 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711],
    }
    model = vector_model()
    embedder = build_embedder(model, None, image_size=32, pixel_scaling=mode)
    np.testing.assert_allclose(embedder.get_layer("pixel_scaling")(PHOTOS), expected[mode], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(embedder(PHOTOS), unit(model(expected[mode].astype(np.float32))), atol=1e-4)


def test_affine_scaling_is_kept_digit_for_digit():
    layer = PixelScaling("affine", [1 / 58.4, 0.5, 2.0], [-2.1, 0.1, 1 / 3])
    again = PixelScaling.from_config(layer.get_config())
    np.testing.assert_array_equal(again(PHOTOS), layer(PHOTOS))
    expected = PHOTOS.astype(np.float64) * [1 / 58.4, 0.5, 2.0] + [-2.1, 0.1, 1 / 3]
    np.testing.assert_allclose(layer(PHOTOS), expected, rtol=1e-5, atol=1e-5)


def test_scaling_of_a_named_backbone_can_be_another():
    embedder = build_embedder("small_cnn", 8, 32, pixel_scaling="imagenet")
    assert embedder.get_layer("pixel_scaling").mode == "imagenet"


def test_a_file_is_a_backbone_and_its_layers_freeze(tmp_path):
    model = map_model()
    model(PHOTOS, training=True)  # so that batch norm has statistics of its own
    file = os.fspath(tmp_path / "mine.keras")
    model.save(file)
    embedder = build_embedder(file, 8, 32, pixel_scaling="unit", freeze_until="inner_conv", freeze_batch_norm=True)
    network = embedder.get_layer("my_model")
    for weight, expected in zip(network.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(weight, expected)
    learner = MetricLearner(embedder)
    learner.compile("adam", TripletLoss())
    learner.fit(PHOTOS, np.arange(64) // 4, batch_size=64, verbose=0)
    for weight, expected in zip(network.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(weight, expected)
    with pytest.raises(ValueError, match="`freeze_until` must be a layer of my_model, e.g. inner_conv"):
        build_embedder(file, 8, 32, pixel_scaling="unit", freeze_until="inner_convs")


def test_a_model_of_any_size_takes_that_of_the_embedder():
    inputs = keras.Input([None, None, 3])
    model = keras.Model(inputs, layers.Conv2D(4, 3, 2)(inputs))
    assert build_embedder(model, None, 48, pixel_scaling="none").input_shape == (None, 48, 48, 3)


def test_weights_are_loaded_into_a_model_of_ones_own(tmp_path):
    first, second = map_model(), map_model()
    file = os.fspath(tmp_path / "mine.weights.h5")
    first.save_weights(file)
    build_embedder(second, 8, 32, weights=file, pixel_scaling="unit")
    for weight, expected in zip(second.get_weights(), first.get_weights()):
        np.testing.assert_array_equal(weight, expected)


def test_a_model_with_the_name_of_another_layer_is_taken():
    inputs = images()
    model = keras.Model(inputs, layers.Conv2D(4, 3, 2)(inputs), name="projection")
    assert build_embedder(model, 8, 32, pixel_scaling="none").output_shape == (None, 8)


UNKNOWN = "The added layer must be an instance of class Layer" if KERAS_2 else "nothing is known of 'Unknown'"


class Unknown(layers.Layer):
    def call(self, inputs):
        return inputs * 2


def saved(model, path):
    file = os.fspath(path / "saved.keras")
    model.save(file)
    return file


def two_inputs():
    first, second = images(), images()
    return keras.Model([first, second], layers.Conv2D(4, 3, 2)(layers.Add()([first, second])))


def two_outputs():
    inputs = images()
    return keras.Model(inputs, [layers.Conv2D(4, 3, 2)(inputs), layers.Conv2D(5, 3, 2)(inputs)])


def with_lambda():
    inputs = images()
    return keras.Model(inputs, layers.Conv2D(4, 3, 2)(layers.Lambda(lambda x: x / 2, name="halve")(inputs)))


class OnlyCode(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    "made, arguments, message",
    [
        (map_model, {"image_size": 64}, r"images \[B, 64, 64, 3\]. .* shape \(None, 32, 32, 3\). Give image_size=32."),
        (lambda: keras.Sequential([keras.Input([32, 32, 1]), layers.Conv2D(4, 3)]), {}, "Put a layer in front"),
        (lambda: keras.Sequential([keras.Input([10]), layers.Dense(4)]), {}, r"shape \(None, 10\). Put a layer"),
        (two_inputs, {}, "take images and nothing else. Received: backbone=a model with 2 inputs. Cut out"),
        (two_outputs, {}, "one output. Received: backbone=a model with 2 outputs. Take one of them"),
        (with_lambda, {}, "not hold a Python lambda, .* Lambda layer 'halve'. Make a layer class of it"),
        (OnlyCode, {}, "functional or Sequential model .* class OnlyCode. Call keras.Model"),
        (
            map_model,
            {"pixel_scaling": None},
            "`pixel_scaling` must be given for a model of your own: one of none, unit",
        ),
        (
            map_model,
            {"pixel_scaling": "siglip2"},
            "`pixel_scaling` must be one of none, unit, tf, caffe, imagenet, clip",
        ),
        (map_model, {"weights": "imagenet"}, "`weights` must be None or a path for a model of your own"),
        (map_model, {"pooling": "cls"}, "must not be 'cls' for a backbone without a class token, .* a feature map"),
        (map_model, {"pooling": "none"}, "must be another than 'none' for a backbone whose output is a feature map"),
        (vector_model, {"pooling": "avg"}, "must be 'none', or None, for a backbone whose output is vectors"),
        (token_model, {"pooling": "grid"}, "must not be 'grid' for a feature map of 17 x 1"),
        (lambda: keras.Sequential([images(), layers.Reshape([4, 8, 8, 12])]), {}, "must end in a feature map"),
    ],
)
def test_what_is_no_backbone_is_refused_in_one_sentence_with_the_mend(made, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_embedder(made(), **{"embedding_dim": 8, "image_size": 32, "pixel_scaling": "unit", **arguments})


@pytest.mark.parametrize(
    "made, message",
    [
        (with_lambda, "a Lambda layer in it is Python code, which is not run; make a layer class of it"),
        (lambda: keras.Sequential([images(), Unknown()]), f"{UNKNOWN}. Register layers of your own with keras.saving"),
    ],
)
def test_a_file_with_code_or_unknown_layers_is_refused(made, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_embedder(saved(made(), tmp_path), 8, 32, pixel_scaling="unit")


def test_a_file_that_is_not_there_or_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`backbone` must be a file that is there. Received: backbone='gone.keras'"):
        build_embedder("gone.keras", 8, 32, pixel_scaling="unit")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(ValueError, match="it is no .keras file, or it is cut off"):
        build_embedder(tmp_path / "text.keras", 8, 32, pixel_scaling="unit")


def test_features_before_the_projection_share_its_weights():
    embedder = build_embedder("small_cnn", 8, 32)
    features = backbone_features(embedder)
    pooled = keras.Model(embedder.input, embedder.get_layer("pooling").output)(PHOTOS)
    np.testing.assert_allclose(features(PHOTOS), unit(pooled), atol=1e-5)
    plain = build_embedder("small_cnn", None, 32)
    plain.set_weights(features.get_weights())
    np.testing.assert_array_equal(plain(PHOTOS), features(PHOTOS))
    np.testing.assert_array_equal(backbone_features(plain)(PHOTOS), plain(PHOTOS))
    with_attributes = backbone_features(build_embedder("small_cnn", None, 32, attribute_names=["red"]))
    assert with_attributes.output_shape == (None, 256)


def test_whitening_is_a_layer_of_the_model(tmp_path):
    embedder = build_embedder("small_cnn", None, 32, attribute_names=["red"])
    vectors = np.asarray(embedder(PHOTOS)["embedding"])
    whitening = fit_whitening(vectors, 6)
    model = whitened(embedder, whitening)
    expected = unit((vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)) @ whitening.projection)
    np.testing.assert_allclose(model(PHOTOS)["embedding"], expected, atol=2e-3)
    np.testing.assert_array_equal(model(PHOTOS)["attributes"], embedder(PHOTOS)["attributes"])
    model.save(tmp_path / "model.keras")
    again = load_embedder(os.fspath(tmp_path / "model.keras"))
    np.testing.assert_array_equal(again(PHOTOS)["embedding"], model(PHOTOS)["embedding"])
    with pytest.raises(ValueError, match="`whitening` must be of embeddings of length 6. Received: one of 256."):
        whitened(model, whitening)


@pytest.mark.parametrize("pooling", ["avg", *(pytest.param(each, marks=pytest.mark.slow) for each in ("max", "grid"))])
def test_convnext_normalises_behind_its_pooling_as_it_was_trained(pooling):
    """Whole features are keras.applications' own, `pooling=` and a layer norm; a grid has it at each place."""
    size = 128 if pooling == "grid" else 64
    reference = keras.applications.ConvNeXtTiny(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling=None if pooling == "grid" else pooling
    )
    rng = np.random.default_rng(3)
    reference.set_weights([rng.normal(0.02, 0.05, weight.shape) for weight in reference.get_weights()])
    embedder = build_embedder("convnext_tiny", None, size, pooling=pooling)
    embedder.set_weights(reference.get_weights())
    photos = rng.uniform(0, 255, [2, size, size, 3]).astype(np.float32)
    features = np.asarray(reference(photos))
    if pooling == "grid":
        features = features.reshape(2, -1)  # 4 x 4 places are 4 x 4 cells
    np.testing.assert_allclose(embedder(photos), unit(features), atol=2e-4)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_convnext_is_saved_frozen_and_averaged_by_default(tmp_path):
    """Its weights come from the file that keras.applications writes, of the network without its top."""
    reference = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(32, 32, 3))
    file = os.fspath(tmp_path / "convnext.weights.h5")
    reference.save_weights(file)
    embedder = build_embedder("convnext_tiny", 8, 32, file, freeze_until="convnext_tiny_stage_3_block_1_identity")
    assert isinstance(embedder.get_layer("pooling"), layers.GlobalAveragePooling2D)
    assert embedder.get_layer("pixel_scaling").mode == "none"
    for weight, expected in zip(embedder.get_layer("convnext_tiny").get_weights(), reference.get_weights()):
        np.testing.assert_array_equal(weight, expected)
    num_trained = sum(int(tf.size(variable)) for variable in embedder.trainable_variables)
    assert 8 * 768 < num_trained < sum(int(tf.size(variable)) for variable in embedder.variables) / 4
    embedder.save(tmp_path / "model.keras")
    again = load_embedder(os.fspath(tmp_path / "model.keras"))
    np.testing.assert_array_equal(again(PHOTOS[:2]), embedder(PHOTOS[:2]))
    assert len(again.trainable_variables) == len(embedder.trainable_variables)


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.layers.Layer):
    """A layer with a batch normalisation within, as many backbones are made of."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.BatchNormalization()

    def build(self, input_shape):
        self.norm.build(input_shape)
        super().build(input_shape)

    def call(self, images, training=None):
        return self.norm(images, training=training)


@pytest.mark.parametrize("is_fixed", [True, False])
def test_batch_norm_within_a_layer_is_fixed_too(is_fixed):
    """On photos whose mean is far from the statistics that it begins with, which would move in every step."""
    model = keras.Sequential([keras.Input([32, 32, 3]), Block(), keras.layers.Conv2D(4, 8, 8)])
    learner = MetricLearner(build_embedder(model, 8, 32, freeze_batch_norm=is_fixed, pixel_scaling="unit"))
    learner.compile("sgd", TripletLoss())
    norm = model.layers[0].norm
    before = np.asarray(norm.moving_mean)
    learner.fit(PHOTOS, np.arange(64) // 4, batch_size=64, verbose=0)
    assert np.array_equal(np.asarray(norm.moving_mean), before) == is_fixed
