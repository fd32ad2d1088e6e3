"""What every metric loss shares: a batch seen whole from any replica, named terms, and a vector out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from eet_tf import compat, replicas


class Remembered(NamedTuple):
    """Photos of past batches, which the anchors of a batch meet as further references. They get no gradient.

    Attributes:
        embeddings: `[N, D]` unit vectors.
        labels: `[N]`.
        attributes: `[N, A]`, or None where the loss uses none.
        is_filled: `[N]` bool, false in rows that stand for no photo yet, or None if all do.
    """

    embeddings: tf.Tensor
    labels: tf.Tensor
    attributes: tf.Tensor | None = None
    is_filled: tf.Tensor | None = None


class Batch(NamedTuple):
    """One replica's rows as anchors, all replicas' rows as references. Float32; labels flat.

    `num_anchors` is the number of anchors of all replicas; what is remembered stands behind as many references.
    `is_present` `[references]` is false for a reference that stands for no photo; None if all do.
    """

    anchors: tf.Tensor
    anchor_labels: tf.Tensor
    anchor_rows: tf.Tensor
    references: tf.Tensor
    reference_labels: tf.Tensor
    num_anchors: tf.Tensor
    is_present: tf.Tensor | None = None


def make_batch(labels, embeddings, from_normalized: bool) -> Batch:
    """Checks shapes, brings embeddings to unit length and float32, and gathers across replicas.

    Raises:
        ValueError: if `embeddings` is not `[B, D]` or `labels` not `[B]` or `[B, 1]`.
    """
    embeddings = tf.convert_to_tensor(embeddings)
    labels = tf.convert_to_tensor(labels)
    _check_shapes(labels.shape, embeddings.shape)
    labels = tf.reshape(labels, [-1])
    embeddings = tf.cast(embeddings, tf.float32)
    if not from_normalized:
        embeddings = tf.math.l2_normalize(embeddings, axis=-1)
    rows = replicas.global_rows(tf.shape(embeddings)[0])
    references = replicas.gather(embeddings)
    return Batch(embeddings, labels, rows, references, replicas.gather(labels), tf.shape(references)[0])


def with_memory(batch: Batch, memory: Remembered | None) -> Batch:
    """The batch with what is remembered behind its references; the batch itself if that is None."""
    if memory is None:
        return batch
    remembered = tf.stop_gradient(tf.cast(memory.embeddings, tf.float32))
    labels = tf.cast(memory.labels, batch.reference_labels.dtype)
    is_present = None
    if memory.is_filled is not None:
        is_present = tf.concat([tf.ones_like(batch.reference_labels, tf.bool), memory.is_filled], axis=0)
    return batch._replace(
        references=replicas.dense_gradient(tf.concat([batch.references, remembered], axis=0)),
        reference_labels=tf.concat([batch.reference_labels, labels], axis=0),
        is_present=is_present,
    )


def _check_shapes(labels: tf.TensorShape, embeddings: tf.TensorShape) -> None:
    if embeddings.rank != 2:
        raise ValueError(
            f"`y_pred` must be embeddings of shape [batch, dim]. Received: shape {tuple(embeddings)}. "
            "End the model in one vector per photo, e.g. by pooling."
        )
    if labels.rank not in (1, 2) or (labels.rank == 2 and labels[1] != 1):
        raise ValueError(
            f"`y_true` must be integer labels of shape [batch] or [batch, 1]. Received: shape {tuple(labels)}. "
            "Give class numbers, not one-hot rows."
        )
    if None not in (labels[0], embeddings[0]) and labels[0] != embeddings[0]:
        raise ValueError(
            "`y_true` and `y_pred` must have the same batch size. "
            f"Received: {labels[0]} labels, {embeddings[0]} embeddings."
        )


def entry_of(argument: str, value, key: str):
    """`value[key]`, where a loss needs dicts of labels and of outputs.

    Raises:
        ValueError: if `value` is no dict or has no such entry; it says where dicts come from.
    """
    if isinstance(value, Mapping) and key in value:
        return value[key]
    received = f"a dict of {', '.join(sorted(value))}" if isinstance(value, Mapping) else "no dict"
    raise ValueError(
        f"`{argument}` must be a dict with {key!r}. Received: {argument} is {received}. Losses that use attributes "
        "need eet_tf.MetricLearner (Keras's own compile gives a loss one output at a time), an embedder from "
        "build_embedder(..., attribute_names=...) and batches of (images, {'label': [batch], 'attributes': [batch, "
        "num_attributes]})."
    )


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"`{argument}` must be one of {', '.join(choices)}. Received: {argument}={value!r}.")


class MetricLoss(compat.Loss):
    """A loss over pairs within a batch, the sum of named terms.

    A subclass has `terms(labels, embeddings, memory)`, the weighted terms by name, each of shape `[B]`. `MetricLearner`
    logs them one by one; in any other Keras model only their sum is seen.

    Attributes:
        uses_attributes: whether `terms` takes, in place of labels and embeddings, the dicts `{"label": [B],
            "attributes": [B, A]}` and `{"embedding": [B, D], "attributes": [B, A]}`.
    """

    uses_attributes = False

    @property
    def term_names(self) -> tuple[str, ...]:
        """The names that `terms` returns."""
        raise TypeError(f"{type(self).__name__} must define `term_names`.")

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """The weighted terms by name, each `[B]`; the loss is their sum."""
        raise TypeError(f"{type(self).__name__} must define `terms`.")

    def graded_by(self, targets, outputs) -> tf.Tensor | None:
        """The attributes `[B, A]` that pairs are weighted by; None where the loss uses none."""
        return None

    def call(self, y_true, y_pred) -> tf.Tensor:
        """Labels `[B]` or `[B, 1]`, embeddings `[B, D]` -> the loss of each anchor `[B]`."""
        return tf.add_n(list(self.terms(y_true, y_pred).values()))
