"""Supervised contrastive loss: each positive against all other photos of the batch. With pairs it is NT-Xent."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Remembered, make_batch
from eet_tf.losses.checks import check_numbers


def supervised_contrastive_loss(
    labels,
    embeddings,
    *,
    temperature: float = 0.1,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Computes the supervised contrastive loss of each anchor, whose mean is the paper's value.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        temperature: as in `SupervisedContrastiveLoss`.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches that anchors are also compared with.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `SupervisedContrastiveLoss`.

    Example:

    >>> supervised_contrastive_loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], temperature=1.0).numpy().round(3)
    array([0.313, 0.693, 0.   ], dtype=float32)
    """
    check_numbers({"temperature": temperature}, above_zero=True)
    batch = make_batch(labels, embeddings, from_normalized, memory)

    def loss_of_anchors(cosines, is_positive, is_negative):
        logits = cosines / temperature
        is_other = is_positive | is_negative
        largest = tf.reduce_max(tf.where(is_other, tf.stop_gradient(logits), -1.0 / temperature), axis=1, keepdims=True)
        shifted = tf.where(is_other, logits - largest, 0.0)
        total = tf.reduce_sum(tf.where(is_other, tf.exp(shifted), 0.0), axis=1)
        num_positives = tf.reduce_sum(tf.cast(is_positive, tf.float32), axis=1)
        mean = tf.math.divide_no_nan(tf.reduce_sum(tf.where(is_positive, shifted, 0.0), axis=1), num_positives)
        has_positive = num_positives > 0
        return tf.where(has_positive, tf.math.log(tf.where(has_positive, total, 1.0)) - mean, 0.0)

    return batch.loss_of_photos(batch.over_pairs(loss_of_anchors))


@keras.saving.register_keras_serializable(package="eet_tf")
class SupervisedContrastiveLoss(MetricLoss):
    """Computes the supervised contrastive loss: cross-entropy of each positive among all other photos.

    With s the cosine of two embeddings, P the positives of an anchor and O all photos but the anchor:

    ```
    contrastive   mean over anchors of  1/|P| sum over p in P of -log( exp(s_p / temperature)
                                                                     / sum over o in O of exp(s_o / temperature) )
    ```

    - With two photos of each class in a batch it is NT-Xent, the loss of SimCLR.
    - An anchor without a positive contributes exactly 0, and counts in the mean. [authors: their code]
    - Under any strategy an anchor is compared with the photos of all replicas.
    - Memory is that of blocks of 8 MB, for the gradient too.

    Args:
        temperature: default 0.1, the paper's best for classification on ImageNet. [authors]
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `temperature` is not above 0, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> loss = SupervisedContrastiveLoss(temperature=1.0)
    >>> round(float(loss([0, 0, 1, 1], [[1.0, 0.0]] * 4)), 4)  # all alike: log(3)
    1.0986

    Reference: Khosla et al., "Supervised Contrastive Learning", arXiv 2004.11362, eq. 2 (L_out); Chen, Kornblith,
        Norouzi, Hinton, SimCLR, arXiv 2002.05709, eq. 1 (NT-Xent). [authors: the papers' text]
    """

    def __init__(
        self,
        temperature: float = 0.1,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "supervised_contrastive_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        check_numbers({"temperature": temperature}, above_zero=True)
        self.temperature = temperature
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {"temperature": self.temperature, "from_normalized": self.from_normalized}

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """`{"contrastive": [B]}`."""
        return {"contrastive": supervised_contrastive_loss(labels, embeddings, **self._arguments(), memory=memory)}

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}
