"""Cross-batch memory: the embeddings of past batches, kept to be met by the photos of the next ones."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf import compat, replicas
from eet_tf.losses.batch import Remembered
from eet_tf.losses.labels import class_numbers
from eet_tf.pairs import pairwise


class CrossBatchMemory(keras.layers.Layer):
    """A queue of the last embeddings, labels and attributes that training has seen, of all replicas, oldest out first.

    It is part of the model's state: saved and restored with its weights, the same on every replica.

    Args:
        size: how many photos it keeps.
        embedding_dim: D.
        num_attributes: A, or 0.
        start: how many batches it takes before it shows any; until then an embedder moves too fast for what it
            remembers. Default 1,000, the paper's.

    Example:

    >>> memory = CrossBatchMemory(size=3, embedding_dim=2, start=0)
    >>> memory.add([[3.0, 4.0], [0.0, 2.0]], [7, 8])
    >>> rows = memory.rows()
    >>> rows.labels[rows.is_filled].numpy()
    array([7, 8])
    >>> memory.add([[1.0, 0.0], [1.0, 0.0]], [9, 9])
    >>> sorted(memory.rows().labels.numpy().tolist())
    [8, 9, 9]

    Reference: Wang, Zhang, Huang, Scott, "Cross-Batch Memory for Embedding Learning", CVPR 2020, arXiv 1912.06798.
    """

    def __init__(self, size: int, embedding_dim: int, num_attributes: int = 0, start: int = 1000, name: str = "memory"):
        super().__init__(name=name, trainable=False)
        if size < 1:
            raise ValueError(f"`size` must be at least 1. Received: size={size}.")
        if start < 0:
            raise ValueError(f"`start` must be 0 or more. Received: start={start}.")
        self.size = size
        self.start = start
        self.embeddings = compat.add_state(self, "embeddings", [size, embedding_dim], "float32")
        self.labels = compat.add_state(self, "labels", [size], "int64")
        self.attributes = compat.add_state(self, "attributes", [size, num_attributes], "float32")
        self.num_added = compat.add_state(self, "num_added", [], "int64")
        self.num_batches = compat.add_state(self, "num_batches", [], "int64")
        self.built = True

    def rows(self) -> Remembered:
        """What it shows: always `size` rows, in no particular order, and which of them stand for a photo."""
        has_started = tf.convert_to_tensor(self.num_batches) >= self.start
        count = tf.where(has_started, tf.convert_to_tensor(self.num_added), 0)
        fields = (self.embeddings, self.labels, self.attributes)
        embeddings, labels, attributes = [tf.convert_to_tensor(field) for field in fields]
        return Remembered(embeddings, labels, attributes, tf.range(self.size, dtype=tf.int64) < count)

    def add(self, embeddings, labels, attributes=None) -> None:
        """Takes a replica's batch, and those of the others, in place of the oldest rows.

        Args:
            embeddings: `[B, D]`, of any length; unit vectors are kept.
            labels: `[B]` or `[B, 1]` integers.
            attributes: `[B, A]`, or None, which leaves them as they are.

        Raises:
            ValueError: if labels are no whole numbers, as far as that can be seen.
        """
        labels = tf.reshape(class_numbers(labels, "labels")[0], [-1])
        added = [
            (self.embeddings, pairwise.unit_rows(tf.cast(embeddings, tf.float32))),
            (self.labels, labels),
        ]
        if attributes is not None:
            added.append((self.attributes, tf.cast(attributes, tf.float32)))
        before = tf.convert_to_tensor(self.num_added)
        for field, rows in added:
            rows = replicas.gather(tf.stop_gradient(rows))
            count = tf.shape(rows, out_type=tf.int64)[0]
            kept = tf.range(tf.maximum(count - self.size, 0), count)
            compat.scatter(field, (before + kept) % self.size, tf.gather(rows, kept))
        self.num_added.assign(before + count)
        self.num_batches.assign(tf.convert_to_tensor(self.num_batches) + 1)
