"""Losses from elsewhere that the methods of this package are measured against; not part of it."""

from __future__ import annotations

import keras
import tensorflow as tf


class NormalizedLogits(keras.layers.Layer):
    """Cosines between unit vectors and one learnt vector per class, over a temperature; a classifier's last layer.

    Args:
        num_classes: C.
        temperature: 0.05 in the paper.
        scale: deviation of the class vectors' numbers at the start. Only directions count, and the smaller the vectors,
            the faster a step of Adam turns them: at 1 they hardly move at a rate that suits the network.

    Reference: Zhai, Wu, "Classification is a Strong Baseline for Deep Metric Learning", arXiv 1811.12649, eq. 3.
    """

    def __init__(self, num_classes: int, temperature: float = 0.05, scale: float = 0.01):
        super().__init__(name="normalized_logits")
        self.num_classes, self.temperature, self.scale = num_classes, temperature, scale

    def build(self, input_shape):
        """Makes the vectors of the classes."""
        self.proxies = self.add_weight(
            name="proxies",
            shape=(self.num_classes, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=self.scale),
        )
        super().build(input_shape)

    def call(self, embeddings):
        """Unit vectors `[B, D]` -> logits `[B, C]`."""
        proxies = tf.math.l2_normalize(tf.convert_to_tensor(self.proxies), axis=-1)
        return tf.matmul(embeddings, proxies, transpose_b=True) / self.temperature
