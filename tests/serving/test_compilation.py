"""A SavedModel needs no XLA where it is served, whatever the embedder's layers do."""

import os
import pathlib

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from eet_tf import build_embedder
from eet_tf.serving import export_embedder
from eet_tf.serving.compilation import leave_compilation_to_the_server


@keras.saving.register_keras_serializable(package="tests")
class Compiled(keras.layers.Layer):
    """Asks for XLA itself."""

    def call(self, images):
        return tf.function(lambda x: tf.nn.relu(x) + 0.1 * x, jit_compile=True)(images)


def marks(folder):
    """How many functions and nodes of a SavedModel must be compiled, and how many say that they need not."""
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((pathlib.Path(folder) / "saved_model.pb").read_bytes())
    (graph,) = saved_model.meta_graphs
    found = [
        part.attr["_XlaMustCompile"].b
        for parts in (graph.graph_def.node, *((each, *each.node_def) for each in graph.graph_def.library.function))
        for part in parts
        if "_XlaMustCompile" in part.attr
    ]
    return sum(found), len(found) - sum(found)


def test_no_function_of_an_exported_embedder_must_be_compiled(tmp_path):
    """Convolutions in groups, which Keras 3 compiles, and a layer that compiles by itself; the vectors stay."""
    images = keras.Input([32, 32, 3])
    x = keras.layers.Conv2D(12, 3, strides=2, activation="relu")(images)
    x = keras.layers.Conv2D(8, 3, groups=4, padding="same")(x)
    network = keras.Model(images, Compiled()(x))
    embedder = build_embedder(network, 5, 32, pixel_scaling="unit")
    folder = export_embedder(embedder, os.fspath(tmp_path))
    must, need_not = marks(folder)
    assert must == 0 and need_not > 0
    photos = np.random.default_rng(1).integers(0, 256, [3, 32, 32, 3], dtype=np.uint8)
    served = tf.saved_model.load(folder).signatures["embed_images"]
    np.testing.assert_allclose(
        served(images=tf.constant(photos))["embedding"], embedder(photos.astype(np.float32)), atol=1e-5
    )


def test_a_signature_that_asks_for_it_is_called_without(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None])], jit_compile=True)
    tf.saved_model.save(module, os.fspath(tmp_path), signatures=module.double)
    assert marks(tmp_path)[0] > 0
    leave_compilation_to_the_server(os.fspath(tmp_path))
    assert marks(tmp_path)[0] == 0
    doubled = tf.saved_model.load(os.fspath(tmp_path)).signatures["serving_default"](tf.constant([1.5, -2.0]))
    np.testing.assert_array_equal(doubled["y"], [3.0, -4.0])


def test_what_asks_for_nothing_is_left_as_it_was_written(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, os.fspath(tmp_path))
    file = tmp_path / "saved_model.pb"
    before = file.read_bytes(), file.stat().st_mtime_ns
    leave_compilation_to_the_server(os.fspath(tmp_path))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
