"""Losses from elsewhere that the methods of this package are measured against; not part of it."""

from __future__ import annotations

import keras
import tensorflow as tf


class MultiSimilarityLoss(keras.losses.Loss):
    """Multi-similarity loss with its own mining, on cosines of the batch.

    Args:
        alpha: steepness for positives, 2 in the paper.
        beta: steepness for negatives, 50.
        base: cosine between the two, 0.5 (the paper's code; its text has 1).
        epsilon: slack of the mining, 0.1.

    Reference: Wang, Han, Huang, Dong, Scott, "Multi-Similarity Loss with General Pair Weighting", arXiv 1904.06627,
        eq. 11 to 15.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1):
        super().__init__(name="multi_similarity")
        self.alpha, self.beta, self.base, self.epsilon = alpha, beta, base, epsilon

    def call(self, y_true, y_pred):
        """Labels `[B]` or `[B, 1]`, embeddings `[B, D]` -> `[B]`."""
        labels = tf.reshape(y_true, [-1])
        vectors = tf.math.l2_normalize(tf.cast(y_pred, tf.float32), axis=-1)
        cosines = tf.matmul(vectors, vectors, transpose_b=True)
        is_same = tf.equal(labels[:, tf.newaxis], labels[tf.newaxis, :])
        is_positive = is_same & ~tf.eye(tf.size(labels), dtype=tf.bool)
        farthest_positive = tf.reduce_min(tf.where(is_positive, cosines, 2.0), axis=1, keepdims=True)
        nearest_negative = tf.reduce_max(tf.where(is_same, -2.0, cosines), axis=1, keepdims=True)
        positives = is_positive & (cosines < nearest_negative + self.epsilon)
        negatives = ~is_same & (cosines > farthest_positive - self.epsilon)
        return (
            _log_of_one_and_sum(-self.alpha * (cosines - self.base), positives) / self.alpha
            + _log_of_one_and_sum(self.beta * (cosines - self.base), negatives) / self.beta
        )


def _log_of_one_and_sum(exponents, chosen):
    """`log(1 + sum of exp over the chosen)` of each row."""
    exponents = tf.where(chosen, exponents, -1e9)
    return tf.reduce_logsumexp(tf.pad(exponents, [[0, 0], [0, 1]]), axis=1)


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
