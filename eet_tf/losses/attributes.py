"""The loss of an attribute head: what is known of a photo is learnt, what is unknown is passed over."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf.losses.base import BatchLoss

_NEARLY_ZERO = 1e-7  # as in Keras: keeps the logarithm of a probability finite


def values_and_known(attributes) -> tuple[tf.Tensor, tf.Tensor]:
    """Attributes with 0 in place of unknown ones (-1), and 1 where they are known, else 0; both float32."""
    attributes = tf.cast(attributes, tf.float32)
    return tf.nn.relu(attributes), tf.cast(attributes >= 0, tf.float32)


def attribute_loss(attributes, predictions, *, from_logits: bool = True) -> tf.Tensor:
    """Computes the binary cross-entropy over the known attributes of each photo; see `AttributeLoss`.

    Args:
        attributes: `[B, A]` in {1, 0, -1 = unknown}.
        predictions: `[B, A]` logits, or probabilities.
        from_logits: whether predictions are logits.

    Returns:
        `[B]` float32: the mean over the known attributes of a row, 0 for a row without any; NaN for one with a number
        that is not finite.

    Raises:
        ValueError: if shapes differ or are not `[B, A]`.

    Example:

    >>> round(float(attribute_loss([[1, 0, -1]], [[0.0, 0.0, 9.0]])[0]), 4)  # log 2: an even chance, two times
    0.6931
    """
    attributes, predictions = tf.convert_to_tensor(attributes), tf.cast(predictions, tf.float32)
    truth = tf.cast(attributes, tf.float32)
    if attributes.shape.rank != 2 or not attributes.shape.is_compatible_with(predictions.shape):
        raise ValueError(
            "`attributes` and `predictions` must both have the shape [batch, num_attributes]. "
            f"Received: shapes {attributes.shape} and {predictions.shape}."
        )
    targets, known = values_and_known(attributes)
    if from_logits:
        entropies = tf.nn.sigmoid_cross_entropy_with_logits(targets, predictions)
    else:
        sure = tf.clip_by_value(predictions, _NEARLY_ZERO, 1.0 - _NEARLY_ZERO)
        entropies = -targets * tf.math.log(sure) - (1.0 - targets) * tf.math.log(1.0 - sure)
    total = tf.reduce_sum(known * entropies, axis=1)
    flaws = tf.where(tf.math.is_finite(tf.reduce_sum(predictions + truth, axis=1)), 0.0, float("nan"))
    return tf.math.divide_no_nan(total, tf.reduce_sum(known, axis=1)) + flaws


@keras.saving.register_keras_serializable(package="eet_tf")
class AttributeLoss(BatchLoss):
    """Computes the binary cross-entropy of an attribute head over the known attributes of each photo.

    - The mean is over the known attributes of a photo, then over photos; one of which nothing is known contributes
      exactly 0 and counts.
    - The truth is 1 (yes), 0 (no) or -1 (unknown). Other values cannot be refused inside a graph: below 0 they count
      as unknown, fractions as the probability of yes.

    It works in any Keras model that ends in `[B, A]`, and beside a metric loss in `MetricLearner`.

    Args:
        from_logits: whether `y_pred` are logits, as `build_embedder` makes them, rather than probabilities.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `y_true` and `y_pred` are not both `[B, A]`.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(3)])
    >>> model.compile(optimizer="sgd", loss=AttributeLoss())
    >>> history = model.fit(np.eye(8), np.tile([1, 0, -1], [8, 1]), verbose=0)

    Reference: Manandhar, Bastan, Yap, "Semantic Granularity Metric Learning for Visual Search", arXiv 1911.06047: the
        second task beside the embedding; that unknown attributes are left out is [ours].
    """

    def __init__(
        self,
        from_logits: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "attribute_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        self.from_logits = from_logits

    def call(self, y_true, y_pred) -> tf.Tensor:
        """Attributes `[B, A]`, logits `[B, A]` -> the loss of each photo `[B]`."""
        return attribute_loss(y_true, y_pred, from_logits=self.from_logits)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"from_logits": self.from_logits, **super().get_config()}
