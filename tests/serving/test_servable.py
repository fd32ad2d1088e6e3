"""Models of one's own are exported right or refused before long work: vectors of length 1, for photos of one size."""

import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf.data.images import decode_and_resize
from eet_tf.embedder import heads
from eet_tf.evaluation.postprocessing import Whitening
from eet_tf.serving import SavedModelError, ServedEmbedder, embedder_fingerprint, export_embedder
from eet_tf.serving.bundle import training_vectors
from eet_tf.serving.saved_model import MANIFEST
from eet_tf.serving.servable import is_brought_to_unit_length, servable
from tests.serving.test_saved_model import PHOTOS

SIZE = 32
layers = keras.layers


def dense_model(last=(), size=SIZE):
    """As README's: images, one layer."""
    keras.utils.set_random_seed(4)
    scaling = layers.Rescaling(1 / 255)
    return keras.Sequential([keras.Input([size, size, 3]), scaling, layers.Flatten(), layers.Dense(5), *last])


def functional(model):
    """The same as a graph with names."""
    return keras.Model(model.inputs[0], {"embedding": model.outputs[0], "other": layers.Dense(2)(model.outputs[0])})


class Subclassed(keras.Model):
    """Knows no shape."""

    def __init__(self):
        super().__init__()
        self.pooling, self.dense = layers.GlobalAveragePooling2D(), layers.Dense(5)

    def call(self, images, training=None):
        return self.dense(self.pooling(images / 255.0))


def any_size():
    keras.utils.set_random_seed(4)
    images = keras.Input([None, None, 3])
    hidden = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(images))
    return keras.Model(images, layers.Dense(5)(layers.GlobalAveragePooling2D()(hidden)))


def augmenting():
    """Were it not in inference, it would answer otherwise each time."""
    keras.utils.set_random_seed(4)
    noise = [layers.RandomFlip(), layers.RandomContrast(0.5), layers.Rescaling(1 / 255), layers.Dropout(0.5)]
    return keras.Sequential([keras.Input([SIZE, SIZE, 3]), *noise, layers.Flatten(), layers.Dense(5)])


def learner():
    model = eet_tf.MetricLearner(dense_model())
    model.compile("adam", eet_tf.EETLoss())
    return model


MODELS = {
    "sequential": (dense_model, {}),
    "two outputs": (lambda: functional(dense_model()), {}),
    "any size": (any_size, {"image_size": SIZE}),
    "subclassed": (Subclassed, {"image_size": SIZE}),
    "augmenting": (augmenting, {}),
    "learner": (learner, {}),
}


def unit(vectors):
    vectors = np.asarray(vectors["embedding"] if isinstance(vectors, dict) else vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_not_unit(vectors):
    vectors = vectors["embedding"] if isinstance(vectors, dict) else vectors
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 0.01


@pytest.mark.parametrize("make, arguments", MODELS.values(), ids=MODELS)
def test_vectors_are_those_of_the_model_at_length_1(make, arguments):
    model = make()
    pixels = tf.stack([decode_and_resize(photo, SIZE) for photo in PHOTOS[:4]])
    plain = model(pixels, training=False)
    assert_not_unit(plain)
    np.testing.assert_allclose(training_vectors(servable(model, **arguments), PHOTOS[:4]), unit(plain), atol=1e-5)


@pytest.mark.parametrize("name", ["any size", "augmenting"])
def test_they_are_served_so_and_the_manifest_says_it(name, tmp_path):
    make, arguments = MODELS[name]
    model = make()
    folder = export_embedder(model, str(tmp_path), **arguments)
    served = ServedEmbedder(folder)
    vectors, is_image = served.embed(PHOTOS[:4])
    assert is_image.all() and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, training_vectors(servable(model, **arguments), PHOTOS[:4]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert served.embed([])[0].shape == (0, 5)
    assert served.fingerprint == embedder_fingerprint(servable(model, **arguments))
    with open(os.path.join(folder, MANIFEST)) as file:
        manifest = json.load(file)
    assert (manifest["image_size"], manifest["embedding_dim"], manifest["brought_to_unit_length"]) == (SIZE, 5, True)


def ending_in(*last):
    return lambda: dense_model(last)


NORMALIZED = {
    "UnitNormalization": ending_in(layers.UnitNormalization()),
    "with names": lambda: functional(dense_model([layers.UnitNormalization()])),
    "of one's own": ending_in(layers.Lambda(lambda x: x / tf.norm(x, axis=1, keepdims=True))),
    "build_embedder": lambda: eet_tf.build_embedder("small_cnn", 5, image_size=SIZE, attribute_names=["red"]),
}


@pytest.mark.parametrize("make", NORMALIZED.values(), ids=NORMALIZED)
def test_a_model_of_unit_vectors_is_served_as_it_is(make):
    model = make()
    assert servable(model) is model
    assert not is_brought_to_unit_length(model)
    assert servable(servable(model), SIZE) is model


def test_what_was_brought_to_length_1_is_not_brought_there_twice():
    once = servable(dense_model())
    assert servable(once) is once and is_brought_to_unit_length(once)


def test_an_attribute_head_stays():
    """Of a model of any size whose vectors are of another length."""
    images = keras.Input([None, None, 3])
    pooled = layers.GlobalAveragePooling2D()(images)
    outputs = {"embedding": layers.Dense(4)(pooled), "attributes": heads.AttributeHead(["red"])(pooled)}
    served = servable(keras.Model(images, outputs), 16)
    assert heads.attribute_names(served) == ("red",)
    assert is_brought_to_unit_length(served)


def test_another_size_is_another_function():
    model = any_size()
    assert len({embedder_fingerprint(servable(model, size)) for size in (16, 24)}) == 2


@pytest.mark.filterwarnings("ignore:overflow")
def test_half_precision_is_served_at_length_1(set_policy):
    set_policy("mixed_float16")
    vectors = servable(dense_model([layers.Dense(300), layers.UnitNormalization()]))(np.ones([2, SIZE, SIZE, 3]) * 90)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(vectors, np.float64), axis=1), 1, atol=1e-3)


def of(shape, *last):
    return lambda: keras.Sequential([keras.Input(shape), *last])


def several_inputs():
    images = [keras.Input([SIZE, SIZE, 3]) for _ in range(2)]
    return keras.Model(images, layers.Flatten()(layers.Add()(images)))


def several_outputs():
    model = dense_model()
    return keras.Model(model.inputs[0], [model.outputs[0], layers.Dense(3)(model.outputs[0])])


def diverged():
    model = dense_model()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    return model


REFUSED = {
    "feature map": (of([SIZE, SIZE, 3], layers.Conv2D(2, 3)), {}, r"end in one vector \[B, D\] .*30, 30, 2\)"),
    "rank 3": (of([SIZE, SIZE, 3], layers.Reshape([96, 32])), {}, r"end in one vector .*\(None, 96, 32\)"),
    "one channel": (of([32, 32, 1], layers.Flatten()), {}, r"take images \[B, S, S, 3\].*\(None, 32, 32, 1\). Put"),
    "channels first": (of([3, 32, 32], layers.Flatten()), {}, r"take images \[B, S, S, 3\]"),
    "no square": (of([32, 64, 3], layers.Flatten()), {}, r"take images \[B, S, S, 3\]"),
    "one at a time": (
        lambda: keras.Sequential([keras.Input([32, 32, 3], batch_size=1), layers.Flatten()]),
        {},
        r"any number of images at a time. Received: input shape \(1, 32, 32, 3\)",
    ),
    "no images": (of([7], layers.Dense(2)), {}, r"take images \[B, S, S, 3\].*\(None, 7\)"),
    "any size": (any_size, {}, r"`image_size` must be given .*--image_size=224.*\(None, None, None, 3\)"),
    "a subclass": (Subclassed, {}, "`image_size` must be given"),
    "another size": (dense_model, {"image_size": 64}, "`image_size` must be 32, the model's own, or None. .*=64"),
    "no size": (any_size, {"image_size": 0}, "`image_size` must be a number of pixels. Received: image_size=0"),
    "too small": (any_size, {"image_size": 1}, "`image_size` must be a size that the model takes. .*image_size=1: "),
    "another name": (
        lambda: keras.Model((m := dense_model()).inputs[0], {"vector": m.outputs[0]}),
        {},
        r"have an output 'embedding' .* outputs 'vector'. Export keras.Model\(model.input, model.output\['vector'\]\)",
    ),
    "several outputs": (several_outputs, {}, r"`embedder` must have one output, .* a list of 2\. Export"),
    "several inputs": (several_inputs, {}, "and nothing else. Received: a model of several inputs"),
    "diverged": (diverged, {}, "`embedder` must give finite vectors. Received: a model that gives NaN or infinity"),
    "whitening": (
        dense_model,
        {"whitening": Whitening(np.zeros(5), np.eye(5))},
        "`whitening` must be None for an embedder whose vectors are not of length 1",
    ),
}


@pytest.mark.parametrize("make, arguments, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served_is_refused_before_anything_is_written(make, arguments, message, tmp_path):
    with pytest.raises(SavedModelError, match=message):
        export_embedder(make(), str(tmp_path / "new"), **arguments)
    assert not (tmp_path / "new").exists()


def test_a_prefix_is_served_with_length_one_and_a_fingerprint_of_its_own():
    """Of a model with unit vectors and of one without; asked for again it is the same model."""
    from eet_tf.serving import embedder_fingerprint
    from eet_tf.serving.servable import prefix_of

    images = np.random.default_rng(3).uniform(0, 255, [5, 32, 32, 3]).astype(np.float32)
    whole = eet_tf.build_embedder("small_cnn", 8, image_size=32)
    flat = keras.Sequential([keras.Input([32, 32, 3]), keras.layers.Flatten(), keras.layers.Dense(8)])
    for model in (whole, flat):
        short = servable(model, prefix=3)
        rows = np.asarray(model(images))[:, :3]
        np.testing.assert_allclose(short(images), rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-5)
        assert (prefix_of(short), prefix_of(servable(model))) == (3, None)
        assert servable(short, prefix=3) is short
        assert len({embedder_fingerprint(each) for each in (servable(model), short, servable(model, prefix=4))}) == 3
        for wrong in (0, 9, True, 2.0):
            with pytest.raises(SavedModelError, match="`prefix` must be from 1 to the embedding's 8 dimensions"):
                servable(model, prefix=wrong)
        with pytest.raises(SavedModelError, match="of a model that is whole"):
            servable(short, prefix=2)
