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
    projection = _find_projection(embedder)
    if projection is None:
        outputs = embedder.output
        return keras.Model(embedder.input, outputs["embedding"] if isinstance(outputs, Mapping) else outputs)
    unit = UnitLength(dtype="float32", name="features")(projection.input)
    return keras.Model(embedder.input, unit, name=f"{embedder.name}_features")


def pooled_features(embedder: keras.Model) -> keras.Model:
    """The part of an embedder before its projection, as it is: what the projection is given, of any length.

    Raises:
        ValueError: if the embedder has no projection.
    """
    return keras.Model(embedder.input, _projection(embedder).input, name=f"{embedder.name}_pooled")


def begin_as_whitening(embedder: keras.Model, whitening) -> None:
    """Sets the projection of an embedder to a whitening of what it is given, in place of random weights.

    Training then begins with the vectors that a whitening gives, and changes them. The weights keep the length that
    they have, since vectors are brought to length 1 behind them, and a learning rate then means the same.

    Args:
        embedder: as `build_embedder` makes it, with a projection.
        whitening: a `postprocessing.Whitening` of the vectors of `pooled_features(embedder)`, of the embedding's
            dimensions or fewer; dimensions that it lacks stay random.

    Raises:
        ValueError: if the embedder has no projection, or one of other lengths.

    Reference: Gordo, Almazan, Revaud, Larlus, "End-to-end Learning of Deep Visual Representations for Image Retrieval",
        IJCV 2017, arXiv 1610.07940: a layer that begins as a PCA and is trained along.
    """
    projection = _projection(embedder)
    kernel, bias = projection.get_weights()
    if len(whitening.mean) != len(kernel) or whitening.dim > kernel.shape[1]:
        raise ValueError(
            f"`whitening` must be from {len(kernel)} to at most {kernel.shape[1]} dimensions. Received: one from "
            f"{len(whitening.mean)} to {whitening.dim}. Fit it to the vectors of pooled_features(embedder)."
        )
    chosen = np.asarray(whitening.projection, np.float64)
    chosen *= np.linalg.norm(kernel[:, : whitening.dim]) / np.linalg.norm(chosen)
    kernel[:, : whitening.dim] = chosen
    bias[: whitening.dim] = -np.asarray(whitening.mean, np.float64) @ chosen
    projection.set_weights([kernel, bias])


def _find_projection(embedder: keras.Model) -> keras.layers.Layer | None:
    return next((layer for layer in embedder.layers if layer.name == "projection"), None)


def _projection(embedder: keras.Model) -> keras.layers.Layer:
    found = _find_projection(embedder)
    if found is None:
        raise ValueError(
            f"`embedder` must have a projection, as build_embedder makes it with an embedding_dim. Received: "
            f"{embedder.name}, without one."
        )
    return found


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
