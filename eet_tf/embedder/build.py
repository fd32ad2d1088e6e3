"""The network that turns a photo into a unit vector: a backbone, pooling, one linear layer; and an attribute head."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import keras

from eet_tf.arguments import check_integer
from eet_tf.embedder import backbones
from eet_tf.embedder.backbones import BACKBONES, Backbone, named_backbone
from eet_tf.embedder.heads import AttributeHead, UnitLength
from eet_tf.embedder.hub import PREFIX, hub_backbone
from eet_tf.embedder.necks import BEFORE_NECK, NECKS, neck_layer
from eet_tf.embedder.own import features_of, own_backbone
from eet_tf.embedder.pixels import PixelScaling, check_pixel_scaling
from eet_tf.embedder.pooling import POOLINGS, pool
from eet_tf.embedder.strides import check_last_stride, without_last_halving
from eet_tf.fits import check_fit


def build_embedder(
    backbone: str | os.PathLike | keras.Model = "resnet50",
    embedding_dim: int | None = 512,
    image_size: int = 224,
    weights: str | None = None,
    pooling: str | None = None,
    freeze_batch_norm: bool = False,
    attribute_names: Sequence[str] = (),
    freeze_until: str | None = None,
    pixel_scaling: str | None = None,
    neck: str | None = None,
    fit: str = "squash",
    last_stride: int = 2,
) -> keras.Model:
    """Builds a `keras.Model` from photos to unit vectors, and to attributes if they are named.

    The scaling of pixels that the backbone was made for is part of the model.

    Args:
        backbone: one of `BACKBONES`: `"efficientnet_b0"` to `"b7"`, `"efficientnet_v2_b0"` to `"b3"`, `"_s"`, `"_m"`,
            `"_l"`, `"convnext_tiny"`, `"_small"`, `"_base"`, `"_large"`, `"_xlarge"`, `"resnet50"`, `"101"`, `"152"`
            and their `"_v2"`, `"mobilenet_v2"`, `"resnet18_v2"`, `"resnet34_v2"`, or `"small_cnn"`, which trains on a
            CPU in minutes. `"mobilenet_v2_stride16"` is the part of MobileNetV2 before its last halving of the size,
            for photos of about 100 pixels or less, with the same weights; `"mobilenet_v2_block8"` ends earlier still,
            where features tell prints and cuts rather than kinds of things; `"mobilenet_v2_joined"` has what its third
            and its ninth block end with side by side, colours and places beside forms.
            Or a Keras model of your own, or the path of its `.keras` file: from images to a feature map
            `[B, H, W, C]`, tokens `[B, T, C]` or vectors `[B, C]`. It becomes part of the embedder, with its weights.
            Or `"hub:"` and a preset of keras-hub or a local folder of one: `pip install 'eet-tf[hub]'`.
        embedding_dim: D, default 512 as in arXiv 1810.04652. None: the pooled features themselves, with no projection
            behind them, to search without any training.
        image_size: side of the square input in pixels.
        weights: None (random, or those that a model or a preset has), `"imagenet"` (downloaded by keras.applications)
            or the path of a weights file for the backbone without its top.
        pooling: of a feature map, `"gem"` (generalised mean with a learnt exponent, arXiv 1711.02512), `"avg"`,
            `"max"`, `"avg_max"` (the sum of the two, arXiv 2003.13911), or `"grid"`: averages over 4 x 4 cells, side by
            side, which keeps where things are. For catalogue photos, all taken alike; the projection has 16 times the
            weights. Of tokens the same over those of patches (of a model of your own, over all tokens), or `"cls"`, the
            class token, which comes first. Of vectors `"none"`. None: `"gem"` for feature maps, but `"avg"` for
            ConvNeXt and for tokens, whose features have both signs, as the generalised mean counts a negative one as 0;
            and `"cls"` for towers of keras-hub that were trained with a class token.
        freeze_batch_norm: keep the backbone's batch normalisation at the statistics it was loaded with. Needs weights
            with real ones.
        attribute_names: names of the A binary attributes that a second head, linear on the pooled features, predicts.
            Empty by default: no such head.
        freeze_until: name of a layer of the backbone, which keeps its weights, and so do all layers before it, batch
            normalisation too. Early layers know edges and textures, and cost most of a step; with some tens of products
            they are better left as they were loaded. None: all layers train.
        neck: `"batch_norm"` (arXiv 1903.07071) or `"layer_norm"` (arXiv 1811.12649): a normalisation after the
            projection. Pair losses see the vectors before it; losses with vectors of classes, evaluation and search see
            those after it. `eet_tf/embedder/necks.py` has the details. None: no neck, and all see the same.
        fit: how photos become squares: `"squash"` stretches them; `"letterbox"` keeps their aspect, in the middle of
            white. Exported, the embedder does so itself. In Python it is to be given to `training_dataset`,
            `gallery_dataset`, `decode_photos` and `decode_and_resize` too; `photo_fit(embedder)` says what it is.
        last_stride: 1 leaves out the backbone's last halving of the feature map, which becomes twice as large, with the
            same weights; the last stage costs four times as much (arXiv 1903.07071). For ResNets, MobileNetV2,
            EfficientNets and small_cnn. 2, the default: as published.

        pixel_scaling: what the backbone gets in place of pixels in [0, 255], a mode of `PixelScaling`: `"none"`,
            `"unit"`, `"tf"`, `"caffe"`, `"imagenet"` or `"clip"`. None: what it was made for; of a model of your own
            it must be said.

    Returns:
        A model `[B, image_size, image_size, 3]` in [0, 255] -> `[B, embedding_dim]` float32 of unit length. With
        attributes or a neck its output is a dict of that, `"embedding"`, of `"attributes"`, `[B, A]` float32 logits,
        and of `"before_neck"`, `[B, embedding_dim]` float32 of unit length, which training alone uses: an exported
        embedder does not give it.

    Raises:
        ValueError: for an unknown backbone, pooling, neck or fit, weights that cannot be had, a model that is no
            backbone for such images, a preset whose extra is not installed, a grid on a feature map of fewer than 4 x 4
            places, a stride that the backbone cannot have, a layer that the backbone has not, or attribute names that
            are no distinct strings.

    Example:

    >>> embedder = build_embedder("small_cnn", embedding_dim=64, image_size=32)
    >>> embedder.output_shape
    (None, 64)
    >>> two_heads = build_embedder("small_cnn", embedding_dim=64, image_size=32, attribute_names=["striped", "red"])
    >>> sorted(two_heads.output)
    ['attributes', 'embedding']
    >>> own = keras.Sequential([keras.Input([32, 32, 3]), keras.layers.Conv2D(16, 3, strides=2)])
    >>> build_embedder(own, embedding_dim=None, image_size=32, pixel_scaling="unit").output_shape
    (None, 16)
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {', '.join(POOLINGS)}. Received: pooling={pooling!r}.")
    if neck is not None and neck not in NECKS:
        raise ValueError(f"`neck` must be None or one of {', '.join(NECKS)}. Received: neck={neck!r}.")
    check_fit(fit)
    if embedding_dim is not None:
        check_integer("embedding_dim", embedding_dim, 1)
    check_integer("image_size", image_size, 32)
    attributes = _checked_names(attribute_names)
    check_last_stride(backbone, last_stride)
    chosen = find_backbone(backbone, image_size, weights, pixel_scaling, pooling)
    if last_stride == 1:
        chosen = dataclasses.replace(chosen, network=without_last_halving(chosen.network))
    if freeze_batch_norm:
        backbones.freeze_batch_norm(chosen.network)
    if freeze_until is not None:
        backbones.freeze_until(chosen.network, freeze_until)
    images = keras.Input([image_size, image_size, 3], name="images", dtype="float32")
    chosen = dataclasses.replace(chosen, scaling={**chosen.scaling, "fit": fit})
    pooled = _pooled(chosen, pooling or chosen.pooling, images)
    last = pooled if embedding_dim is None else keras.layers.Dense(embedding_dim, name="projection")(pooled)
    outputs = {"embedding": UnitLength(dtype="float32", name="embedding")(neck_layer(neck)(last) if neck else last)}
    if neck:
        outputs[BEFORE_NECK] = UnitLength(dtype="float32", name=BEFORE_NECK)(last)
    if attributes:
        outputs["attributes"] = AttributeHead(attributes, dtype="float32", name="attributes")(pooled)
    only = outputs["embedding"] if len(outputs) == 1 else outputs
    return keras.Model(images, only, name=f"{chosen.name}_embedder")


def find_backbone(
    backbone: str | os.PathLike | keras.Model,
    image_size: int,
    weights: str | None = None,
    pixel_scaling: str | None = None,
    pooling: str | None = None,
) -> Backbone:
    """The network that arguments of `build_embedder` name, and what goes with it.

    Raises:
        ValueError: as `build_embedder` does.
    """
    if pixel_scaling is not None:
        check_pixel_scaling(pixel_scaling)
    if is_own(backbone):
        return own_backbone(backbone, image_size, weights, pixel_scaling)
    if isinstance(backbone, str) and backbone.startswith(PREFIX):
        return hub_backbone(backbone, image_size, weights, pixel_scaling)
    check_name(backbone)
    found = named_backbone(str(backbone), image_size, weights, pooling)
    return dataclasses.replace(found, scaling={"mode": pixel_scaling}) if pixel_scaling else found


def has_weights_of_its_own(backbone) -> bool:
    """Whether a backbone is a model or a preset, which brings weights, and no name of `BACKBONES`."""
    return is_own(backbone) or (isinstance(backbone, str) and backbone.startswith(PREFIX))


def is_own(backbone) -> bool:
    """Whether a backbone is a Keras model of one's own, or the path of a file of one."""
    is_file = isinstance(backbone, str) and not backbone.startswith(PREFIX) and backbone.endswith((".keras", ".h5"))
    return is_file or isinstance(backbone, (keras.Model, os.PathLike))


def check_name(backbone) -> None:
    """Raises `ValueError` unless a backbone is one of `BACKBONES`."""
    if backbone not in BACKBONES:
        raise ValueError(
            f"`backbone` must be one of {', '.join(BACKBONES)}; a .keras file or a Keras model; or {PREFIX} and a "
            f"preset of keras-hub. Received: backbone={backbone!r}."
        )


def _pooled(chosen: Backbone, pooling: str, images):
    """The features of scaled images as one vector."""
    features = features_of(chosen.network, PixelScaling(**chosen.scaling, name="pixel_scaling")(images))
    pooled = pool(features, pooling, chosen.num_prefix_tokens, chosen.has_class_token)
    return pooled if chosen.last_norm is None else chosen.last_norm(pooled)


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    are_strings = not isinstance(names, str) and all(isinstance(name, str) and name for name in names)
    if not are_strings or len(set(names)) < len(names):
        raise ValueError(
            f"`attribute_names` must be distinct strings that are not empty. Received: attribute_names={names!r}."
        )
    return tuple(str(name) for name in names)
