"""The last stride: a backbone whose last halving of the feature map is left out, with the weights it has."""

from __future__ import annotations

import re

import keras

from eet_tf.embedder.rebuilding import rebuilt

_KNOWN = re.compile(r"(resnet\d+(_v2)?|mobilenet_v2(?!_joined)\w*|efficientnet_\w+|small_cnn)")


def check_last_stride(backbone, last_stride) -> None:
    """Refuses a stride that is none, and 1 of a backbone of which nobody has looked where it halves."""
    if last_stride not in (1, 2):
        raise ValueError(f"`last_stride` must be 1 or 2. Received: last_stride={last_stride!r}.")
    if last_stride == 1 and not _KNOWN.fullmatch(str(backbone)):
        raise ValueError(
            "`last_stride` must be 2 for a backbone other than ResNets, MobileNetV2, EfficientNets and small_cnn. "
            f"Received: last_stride=1 with backbone={backbone!r}."
        )


def without_last_halving(network: keras.Model) -> keras.Model:
    """Makes the same backbone with strides of 1 where it last halves the feature map, which becomes twice as large.

    Every layer that strides to the last size gets a stride of 1, on the main way and on the shortcut beside it, and
    padding by hand before it becomes that which keeps the size. Weights have no part in this: they are the same.

    Args:
        network: a functional model from images to a feature map.

    Reference: Luo, Gu, Liao, Lai, Jiang, arXiv 1903.07071, section 3.4; Sun, Zheng, Yang, Tian, Wang, arXiv 1711.09349.
    """
    halving = {layer.name: layer for layer in _layers_of_last_halving(network)}
    outputs = {id(layer.output): layer for layer in network.layers if isinstance(layer, keras.layers.ZeroPadding2D)}
    pads = {outputs[id(layer.input)].name: layer for layer in halving.values() if id(layer.input) in outputs}

    def changed(layer):
        config = layer.get_config()
        if layer.name in halving:
            config["strides"] = 1
        if layer.name in pads:
            config["padding"] = [[side // 2, side // 2] for side in pads[layer.name].kernel_size]
        return type(layer).from_config(config)

    return rebuilt(network, changed)


def _layers_of_last_halving(network: keras.Model) -> list[keras.layers.Layer]:
    striding = [layer for layer in network.layers if tuple(getattr(layer, "strides", (1, 1))) == (2, 2)]
    last = tuple(striding[-1].output.shape[1:3])
    return [layer for layer in striding if tuple(layer.output.shape[1:3]) == last]
