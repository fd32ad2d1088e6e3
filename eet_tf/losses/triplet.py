"""Triplet losses over a batch: which positives, which negatives, which distance; and the margin term of EET."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from eet_tf import plans, replicas
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Batch, Remembered, make_batch
from eet_tf.losses.checks import check_choice, check_numbers
from eet_tf.pairs import mining, pairwise
from eet_tf.pairs.mining import Classes

_POSITIVES = ("hard", "partner", "all")
_NEGATIVES = ("hard", "semi_hard", "all")


class TripletSides(NamedTuple):
    """The distances within each anchor's triplet, `[B]` each, and whether the anchor has one."""

    anchor_positive: tf.Tensor
    anchor_negative: tf.Tensor
    positive_negative: tf.Tensor
    is_valid: tf.Tensor


def triplet_sides(batch: Batch, triplets: mining.Triplets) -> TripletSides:
    """Measures each anchor's triplet; only the three chosen embeddings get a gradient."""
    sides = pairwise.triangle_sides(batch.anchors, batch.references, triplets.positives, triplets.negatives)
    anchor_positive, anchor_negative, positive_negative = tf.unstack(sides, axis=1)
    return TripletSides(anchor_positive, anchor_negative, positive_negative, triplets.is_valid)


def hinge(positive: tf.Tensor, negative: tf.Tensor, margin: float, is_valid: tf.Tensor) -> tf.Tensor:
    """`[positive - negative + margin]_+` per anchor; exactly 0, gradient included, where not valid."""
    return tf.where(is_valid, tf.nn.relu(positive - negative + margin), tf.zeros_like(positive))


def triplet_loss(
    labels,
    embeddings,
    *,
    margin: float = 0.3,
    positives: str = "hard",
    negatives: str = "hard",
    distance: str = "euclidean",
    soft_margin: bool = False,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Computes the triplet loss of each anchor, whose mean is the paper's value; all is as in `TripletLoss`.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        margin: as in `TripletLoss`, and so are the next five.
        positives: `"hard"`, `"partner"` or `"all"`.
        negatives: `"hard"`, `"semi_hard"` or `"all"`.
        distance: `"euclidean"`, `"squared"` or `"cosine"`.
        soft_margin: whether the hinge is replaced by a softplus.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches, among which positives and negatives are looked for too.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `TripletLoss`.

    Example:

    >>> triplet_loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], distance="cosine", margin=0.5).numpy()
    array([0. , 0.5, 0. ], dtype=float32)
    """
    _check_settings(margin, positives, negatives, distance)
    batch = make_batch(labels, embeddings, from_normalized, memory)

    def violation(difference):
        """What a triplet loses, and the slope of that."""
        if soft_margin:
            return tf.nn.softplus(difference), tf.sigmoid(difference)
        excess = difference + margin
        return tf.nn.relu(excess), tf.cast(excess > 0, tf.float32)

    if "all" in (positives, negatives):
        losses = _over_many_triplets(batch, violation, positives, negatives, distance)
    else:
        of_one = plans.part(lambda batch: _over_one_triplet(batch, violation, positives, negatives, distance))
        losses = batch.of_photos(of_one(batch))
    return losses + batch.flaw


def _check_settings(margin, positives: str, negatives: str, distance: str) -> None:
    check_numbers({"margin": margin})
    check_choice("positives", positives, _POSITIVES)
    check_choice("negatives", negatives, _NEGATIVES)
    check_choice("distance", distance, pairwise.DISTANCES)


def _over_one_triplet(batch: Batch, violation, positives: str, negatives: str, distance: str) -> tf.Tensor:
    """Chooses one triplet per anchor without gradient, then differentiates only what was chosen."""
    classes = mining.find_classes(batch.reference_labels, batch.is_present)
    triplets = mining.mine_triplets(
        batch.anchors, batch.anchor_rows, batch.references, classes, positives, negatives, batch.num_anchors
    )
    to_positive, to_negative = (
        pairwise.distance(batch.anchors, tf.gather(batch.references, chosen), distance)
        for chosen in (triplets.positives, triplets.negatives)
    )
    loss = tf.where(triplets.is_valid, violation(to_positive - to_negative)[0], tf.zeros_like(to_positive))
    return 2.0 * loss if positives == "partner" else loss  # every other photo is an anchor, and the mean is theirs


def _over_many_triplets(batch: Batch, violation, positives: str, negatives: str, distance: str) -> tf.Tensor:
    """Goes through the triplets of each anchor without gradient, then differentiates each distance times its part.

    The loss of an anchor depends on its distances alone, so the slope of each is all that its gradient needs.
    """

    def sums_of_rows(batch):
        classes = mining.find_classes(batch.reference_labels, batch.is_present)

        def one_block(anchors, references, rows):
            distances = pairwise.distance_matrix(anchors, references, distance)
            known = tf.stop_gradient(distances)
            values, slopes, counts = _go_through_positives(
                known, rows, classes, violation, positives, negatives, batch.num_anchors
            )
            values += tf.reduce_sum(slopes * (distances - known), axis=1)
            return tf.stack([values, counts], axis=1)

        return pairwise.reduce_row_blocks(one_block, batch.anchors, batch.references, [batch.anchor_rows])

    sums = batch.of_photos(plans.part(sums_of_rows)(batch))
    count = tf.reduce_sum(replicas.gather(tf.reduce_sum(sums[:, 1], keepdims=True)))
    num_anchors = tf.cast(batch.num_anchors, tf.float32)
    return tf.math.divide_no_nan(sums[:, 0] * num_anchors, tf.stop_gradient(count))


def _go_through_positives(distances, rows, classes: Classes, violation, positives: str, negatives: str, num_anchors):
    """Takes each anchor's positives one by one, so that only `[R, B]` is ever needed.

    Returns:
        The sum of an anchor's triplets `[R]`, its derivative by each distance `[R, B]`, and how many triplets the mean
        is over `[R]`: those that have a loss where all negatives count, otherwise those that exist.
    """
    own = tf.gather(classes.of_row, rows)
    sizes, starts = tf.gather(classes.sizes, own), tf.gather(classes.starts, own)
    is_other = mining.is_negative(own, classes)
    to_negatives = tf.where(is_other, distances, mining.FAR)
    against = _against_all if negatives == "all" else _against_one
    nearest = mining.argmin(to_negatives)
    farthest = mining.argmin(tf.where(is_other, -distances, mining.FAR))
    if positives == "partner":
        single, has_single = mining.partners(rows, classes, num_anchors)
    else:
        single = mining.farthest_positives(distances, own, rows, classes)
        has_single = sizes > 1

    def one_positive(member, values, slopes, counts):
        if positives != "all":
            positive, exists = single, has_single
        else:
            is_member = member < sizes
            positive = tf.gather(classes.order, tf.where(is_member, starts + member, 0))
            exists = is_member & tf.not_equal(positive, rows)
        exists &= mining.has_negative(own, classes)
        to_positive = mining.at(distances, positive[:, tf.newaxis])[:, 0]
        if negatives == "semi_hard":
            negative = mining.nearest_beyond(to_negatives, to_positive, farthest)
        else:
            negative = nearest
        value, slope, count, slopes = against(violation, to_negatives, to_positive, negative, exists, slopes)
        places = tf.stack([tf.range(tf.size(rows)), positive], axis=1)
        return member + 1, values + value, tf.tensor_scatter_nd_add(slopes, places, slope), counts + count

    nothing = tf.zeros_like(distances[:, 0])
    last = tf.reduce_max(sizes) if positives == "all" else 1
    start = (0, nothing, tf.zeros_like(distances), nothing)
    _, *results = tf.while_loop(lambda member, *_: member < last, one_positive, start, parallel_iterations=1)
    return tuple(tf.stop_gradient(result) for result in results)


def _against_one(violation, to_negatives, to_positive, negative, exists, slopes):
    """One negative `[R]` for the positive in hand: loss, its slope, how many triplets, and the slopes of negatives."""
    value, slope = violation(to_positive - mining.at(to_negatives, negative[:, tf.newaxis])[:, 0])
    slope = tf.where(exists, slope, 0.0)
    places = tf.stack([tf.range(tf.size(negative)), negative], axis=1)
    slopes = tf.tensor_scatter_nd_add(slopes, places, -slope)
    return tf.where(exists, value, 0.0), slope, tf.cast(exists, tf.float32), slopes


def _against_all(violation, to_negatives, to_positive, negative, exists, slopes):
    """Every negative for the positive in hand: as `_against_one`; what is far away loses nothing."""
    to_positive = tf.where(exists, to_positive, -mining.FAR)
    losses, each_slope = violation(to_positive[:, tf.newaxis] - to_negatives)
    count = tf.math.count_nonzero(losses, axis=1, dtype=tf.float32)
    return tf.reduce_sum(losses, axis=1), tf.reduce_sum(each_slope, axis=1), count, slopes - each_slope


@keras.saving.register_keras_serializable(package="eet_tf")
class TripletLoss(MetricLoss):
    """Computes the triplet loss `[ d(a, p) - d(a, n) + margin ]_+` of an anchor a, positive p and negative n.

    Which triplets count is a matter of settings. The well-known ones are:

    | name | settings | mean over |
    |---|---|---|
    | batch-hard (Hermans) | the defaults | anchors |
    | batch-hard, soft margin (Hermans) | `soft_margin=True` | anchors |
    | batch-all (Hermans) | `positives="all", negatives="all"` | triplets with a loss above 0 |
    | semi-hard (FaceNet) | `margin=0.2, positives="all", negatives="semi_hard", distance="squared"` | positive pairs |
    | online sampling (Dodds) | `margin=0.1, positives="partner", distance="cosine"` | queries |

    - An anchor is never its own positive. One that lacks a positive or a negative has no triplet and contributes
      exactly 0; where the mean is over anchors it counts in it, otherwise not.
    - Under any strategy the whole global batch is searched.
    - Memory is that of blocks of 8 MB. With `"all"`, time grows with the largest class of the batch.
    - Online sampling takes batches of pairs, `PKSampler(..., examples_per_class=2)`: photos at even places are
      queries, the next photo is the partner, and only queries are anchors. Its authors floor the largest similarity of
      a negative at 0, since they mask by a product; here what is no negative is left out.

    Args:
        margin: in the unit of `distance`. Default 0.3, the EET paper's, so that the two compare. Without effect with
            `soft_margin`.
        positives: `"hard"` (the farthest), `"partner"` (the next photo of a query) or `"all"`.
        negatives: `"hard"` (the nearest), `"semi_hard"` (the nearest that is farther than the positive; if none is,
            the farthest) or `"all"`.
        distance: `"euclidean"`, `"squared"` Euclidean or `"cosine"` (1 - cosine, half the squared distance).
        soft_margin: `log(1 + exp(d(a, p) - d(a, n)))` in place of the hinge.
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `margin` is negative, a setting is unknown, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> loss = TripletLoss(margin=0.3)
    >>> float(loss([0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))  # all alike: the margin
    0.30000001192092896

    Reference: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss", arXiv 1703.07737, eq. 5 (batch-hard), 6
        (batch-all; its mean over triplets above 0 and its soft margin in section 2); Schroff, Kalenichenko,
        Philbin, "FaceNet", arXiv 1503.03832, eq. 4; Dodds et al., arXiv 1810.04652 [authors: their released code].
    """

    def __init__(
        self,
        margin: float = 0.3,
        positives: str = "hard",
        negatives: str = "hard",
        distance: str = "euclidean",
        soft_margin: bool = False,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "triplet_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        _check_settings(margin, positives, negatives, distance)
        self.margin = margin
        self.positives = positives
        self.negatives = negatives
        self.distance = distance
        self.soft_margin = soft_margin
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {
            "margin": self.margin,
            "positives": self.positives,
            "negatives": self.negatives,
            "distance": self.distance,
            "soft_margin": self.soft_margin,
            "from_normalized": self.from_normalized,
        }

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """`{"margin": [B]}`."""
        return {"margin": triplet_loss(labels, embeddings, **self._arguments(), memory=memory)}

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}
