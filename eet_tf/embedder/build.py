"""The network that turns a photo into a unit vector: a backbone, pooling, one linear layer; and an attribute head."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from eet_tf.arguments import check_integer
from eet_tf.embedder import backbones
from eet_tf.embedder.backbones import PixelScaling, build_backbone
from eet_tf.embedder.heads import AttributeHead, UnitLength
from eet_tf.embedder.pooling import POOLINGS, pooling_layer


def build_embedder(
    backbone: str = "resnet50",
    embedding_dim: int = 512,
    image_size: int = 224,
    weights: str | None = None,
    pooling: str = "gem",
    freeze_batch_norm: bool = False,
    attribute_names: Sequence[str] = (),
    freeze_until: str | None = None,
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
        pooling: `"gem"` (generalised mean with a learnt exponent, arXiv 1711.02512), `"avg"`, `"max"`, `"avg_max"` (the
            sum of the two, arXiv 2003.13911), or `"grid"`: averages over 4 x 4 cells, side by side, which keeps where
            things are. For catalogue photos, all taken alike; the projection has 16 times the weights.
        freeze_batch_norm: keep the backbone's batch normalisation at the statistics it was loaded with. Needs weights
            with real ones.
        attribute_names: names of the A binary attributes that a second head, linear on the pooled features, predicts.
            Empty by default: no such head.
        freeze_until: name of a layer of the backbone, which keeps its weights, and so do all layers before it, batch
            normalisation too. Early layers know edges and textures, and cost most of a step; with some tens of products
            they are better left as they were loaded. None: all layers train.

    Returns:
        A model `[B, image_size, image_size, 3]` in [0, 255] -> `[B, embedding_dim]` float32 of unit length. With
        attributes its output is a dict of that, `"embedding"`, and `"attributes"`, `[B, A]` float32 logits.

    Raises:
        ValueError: for an unknown backbone or pooling, weights that cannot be had, a grid on a feature map of fewer
            than 4 x 4 places, a layer that the backbone has not, or attribute names that are no distinct strings.

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
    network, mode = build_backbone(backbone, image_size, weights)
    if freeze_batch_norm:
        backbones.freeze_batch_norm(network)
    if freeze_until is not None:
        backbones.freeze_until(network, freeze_until)
    images = keras.Input([image_size, image_size, 3], name="images", dtype="float32")
    x = network(PixelScaling(mode, name="pixel_scaling")(images))
    pooled = pooling_layer(pooling, x)(x)
    projected = keras.layers.Dense(embedding_dim, name="projection")(pooled)
    outputs = UnitLength(dtype="float32", name="embedding")(projected)
    if attributes:
        head = AttributeHead(attributes, dtype="float32", name="attributes")
        outputs = {"embedding": outputs, "attributes": head(pooled)}
    return keras.Model(images, outputs, name=f"{backbone}_embedder")


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    are_strings = not isinstance(names, str) and all(isinstance(name, str) and name for name in names)
    if not are_strings or len(set(names)) < len(names):
        raise ValueError(
            f"`attribute_names` must be distinct strings that are not empty. Received: attribute_names={names!r}."
        )
    return tuple(str(name) for name in names)
