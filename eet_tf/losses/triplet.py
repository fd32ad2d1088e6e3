"""The triplet loss with batch-hard mining: the baseline, and the margin term of EET."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from eet_tf import mining, pairwise
from eet_tf.losses.base import Batch, MetricLoss, make_batch


class TripletSides(NamedTuple):
    """The distances within each anchor's triplet, `[B]` each, and whether the anchor has one."""

    anchor_positive: tf.Tensor
    anchor_negative: tf.Tensor
    positive_negative: tf.Tensor
    is_valid: tf.Tensor


def hard_triplet_sides(batch: Batch) -> TripletSides:
    """Mines each anchor's hardest triplet and measures it; only the three chosen embeddings get a gradient."""
    triplets = mining.batch_hard(*batch)
    positives = tf.gather(batch.references, triplets.positives)
    negatives = tf.gather(batch.references, triplets.negatives)
    return TripletSides(
        anchor_positive=pairwise.euclidean(batch.anchors, positives),
        anchor_negative=pairwise.euclidean(batch.anchors, negatives),
        positive_negative=pairwise.euclidean(positives, negatives),
        is_valid=triplets.is_valid,
    )


def hinge(positive: tf.Tensor, negative: tf.Tensor, margin: float, is_valid: tf.Tensor) -> tf.Tensor:
    """`[positive - negative + margin]_+` per anchor; exactly 0, gradient included, where not valid."""
    return tf.where(is_valid, tf.nn.relu(positive - negative + margin), tf.zeros_like(positive))


def triplet_loss(labels, embeddings, *, margin: float = 0.3, from_normalized: bool = False) -> tf.Tensor:
    """Batch-hard triplet loss of each anchor: `[ d(a, p) - d(a, n) + margin ]_+`.

    See `TripletLoss` for what p and n are.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        margin: in Euclidean distance between unit vectors, which is at most 2.
        from_normalized: whether the embeddings already have unit length.

    Returns:
        `[B]` float32; 0 for an anchor that lacks a positive or a negative.

    Reference: Hermans, Beyer, Leibe, arXiv 1703.07737, eq. 5.
    """
    sides = hard_triplet_sides(make_batch(labels, embeddings, from_normalized))
    return hinge(sides.anchor_positive, sides.anchor_negative, margin, sides.is_valid)


@keras.saving.register_keras_serializable(package="eet_tf")
class TripletLoss(MetricLoss):
    """Triplet loss with batch-hard mining, `mean_a [ d(a, p) - d(a, n) + margin ]_+`.

    For every anchor a: p is its farthest sample of the same class, n its nearest sample of another class, d the
    Euclidean distance (not squared) of unit vectors. The whole global batch is searched under any strategy. An
    anchor that lacks a positive or a negative contributes exactly 0.

    Args:
        margin: default 0.3, the EET paper's, so that the two compare.
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `margin` is negative, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> loss = TripletLoss(margin=0.3)
    >>> float(loss([0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))  # all alike: the margin
    0.30000001192092896

    Reference: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss", arXiv 1703.07737, eq. 5.
    """

    def __init__(
        self,
        margin: float = 0.3,
        *,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "triplet_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        if margin < 0:
            raise ValueError(f"`margin` must be 0 or more. Received: margin={margin}.")
        self.margin = margin
        self.from_normalized = from_normalized

    @property
    def term_names(self) -> tuple[str, ...]:
        """`("margin",)`."""
        return ("margin",)

    def terms(self, labels, embeddings) -> dict[str, tf.Tensor]:
        """`{"margin": [B]}`."""
        loss = triplet_loss(labels, embeddings, margin=self.margin, from_normalized=self.from_normalized)
        return {"margin": loss}

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"margin": self.margin, "from_normalized": self.from_normalized, **super().get_config()}
