"""What an embedder knows without training: the features of its backbone, and a whitening of them."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from eet_tf.embedder.heads import UnitLength


def backbone_features(embedder: keras.Model) -> keras.Model:
    """The part of an embedder before its projection, as an embedder: pooled features, brought to length 1.

    Args:
        embedder: as `build_embedder` makes it.

    Returns:
        A model `[B, S, S, 3]` in [0, 255] -> `[B, C]` of unit length, which shares the embedder's weights.

    Example:

    >>> from eet_tf import build_embedder
    >>> backbone_features(build_embedder("small_cnn", embedding_dim=8, image_size=32)).output_shape
    (None, 256)
    """
    projection = next((layer for layer in embedder.layers if layer.name == "projection"), None)
    if projection is None:
        outputs = embedder.output
        return keras.Model(embedder.input, outputs["embedding"] if isinstance(outputs, Mapping) else outputs)
    unit = UnitLength(dtype="float32", name="features")(projection.input)
    return keras.Model(embedder.input, unit, name=f"{embedder.name}_features")


def whitened(embedder: keras.Model, whitening) -> keras.Model:
    """The embedder with a whitening as its last linear layer, and vectors of unit length behind it.

    Args:
        embedder: a model of images -> unit vectors `[B, D]`, or a dict with `"embedding"`.
        whitening: a `postprocessing.Whitening` of such vectors; its mean becomes the layer's bias.

    Returns:
        A model of images -> `[B, dim]`, which shares the embedder's weights.

    Raises:
        ValueError: if the whitening is of vectors of another length.

    Example:

    >>> from eet_tf import build_embedder
    >>> from eet_tf.evaluation.postprocessing import Whitening
    >>> embedder = build_embedder("small_cnn", embedding_dim=4, image_size=32)
    >>> whitened(embedder, Whitening(np.zeros(4), np.eye(4)[:, :2])).output_shape
    (None, 2)
    """
    outputs = embedder.output
    unit = outputs["embedding"] if isinstance(outputs, Mapping) else outputs
    if unit.shape[-1] != len(whitening.mean):
        raise ValueError(
            f"`whitening` must be of embeddings of length {unit.shape[-1]}. Received: one of {len(whitening.mean)}. "
            "Fit it with this embedder."
        )
    kernel = np.asarray(whitening.projection, np.float64)
    bias = -np.asarray(whitening.mean, np.float64) @ kernel
    layer = keras.layers.Dense(whitening.dim, dtype="float32", name="whitening")
    vectors = UnitLength(dtype="float32", name="whitened_embedding")(layer(unit))
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    outputs = {**outputs, "embedding": vectors} if isinstance(outputs, Mapping) else vectors
    return keras.Model(embedder.input, outputs, name=f"{embedder.name}_whitened")
