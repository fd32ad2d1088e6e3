"""The heads: unit-length embeddings, and the logits of named attributes."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


def attribute_head(embedder: keras.Model) -> AttributeHead | None:
    """The layer of an embedder that predicts attributes, if it has one, be it in a model within it."""
    for layer in embedder.layers:
        head = attribute_head(layer) if isinstance(layer, keras.Model) else layer
        if isinstance(head, AttributeHead):
            return head
    return None


def attribute_names(embedder: keras.Model) -> tuple[str, ...]:
    """The attributes that an embedder predicts, in the order of its output; empty without an attribute head.

    Example:

    >>> attribute_names(build_embedder("small_cnn", image_size=32, attribute_names=["striped", "red"]))
    ('striped', 'red')
    """
    head = attribute_head(embedder)
    return head.names if head else ()


@keras.saving.register_keras_serializable(package="eet_tf")
class UnitLength(keras.layers.Layer):
    """Vectors brought to Euclidean length 1."""

    def call(self, vectors):
        """`[B, D]` -> `[B, D]`."""
        return tf.math.l2_normalize(vectors, axis=-1)


@keras.saving.register_keras_serializable(package="eet_tf")
class UnitPrefix(keras.layers.Layer):
    """The first dimensions of vectors, brought to Euclidean length 1.

    Args:
        length: how many.
    """

    def __init__(self, length: int, **kwargs):
        super().__init__(**kwargs)
        self.length = length

    def call(self, vectors):
        """`[B, D]` -> `[B, length]`."""
        return tf.math.l2_normalize(vectors[:, : self.length], axis=-1)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "length": self.length}


@keras.saving.register_keras_serializable(package="eet_tf")
class AttributeHead(keras.layers.Layer):
    """A linear layer from features to the logit of each of A named binary attributes.

    Args:
        names: the attributes, kept with the layer so that a saved model knows what its numbers mean.
    """

    def __init__(self, names: Sequence[str], **kwargs):
        super().__init__(**kwargs)
        self.names = tuple(names)

    def build(self, input_shape):
        """Makes the weights."""
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], len(self.names)), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(len(self.names),), initializer="zeros")
        super().build(input_shape)

    def call(self, features):
        """`[B, C]` -> `[B, A]`."""
        return tf.matmul(features, self.kernel) + self.bias

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "names": list(self.names)}
