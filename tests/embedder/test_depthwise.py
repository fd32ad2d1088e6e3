"""Convolutions of each channel by itself are those of `Conv2D` with as many groups, whose weights they take."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import build_embedder, load_embedder
from eet_tf.embedder.depthwise import DepthwiseConv, with_depthwise


@pytest.mark.parametrize(
    ("channels", "multiplier", "kernel", "strides", "padding", "use_bias"),
    [
        (96, 1, (7, 7), 1, "same", True),
        (5, 1, (3, 5), 2, "same", False),
        (3, 4, (4, 2), 1, "valid", True),
        (7, 2, (5, 5), 3, "valid", False),
    ],
)
def test_it_is_the_convolution_of_as_many_groups(channels, multiplier, kernel, strides, padding, use_bias):
    """The grouped one, each group computed as a convolution of its one channel, and TensorFlow's own."""
    rng = np.random.default_rng(channels)
    photos = rng.normal(size=[3, 13, 17, channels]).astype(np.float32)
    filters = channels * multiplier
    arguments = dict(strides=strides, padding=padding, use_bias=use_bias, groups=channels)
    layer = DepthwiseConv(filters, kernel, **arguments)
    grouped = keras.layers.Conv2D(filters, kernel, **arguments)
    layer.build(photos.shape)
    grouped.build(photos.shape)
    weights = [rng.normal(size=weight.shape).astype(np.float32) for weight in grouped.get_weights()]
    grouped.set_weights(weights)
    layer.set_weights(weights)
    each = [
        tf.nn.conv2d(photos[..., c : c + 1], kernel_of_one, strides, padding.upper())
        for c, kernel_of_one in enumerate(np.split(weights[0], channels, axis=-1))
    ]
    expected = np.concatenate(each, axis=-1) + (weights[1] if use_bias else 0)
    np.testing.assert_allclose(layer(photos), expected, atol=2e-4)
    np.testing.assert_allclose(layer(photos), grouped(photos), atol=2e-4)
    assert layer.compute_output_shape(photos.shape) == expected.shape


def test_gradients_are_those_of_one_channel_after_another():
    rng = np.random.default_rng(5)
    photos = tf.constant(rng.normal(size=[2, 9, 11, 6]), tf.float32)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ([7, 7, 1, 6], [6])]
    wanted = rng.normal(size=[2, 9, 11, 6]).astype(np.float32)
    layer = DepthwiseConv(6, 7, padding="same", groups=6)
    layer.build(photos.shape)
    layer.set_weights(weights)
    kernel = tf.constant(weights[0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([photos, kernel])
        mine = tf.reduce_sum(layer(photos) * wanted)
        each = [tf.nn.conv2d(photos[..., c : c + 1], kernel[..., c : c + 1], 1, "SAME") for c in range(6)]
        theirs = tf.reduce_sum((tf.concat(each, -1) + weights[1]) * wanted)
    for mine_of, theirs_of in ((photos, photos), (layer.trainable_variables[0], kernel)):
        np.testing.assert_allclose(tape.gradient(mine, mine_of), tape.gradient(theirs, theirs_of), atol=2e-3)


def test_only_what_convolves_each_channel_by_itself_is_changed():
    images = keras.Input([16, 16, 4])
    x = keras.layers.Conv2D(4, 3, groups=4, name="one_by_one")(images)
    x = keras.layers.Conv2D(4, 3, groups=2, name="in_pairs")(x)
    x = keras.layers.Conv2D(4, 3, groups=4, dilation_rate=2, name="dilated")(x)
    x = keras.layers.Conv2D(4, 2, groups=4, strides=(1, 2), name="uneven")(x)
    x = keras.layers.Conv2D(1, 1, name="plain")(x)
    network = keras.Model(images, keras.layers.Conv2D(2, 1, name="of_one_channel")(x))
    made = with_depthwise(network)
    assert [layer.name for layer in made.layers if isinstance(layer, DepthwiseConv)] == ["one_by_one"]
    photos = np.random.default_rng(2).normal(size=[2, 16, 16, 4]).astype(np.float32)
    np.testing.assert_allclose(made(photos), network(photos), atol=1e-5)
    assert [layer.name for layer in made.layers[1:]] == [layer.name for layer in network.layers[1:]]


def test_convnext_convolves_each_channel_by_itself_and_is_saved(tmp_path):
    photos = np.random.default_rng(4).uniform(0, 255, [2, 32, 32, 3]).astype(np.float32)
    embedder = build_embedder("convnext_tiny", 8, 32)
    network = embedder.get_layer("convnext_tiny")
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 18  # 3 + 3 + 9 + 3 blocks
    assert all(type(layer) is DepthwiseConv for layer in convolutions)
    embedder.save(tmp_path / "model.keras")
    again = load_embedder(os.fspath(tmp_path / "model.keras"))
    np.testing.assert_array_equal(again(photos), embedder(photos))


def test_it_computes_in_the_precision_of_the_policy():
    layer = DepthwiseConv(6, 3, groups=6, dtype="mixed_bfloat16")
    result = layer(np.ones([1, 5, 5, 6], np.float32))
    assert result.dtype == "bfloat16"
    assert {np.dtype(weight.dtype) for weight in layer.get_weights()} == {np.dtype("float32")}
