"""Backbones of keras-hub: a preset or a folder of one, its image tower, and the scaling of pixels it came with."""

from __future__ import annotations

import keras
import numpy as np

from eet_tf.embedder.backbones import Backbone, load_weights
from eet_tf.embedder.own import checked_network, features_of
from eet_tf.embedder.pixels import PIXEL_SCALINGS
from eet_tf.keras_files import hold_what_is_not_saved, import_keras_hub
from eet_tf.wording import said_by

PREFIX = "hub:"
# models of photos and texts, whose part for photos is the backbone; and whether that begins with a class token
_TWO_TOWERS = {"CLIPBackbone": True, "MetaCLIP2Backbone": True, "SigLIPBackbone": False}


def hub_backbone(name: str, image_size: int, weights: str | None, pixel_scaling: str | None) -> Backbone:
    """The image backbone of a preset.

    Args:
        name: `"hub:"` and a preset of keras-hub, a handle such as `hf://...`, or a local folder.
        image_size: side of its images. Towers whose positions are learnt for one size take no other.
        weights: None for those of the preset, or the path of others.
        pixel_scaling: None for that of the preset.

    Raises:
        ValueError: if keras-hub is missing, there is no such preset, or it is none of images of that size.
    """
    keras_hub = import_keras_hub(f"backbone={name!r} is of it")
    preset = name.removeprefix(PREFIX)
    if weights == "imagenet":
        raise ValueError(
            f"`weights` must be None, for those of the preset, or a path. Received: weights={weights!r} and "
            f"backbone={name!r}."
        )
    loaded = _loaded(keras_hub, name, preset, image_size)
    tower = loaded.vision_encoder if type(loaded).__name__ in _TWO_TOWERS else loaded
    network = checked_network(tower, image_size, f"backbone={name!r}")
    load_weights(network, weights, name)
    hold_what_is_not_saved(network)
    rank = len(features_of(network, keras.Input([image_size, image_size, 3])).shape)
    num_prefix = _num_prefix_tokens(loaded) if rank == 3 else 0
    return Backbone(
        network,
        {"mode": pixel_scaling} if pixel_scaling else _own_scaling(keras_hub, name, preset),
        tower.name,
        {2: "none", 3: "cls" if num_prefix else "avg", 4: "gem"}[
            rank
        ],  # the class token is what they were trained with
        num_prefix_tokens=num_prefix,
        has_class_token=num_prefix > 0,
    )


def _loaded(keras_hub, name: str, preset: str, image_size: int) -> keras.Model:
    """The backbone for images of that size; if it takes no other, for those of its own, which is then refused."""
    of_size = {"image_shape": (image_size, image_size, 3)}
    dtype = keras.config.dtype_policy().name
    why: Exception | None = None
    for size in (of_size, {}):
        try:
            return keras_hub.models.Backbone.from_preset(preset, dtype=dtype, **size)
        except Exception as error:  # of any layer, file or server, in words of others
            why = error
    raise ValueError(
        f"`backbone` must be {PREFIX} and a preset of keras-hub or a folder of one. Received: backbone={name!r}: "
        f"{said_by(why or ValueError())}."
    ) from why


def _num_prefix_tokens(loaded: keras.Model) -> int:
    """How many tokens stand before those of patches."""
    kind = type(loaded).__name__
    if kind in _TWO_TOWERS:
        return int(_TWO_TOWERS[kind])
    if kind in ("DINOV2Backbone", "DINOV3Backbone"):
        return 1 + loaded.num_register_tokens
    if kind == "ViTBackbone":
        return int(loaded.use_class_token)
    return 2 if kind == "DeiTBackbone" else 0  # its class and its distillation token


def _own_scaling(keras_hub, name: str, preset: str) -> dict:
    """What the preset's image converter does to pixels, but for their size, which is the decoder's."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except Exception as error:  # a preset without one fails in many ways
        raise ValueError(
            f"`pixel_scaling` must be given for a preset without an image converter: one of "
            f"{', '.join(PIXEL_SCALINGS)}. Received: pixel_scaling=None and backbone={name!r}."
        ) from error
    scale, offset = (
        np.broadcast_to(np.asarray(neutral if value is None else value, np.float64).reshape(-1), [3]).tolist()
        for value, neutral in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    return {"mode": "affine", "scale": scale, "offset": offset}
