"""A batch as a loss sees it from any replica: anchors, references, labels, and which pairs they make."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from eet_tf import plans, replicas
from eet_tf.losses.checks import check_choice
from eet_tf.losses.labels import class_numbers
from eet_tf.pairs import mining, pairwise, precision

_FEW = 4  # photos; fewer may be what is left at the end of an epoch


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
    """Holds what a loss compares: this replica's photos as anchors, the photos of all replicas as references.

    `make_batch` makes it. Its methods are all that a loss of one's own needs: they know which reference an anchor is
    itself, which stand for no photo, and that no shape may depend on what the labels are.

    Attributes:
        anchors: `[A, D]` float32 unit vectors, with a gradient.
        anchor_labels: `[A]` int64.
        anchor_rows: `[A]` int32, the reference that each anchor is itself.
        references: `[N, D]` float32 unit vectors, with a gradient; those that are remembered, without one, come last.
        reference_labels: `[N]` int64.
        num_anchors: the number of anchors of all replicas.
        flaw: 0, or NaN if an embedding or a label of the batch is no finite number.
        num_own: the number of this replica's photos, or None where it is known to be A. Without a photo a replica has
            one anchor that counts for nothing.
        is_present: `[N]` bool, false for a reference that stands for no photo; None if all do.

    Example:

    >>> batch = make_batch(labels=[7, 7, 8], embeddings=[[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    >>> np.round(batch.distances("cosine"), 2)
    array([[0. , 0.2, 0.4],
           [0.2, 0. , 1. ],
           [0.4, 1. , 0. ]], dtype=float32)
    >>> is_positive, is_negative = batch.pair_masks()
    >>> is_positive.numpy().astype(int)
    array([[0, 1, 0],
           [1, 0, 0],
           [0, 0, 0]])
    >>> batch.triplets(negatives="hard").negatives[:2].numpy()  # the third photo has no positive, so no triplet
    array([2, 2], dtype=int32)
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
        """Returns what belongs to a photo, of values `[A]` or `[A, C]` of the anchors."""
        return values if self.num_own is None else values[: self.num_own]

    def loss_of_photos(self, values: tf.Tensor) -> tf.Tensor:
        """Returns `[B]`, the term of each photo, from values `[A]` of the anchors; NaN where the batch holds a NaN."""
        return self.of_photos(values) + self.flaw

    def distances(self, kind: str = "euclidean") -> tf.Tensor:
        """Returns the distances of all anchors to all references, differentiable.

        On a CPU a batch of 4,096 photos takes 64 MB for each matrix of this size; the losses of this package never
        hold one.

        Args:
            kind: `"euclidean"`, `"squared"` (its square) or `"cosine"` (1 - cosine). Euclidean distances below 0.001
                come out as 0 with gradient 0.

        Returns:
            `[A, N]` float32.

        Raises:
            ValueError: if `kind` is none of these.
        """
        check_choice("kind", kind, pairwise.DISTANCES)
        return pairwise.distance_matrix(self.anchors, self.references, kind)

    def pair_masks(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns which references are positives and which are negatives of each anchor: `[A, N]` bool each.

        An anchor is never its own positive.
        """
        return mining.pair_masks(self.anchor_labels, self.anchor_rows, self.reference_labels, self.is_present)

    def over_pairs(self, function: Callable, *others: tf.Tensor) -> tf.Tensor:
        """Returns what a function makes of each anchor and its pairs, differentiable, in a few megabytes of memory.

        On a CPU it takes some anchors at a time, and works their cosines out again for the gradient.

        Args:
            function: cosines `[R, N]` of some anchors with all references, which references are positives and which
                negatives, `[R, N]` bool each, and the rows of `others` of these anchors -> `[R]` or `[R, C]` float32.
                What it makes of one anchor may not depend on the others.
            *others: tensors with a row for each anchor, which get no gradient.

        Returns:
            `[A]` or `[A, C]` float32.

        Example:

        >>> batch = make_batch(labels=[7, 7, 8], embeddings=[[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
        >>> def nearest_negative(cosines, is_positive, is_negative):
        ...     return tf.reduce_max(tf.where(is_negative, cosines, -1.0), axis=1)
        >>> np.round(batch.over_pairs(nearest_negative), 2)
        array([0.6, 0. , 0.6], dtype=float32)
        """

        def one_block(anchors, references, labels, rows, *others):
            is_positive, is_negative = mining.pair_masks(labels, rows, self.reference_labels, self.is_present)
            return function(precision.matmul(anchors, references, transpose_b=True), is_positive, is_negative, *others)

        def all_blocks(anchors, references, *own):
            return pairwise.reduce_row_blocks(one_block, anchors, references, own)

        return plans.part(all_blocks)(self.anchors, self.references, self.anchor_labels, self.anchor_rows, *others)

    def triplets(self, positives: str = "hard", negatives: str = "hard") -> mining.Triplets:
        """Returns one positive and one negative for each anchor, as rows of `references`, without a gradient.

        Args:
            positives: `"hard"`, the farthest one, or `"partner"`, the next row of an anchor at an even row.
            negatives: `"hard"`, the nearest one, or `"semi_hard"`, the nearest that is farther than the positive.

        Returns:
            `Triplets(positives, negatives, is_valid)`, `[A]` each; an anchor that lacks one of them is not valid.

        Raises:
            ValueError: if `positives` or `negatives` is none of these.
        """
        check_choice("positives", positives, ("hard", "partner"))
        check_choice("negatives", negatives, ("hard", "semi_hard"))
        classes = mining.find_classes(self.reference_labels, self.is_present)
        return mining.mine_triplets(
            self.anchors, self.anchor_rows, self.references, classes, positives, negatives, self.num_anchors
        )


def make_batch(labels, embeddings, from_normalized: bool = False, memory: Remembered | None = None) -> Batch:
    """Makes the batch that a loss compares: unit vectors in float32, exact labels, the photos of all replicas.

    It is the first line of a loss of one's own, see `MetricLoss`. Outside a graph, and in a graph on a CPU that XLA
    does not compile, it warns where no photo of the batch has another one of its class and nothing is remembered.

    Args:
        labels: `[B]` or `[B, 1]` whole numbers.
        embeddings: `[B, D]` of any length.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches, which anchors meet as further references; what `MetricLearner` hands to
            `MetricLoss.terms`.

    Returns:
        A `Batch`.

    Raises:
        ValueError: if `embeddings` is not `[B, D]` or `labels` not whole numbers `[B]` or `[B, 1]`.

    Example:

    >>> batch = make_batch(labels=[4006381333931, 4006381333948], embeddings=[[3.0, 4.0], [0.0, 2.0]])
    >>> batch.anchors.numpy()
    array([[0.6, 0.8],
           [0. , 1. ]], dtype=float32)
    """
    return with_memory(batch_of_step(labels, embeddings, from_normalized), memory)


def batch_of_step(labels, embeddings, from_normalized: bool) -> Batch:
    """As `make_batch`, of this step's photos alone; it does not warn."""
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


def can_look() -> bool:
    """Whether a loss may look at its labels, which XLA does not let it, and for which a graph would wait for a GPU."""
    return tf.executing_eagerly() or not plans.uses_masks()


def has_partner(labels: tf.Tensor) -> tf.Tensor:
    """Whether a label is there twice among `[B]`, or they are too few to tell: scalar bool."""
    in_order = tf.sort(labels)
    return tf.reduce_any(tf.equal(in_order[1:], in_order[:-1])) | (tf.size(labels) < _FEW)


def warn_of_no_partner() -> None:
    """Warns that all labels of a batch are different; Python shows it once."""
    warnings.warn(
        "No photo of this batch has a partner: its labels are all different, so that a metric loss finds no positive "
        "pair. Draw several photos of each product into a batch, e.g. with eet_tf.data.array_dataset or "
        "eet_tf.data.training_dataset.",
        stacklevel=2,
    )


def _look_for_partners(labels: tf.Tensor) -> None:
    if not can_look():
        return

    def warn():
        tf.numpy_function(warn_of_no_partner, [], [])

    tf.cond(has_partner(labels), lambda: None, warn)


def with_memory(batch: Batch, memory: Remembered | None) -> Batch:
    """The batch with what is remembered behind its references; the batch itself if that is None.

    Without a memory it warns where no photo has another one of its class.
    """
    if memory is None:
        _look_for_partners(batch.reference_labels)
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
