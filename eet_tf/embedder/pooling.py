"""Pooling: how the feature map or the tokens of a backbone become one vector."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

POOLINGS = ("gem", "avg", "max", "avg_max", "grid", "cls", "none")
_GRID = 4  # cells a side


def pooling_layer(pooling: str, features) -> keras.layers.Layer:
    """Makes the layer that pools `features`, `[B, H, W, C]`; refuses a grid of more cells than it has places."""
    if pooling == "gem":
        return GeMPooling(name="pooling")
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="pooling")
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name="pooling")
    if pooling == "avg_max":
        return AvgMaxPooling(name="pooling")
    if min(features.shape[1:3]) < _GRID:
        size = " x ".join(map(str, features.shape[1:3]))
        raise ValueError(
            f"`pooling` must not be 'grid' for a feature map of {size}. Received: pooling='grid', which needs "
            f"{_GRID} x {_GRID} or more. Give a larger image_size or a backbone of a smaller stride."
        )
    return GridPooling(_GRID, name="pooling")


def pool(features, pooling: str, num_prefix_tokens: int = 0, has_class_token: bool = False):
    """Pools the output of a backbone: a feature map, tokens or vectors.

    Args:
        features: `[B, H, W, C]`, `[B, T, C]` or `[B, C]`.
        pooling: one of `POOLINGS`, fit for it.
        num_prefix_tokens: how many tokens stand before those of patches.
        has_class_token: whether the first token is one of its own.

    Returns:
        `[B, C]`, of a grid `[B, 16 C]`.

    Raises:
        ValueError: if that pooling does not go with that output.
    """
    kind = {2: "vectors", 3: "tokens", 4: "a feature map"}[len(features.shape)]
    if (pooling == "none") != (kind == "vectors"):
        mend = "'none', or None," if kind == "vectors" else "another than 'none'"
        raise ValueError(
            f"`pooling` must be {mend} for a backbone whose output is {kind}, shape {tuple(features.shape)}. "
            f"Received: pooling={pooling!r}."
        )
    if pooling == "cls" and not (kind == "tokens" and has_class_token):
        raise ValueError(
            f"`pooling` must not be 'cls' for a backbone without a class token, whose output is {kind}, shape "
            f"{tuple(features.shape)}. Received: pooling='cls'. Take 'avg'."
        )
    if pooling == "none":
        return features
    if pooling == "cls":
        return ClassToken(name="pooling")(features)
    if kind == "tokens":
        features = PatchTokens(num_prefix_tokens, name="patch_tokens")(features)
    return pooling_layer(pooling, features)(features)


@keras.saving.register_keras_serializable(package="eet_tf")
class ClassToken(keras.layers.Layer):
    """The first token, in which a transformer gathers the whole image."""

    def call(self, tokens):
        """`[B, T, C]` -> `[B, C]`."""
        return tokens[:, 0]


@keras.saving.register_keras_serializable(package="eet_tf")
class PatchTokens(keras.layers.Layer):
    """The tokens of patches as the feature map that they are: rows of patches where these form a square.

    Args:
        num_prefix_tokens: N, how many tokens stand before them: the class token and registers.
    """

    def __init__(self, num_prefix_tokens: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, tokens):
        """`[B, T, C]` -> `[B, S, S, C]` with S * S = T - N, else `[B, T - N, 1, C]`."""
        count, channels = tokens.shape[1] - self.num_prefix_tokens, tokens.shape[2]
        side = math.isqrt(count)
        height, width = (side, side) if side * side == count else (count, 1)
        return tf.reshape(tokens[:, self.num_prefix_tokens :], [-1, height, width, channels])

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "num_prefix_tokens": self.num_prefix_tokens}


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
        """Pools `[B, H, W, C]` to `[B, C]`. It computes in float32, since powers overflow in half precision."""
        exponent = tf.maximum(tf.cast(self.exponent, tf.float32), 1.0)
        positive = tf.maximum(tf.cast(features, tf.float32), 1e-6)
        pooled = tf.pow(tf.reduce_mean(tf.pow(positive, exponent), axis=[1, 2]), 1.0 / exponent)
        return tf.cast(pooled, features.dtype)


@keras.saving.register_keras_serializable(package="eet_tf")
class AvgMaxPooling(keras.layers.Layer):
    """Adds the average over places and the maximum over them.

    Reference: Kim, Kim, Cho, Kwak, "Proxy Anchor Loss", arXiv 2003.13911. [authors: their released code]
    """

    def call(self, features):
        """Pools `[B, H, W, C]` to `[B, C]`."""
        return tf.reduce_mean(features, axis=[1, 2]) + tf.reduce_max(features, axis=[1, 2])


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
