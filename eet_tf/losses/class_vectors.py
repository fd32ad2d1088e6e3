"""A batch beside the vectors of all classes, or of those in the batch and a sample of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from eet_tf import plans, replicas
from eet_tf.arguments import check_integer, check_number
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Batch, Remembered, batch_of_step
from eet_tf.pairs import pairwise, precision

ALL_UP_TO = 100_000  # classes; of more than that a sample is compared
_TENTH = 10


class ClassBatch(NamedTuple):
    """Photos and the classes that they are compared with.

    Attributes:
        batch: the photos; its flaw is NaN also where a label is no class.
        vectors: `[S, K, D]` float32 unit vectors, with a gradient: K of each of S classes.
        classes: `[S]` int64, the numbers of these classes, ascending.
        targets: `[A]` int32, the place of each anchor's class among them.
    """

    batch: Batch
    vectors: tf.Tensor
    classes: tf.Tensor
    targets: tf.Tensor

    def over_classes(self, function: Callable) -> tf.Tensor:
        """What a function makes of each anchor and all classes, differentiable, in blocks of anchors on a CPU.

        Args:
            function: cosines `[R, S]` of some anchors with the nearest vector of each class, and their targets `[R]`
                -> `[R]` float32.

        Returns:
            `[A]` float32.
        """
        count, per_class, dim = self.vectors.shape

        def one_block(anchors, vectors, targets):
            cosines = precision.matmul(anchors, vectors, transpose_b=True)
            if per_class > 1:
                cosines = tf.reduce_max(tf.reshape(cosines, [-1, count, per_class]), axis=2)
            return function(cosines, targets)

        def all_blocks(anchors, vectors, targets):
            return pairwise.reduce_row_blocks(one_block, anchors, vectors, [targets])

        flat = tf.reshape(self.vectors, [count * per_class, dim])
        return plans.part(all_blocks)(self.batch.anchors, flat, self.targets)


def class_batch(
    labels,
    embeddings,
    class_vectors,
    sampled_classes: int | None = None,
    from_normalized: bool = False,
    takes_subcenters: bool = False,
) -> ClassBatch:
    """Puts photos beside the vectors of the classes that they are compared with.

    Args:
        labels: `[B]` or `[B, 1]` from 0 to C - 1.
        embeddings: `[B, D]` of any length.
        class_vectors: `[C, D]`, or `[C, K, D]` with K vectors of each class, of any length.
        sampled_classes: S; None: `num_sampled`.
        from_normalized: whether the embeddings already have unit length.
        takes_subcenters: whether there may be K vectors of each class.

    Raises:
        ValueError: if shapes do not fit, or, outside a graph, a label is no class or the batch has more than S.
    """
    vectors = tf.cast(tf.convert_to_tensor(class_vectors), tf.float32)
    batch = batch_of_step(labels, embeddings, from_normalized)
    _check_vectors(vectors.shape, batch.anchors.shape, takes_subcenters)
    if vectors.shape.rank == 2:
        vectors = vectors[:, tf.newaxis]
    num_classes = vectors.shape[0]
    sampled = num_sampled(num_classes, sampled_classes)
    _check_labels(batch.anchor_labels, num_classes, sampled)
    classes = tf.range(num_classes, dtype=tf.int64)
    if sampled < num_classes:
        classes = sample(batch.reference_labels, num_classes, sampled)
        vectors = tf.gather(replicas.dense_gradient(vectors), classes)

    def places(labels):
        return tf.minimum(tf.searchsorted(classes, labels), sampled - 1)

    found = tf.gather(classes, places(batch.reference_labels))
    flaw = tf.where(tf.reduce_all(tf.equal(found, batch.reference_labels)), 0.0, float("nan"))
    batch = batch._replace(flaw=batch.flaw + flaw)
    return ClassBatch(batch, pairwise.unit_rows(vectors), classes, places(batch.anchor_labels))


def num_sampled(num_classes: int, sampled_classes: int | None) -> int:
    """How many classes a batch is compared with.

    Example:

    >>> [num_sampled(num_classes, None) for num_classes in (11_318, 500_000, 3_000_000)]
    [11318, 100000, 300000]
    """
    if sampled_classes is not None:
        return min(sampled_classes, num_classes)
    return num_classes if num_classes <= ALL_UP_TO else max(ALL_UP_TO, num_classes // _TENTH)


def sample(labels: tf.Tensor, num_classes: int, sampled_classes: int) -> tf.Tensor:
    """The classes of a batch and a uniform sample of the others, `[S]` int64, ascending.

    The batch's labels are the seed: every replica, and a training that was gone on with, draws the same without keeping
    anything. Labels that are no class are passed over.
    """
    seed = tf.reduce_sum(_mixed(labels))
    order = tf.cast(_mixed(_mixed(tf.range(num_classes, dtype=tf.int64)) + seed), tf.int32)
    inside = tf.clip_by_value(labels, 0, num_classes - 1)
    order = tf.tensor_scatter_nd_update(order, inside[:, tf.newaxis], tf.fill(tf.shape(inside), tf.int32.max))
    return tf.cast(tf.sort(tf.math.top_k(order, sampled_classes, sorted=False).indices), tf.int64)


def _mixed(numbers: tf.Tensor) -> tf.Tensor:
    """Numbers as if drawn at random, int64 from 0 to 2^31 - 2; TensorFlow's own are others under XLA.

    The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    numbers = (numbers + 1) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        numbers = tf.bitwise.bitwise_xor(numbers, _shifted(numbers, shift)) * factor
    return _shifted(tf.bitwise.bitwise_xor(numbers, _shifted(numbers, 31)), 33) % (2**31 - 1)


def _shifted(numbers: tf.Tensor, places: int) -> tf.Tensor:
    """Bits moved to the right, with zeros behind them for negative numbers too."""
    kept = tf.constant(2 ** (64 - places) - 1, tf.int64)
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(numbers, tf.constant(places, tf.int64)), kept)


class ClassVectorLoss(MetricLoss):
    """Base of the losses that compare photos with vectors of classes, which are weights of the `MetricLearner`.

    A subclass names its vectors, and defines `of_photos`.

    Args:
        num_classes: C, the number of classes; labels are 0 to C - 1.
        sampled_classes: how many classes a batch is compared with; None: `num_sampled`.
        from_normalized: whether embeddings already have unit length.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss.
    """

    compares_photos = False
    looks_after_neck = True
    vectors_name: str

    def __init__(self, num_classes, sampled_classes, from_normalized, reduction, name, dtype):
        super().__init__(reduction, name, dtype)
        check_integer("num_classes", num_classes, 2)
        check_sampled(sampled_classes)
        self.num_classes = num_classes
        self.sampled_classes = sampled_classes
        self.from_normalized = from_normalized

    def class_vectors_shapes(self, embedding_dim: int) -> dict[str, tuple[int, ...]]:
        """The shape of its class vectors."""
        return {self.vectors_name: (self.num_classes, embedding_dim)}

    def terms(
        self, labels, embeddings, memory: Remembered | None = None, class_vectors: Mapping | None = None
    ) -> dict[str, tf.Tensor]:
        """Its term by name, `[B]`; `memory` is passed over.

        Raises:
            ValueError: if there are no class vectors, as in `keras.Model.compile`.
        """
        if class_vectors is None:
            name = type(self).__name__
            raise ValueError(
                f"`loss` must be compiled by a MetricLearner where it is {name}, whose class vectors are weights that "
                "are trained and saved with the model. Received: no class vectors. Write "
                f"eet_tf.MetricLearner(model).compile(optimizer, loss=eet_tf.{name}(num_classes={self.num_classes}))."
            )
        return {self.vectors_name: self.of_photos(labels, embeddings, class_vectors[self.vectors_name])}

    def of_photos(self, labels, embeddings, class_vectors) -> tf.Tensor:
        """The loss of each photo, `[B]`."""
        raise TypeError(f"{type(self).__name__} must define `of_photos`.")

    def get_config(self) -> dict:
        """The arguments that all of them have."""
        own = {"num_classes": self.num_classes, "sampled_classes": self.sampled_classes}
        return {**own, "from_normalized": self.from_normalized, **super().get_config()}


def check_sampled(sampled_classes: int | None) -> None:
    """Refuses a number of classes that is none."""
    if sampled_classes is not None:
        check_integer("sampled_classes", sampled_classes, 2)


def check_smoothing(label_smoothing: float) -> None:
    """Refuses a share of a label that is none."""
    check_number("label_smoothing", label_smoothing, 0, 1)


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """The cross-entropy `[R]` of logits `[R, S]`, of which `label_smoothing` is shared by all classes."""
    own = tf.gather(logits, targets, batch_dims=1)
    if label_smoothing:
        own = (1.0 - label_smoothing) * own + label_smoothing * tf.reduce_mean(logits, axis=1)
    return tf.reduce_logsumexp(logits, axis=1) - own


def _check_vectors(vectors: tf.TensorShape, anchors: tf.TensorShape, takes_subcenters: bool) -> None:
    if vectors.rank not in ((2, 3) if takes_subcenters else (2,)) or not vectors[-1:].is_compatible_with(anchors[1:]):
        several = " or [num_classes, subcenters, dim]" if takes_subcenters else ""
        raise ValueError(
            f"`class_vectors` must be [num_classes, dim]{several}, of the embeddings' dim, {anchors[1]}. "
            f"Received: shape {tuple(vectors)}."
        )


def _check_labels(labels: tf.Tensor, num_classes: int, sampled: int) -> None:
    """Refuses labels that are no class, where they can be seen."""
    known = tf.get_static_value(labels)
    if known is None:
        return
    wrong = np.flatnonzero((known < 0) | (known >= num_classes))
    if wrong.size:
        raise ValueError(
            f"`y_true` must be labels from 0 to num_classes - 1, here {num_classes - 1}. Received: {known[wrong[0]]} "
            f"in row {wrong[0]}. Number the classes, as np.unique(labels, return_inverse=True)[1] does, or give their "
            "number."
        )
    count = np.unique(known).size
    if count > sampled:
        raise ValueError(
            f"`sampled_classes` must be at least the number of classes in a batch, here {count}. Received: "
            f"sampled_classes={sampled}."
        )
