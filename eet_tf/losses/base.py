"""What every metric loss shares: a batch seen whole from any replica, named terms, and a vector out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from eet_tf import compat, plans, replicas
from eet_tf.losses.labels import class_numbers
from eet_tf.pairs import pairwise

_MEANS = ("sum_over_batch_size", "mean", "auto")  # "auto" is Keras 2's name for the first


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
    """One replica's rows as anchors, all replicas' rows as references. Float32; labels flat, int64.

    `num_anchors` is the number of anchors of all replicas; what is remembered stands behind as many references.
    `is_present` `[references]` is false for a reference that stands for no photo; None if all do. `num_own` is the
    number of this replica's photos: without any it has one anchor that counts for nothing, see `of_photos`; None if it
    is known to have some. `flaw` is 0, or NaN if some embedding or label of the batch is no number.
    """

    anchors: tf.Tensor
    anchor_labels: tf.Tensor
    anchor_rows: tf.Tensor
    references: tf.Tensor
    reference_labels: tf.Tensor
    num_anchors: tf.Tensor
    flaw: tf.Tensor
    num_own: tf.Tensor | None = None
    is_present: tf.Tensor | None = None

    def of_photos(self, values: tf.Tensor) -> tf.Tensor:
        """What belongs to a photo, of values `[A]` or `[A, C]` of the anchors."""
        return values if self.num_own is None else values[: self.num_own]


def make_batch(labels, embeddings, from_normalized: bool) -> Batch:
    """Checks shapes, brings embeddings to unit length and float32, and gathers across replicas.

    Raises:
        ValueError: if `embeddings` is not `[B, D]` or `labels` not whole numbers `[B]` or `[B, 1]`.
    """
    embeddings = tf.convert_to_tensor(embeddings)
    labels, is_sound = class_numbers(labels)
    _check_shapes(labels.shape, embeddings.shape)
    embeddings = tf.cast(embeddings, tf.float32)
    if not from_normalized:
        embeddings = pairwise.unit_rows(embeddings)
    if is_sound is not None:
        embeddings = tf.where(tf.reshape(is_sound, [-1, 1]), embeddings, float("nan"))
    (anchors, labels), (references, reference_labels) = gathered(embeddings, tf.reshape(labels, [-1]))
    num_own = tf.shape(embeddings)[0]
    return Batch(
        anchors,
        labels,
        replicas.global_rows(num_own),
        references,
        reference_labels,
        num_anchors=tf.shape(references)[0],
        flaw=flaw_of(references),
        num_own=None if embeddings.shape[0] else num_own,
    )


def gathered(*tensors: tf.Tensor) -> tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]:
    """This replica's rows of some tensors, and those of all replicas; one row of each at least.

    A replica without a row gets the first one of all, without its gradient; a batch without a row gets one of zeros. So
    nothing of what a loss is made of meets a matrix without rows.
    """
    if replicas.num_replicas() > 1:
        references = [replicas.gather(each) for each in tensors]
        return _or_else(tensors, [tf.stop_gradient(each[:1]) for each in references]), references
    own = _or_else(tensors, [tf.zeros([1, *each.shape[1:]], each.dtype) for each in tensors])
    return own, own


def _or_else(tensors: Sequence[tf.Tensor], others: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """Tensors of as many rows each, or if they have none `others`, of one row each; under XLA a row of zeros."""
    if tensors[0].shape[0] is not None:
        return tensors if tensors[0].shape[0] else others
    count = tf.shape(tensors[0])[0]
    if plans.is_compiled():  # one device, so all is empty; to XLA the number is a constant
        missing = tf.cast(tf.equal(count, 0), tf.int32)
        return [tf.pad(each, [[0, missing], *[[0, 0]] * (each.shape.rank - 1)]) for each in tensors]
    found = tf.cond(count > 0, lambda: list(tensors), lambda: list(others))
    for each, given in zip(found, tensors):
        each.set_shape(given.shape)
    return found


def flaw_of(rows: tf.Tensor, is_present: tf.Tensor | None = None) -> tf.Tensor:
    """0 if all rows `[N, D]` that are there are finite, else NaN.

    A loss adds it. The guards that keep it finite for equal photos, or for a class alone, would turn NaN into 0.
    """
    is_finite = tf.math.is_finite(tf.reduce_sum(tf.stop_gradient(rows), axis=1))
    if is_present is not None:
        is_finite |= tf.logical_not(is_present)
    return tf.where(tf.reduce_all(is_finite), 0.0, float("nan"))


def with_memory(batch: Batch, memory: Remembered | None) -> Batch:
    """The batch with what is remembered behind its references; the batch itself if that is None."""
    if memory is None:
        return batch
    remembered = tf.stop_gradient(tf.cast(memory.embeddings, tf.float32))
    labels, _ = class_numbers(memory.labels, "memory.labels")
    is_present = None
    if memory.is_filled is not None:
        is_present = tf.concat([tf.ones_like(batch.reference_labels, tf.bool), memory.is_filled], axis=0)
    return batch._replace(
        references=replicas.dense_gradient(tf.concat([batch.references, remembered], axis=0)),
        reference_labels=tf.concat([batch.reference_labels, labels], axis=0),
        flaw=batch.flaw + flaw_of(remembered, memory.is_filled),
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


class BatchLoss(compat.Loss):
    """A loss whose update is that of the whole batch, however unequally replicas share it.

    Keras takes the mean over each replica's photos, and then over the replicas: of a last batch of 3 photos on 2
    replicas one would count as much as the two others. The value is Keras's, which adds up rightly in its logs.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        """As in every Keras loss; `y_true` reaches `call` as it is given, integers exactly."""
        value = super().__call__(y_true, y_pred, sample_weight)
        if self.reduction in (None, "none"):
            return value
        if value.shape.rank:
            value = tf.reduce_sum(value)  # of no photos: Keras 3 returns a vector without numbers
        if self.reduction not in _MEANS or replicas.num_replicas() == 1:
            return value
        return replicas.weighed_by_share(value, tf.shape(tf.nest.flatten(y_pred)[0])[0])


class MetricLoss(BatchLoss):
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
        """The names that `terms` returns, where they do not depend on the embeddings' dimension."""
        return self.names_of_terms(embedding_dim=2, num_attributes=1)

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """The weighted terms by name, each `[B]`; the loss is their sum."""
        raise TypeError(f"{type(self).__name__} must define `terms`.")

    def names_of_terms(self, embedding_dim: int, num_attributes: int = 0) -> tuple[str, ...]:
        """The names that `terms` returns, found by calling it with two photos.

        Example:

        >>> from eet_tf import TripletLoss
        >>> TripletLoss().names_of_terms(embedding_dim=2)
        ('margin',)
        """
        labels, embeddings = tf.constant([0, 1]), tf.zeros([2, embedding_dim])
        if not self.uses_attributes:
            return tuple(self.terms(labels, embeddings))
        attributes = tf.zeros([2, num_attributes])
        return tuple(
            self.terms({"label": labels, "attributes": attributes}, {"embedding": embeddings, "attributes": attributes})
        )

    def graded_by(self, targets, outputs) -> tf.Tensor | None:
        """The attributes `[B, A]` that pairs are weighted by; None where the loss uses none."""
        return None

    def call(self, y_true, y_pred) -> tf.Tensor:
        """Labels `[B]` or `[B, 1]`, embeddings `[B, D]` -> the loss of each anchor `[B]`."""
        return tf.add_n(list(self.terms(y_true, y_pred).values()))
