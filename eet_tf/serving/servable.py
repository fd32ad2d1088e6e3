"""Which models can be served, and what is added to them: one vector of length 1 for each photo of one size."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from eet_tf import compat
from eet_tf.embedder.heads import UnitLength, UnitPrefix
from eet_tf.index.checks import UNIT_LENGTH_TOLERANCE
from eet_tf.training import compilation
from eet_tf.training.loading import embedder_of
from eet_tf.wording import first_sentence

_ADDED = "brought_to_unit_length"
_CUT = "unit_prefix"
_NUM_PROBES = 4


class SavedModelError(ValueError):
    """Tells that a SavedModel cannot be written or read; the message names the folder and how to repair it."""


def servable(embedder: keras.Model, image_size: int | None = None, prefix: int | None = None) -> keras.Model:
    """The model that is served in place of an embedder: the embedder itself wherever that can be.

    Of a `MetricLearner` it is the embedder. A model that takes images of any size gets that of `image_size`. One whose
    vectors are not of length 1, as four images of noise show, gets a last layer that brings them to it: an index takes
    only such, and a search compares cosines.

    Args:
        embedder: a model of images `[B, S, S, 3]` in [0, 255] -> `[B, D]`, or to a dict with `"embedding"`.
        image_size: S, which must be given exactly where the model takes images of any size.
        prefix: how many leading dimensions are served, brought to length 1; None: all, or as many as the model says
            that was made here.

    Returns:
        A model of the same weights.

    Raises:
        SavedModelError: if it takes other images, gives no vectors, or gives NaN or infinity, or `prefix` is no number
            of its dimensions.

    Example:

    >>> model = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> served = servable(model)
    >>> is_brought_to_unit_length(model), is_brought_to_unit_length(served)
    (False, True)
    """
    embedder = embedder_of(embedder)
    size = _checked_size(embedder, image_size)
    model = embedder if compilation.input_shape(embedder) == (None, size, size, 3) else _of_size(embedder, size)
    _check_output(compat.output_shape(model))
    is_unit = _gives_unit_vectors(model, size)
    if prefix is not None and prefix != prefix_of(model):
        return _with_last(_ending(model, size), UnitPrefix(_checked_prefix(prefix, model), dtype="float32", name=_CUT))
    if is_unit:
        return model
    return _with_last(_ending(model, size), UnitLength(dtype="float32", name=_ADDED))


def is_brought_to_unit_length(model: keras.Model) -> bool:
    """Whether `servable` added the layer that does so."""
    return any(layer.name == _ADDED for layer in model.layers)


def prefix_of(model: keras.Model) -> int | None:
    """How many leading dimensions `servable` cut a model's vectors to; None if it did not."""
    return next((layer.length for layer in model.layers if layer.name == _CUT), None)


def _ending(model: keras.Model, size: int) -> keras.Model:
    """A model of the same that has an output of its own, as a Sequential has not in Keras 3."""
    return _of_size(model, size) if isinstance(model, keras.Sequential) else model


def _checked_prefix(prefix, model: keras.Model) -> int:
    shapes = compat.output_shape(model)
    dim = (shapes["embedding"] if isinstance(shapes, Mapping) else shapes)[1]
    if not isinstance(prefix, int) or isinstance(prefix, bool) or not 1 <= prefix <= dim or prefix_of(model):
        raise SavedModelError(
            f"`prefix` must be from 1 to the embedding's {dim} dimensions, of a model that is whole. Received: "
            f"prefix={prefix!r}."
        )
    return prefix


def _checked_size(embedder: keras.Model, image_size: int | None) -> int:
    """S, from what the model says of its input and from what was asked for."""
    if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
        raise SavedModelError(f"`image_size` must be a number of pixels. Received: image_size={image_size!r}.")
    shape = compilation.input_shape(embedder)
    if shape is None and isinstance(getattr(embedder, "input_shape", None), (list, dict)):
        raise SavedModelError(
            "`embedder` must take images [B, S, S, 3] and nothing else. Received: a model of several inputs."
        )
    shape = shape or (None, None, None, 3)
    sides = {side for side in shape[1:3] if side is not None}
    if len(shape) != 4 or shape[3] != 3 or len(sides) > 1:
        raise SavedModelError(
            f"`embedder` must take images [B, S, S, 3]: photos are served as squares of red, green and blue. Received: "
            f"input shape {shape}. Put a layer in front that makes of them what the model takes."
        )
    if shape[0] is not None:
        raise SavedModelError(
            f"`embedder` must take any number of images at a time. Received: input shape {shape}. Build it without "
            "batch_size."
        )
    if sides and image_size not in (None, *sides):
        raise SavedModelError(
            f"`image_size` must be {min(sides)}, the model's own, or None. Received: image_size={image_size}."
        )
    if not sides and image_size is None:
        raise SavedModelError(
            "`image_size` must be given for a model that takes images of any size, e.g. image_size=224 "
            f"(`eet export`: --image_size=224). Received: image_size=None and a model of input shape {shape}."
        )
    return image_size or min(sides)


def _of_size(embedder: keras.Model, size: int) -> keras.Model:
    images = keras.Input([size, size, 3], name="images")
    try:
        return keras.Model(images, embedder(images), name=embedder.name)
    except Exception as error:  # of any layer, in Keras's words
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith("Exception encountered when calling")]
        reason = first_sentence(" ".join(said)) or type(error).__name__
        raise SavedModelError(
            f"`image_size` must be a size that the model takes. Received: image_size={size}: {reason}."
        ) from error


def _check_output(shapes) -> None:
    if isinstance(shapes, Mapping):
        if "embedding" not in shapes:
            raise SavedModelError(
                f"`embedder` must have an output 'embedding' where its outputs have names. Received: outputs "
                f"{', '.join(repr(name) for name in shapes)}. Export keras.Model(model.input, model.output["
                f"{min(shapes)!r}]), if that is the embedding."
            )
        shapes = shapes["embedding"]
    if isinstance(shapes, list):
        raise SavedModelError(
            f"`embedder` must have one output, or a dict with 'embedding'. Received: a list of {len(shapes)}. Export "
            "keras.Model(model.input, model.outputs[0]), if that is the embedding."
        )
    if len(shapes) != 2 or shapes[1] is None:
        raise SavedModelError(
            f"`embedder` must end in one vector [B, D] for each photo. Received: output shape {tuple(shapes)}. End it "
            "in pooling, e.g. keras.layers.GlobalAveragePooling2D()."
        )


def _gives_unit_vectors(model: keras.Model, size: int) -> bool:
    """Shown images of noise; a vector of zeros has no length to be told by."""
    noise = np.random.default_rng(0).uniform(0, 255, [_NUM_PROBES, size, size, 3]).astype(np.float32)
    outputs = model(noise, training=False)
    vectors = np.asarray(outputs["embedding"] if isinstance(outputs, Mapping) else outputs, np.float64)
    if not np.isfinite(vectors).all():
        raise SavedModelError(
            "`embedder` must give finite vectors. Received: a model that gives NaN or infinity. Look at its weights: "
            "has its training diverged?"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    lengths = lengths[lengths > 0]
    return bool(lengths.size and (np.abs(lengths - 1) < UNIT_LENGTH_TOLERANCE / 2).all())


def _with_last(model: keras.Model, layer: keras.layers.Layer) -> keras.Model:
    """The model with one layer more behind its embedding."""
    outputs = model.output
    if isinstance(outputs, Mapping):
        outputs = {**outputs, "embedding": layer(outputs["embedding"])}
    else:
        outputs = layer(outputs)
    return keras.Model(model.inputs[0], outputs, name=model.name)
