"""The backbones: which there are, how each is built and given its weights, and the scaling of pixels it expects."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable

import keras
import tensorflow as tf

from eet_tf.wording import first_sentence

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


def build_backbone(name: str, image_size: int, weights: str | None) -> tuple[keras.Model, str]:
    """The backbone as a model from scaled pixels to a feature map, and the mode of `PixelScaling` it wants."""
    if name in _CUT:
        whole, last_layer = _CUT[name]
        network, mode = build_backbone(whole, image_size, weights)
        return keras.Model(network.input, network.get_layer(last_layer).output, name=name), mode
    if name in _APPLICATIONS:
        function, mode = _APPLICATIONS[name]
        return _with_weights_error(lambda: _application(function, image_size, weights), name, weights), mode
    builders = {"small_cnn": _small_cnn, **{known: _basic_resnet(blocks) for known, blocks in _BASIC_RESNETS.items()}}
    if name not in builders:
        raise ValueError(f"`backbone` must be one of {', '.join(BACKBONES)}. Received: backbone={name!r}.")
    if weights == "imagenet":
        raise ValueError(
            f"`weights` must be None or a path for {name}, which has no ImageNet weights in Keras. Received: "
            f"weights={weights!r}."
        )
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
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def freeze_until(network: keras.Model, name: str) -> None:
    """Keeps a layer of a backbone, and all layers before it, at the weights they were loaded with.

    Raises:
        ValueError: if the backbone has no layer of that name; it lists some that are like it, or where stages end.
    """
    names = [layer.name for layer in network.layers]
    if name not in names:
        alike = difflib.get_close_matches(str(name), names, 5, 0.5) or names[:: max(len(names) // 8, 1)]
        raise ValueError(
            f"`freeze_until` must be a layer of {network.name}, e.g. {', '.join(alike)}. "
            f"Received: freeze_until={name!r}."
        )
    for layer in network.layers[: names.index(name) + 1]:
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
