"""The statistics of batch normalisation, which every replica moves by its own photos, become those of all replicas."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf import compat, replicas


def share(embedder: keras.Model) -> None:
    """Gives all replicas the mean of the statistics that each has moved; to be called in a training step.

    Without it replicas drift apart: a model that they embed photos with would give each half of them other vectors, and
    a saved one has the statistics of one replica alone (Keras 3) or their mean (Keras 2), so that figures measured
    in training were not those of the saved embedder. Statistics move by a share of the difference, so that the mean of
    what replicas would end with is the same. Layers that are not trained keep theirs.
    """
    if replicas.num_replicas() == 1:
        return
    moved = [compat.raw(each) for layer in _trained_norms(embedder) for each in _statistics(layer)]
    if not moved:
        return
    values = [tf.convert_to_tensor(each) for each in moved]
    flat = tf.concat([tf.reshape(each, [-1]) for each in values], axis=0)
    means = tf.split(replicas.sum_over(flat) / replicas.num_replicas(), [each.shape.num_elements() for each in values])
    for variable, mean, value in zip(moved, means, values):
        variable.assign(tf.reshape(mean, value.shape))


def _trained_norms(embedder: keras.Model) -> list[keras.layers.BatchNormalization]:
    layers = compat.all_layers(embedder)
    return [each for each in layers if isinstance(each, keras.layers.BatchNormalization) and each.trainable]


def _statistics(layer: keras.layers.BatchNormalization) -> tuple:
    return layer.moving_mean, layer.moving_variance
