"""Multi-similarity: each anchor keeps its informative pairs, and weighs each of them by all the others."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf.arguments import check_number
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Remembered, make_batch
from eet_tf.losses.checks import check_numbers


def multi_similarity_terms(
    labels,
    embeddings,
    *,
    positive_scale: float = 2.0,
    negative_scale: float = 50.0,
    threshold: float = 0.5,
    epsilon: float = 0.1,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> dict[str, tf.Tensor]:
    """The terms of `MultiSimilarityLoss` by name, each `[B]`."""
    _check(positive_scale, negative_scale, threshold, epsilon)
    batch = make_batch(labels, embeddings, from_normalized, memory)

    def terms_of_anchors(cosines, is_positive, is_negative):
        known = tf.stop_gradient(cosines)
        farthest = tf.reduce_min(tf.where(is_positive, known, _NEVER), axis=1, keepdims=True)
        nearest = tf.reduce_max(tf.where(is_negative, known, -_NEVER), axis=1, keepdims=True)
        is_positive &= known - epsilon < nearest
        is_negative &= known + epsilon > farthest
        has_both = tf.reduce_any(is_positive, axis=1) & tf.reduce_any(is_negative, axis=1)
        pull = _log_of_one_and_sum(-positive_scale * (cosines - threshold), is_positive) / positive_scale
        push = _log_of_one_and_sum(negative_scale * (cosines - threshold), is_negative) / negative_scale
        return tf.where(has_both[:, tf.newaxis], tf.stack([pull, push], axis=1), 0.0)

    pull, push = tf.unstack(batch.over_pairs(terms_of_anchors), axis=1)
    return {"positive_pairs": batch.loss_of_photos(pull), "negative_pairs": batch.loss_of_photos(push)}


_NEVER = 4.0  # a cosine that no pair reaches, whatever epsilon is


def _log_of_one_and_sum(exponents: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """`log(1 + sum of exp(exponents))` of each row over what the mask keeps, without overflow."""
    kept = tf.where(mask, exponents, float("-inf"))
    largest = tf.maximum(tf.reduce_max(tf.stop_gradient(kept), axis=1), 0.0)
    shifted = tf.where(mask, tf.exp(tf.where(mask, exponents, 0.0) - largest[:, tf.newaxis]), 0.0)
    return largest + tf.math.log(tf.exp(-largest) + tf.reduce_sum(shifted, axis=1))


def _check(positive_scale, negative_scale, threshold, epsilon) -> None:
    check_numbers({"positive_scale": positive_scale, "negative_scale": negative_scale}, above_zero=True)
    check_numbers({"epsilon": epsilon})
    check_number("threshold", threshold, -1, 1)


def multi_similarity_loss(
    labels,
    embeddings,
    *,
    positive_scale: float = 2.0,
    negative_scale: float = 50.0,
    threshold: float = 0.5,
    epsilon: float = 0.1,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Computes the multi-similarity loss of each anchor, whose mean is the paper's value, as `MultiSimilarityLoss`.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        positive_scale: as in `MultiSimilarityLoss`, and so are the next three.
        negative_scale: steepness of negative pairs.
        threshold: cosine at which pulling and pushing turn.
        epsilon: slack of the choice of pairs.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches that anchors also make pairs with.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `MultiSimilarityLoss`.

    Example:

    >>> multi_similarity_loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).shape
    TensorShape([3])
    """
    terms = multi_similarity_terms(
        labels,
        embeddings,
        positive_scale=positive_scale,
        negative_scale=negative_scale,
        threshold=threshold,
        epsilon=epsilon,
        from_normalized=from_normalized,
        memory=memory,
    )
    return tf.add_n(list(terms.values()))


@keras.saving.register_keras_serializable(package="eet_tf")
class MultiSimilarityLoss(MetricLoss):
    """Computes the multi-similarity loss: an anchor's informative pairs, each weighted by all the others.

    With s the cosine of two embeddings, an anchor keeps the positives P whose `s - epsilon` is below its nearest
    negative's cosine, and the negatives N whose `s + epsilon` is above its farthest positive's:

    ```
    positive_pairs   log(1 + sum over P of exp(-positive_scale (s - threshold))) / positive_scale
    negative_pairs   log(1 + sum over N of exp(negative_scale (s - threshold))) / negative_scale
    loss             mean over anchors of positive_pairs + negative_pairs
    ```

    - An anchor that keeps no positive or no negative contributes exactly 0, and counts in the mean. [authors: their
      code, which also leaves out positives with a cosine above 0.99999; here only the anchor itself is left out]
    - The choice of pairs gets no gradient. Under any strategy the whole global batch is searched.
    - Memory is that of blocks of 8 MB, for the gradient too.

    Args:
        positive_scale: the paper's alpha, steepness of positive pairs, default 2. [authors]
        negative_scale: the paper's beta, steepness of negative pairs, default 50. [authors]
        threshold: the paper's lambda, cosine at which pulling and pushing turn, default 0.5. [authors: their
            code; the paper's text has 1]
        epsilon: slack of the choice of pairs, default 0.1. [authors]
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `positive_scale` or `negative_scale` is not above 0, `epsilon` is below 0, `threshold` is no
            cosine, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> loss = MultiSimilarityLoss()
    >>> embeddings = [[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]]
    >>> round(float(loss([0, 0, 1, 1], embeddings)), 4)
    0.6791

    Reference: Wang, Han, Huang, Dong, Scott, "Multi-Similarity Loss with General Pair Weighting for Deep Metric
        Learning", arXiv 1904.06627, eq. 11 to 15. [authors: their released code]
    """

    def __init__(
        self,
        positive_scale: float = 2.0,
        negative_scale: float = 50.0,
        threshold: float = 0.5,
        epsilon: float = 0.1,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "multi_similarity_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        _check(positive_scale, negative_scale, threshold, epsilon)
        self.positive_scale = positive_scale
        self.negative_scale = negative_scale
        self.threshold = threshold
        self.epsilon = epsilon
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {
            "positive_scale": self.positive_scale,
            "negative_scale": self.negative_scale,
            "threshold": self.threshold,
            "epsilon": self.epsilon,
            "from_normalized": self.from_normalized,
        }

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """Returns both terms by name, each `[B]`."""
        return multi_similarity_terms(labels, embeddings, **self._arguments(), memory=memory)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}
