"""Convolutions of each channel by itself, as TensorFlow computes them fast on processors."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf.embedder.rebuilding import rebuilt


@keras.saving.register_keras_serializable(package="eet_tf")
class DepthwiseConv(keras.layers.Conv2D):
    """A `Conv2D` with as many groups as channels, with the same weights, computed by `tf.nn.depthwise_conv2d`.

    A convolution of as many groups takes some 70 times as long on processors: `Conv2D` of Keras 3 leaves it to XLA
    there. A photo's 56 x 56 x 96 numbers and a kernel of 7 x 7 took 46 ms, and 0.6 ms as a depthwise convolution, on
    the same 2 cores.

    Example:
        ```python
        layer = DepthwiseConv(96, 7, padding="same", groups=96)
        layer(tf.zeros([2, 56, 56, 96])).shape  # (2, 56, 56, 96)
        ```
    """

    def convolution_op(self, inputs, kernel):
        """Convolves `[B, H, W, C]` with the kernel `[h, w, 1, C * m]` to `[B, H', W', C * m]`."""
        *size, _, outputs = kernel.shape
        kernel = tf.reshape(kernel, [*size, self.groups, outputs // self.groups])
        return tf.nn.depthwise_conv2d(inputs, kernel, [1, *self.strides, 1], self.padding.upper())


def with_depthwise(network: keras.Model) -> keras.Model:
    """Makes the same network, its convolutions of each channel by itself as `DepthwiseConv`.

    Args:
        network: a functional model.
    """

    def changed(layer):
        made = DepthwiseConv if _is_depthwise(layer) else type(layer)
        return made.from_config(layer.get_config())

    return rebuilt(network, changed)


def _is_depthwise(layer) -> bool:
    """Whether a layer convolves each channel by itself, as `tf.nn.depthwise_conv2d` can."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == layer.input.shape[-1] > 1
        and layer.data_format == "channels_last"
        and layer.strides[0] == layer.strides[1]
        and set(layer.dilation_rate) == {1}
    )
