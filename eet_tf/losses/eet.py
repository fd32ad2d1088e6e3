"""EET, the equidistant and equidistributed triplet loss: three constraints on the hardest triplets and class pairs."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf import plans
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Batch, Remembered, batch_of_step, with_memory
from eet_tf.losses.checks import check_numbers
from eet_tf.losses.triplet import TripletSides, hinge, triplet_sides
from eet_tf.pairs import class_distances, mining
from eet_tf.pairs.class_distances import Separation
from eet_tf.pairs.mining import Classes, Triplets


def eet_terms(
    labels,
    embeddings,
    *,
    margin: float = 0.3,
    equidistant_weight: float = 1.0,
    equidistributed_weight: float = 1.0,
    symmetric_margin: bool = False,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> dict[str, tf.Tensor]:
    """The weighted terms of EET by name, each `[B]`; see `EETLoss`. A term with weight 0 is left out."""
    _check_weights(margin, equidistant_weight, equidistributed_weight)
    batch = batch_of_step(labels, embeddings, from_normalized)
    classes = plans.part(mining.find_classes)(batch.reference_labels)
    if equidistributed_weight:
        triplets, separation = class_distances.separate(batch.anchors, batch.anchor_rows, batch.references, classes)
    searched = with_memory(batch, memory)
    if memory is not None or not equidistributed_weight:
        triplets = plans.part(_hardest)(searched)

    def of_anchors(searched, triplets):
        sides = triplet_sides(searched, triplets)
        terms = {"margin": hinge(sides.anchor_positive, sides.anchor_negative, margin, sides.is_valid)}
        if symmetric_margin:
            terms["symmetric"] = hinge(sides.anchor_positive, sides.positive_negative, margin, sides.is_valid)
        if equidistant_weight:
            terms["equidistant"] = equidistant_weight * _equidistant(sides)
        return terms

    terms = dict(plans.part(of_anchors)(searched, triplets))
    if equidistributed_weight:
        max_min, equal_minima = plans.part(_equidistributed)(batch, classes, separation)
        terms["max_min"] = equidistributed_weight * max_min
        terms["equal_minima"] = equidistributed_weight * equal_minima
    return {name: searched.of_photos(values) + searched.flaw for name, values in terms.items()}


def _hardest(batch: Batch) -> Triplets:
    """Each anchor's hardest triplet among all references, those of the memory too."""
    classes = mining.find_classes(batch.reference_labels, batch.is_present)
    return mining.mine_triplets(batch.anchors, batch.anchor_rows, batch.references, classes)


def eet_loss(
    labels,
    embeddings,
    *,
    margin: float = 0.3,
    equidistant_weight: float = 1.0,
    equidistributed_weight: float = 1.0,
    symmetric_margin: bool = False,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Computes EET of each anchor, whose mean is the paper's value; arguments and maths are those of `EETLoss`.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        margin: as in `EETLoss`, and so are the next four.
        equidistant_weight: 0 leaves the term out.
        equidistributed_weight: 0 leaves both terms out.
        symmetric_margin: whether the fifth term is added.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches, among which positives and negatives are looked for too.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `EETLoss`.

    Example:

    >>> eet_loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).shape
    TensorShape([3])
    """
    terms = eet_terms(
        labels,
        embeddings,
        margin=margin,
        equidistant_weight=equidistant_weight,
        equidistributed_weight=equidistributed_weight,
        symmetric_margin=symmetric_margin,
        from_normalized=from_normalized,
        memory=memory,
    )
    return tf.add_n(list(terms.values()))


def _check_weights(margin, equidistant_weight, equidistributed_weight) -> None:
    weights = {"equidistant_weight": equidistant_weight, "equidistributed_weight": equidistributed_weight}
    check_numbers({"margin": margin, **weights})


def _equidistant(sides: TripletSides) -> tf.Tensor:
    """L_EC1: `|d(a, n) - d(p, n)|`: seen from the negative, anchor and positive are equally far."""
    difference = tf.abs(sides.anchor_negative - sides.positive_negative)
    return tf.where(sides.is_valid, difference, tf.zeros_like(difference))


def _equidistributed(batch: Batch, classes: Classes, separation: Separation) -> tuple[tf.Tensor, tf.Tensor]:
    """L_M and L_E, which are means over classes, dealt out to the anchors of each class: `[B]` each."""
    class_of_anchor = tf.gather(classes.of_row, batch.anchor_rows)
    # what turns the mean over anchors into the mean over classes
    sizes = tf.cast(tf.gather(classes.sizes, class_of_anchor), tf.float32)
    num_classes = tf.cast(tf.reduce_max(classes.of_row) + 1, tf.float32)
    share = tf.cast(batch.num_anchors, tf.float32) / (num_classes * sizes)

    def dealt(of_class):
        values = share * tf.gather(of_class, class_of_anchor)
        return tf.where(num_classes > 1, values, tf.zeros_like(values))

    max_min = tf.math.divide_no_nan(separation.decays, num_classes - 1)
    equal_minima = tf.abs(separation.nearest - tf.gather(separation.nearest, separation.nearest_class))
    return dealt(max_min), dealt(equal_minima)


@keras.saving.register_keras_serializable(package="eet_tf")
class EETLoss(MetricLoss):
    """Computes the equidistant and equidistributed triplet loss (EET).

    For every anchor a, p is its farthest same-class sample and n its nearest other-class sample, d the Euclidean
    distance of unit vectors, `D(c, c')` the smallest distance between two classes of the batch, `m_c` the smallest
    `D(c, .)` and b(c) the class it belongs to:

    ```
    margin           mean_a [ d(a,p) - d(a,n) + margin ]_+            positives nearer than negatives
    equidistant      mean_a | d(a,n) - d(p,n) |                       n equally far from a and p
    max_min          mean_(c,c') exp(-D(c,c'))                        classes far apart
    equal_minima     mean_c | m_c - m_b(c) |                          and evenly spread
    loss             margin + equidistant_weight * equidistant + equidistributed_weight * (max_min + equal_minima)
    ```

    The sign in `exp(-D)` is the one that matches the stated aim of large class distances; one public write-up prints
    it the other way round. p, n, b(c) are selections: gradients flow through the chosen distances only. An anchor
    that lacks a positive or a negative contributes exactly 0 to the first two terms (public code lets it be its own
    positive); a batch of one class contributes 0 to the last two. The whole global batch is searched under any
    strategy. Memory is that of blocks of 8 MB and of the distances between classes; distances in max_min come from a
    matrix multiplication, so that those below 0.001 count as 0, but for each class's to the nearest one. p and n may
    also be photos that `MetricLearner` remembers; classes are those of the batch.

    Args:
        margin: default 0.3; 0.5 is also used. [port]
        equidistant_weight: weight of the equidistant term, default 1. [port]; 0 leaves it out.
        equidistributed_weight: weight of both class terms, default 1. [port]; 0 leaves them out.
        symmetric_margin: adds `mean_a [ d(a,p) - d(p,n) + margin ]_+`, as the authors' later release does. [authors]
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    A compiled model that was saved with this loss loads after `import eet_tf`, without `custom_objects`.

    Raises:
        ValueError: if `margin` or a weight is negative, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(4)])
    >>> model.compile(optimizer="sgd", loss=EETLoss())
    >>> history = model.fit(np.eye(8), np.array([0, 0, 1, 1, 2, 2, 3, 3]), batch_size=8, verbose=0)

    Reference: Xu, Zhang, Cheng, Chu, "Metric Learning with Equidistant and Equidistributed Triplet-based Loss for
        Product Image Search", The Web Conference 2020, doi 10.1145/3366423.3380094. The margin and equidistant terms
        follow the authors' code [authors; port], the class terms an independent implementation [port].
    """

    def __init__(
        self,
        margin: float = 0.3,
        equidistant_weight: float = 1.0,
        equidistributed_weight: float = 1.0,
        symmetric_margin: bool = False,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "eet_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        _check_weights(margin, equidistant_weight, equidistributed_weight)
        self.margin = margin
        self.equidistant_weight = equidistant_weight
        self.equidistributed_weight = equidistributed_weight
        self.symmetric_margin = symmetric_margin
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {
            "margin": self.margin,
            "equidistant_weight": self.equidistant_weight,
            "equidistributed_weight": self.equidistributed_weight,
            "symmetric_margin": self.symmetric_margin,
            "from_normalized": self.from_normalized,
        }

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """Returns the weighted terms in use by name, each `[B]`."""
        return eet_terms(labels, embeddings, **self._arguments(), memory=memory)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}
