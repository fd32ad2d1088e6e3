"""The named backbones: which there are, how each is built and given its weights; and what is kept as it was loaded."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator, Mapping

import keras

from eet_tf import compat
from eet_tf.embedder.depthwise import with_depthwise
from eet_tf.wording import first_sentence

_CONVNEXT_SIZES = ("tiny", "small", "base", "large", "xlarge")
_APPLICATIONS = {
    **{f"efficientnet_b{i}": (f"EfficientNetB{i}", "none") for i in range(8)},
    **{f"efficientnet_v2_b{i}": (f"EfficientNetV2B{i}", "none") for i in range(4)},
    "efficientnet_v2_s": ("EfficientNetV2S", "none"),
    "efficientnet_v2_m": ("EfficientNetV2M", "none"),
    "efficientnet_v2_l": ("EfficientNetV2L", "none"),
    **{f"resnet{depth}": (f"ResNet{depth}", "caffe") for depth in (50, 101, 152)},
    **{f"resnet{depth}_v2": (f"ResNet{depth}V2", "tf") for depth in (50, 101, 152)},
    "mobilenet_v2": ("MobileNetV2", "tf"),
    # their networks begin with the normalisation of pixels in [0, 255]
    **{f"convnext_{size}": (f"ConvNeXt{size.title().replace('Xl', 'XL')}", "none") for size in _CONVNEXT_SIZES},
}
# backbones cut off after a layer: (the whole one, that layer)
_CUT = {
    "mobilenet_v2_block8": ("mobilenet_v2", "block_8_expand_relu"),
    "mobilenet_v2_stride16": ("mobilenet_v2", "block_13_expand_relu"),
}
# the ends of two stages side by side: (the whole one, a layer, one at half its size)
_JOINED = {"mobilenet_v2_joined": ("mobilenet_v2", "block_3_project_BN", "block_9_add")}
_BASIC_RESNETS = {"resnet18_v2": (2, 2, 2, 2), "resnet34_v2": (3, 4, 6, 3)}
BACKBONES = tuple(sorted([*_APPLICATIONS, *_BASIC_RESNETS, *_CUT, *_JOINED, "small_cnn"]))


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network and all that is to be known of it to make an embedder of it.

    Attributes:
        network: from scaled pixels, `[B, S, S, 3]`, to a feature map `[B, H, W, C]`, tokens `[B, T, C]` or vectors
            `[B, C]`.
        scaling: the arguments of the `PixelScaling` that it wants.
        name: what messages call it, and the embedder after it.
        pooling: what suits its output, where nothing else is asked for.
        num_prefix_tokens: how many of the tokens stand before those of patches: the class token and registers.
        has_class_token: whether the first of them is a class token.
        last_norm: the layer that it has behind the pooling, or None.
    """

    network: keras.Model
    scaling: Mapping
    name: str
    pooling: str
    num_prefix_tokens: int = 0
    has_class_token: bool = False
    last_norm: keras.layers.Layer | None = None


def named_backbone(name: str, image_size: int, weights: str | None, pooling: str | None = None) -> Backbone:
    """A backbone of `BACKBONES`, which a pooling may want in another form."""
    if name.startswith("convnext_"):
        return _convnext(name, image_size, weights, pooling)
    network, mode = _network(name, image_size, weights)
    return Backbone(network, {"mode": mode}, name, "gem")


def _network(name: str, image_size: int, weights: str | None) -> tuple[keras.Model, str]:
    """The network, from scaled pixels to a feature map, and the mode of `PixelScaling` it wants."""
    if name in _CUT:
        whole, last_layer = _CUT[name]
        network, mode = _network(whole, image_size, weights)
        return keras.Model(network.input, network.get_layer(last_layer).output, name=name), mode
    if name in _JOINED:
        whole, *last_layers = _JOINED[name]
        network, mode = _network(whole, image_size, weights)
        early, late = (network.get_layer(layer).output for layer in last_layers)
        joined = keras.layers.Concatenate()([_beside_each_other(early), late])
        return keras.Model(network.input, joined, name=name), mode
    if name in _APPLICATIONS:
        function, mode = _APPLICATIONS[name]
        return _with_weights_error(lambda: _application(function, image_size, weights), name, weights), mode
    builders = {"small_cnn": _small_cnn, **{known: _basic_resnet(blocks) for known, blocks in _BASIC_RESNETS.items()}}
    if weights == "imagenet":
        raise ValueError(
            f"`weights` must be None or a path for {name}, which has no ImageNet weights in Keras. Received: "
            f"weights={weights!r}."
        )
    network = builders[name](image_size)
    load_weights(network, weights, name)
    return network, "unit"


def _beside_each_other(features):
    """Four neighbouring places as one with four times the channels: half the size, and nothing is lost.

    Beside a last row or column of an odd size stand zeros.
    """
    odd = tuple((0, size % 2) for size in features.shape[1:3])
    even = keras.layers.ZeroPadding2D(odd)(features) if (0, 1) in odd else features
    height, width, channels = even.shape[1:]
    pairs = keras.layers.Reshape([height // 2, 2, width // 2, 2, channels])(even)
    grouped = keras.layers.Permute([1, 3, 2, 4, 5])(pairs)
    return keras.layers.Reshape([height // 2, width // 2, 4 * channels])(grouped)


def load_weights(network: keras.Model, weights: str | None, name: str) -> None:
    """Loads a file of weights into a network; None leaves those that it has."""
    if weights is not None:
        _with_weights_error(lambda: network.load_weights(weights), name, weights)


def _convnext(name: str, image_size: int, weights: str | None, pooling: str | None) -> Backbone:
    """ConvNeXt, whose last layer norm belongs behind the pooling, but for a grid, which keeps places apart.

    Its features have both signs, which the generalised mean would cut off, and it was trained with the average.
    """
    function, mode = _APPLICATIONS[name]
    inner = None if pooling == "grid" else "avg"
    network = _with_weights_error(lambda: _application(function, image_size, weights, inner), name, weights)
    whole = with_depthwise(network)
    if inner is None:
        return Backbone(whole, {"mode": mode}, name, "avg")
    *_, average, last_norm = whole.layers
    return Backbone(
        keras.Model(whole.input, average.input, name=name), {"mode": mode}, name, "avg", last_norm=last_norm
    )


def _application(function: str, image_size: int, weights: str | None, pooling: str | None = None) -> keras.Model:
    build = getattr(keras.applications, function)
    return build(include_top=False, weights=weights, input_shape=(image_size, image_size, 3), pooling=pooling)


def _with_weights_error(build: Callable, backbone: str, weights: str | None):
    if weights not in (None, "imagenet") and not os.path.isfile(weights):
        raise ValueError(f"`weights` must be None, 'imagenet' or an existing file. Received: weights={weights!r}.")
    try:
        return build()
    except Exception as error:
        if weights is None:
            raise
        raise ValueError(
            f"`weights` could not be loaded into {backbone}. Received: weights={weights!r}: "
            f"{first_sentence(str(error))}."
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
    """Four stages of convolution, batch norm and ReLU, halving the size at each: 32 to 256 channels wide."""
    images = keras.Input([image_size, image_size, 3])
    x = images
    for stage, filters in enumerate((32, 64, 128, 256)):
        x = _convolution(x, filters, strides=2 if stage else 1, name=f"stage_{stage}")
        x = keras.layers.MaxPooling2D()(x) if stage == 0 else x
    return keras.Model(images, x, name="small_cnn")


def _convolution(x, filters: int, strides: int, name: str):
    x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def freeze_batch_norm(network: keras.Model) -> None:
    """Keeps a backbone's batch normalisation at the statistics it was loaded with."""
    for layer in compat.all_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def freeze_until(network: keras.Model, name: str) -> None:
    """Keeps a layer of a backbone, and all layers before it, at the weights they were loaded with.

    Raises:
        ValueError: if the backbone has no layer of that name; it lists some that are like it, or where stages end.
    """
    layers = list(_in_order(network))
    names = [layer.name for layer in layers]
    if name not in names:
        alike = difflib.get_close_matches(str(name), names, 5, 0.5) or names[:: max(len(names) // 8, 1)]
        raise ValueError(
            f"`freeze_until` must be a layer of {network.name}, e.g. {', '.join(alike)}. "
            f"Received: freeze_until={name!r}."
        )
    for layer in layers[: names.index(name) + 1]:
        layer.trainable = False


def _in_order(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """Every layer in its order; a network within, behind its own layers."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _in_order(layer)
        yield layer
