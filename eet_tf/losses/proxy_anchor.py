"""Proxy-Anchor: each class's learnt vector is an anchor that draws its photos of the batch and pushes the others."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf import plans
from eet_tf.losses.checks import check_numbers
from eet_tf.losses.class_vectors import ClassBatch, ClassVectorLoss, check_sampled, class_batch
from eet_tf.pairs import pairwise, precision


def proxy_anchor_loss(
    labels,
    embeddings,
    class_vectors,
    *,
    margin: float = 0.1,
    scale: float = 32.0,
    sampled_classes: int | None = None,
    from_normalized: bool = False,
) -> tf.Tensor:
    """Computes the Proxy-Anchor loss of a batch; every photo gets that one number.

    Args:
        labels: `[B]` or `[B, 1]` class numbers, from 0 to C - 1.
        embeddings: `[B, D]`.
        class_vectors: `[C, D]` of any length, the proxies.
        margin: as in `ProxyAnchorLoss`, and so are the next two.
        scale: as above.
        sampled_classes: as above.
        from_normalized: whether the embeddings already have unit length.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `ProxyAnchorLoss`, or if `class_vectors` is not `[C, D]`.

    Example:

    >>> proxy_anchor_loss([0, 0], [[1.0, 0.0], [0.0, 1.0]], np.eye(2), margin=0.1, scale=2.0).numpy().round(4)
    array([2.0799, 2.0799], dtype=float32)
    """
    _check(margin, scale, sampled_classes)
    found = class_batch(labels, embeddings, class_vectors, sampled_classes, from_normalized)
    value = _of_batch(found, margin, scale)
    return found.batch.loss_of_photos(tf.fill(tf.shape(found.batch.anchor_labels), value))


def _of_batch(found: ClassBatch, margin: float, scale: float) -> tf.Tensor:
    """The sum of both terms, a scalar."""
    batch = found.batch

    def one_block(proxies, photos, classes):
        cosines = precision.matmul(proxies, photos, transpose_b=True)
        is_own = tf.equal(classes[:, tf.newaxis], batch.reference_labels[tf.newaxis])
        drawn = _log_of_sum(scale * (margin - cosines), is_own)
        pushed = _log_of_sum(scale * (cosines + margin), tf.logical_not(is_own))
        return tf.stack([drawn, pushed, tf.cast(tf.reduce_any(is_own, axis=1), tf.float32)], axis=1)

    def all_blocks(proxies, photos, classes):
        return pairwise.reduce_row_blocks(one_block, proxies, photos, [classes])

    of_proxies = plans.part(all_blocks)(found.vectors[:, 0], batch.references, found.classes)
    drawn, pushed, has_photo = tf.unstack(of_proxies, axis=1)
    return tf.math.divide_no_nan(tf.reduce_sum(drawn), tf.reduce_sum(has_photo)) + tf.reduce_mean(pushed)


def _log_of_sum(exponents: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """log(1 + sum of exp) over the columns of a mask, `[R, N]` -> `[R]`."""
    largest = tf.reduce_max(tf.where(mask, tf.stop_gradient(exponents), 0.0), axis=1, keepdims=True)
    largest = tf.maximum(largest, 0.0)  # the 1 is one of those that are added
    terms = tf.where(mask, tf.exp(tf.where(mask, exponents - largest, 0.0)), 0.0)
    return tf.math.log(tf.exp(-largest[:, 0]) + tf.reduce_sum(terms, axis=1)) + largest[:, 0]


@keras.saving.register_keras_serializable(package="eet_tf")
class ProxyAnchorLoss(ClassVectorLoss):
    """Computes the Proxy-Anchor loss: every class vector, a proxy, against all photos of the batch.

    With s the cosine of a photo's embedding and a proxy, P the proxies, P+ those of the classes in the batch:

    ```
    proxy_anchor   1/|P+| sum over p in P+ of log(1 + sum over photos of its class of exp(-scale (s - margin)))
                 + 1/|P|  sum over p in P  of log(1 + sum over other photos of exp(scale (s + margin)))
    ```

    - It is one number for a batch, of which each photo has the same share. Under any strategy the batch is that of all
      replicas, each of which works it out.
    - The paper's proxies move at 100 times the optimizer's learning rate, and so they do here unless
      `MetricLearner.compile(class_vectors_rate=...)` is given; the trunk rests in the first 1 to 5 epochs,
      `head_only_steps`. [authors]
    - Class vectors, labels and memory are as in `NormalizedSoftmaxLoss`. Of a sample of classes P is the sample.

    Args:
        num_classes: C, the number of classes that are trained on, at least 2.
        margin: delta, in units of the cosine, default 0.1. [authors]
        scale: alpha, default 32. [authors]
        sampled_classes: as in `NormalizedSoftmaxLoss`.
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if an argument is out of its range, a label is no class, or it is compiled without `MetricLearner`.

    Example:

    >>> import keras
    >>> learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4)]))
    >>> learner.compile(keras.optimizers.AdamW(1e-4), loss=ProxyAnchorLoss(num_classes=4))
    >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0)

    Reference: Kim, Kim, Cho, Kwak, "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, arXiv 2003.13911, eq. 4.
    """

    vectors_name = "proxy_anchor"

    def __init__(
        self,
        num_classes: int,
        margin: float = 0.1,
        scale: float = 32.0,
        sampled_classes: int | None = None,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "proxy_anchor_loss",
        dtype=None,
    ):
        super().__init__(num_classes, sampled_classes, from_normalized, reduction, name, dtype)
        _check(margin, scale, sampled_classes)
        self.margin = margin
        self.scale = scale

    def class_vectors_rates(self) -> dict[str, float]:
        """100 times the optimizer's learning rate. [authors]"""
        return {self.vectors_name: 100.0}

    def of_photos(self, labels, embeddings, class_vectors) -> tf.Tensor:
        """The loss of the batch for each photo, `[B]`."""
        return proxy_anchor_loss(
            labels,
            embeddings,
            class_vectors,
            margin=self.margin,
            scale=self.scale,
            sampled_classes=self.sampled_classes,
            from_normalized=self.from_normalized,
        )

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"margin": self.margin, "scale": self.scale, **super().get_config()}


def _check(margin: float, scale: float, sampled_classes: int | None) -> None:
    check_numbers({"margin": margin})
    check_numbers({"scale": scale}, above_zero=True)
    check_sampled(sampled_classes)
