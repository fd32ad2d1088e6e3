"""The network that turns a photo into a unit vector: a backbone, pooling, one linear layer; and an attribute head."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from eet_tf.arguments import check_integer

_APPLICATIONS = {
    **{f"efficientnet_b{i}": (f"EfficientNetB{i}", "none") for i in range(8)},
    **{f"efficientnet_v2_b{i}": (f"EfficientNetV2B{i}", "none") for i in range(4)},
    "efficientnet_v2_s": ("EfficientNetV2S", "none"),
    "efficientnet_v2_m": ("EfficientNetV2M", "none"),
    "efficientnet_v2_l": ("EfficientNetV2L", "none"),
    **{f"resnet{depth}": (f"ResNet{depth}", "caffe") for depth in (50, 101, 152)},
    **{f"resnet{depth}_v2": (f"ResNet{depth}V2", "tf") for depth in (50, 101, 152)},
    "mobilenet_v2": ("MobileNetV2", "tf"),
}
# backbones cut off after a layer: (the whole one, that layer)
_CUT = {
    "mobilenet_v2_block8": ("mobilenet_v2", "block_8_expand_relu"),
    "mobilenet_v2_stride16": ("mobilenet_v2", "block_13_expand_relu"),
}
_BASIC_RESNETS = {"resnet18_v2": (2, 2, 2, 2), "resnet34_v2": (3, 4, 6, 3)}
BACKBONES = tuple(sorted([*_APPLICATIONS, *_BASIC_RESNETS, *_CUT, "small_cnn"]))
POOLINGS = ("gem", "avg", "grid")
_GRID = 4  # cells a side


def build_embedder(
    backbone: str = "resnet50",
    embedding_dim: int = 512,
    image_size: int = 224,
    weights: str | None = None,
    pooling: str = "gem",
    freeze_batch_norm: bool = False,
    attribute_names: Sequence[str] = (),
) -> keras.Model:
    """Builds a `keras.Model` from photos to unit vectors, and to attributes if they are named.

    The scaling of pixels that the backbone was made for is part of the model.

    Args:
        backbone: one of `BACKBONES`: `"efficientnet_b0"` to `"b7"`, `"efficientnet_v2_b0"` to `"b3"`, `"_s"`, `"_m"`,
            `"_l"`, `"resnet50"`, `"101"`, `"152"` and their `"_v2"`, `"mobilenet_v2"`, `"resnet18_v2"`,
            `"resnet34_v2"`, or `"small_cnn"`, which trains on a CPU in minutes. `"mobilenet_v2_stride16"` is the part
            of MobileNetV2 before its last halving of the size, for photos of about 100 pixels or less, with the
            same weights; `"mobilenet_v2_block8"` ends earlier still, where features tell prints and cuts rather than
            kinds of things.
        embedding_dim: D, default 512 as in arXiv 1810.04652.
        image_size: side of the square input in pixels.
        weights: None (random), `"imagenet"` (downloaded by keras.applications) or the path of a weights file for the
            backbone without its top.
        pooling: `"gem"` (generalised mean with a learnt exponent, arXiv 1711.02512), `"avg"`, or `"grid"`: averages
            over 4 x 4 cells, side by side, which keeps where things are. For catalogue photos, all taken alike; the
            projection has 16 times the weights.
        freeze_batch_norm: keep the backbone's batch normalisation at the statistics it was loaded with. Needs weights
            with real ones.
        attribute_names: names of the A binary attributes that a second head, linear on the pooled features, predicts.
            Empty by default: no such head.

    Returns:
        A model `[B, image_size, image_size, 3]` in [0, 255] -> `[B, embedding_dim]` float32 of unit length. With
        attributes its output is a dict of that, `"embedding"`, and `"attributes"`, `[B, A]` float32 logits.

    Raises:
        ValueError: for an unknown backbone or pooling, weights that cannot be had, a grid on a feature map of fewer
            than 4 x 4 places, or attribute names that are no distinct strings.

    Example:

    >>> embedder = build_embedder("small_cnn", embedding_dim=64, image_size=32)
    >>> embedder.output_shape
    (None, 64)
    >>> two_heads = build_embedder("small_cnn", embedding_dim=64, image_size=32, attribute_names=["striped", "red"])
    >>> sorted(two_heads.output)
    ['attributes', 'embedding']
    """
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {', '.join(POOLINGS)}. Received: pooling={pooling!r}.")
    check_integer("embedding_dim", embedding_dim, 1)
    check_integer("image_size", image_size, 32)
    attributes = _checked_names(attribute_names)
    network, mode = _build_backbone(backbone, image_size, weights)
    if freeze_batch_norm:
        _freeze_batch_norm(network)
    images = keras.Input([image_size, image_size, 3], name="images", dtype="float32")
    x = network(PixelScaling(mode, name="pixel_scaling")(images))
    pooled = _pooling_layer(pooling, x)(x)
    projected = keras.layers.Dense(embedding_dim, name="projection")(pooled)
    outputs = UnitLength(dtype="float32", name="embedding")(projected)
    if attributes:
        head = AttributeHead(attributes, dtype="float32", name="attributes")
        outputs = {"embedding": outputs, "attributes": head(pooled)}
    return keras.Model(images, outputs, name=f"{backbone}_embedder")


def attribute_head(embedder: keras.Model) -> AttributeHead | None:
    """The layer of an embedder that predicts attributes, if it has one, be it in a model within it."""
    for layer in embedder.layers:
        head = attribute_head(layer) if isinstance(layer, keras.Model) else layer
        if isinstance(head, AttributeHead):
            return head
    return None


def attribute_names(embedder: keras.Model) -> tuple[str, ...]:
    """The attributes that an embedder predicts, in the order of its output; empty without an attribute head.

    Example:

    >>> attribute_names(build_embedder("small_cnn", image_size=32, attribute_names=["striped", "red"]))
    ('striped', 'red')
    """
    head = attribute_head(embedder)
    return head.names if head else ()


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    are_strings = not isinstance(names, str) and all(isinstance(name, str) and name for name in names)
    if not are_strings or len(set(names)) < len(names):
        raise ValueError(
            f"`attribute_names` must be distinct strings that are not empty. Received: attribute_names={names!r}."
        )
    return tuple(str(name) for name in names)


def _pooling_layer(pooling: str, features) -> keras.layers.Layer:
    if pooling == "gem":
        return GeMPooling(name="pooling")
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="pooling")
    if features.shape[1] < _GRID:
        size = " x ".join(map(str, features.shape[1:3]))
        raise ValueError(
            f"`pooling` must be 'gem' or 'avg' for a feature map of {size}. Received: pooling='grid', which needs "
            f"{_GRID} x {_GRID} or more. Give a larger image_size or a backbone of a smaller stride."
        )
    return GridPooling(_GRID, name="pooling")


def _build_backbone(name: str, image_size: int, weights: str | None) -> tuple[keras.Model, str]:
    """The backbone as a model from scaled pixels to a feature map, and the mode of `PixelScaling` it wants."""
    if name in _CUT:
        whole, last_layer = _CUT[name]
        network, mode = _build_backbone(whole, image_size, weights)
        return keras.Model(network.input, network.get_layer(last_layer).output, name=name), mode
    if name in _APPLICATIONS:
        function, mode = _APPLICATIONS[name]
        return _with_weights_error(lambda: _application(function, image_size, weights), name, weights), mode
    builders = {"small_cnn": _small_cnn, **{known: _basic_resnet(blocks) for known, blocks in _BASIC_RESNETS.items()}}
    if name not in builders:
        raise ValueError(f"`backbone` must be one of {', '.join(BACKBONES)}. Received: backbone={name!r}.")
    if weights == "imagenet":
        raise ValueError(f"`weights` must be None or a path for {name}, which has no ImageNet weights in Keras.")
    network = builders[name](image_size)
    if weights is not None:
        _with_weights_error(lambda: network.load_weights(weights), name, weights)
    return network, "unit"


def _application(function: str, image_size: int, weights: str | None) -> keras.Model:
    build = getattr(keras.applications, function)
    return build(include_top=False, weights=weights, input_shape=(image_size, image_size, 3))


def _with_weights_error(build: Callable, backbone: str, weights: str | None):
    if weights not in (None, "imagenet") and not os.path.isfile(weights):
        raise ValueError(f"`weights` must be None, 'imagenet' or an existing file. Received: weights={weights!r}.")
    try:
        return build()
    except Exception as error:
        if weights is None:
            raise
        raise ValueError(
            f"`weights` could not be loaded into {backbone}. Received: weights={weights!r}: {error}"
        ) from error


def _basic_resnet(blocks: tuple[int, ...]) -> Callable[[int], keras.Model]:
    def build(image_size: int) -> keras.Model:
        from keras_cv.models import ResNetV2Backbone  # takes seconds to import, and only these backbones need it

        network = ResNetV2Backbone(
            stackwise_filters=[64, 128, 256, 512],
            stackwise_blocks=list(blocks),
            stackwise_strides=[1, 2, 2, 2],
            include_rescaling=False,
            block_type="basic_block",
            input_shape=(image_size, image_size, 3),
        )
        return keras.Model(network.input, network.output, name="basic_resnet")

    return build


def _small_cnn(image_size: int) -> keras.Model:
    """Four stages of convolution, batch norm and ReLU, halving the size at each: 64 to 256 channels wide."""
    images = keras.Input([image_size, image_size, 3])
    x = images
    for stage, filters in enumerate((32, 64, 128, 256)):
        x = _convolution(x, filters, strides=2 if stage else 1)
        x = keras.layers.MaxPooling2D()(x) if stage == 0 else x
    return keras.Model(images, x, name="small_cnn")


def _convolution(x, filters: int, strides: int = 1):
    x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


def _freeze_batch_norm(network: keras.Model) -> None:
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


@keras.saving.register_keras_serializable(package="eet_tf")
class PixelScaling(keras.layers.Layer):
    """Pixels in [0, 255] -> what a family of backbones expects.

    Args:
        mode: `"none"` as they are; `"unit"` [0, 1]; `"tf"` [-1, 1]; `"caffe"` BGR minus the ImageNet mean.
    """

    def __init__(self, mode: str, **kwargs):
        super().__init__(**kwargs)
        self.mode = mode

    def call(self, images):
        """`[B, H, W, 3]` -> the same shape."""
        if self.mode == "unit":
            return images / 255.0
        if self.mode == "tf":
            return images / 127.5 - 1.0
        if self.mode == "caffe":
            return images[..., ::-1] - tf.constant([103.939, 116.779, 123.68], dtype=images.dtype)
        return images

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(package="eet_tf")
class GeMPooling(keras.layers.Layer):
    """Generalised mean over places, `mean(x^p)^(1/p)`, with a learnt p that starts at 3: between average and maximum.

    Reference: Radenovic, Tolias, Chum, arXiv 1711.02512, eq. 1.
    """

    def build(self, input_shape):
        """Makes the exponent."""
        self.exponent = self.add_weight(name="exponent", shape=(), initializer=keras.initializers.Constant(3.0))
        super().build(input_shape)

    def call(self, features):
        """`[B, H, W, C]` -> `[B, C]`, in float32 inside: powers do not survive half precision."""
        exponent = tf.maximum(tf.cast(self.exponent, tf.float32), 1.0)
        positive = tf.maximum(tf.cast(features, tf.float32), 1e-6)
        pooled = tf.pow(tf.reduce_mean(tf.pow(positive, exponent), axis=[1, 2]), 1.0 / exponent)
        return tf.cast(pooled, features.dtype)


@keras.saving.register_keras_serializable(package="eet_tf")
class GridPooling(keras.layers.Layer):
    """Averages over the cells of a grid, one after another: what is where in the photo stays apart.

    Where the cells do not fit the places, a place counts in each by the share of its area.

    Args:
        cells: N, the cells a side.

    Reference: Lazebnik, Schmid, Ponce, "Beyond Bags of Features", CVPR 2006: one level of their pyramid, on features
        of a network.
    """

    def __init__(self, cells: int, **kwargs):
        super().__init__(**kwargs)
        self.cells = cells

    def call(self, features):
        """`[B, H, W, C]` -> `[B, N * N * C]`, row after row of cells."""
        height, width, channels = features.shape[1:]
        rows, columns = (tf.constant(_cell_shares(size, self.cells), features.dtype) for size in (height, width))
        pooled = tf.einsum("nh,bhwc,mw->bnmc", rows, features, columns)
        return tf.reshape(pooled, [-1, self.cells * self.cells * channels])

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "cells": self.cells}


def _cell_shares(size: int, cells: int) -> np.ndarray:
    """`[cells, size]`: what share of each cell's mean each place has."""
    borders = np.linspace(0, size, cells + 1)
    places = np.arange(size)
    overlap = np.minimum(borders[1:, np.newaxis], places + 1) - np.maximum(borders[:-1, np.newaxis], places)
    return np.maximum(overlap, 0) * cells / size


@keras.saving.register_keras_serializable(package="eet_tf")
class UnitLength(keras.layers.Layer):
    """Vectors brought to Euclidean length 1."""

    def call(self, vectors):
        """`[B, D]` -> `[B, D]`."""
        return tf.math.l2_normalize(vectors, axis=-1)


@keras.saving.register_keras_serializable(package="eet_tf")
class AttributeHead(keras.layers.Layer):
    """A linear layer from features to the logit of each of A named binary attributes.

    Args:
        names: the attributes, kept with the layer so that a saved model knows what its numbers mean.
    """

    def __init__(self, names: Sequence[str], **kwargs):
        super().__init__(**kwargs)
        self.names = tuple(names)

    def build(self, input_shape):
        """Makes the weights."""
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], len(self.names)), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(len(self.names),), initializer="zeros")
        super().build(input_shape)

    def call(self, features):
        """`[B, C]` -> `[B, A]`."""
        return tf.matmul(features, self.kernel) + self.bias

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "names": list(self.names)}
