"""Binomial deviance: every pair of the batch pulls or pushes, smoothly, by how wrong it is. What SGML is built on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from eet_tf import replicas
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Batch, Remembered, make_batch
from eet_tf.losses.checks import check_numbers

TERM_NAMES = ("positive_pairs", "negative_pairs")


def deviance_terms(
    batch: Batch,
    weigh: Callable,
    others: Sequence[tf.Tensor] = (),
    *,
    alpha: float,
    beta: float,
    negative_cost: float,
) -> dict[str, tf.Tensor]:
    """The weighted means over positive and over negative pairs, dealt out to the anchors: `[B]` each.

    Args:
        batch: what `make_batch` made.
        weigh: function of a block of each of `others`, returning the weights of positive and of negative pairs, each
            `[R, references]` or a scalar. No gradient flows through them. They act as if scaled to mean 1 over the
            positive (negative) pairs of the global batch: a sum of weighted deviances is divided by that of weights.
        others: tensors with a row for each anchor.
        alpha: steepness.
        beta: similarity at which pulling and pushing turn.
        negative_cost: how much steeper negative pairs are.

    Returns:
        The two terms by name; exactly 0 with gradient 0 where no pair has a weight.
    """

    check_numbers({"alpha": alpha, "negative_cost": negative_cost}, above_zero=True)

    def sums_of_anchors(cosines, is_positive, is_negative, *others):
        positive_weights, negative_weights = weigh(*others)
        excess = alpha * (cosines - beta)
        sums = [
            _sum_where(is_positive, positive_weights * tf.nn.softplus(-excess)),
            _sum_where(is_negative, negative_weights * tf.nn.softplus(negative_cost * excess)),
            _sum_where(is_positive, positive_weights),
            _sum_where(is_negative, negative_weights),
        ]
        return tf.stack(sums, axis=1)

    sums = batch.of_photos(batch.over_pairs(sums_of_anchors, *others))
    weights = tf.reduce_sum(tf.stop_gradient(sums[:, 2:]), axis=0, keepdims=True)
    total_weights = tf.reduce_sum(replicas.gather(weights), axis=0)
    dealt = tf.math.divide_no_nan(tf.cast(batch.num_anchors, tf.float32) * sums[:, :2], total_weights)
    return {name: values + batch.flaw for name, values in zip(TERM_NAMES, tf.unstack(dealt, axis=1))}


def _sum_where(mask: tf.Tensor, values) -> tf.Tensor:
    return tf.reduce_sum(tf.where(mask, values, 0.0), axis=1)


def binomial_deviance_terms(
    labels,
    embeddings,
    *,
    alpha: float = 2.0,
    beta: float = 0.5,
    negative_cost: float = 25.0,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> dict[str, tf.Tensor]:
    """The terms of `BinomialDevianceLoss` by name, each `[B]`."""
    batch = make_batch(labels, embeddings, from_normalized, memory)
    return deviance_terms(batch, lambda: (1.0, 1.0), alpha=alpha, beta=beta, negative_cost=negative_cost)


def binomial_deviance(
    labels,
    embeddings,
    *,
    alpha: float = 2.0,
    beta: float = 0.5,
    negative_cost: float = 25.0,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Binomial deviance of each anchor, whose mean is the formula's value; arguments and maths as in the class.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        alpha: as in `BinomialDevianceLoss`.
        beta: as in `BinomialDevianceLoss`.
        negative_cost: as in `BinomialDevianceLoss`.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches that anchors also make pairs with.

    Returns:
        `[B]` float32.

    Example:

    >>> binomial_deviance([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).shape
    TensorShape([3])
    """
    terms = binomial_deviance_terms(
        labels,
        embeddings,
        alpha=alpha,
        beta=beta,
        negative_cost=negative_cost,
        from_normalized=from_normalized,
        memory=memory,
    )
    return tf.add_n(list(terms.values()))


class DevianceLoss(MetricLoss):
    """What the losses made of binomial deviance share: its three arguments."""

    def __init__(
        self,
        alpha: float,
        beta: float,
        negative_cost: float,
        from_normalized: bool,
        reduction: str,
        name: str,
        dtype,
    ):
        super().__init__(reduction, name, dtype)
        check_numbers({"alpha": alpha, "negative_cost": negative_cost}, above_zero=True)
        self.alpha = alpha
        self.beta = beta
        self.negative_cost = negative_cost
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "negative_cost": self.negative_cost,
            "from_normalized": self.from_normalized,
        }

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}


@keras.saving.register_keras_serializable(package="eet_tf")
class BinomialDevianceLoss(DevianceLoss):
    """Computes the binomial deviance over all pairs of the batch.

    With s the cosine of two embeddings:

    ```
    positive_pairs   mean over positive pairs of log(1 + exp(-alpha (s - beta)))
    negative_pairs   mean over negative pairs of log(1 + exp(alpha * negative_cost * (s - beta)))
    loss             positive_pairs + negative_pairs
    ```

    - Pairs are ordered pairs of different photos of the whole global batch, under any strategy.
    - A batch without a positive (or a negative) pair contributes exactly 0 to that term.
    - The loss of an anchor is that of its pairs, so dealt that the mean over anchors is the formula's value.
    - Memory is that of blocks of 8 MB, for the gradient too.

    Args:
        alpha: steepness, default 2. [base]
        beta: cosine at which pulling and pushing turn, default 0.5. [base]
        negative_cost: C, how much steeper negative pairs are, default 25. [base]
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `alpha` or `negative_cost` is not above 0, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> loss = BinomialDevianceLoss()
    >>> embeddings = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]  # s = 1 within a class, 0 between them
    >>> round(float(loss([0, 0, 1, 1], embeddings)), 4)  # log(1 + exp(-1)) + log(1 + exp(-25))
    0.3133

    Reference: Yi, Lei, Li, "Deep Metric Learning for Practical Person Re-Identification", arXiv 1407.4979; with these
        settings the base loss of Manandhar, Bastan, Yap, arXiv 1911.06047. [base]
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 0.5,
        negative_cost: float = 25.0,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "binomial_deviance_loss",
        dtype=None,
    ):
        super().__init__(alpha, beta, negative_cost, from_normalized, reduction, name, dtype)

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """Returns both terms by name, each `[B]`."""
        return binomial_deviance_terms(labels, embeddings, **self._arguments(), memory=memory)
