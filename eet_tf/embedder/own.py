"""A backbone of one's own: which Keras models can be one, and how another is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping

import keras

from eet_tf import compat
from eet_tf.embedder.backbones import Backbone, load_weights
from eet_tf.embedder.pixels import PIXEL_SCALINGS
from eet_tf.keras_files import UnreadableModel, hold_what_is_not_saved, read_model

# layers that an embedder has beside its network
_NAMES_OF_OTHERS = ("images", "pixel_scaling", "patch_tokens", "pooling", "projection", "embedding", "attributes")


def own_backbone(
    model: keras.Model | str | os.PathLike, image_size: int, weights: str | None, pixel_scaling: str | None
) -> Backbone:
    """A Keras model, or the file of one, as a backbone.

    Raises:
        ValueError: if it is none, or takes other images.
    """
    network = model if isinstance(model, keras.Model) else _read(model)
    said = f"backbone={'a model' if network is model else repr(os.fspath(model))}"
    if pixel_scaling is None:
        raise ValueError(
            f"`pixel_scaling` must be given for a model of your own: one of {', '.join(PIXEL_SCALINGS)}; 'none' if it "
            f"scales pixels from 0 to 255 itself. Received: pixel_scaling=None and {said}."
        )
    if weights == "imagenet":
        raise ValueError(
            f"`weights` must be None or a path for a model of your own, which has weights. Received: {weights=} and "
            f"{said}."
        )
    network = checked_network(network, image_size, said)
    name = "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in network.name)
    load_weights(network, weights, name)
    hold_what_is_not_saved(network)
    rank = len(features_of(network, keras.Input([image_size, image_size, 3])).shape)
    return Backbone(
        network,
        {"mode": pixel_scaling},
        name,
        {2: "none", 3: "avg", 4: "gem"}[rank],
        has_class_token=rank == 3,  # whoever asks for it says that there is one
    )


def _read(path: str | os.PathLike) -> keras.Model:
    file = os.fspath(path)
    if not os.path.isfile(file):
        raise ValueError(f"`backbone` must be a file that is there. Received: backbone={file!r}.")
    try:
        model = read_model(file)
    except UnreadableModel as why:
        raise ValueError(
            f"`backbone` must be a .keras file that this version of Keras, {keras.__version__}, can load. Received: "
            f"backbone={file!r}: {why}. Register layers of your own with keras.saving.register_keras_serializable, and "
            "give the loaded model to build_embedder in Python."
        ) from why
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`backbone` must be a Keras model. Received: backbone={file!r}, which holds a {type(model).__name__}."
        )
    return model


def features_of(network: keras.Model, images):
    """Calls a network that `checked_network` has let pass, by the name of its input where that has one."""
    inputs = _structure(network, "input")
    return network({name: images for name in inputs} if isinstance(inputs, Mapping) else images)


def checked_network(model: keras.Model, image_size: int, said: str) -> keras.Model:
    """The model, if it takes images of that size alone and gives features alone.

    Args:
        model: any Keras model.
        image_size: side of the images that it is to take.
        said: how it was given, for messages.

    Raises:
        ValueError: names what it takes or gives that a backbone does not.
    """
    inputs, outputs = _ends(model, "inputs"), _ends(model, "outputs")
    if not inputs or not outputs:
        raise ValueError(
            f"`backbone` must be a functional or Sequential model that knows its input shape. Received: {said} of "
            f"class {type(model).__name__}. Call keras.Model(images, model(images)) with images = "
            "keras.Input([S, S, 3])."
        )
    if len(inputs) > 1:
        raise ValueError(
            f"`backbone` must take images and nothing else. Received: {said} with {len(inputs)} inputs. Cut out the "
            "part that sees images: keras.Model(its image input, its output)."
        )
    shape = tuple(inputs[0].shape)
    if len(shape) != 4 or shape[0] is not None or shape[3] != 3 or not {*shape[1:3]} <= {None, image_size}:
        sides = sorted({side for side in shape[1:3] if side is not None}) if len(shape) == 4 else []
        is_of_size = len(sides) == 1 and shape[0] is None and shape[3] == 3
        mend = (
            f"Give image_size={sides[0]}." if is_of_size else "Put a layer in front that makes of them what it takes."
        )
        raise ValueError(
            f"`backbone` must take images [B, {image_size}, {image_size}, 3]. Received: {said} of input shape {shape}. "
            f"{mend}"
        )
    if len(outputs) > 1:
        raise ValueError(
            f"`backbone` must have one output. Received: {said} with {len(outputs)} outputs. Take one of them: "
            "keras.Model(model.inputs, model.outputs[0])."
        )
    _check_no_code(model, said)
    shape = tuple(_flat(features_of(model, keras.Input([image_size, image_size, 3])))[0].shape)
    if len(shape) not in (2, 3, 4) or None in shape[1:]:
        raise ValueError(
            "`backbone` must end in a feature map [B, H, W, C], tokens [B, T, C] or vectors [B, C] of known size. "
            f"Received: {said} of output shape {shape}. End it in one of these."
        )
    is_plain = len(outputs) == 1 and not isinstance(_structure(model, "output"), (Mapping, list, tuple))
    if is_plain and model.name not in _NAMES_OF_OTHERS:
        return model
    return keras.Model(inputs[0], outputs[0], name=f"{model.name}_network")


def _structure(model: keras.Model, which: str):
    """The input or output as the model has it; a Sequential model of Keras 3 has a single one."""
    return None if isinstance(model, keras.Sequential) else getattr(model, which)


def _ends(model: keras.Model, which: str) -> list:
    """The inputs or outputs; none of a model that is only Python code."""
    try:
        return list(getattr(model, which) or ())
    except (AttributeError, ValueError):
        return []


def _flat(ends) -> list:
    if isinstance(ends, Mapping):
        return list(ends.values())
    return list(ends) if isinstance(ends, (list, tuple)) else [ends]


def _check_no_code(model: keras.Model, said: str) -> None:
    for layer in compat.all_layers(model):
        if isinstance(layer, keras.layers.Lambda) and getattr(layer.function, "__name__", "") == "<lambda>":
            raise ValueError(
                f"`backbone` must not hold a Python lambda, with which a saved model does not open. Received: {said} "
                f"with the Lambda layer {layer.name!r}. Make a layer class of it."
            )
