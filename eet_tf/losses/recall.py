"""Recall at k as a loss: whether each positive ranks among the first k, smoothly."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from eet_tf.arguments import check_integer
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Remembered, make_batch
from eet_tf.losses.checks import check_numbers
from eet_tf.pairs import ranks

_KS = (1, 2, 4, 8, 16)


def recall_at_k_loss(
    labels,
    embeddings,
    *,
    ks: Sequence[int] = _KS,
    temperature: float = 0.01,
    rank_temperature: float = 1.0,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Computes the recall surrogate of each anchor, whose mean is the paper's value, as `RecallAtKLoss`.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        ks: as in `RecallAtKLoss`, and so are the next two.
        temperature: of the smooth step between two cosines.
        rank_temperature: of the smooth step between a rank and k.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches, which are ranked along with those of the batch.

    Returns:
        `[B]` float32, 1 - recall.

    Raises:
        ValueError: as `RecallAtKLoss`.

    Example:

    >>> recall_at_k_loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]], ks=[1]).numpy().round(3)  # rank 2, and k is 1
    array([0.731, 0.731, 0.   ], dtype=float32)
    """
    _check(ks, temperature, rank_temperature)
    batch = make_batch(labels, embeddings, from_normalized, memory)
    step = ranks.sigmoid_step(temperature)

    def loss_of_anchors(cosines, is_positive, is_negative):
        num_positives = tf.reduce_sum(tf.cast(is_positive, tf.float32), axis=1)
        within = tf.constant(ks, tf.float32)  # [K]
        most = tf.maximum(tf.minimum(num_positives[:, tf.newaxis], within), 1.0)  # [R, K]

        def share_within(by_positives, by_negatives):
            """What a positive adds to the mean of the recalls at all k."""
            rank = 1.0 + by_positives + by_negatives
            inside = tf.sigmoid((within - rank[:, tf.newaxis]) / rank_temperature)
            slope = -tf.reduce_mean(inside * (1.0 - inside) / most, axis=1) / rank_temperature
            return tf.reduce_mean(inside / most, axis=1), slope, slope

        recalls, _ = ranks.over_positives(
            cosines, is_positive, is_negative, among_positives=step, among_negatives=step, value=share_within
        )
        return tf.where(num_positives > 0, 1.0 - recalls, 0.0)

    return batch.loss_of_photos(batch.over_pairs(loss_of_anchors))


def _check(ks, temperature, rank_temperature) -> None:
    if not isinstance(ks, (list, tuple)) or not ks:
        raise ValueError(f"`ks` must be a list of positive integers, e.g. (1, 2, 4). Received: ks={ks!r:.100}.")
    for k in ks:
        check_integer("ks", k, 1)
    check_numbers({"temperature": temperature, "rank_temperature": rank_temperature}, above_zero=True)


@keras.saving.register_keras_serializable(package="eet_tf")
class RecallAtKLoss(MetricLoss):
    """Computes a smooth recall at several k, and its distance from 1.

    With s the cosines of an anchor, P its positives, O all other photos and G_t the sigmoid of x / t:

    ```
    rank(i)      1 + sum over j in O, j != i, of G_temperature(s_j - s_i)
    recall at k  1 / min(k, |P|) * sum over i in P of G_rank_temperature(k - rank(i))
    recall       mean over anchors of  1 - mean over ks of the recall at k
    ```

    - Large batches are what it is for: `compile(microbatch=...)` of `MetricLearner` takes thousands of photos.
    - The anchor itself is not ranked. [authors: in their code it takes the first place; they also cap the sum at k]
    - An anchor without a positive contributes exactly 0, and counts in the mean.
    - Under any strategy the photos of all replicas are ranked.
    - Memory is that of blocks of 8 MB, and time grows with the largest class of the batch.

    Args:
        ks: default (1, 2, 4, 8, 16). [authors]
        temperature: of the smooth step between two cosines, default 0.01. [authors]
        rank_temperature: of the smooth step between a rank and k, default 1. [authors]
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `ks` are not positive integers, a temperature is not above 0, or shapes are not `[B]` and
            `[B, D]`.

    Example:

    >>> loss = RecallAtKLoss(ks=[1], rank_temperature=0.1)
    >>> round(float(loss([0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])), 4)  # rank 1: half a step
    0.5

    Reference: Patel, Tolias, Matas, "Recall@k Surrogate Loss with Large Batches and Similarity Mixup", arXiv
        2108.11179, section 3. [authors: their released code]
    """

    def __init__(
        self,
        ks: Sequence[int] = _KS,
        temperature: float = 0.01,
        rank_temperature: float = 1.0,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "recall_at_k_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        _check(ks, temperature, rank_temperature)
        self.ks = tuple(ks)
        self.temperature = temperature
        self.rank_temperature = rank_temperature
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {
            "ks": self.ks,
            "temperature": self.temperature,
            "rank_temperature": self.rank_temperature,
            "from_normalized": self.from_normalized,
        }

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """`{"recall": [B]}`."""
        return {"recall": recall_at_k_loss(labels, embeddings, **self._arguments(), memory=memory)}

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}
