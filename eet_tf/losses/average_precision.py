"""Losses of average precision: Smooth-AP, and ROADMAP, which adds a bound for hard negatives and a calibration."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from eet_tf import replicas
from eet_tf.arguments import check_number
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Batch, Remembered, make_batch
from eet_tf.losses.checks import check_numbers
from eet_tf.pairs import ranks


def _loss_of_precision(batch: Batch, among_positives: ranks.Step, among_negatives: ranks.Step) -> tf.Tensor:
    """One minus the average precision of each anchor `[A]`, by steps that may be smooth; 0 without a positive."""

    def precision(by_positives, by_negatives):
        """(1 + positives before) / (1 + all before), and its slopes."""
        place = 1.0 + by_positives + by_negatives
        return (1.0 + by_positives) / place, by_negatives / place**2, -(1.0 + by_positives) / place**2

    def loss_of_anchors(cosines, is_positive, is_negative):
        sums, counts = ranks.over_positives(
            cosines,
            is_positive,
            is_negative,
            among_positives=among_positives,
            among_negatives=among_negatives,
            value=precision,
        )
        return tf.where(counts > 0, 1.0 - tf.math.divide_no_nan(sums, counts), 0.0)

    return batch.over_pairs(loss_of_anchors)


def smooth_ap_loss(
    labels,
    embeddings,
    *,
    temperature: float = 0.01,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Computes Smooth-AP's loss of each anchor, whose mean is the paper's value, as `SmoothAPLoss`.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        temperature: as in `SmoothAPLoss`.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches, which are ranked along with those of the batch.

    Returns:
        `[B]` float32, 1 - average precision.

    Raises:
        ValueError: as `SmoothAPLoss`.

    Example:

    >>> smooth_ap_loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]).numpy().round(3)  # the negative is the nearest
    array([0.5, 0.5, 0. ], dtype=float32)
    """
    check_numbers({"temperature": temperature}, above_zero=True)
    batch = make_batch(labels, embeddings, from_normalized, memory)
    step = ranks.sigmoid_step(temperature)
    return batch.loss_of_photos(_loss_of_precision(batch, step, step))


@keras.saving.register_keras_serializable(package="eet_tf")
class SmoothAPLoss(MetricLoss):
    """Computes Smooth-AP: one minus the average precision of each anchor, with smooth ranks.

    With s the cosines of an anchor, P its positives, N its negatives and G the sigmoid of x / temperature:

    ```
    rank_P(i)           1 + sum over j in P, j != i, of G(s_j - s_i)
    rank(i)             rank_P(i) + sum over j in N of G(s_j - s_i)
    average_precision   mean over anchors of  1 - 1/|P| sum over i in P of rank_P(i) / rank(i)
    ```

    - The anchor itself is not ranked.
    - An anchor without a positive contributes exactly 0, and counts in the mean.
    - Under any strategy the photos of all replicas are ranked.
    - It takes one positive of each anchor at a time: memory is that of blocks of 8 MB, and time grows with the largest
      class of the batch.

    Args:
        temperature: of the smooth step, in units of the cosine, default 0.01. [authors]
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `temperature` is not above 0, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> loss = SmoothAPLoss()
    >>> round(float(loss([0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])), 4)  # all positives first
    0.0

    Reference: Brown, Xie, Kalogeiton, Zisserman, "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval",
        arXiv 2007.12163, section 4. [authors: the paper's text]
    """

    def __init__(
        self,
        temperature: float = 0.01,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "smooth_ap_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        check_numbers({"temperature": temperature}, above_zero=True)
        self.temperature = temperature
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {"temperature": self.temperature, "from_normalized": self.from_normalized}

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """`{"average_precision": [B]}`."""
        return {"average_precision": smooth_ap_loss(labels, embeddings, **self._arguments(), memory=memory)}

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}


def _bounding_step(temperature: float, slope: float, delta: float) -> ranks.Step:
    """ROADMAP's step of negatives: never below the true one, and it never ceases to rise."""
    at_delta = 0.5 + 1.0 / (1.0 + math.exp(-delta / temperature))

    def step(differences):
        rising = tf.sigmoid(differences / temperature)
        slopes = rising * (1.0 - rising) / temperature
        values = tf.where(differences > 0, rising + 0.5, rising)
        is_beyond = differences > delta
        values = tf.where(is_beyond, at_delta + slope * (differences - delta), values)
        return values, tf.where(is_beyond, slope, slopes)

    return step


def roadmap_terms(
    labels,
    embeddings,
    *,
    calibration_weight: float = 0.5,
    temperature: float = 0.01,
    slope: float = 100.0,
    delta: float = 0.05,
    positive_threshold: float = 0.9,
    negative_threshold: float = 0.6,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> dict[str, tf.Tensor]:
    """The weighted terms of `RoadmapLoss` by name, each `[B]`; a term with weight 0 is left out."""
    _check_roadmap(calibration_weight, temperature, slope, delta, positive_threshold, negative_threshold)
    batch = make_batch(labels, embeddings, from_normalized, memory)
    terms = {}
    if calibration_weight < 1:
        bound = _bounding_step(temperature, slope, delta)
        precision = _loss_of_precision(batch, ranks.hard_step, bound)
        terms["average_precision"] = (1.0 - calibration_weight) * batch.of_photos(precision)
    if calibration_weight > 0:
        terms |= _calibration(batch, calibration_weight, positive_threshold, negative_threshold)
    return {name: values + batch.flaw for name, values in terms.items()}


def _calibration(batch: Batch, weight, positive_threshold, negative_threshold) -> dict[str, tf.Tensor]:
    """The means over the positive and the negative pairs beyond their thresholds, dealt out to the anchors."""

    def sums_of_anchors(cosines, is_positive, is_negative):
        excesses = [
            tf.where(is_positive, tf.nn.relu(positive_threshold - cosines), 0.0),
            tf.where(is_negative, tf.nn.relu(cosines - negative_threshold), 0.0),
        ]
        sums = [tf.reduce_sum(each, axis=1) for each in excesses]
        counts = [tf.math.count_nonzero(each, axis=1, dtype=tf.float32) for each in excesses]
        return tf.stack([*sums, *counts], axis=1)

    sums = batch.of_photos(batch.over_pairs(sums_of_anchors))
    counts = tf.reduce_sum(tf.stop_gradient(sums[:, 2:]), axis=0, keepdims=True)
    counts = tf.reduce_sum(replicas.gather(counts), axis=0)
    dealt = tf.math.divide_no_nan(weight * tf.cast(batch.num_anchors, tf.float32) * sums[:, :2], counts)
    return dict(zip(("positive_pairs", "negative_pairs"), tf.unstack(dealt, axis=1)))


def _check_roadmap(calibration_weight, temperature, slope, delta, positive_threshold, negative_threshold) -> None:
    check_number("calibration_weight", calibration_weight, 0, 1)
    check_numbers({"temperature": temperature, "slope": slope}, above_zero=True)
    check_number("delta", delta, 0, 2)
    check_number("positive_threshold", positive_threshold, -1, 1)
    check_number("negative_threshold", negative_threshold, -1, 1)


def roadmap_loss(
    labels,
    embeddings,
    *,
    calibration_weight: float = 0.5,
    temperature: float = 0.01,
    slope: float = 100.0,
    delta: float = 0.05,
    positive_threshold: float = 0.9,
    negative_threshold: float = 0.6,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Computes ROADMAP's loss of each anchor, whose mean is the paper's value, as `RoadmapLoss`.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        calibration_weight: as in `RoadmapLoss`, and so are the next five.
        temperature: of the smooth step.
        slope: of the step of negatives, beyond `delta`.
        delta: cosine by which a negative is ahead, from which on the step rises linearly.
        positive_threshold: cosine below which positive pairs are pulled.
        negative_threshold: cosine above which negative pairs are pushed.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches, which are ranked along with those of the batch.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `RoadmapLoss`.

    Example:

    >>> roadmap_loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]).shape
    TensorShape([3])
    """
    terms = roadmap_terms(
        labels,
        embeddings,
        calibration_weight=calibration_weight,
        temperature=temperature,
        slope=slope,
        delta=delta,
        positive_threshold=positive_threshold,
        negative_threshold=negative_threshold,
        from_normalized=from_normalized,
        memory=memory,
    )
    return tf.add_n(list(terms.values()))


@keras.saving.register_keras_serializable(package="eet_tf")
class RoadmapLoss(MetricLoss):
    """Computes ROADMAP: an upper bound of one minus the average precision, and a calibration of the cosines.

    With s the cosines of an anchor, P its positives, N its negatives, w `calibration_weight`, G the sigmoid of
    x / temperature, and H(x) 1 from 0 on and else 0:

    ```
    rank_P(i)           1 + sum over j in P, j != i, of H(s_j - s_i)
    rank_N(i)           sum over j in N of H-(s_j - s_i)
    H-(x)               G(x) up to 0, G(x) + 0.5 up to delta, then slope * (x - delta) + G(delta) + 0.5
    average_precision   (1 - w) * mean over anchors of  1 - 1/|P| sum over i in P of rank_P(i) / (rank_P(i) + rank_N(i))
    positive_pairs      w * mean of [positive_threshold - s]_+ over the positive pairs where it is above 0
    negative_pairs      w * mean of [s - negative_threshold]_+ over the negative pairs where it is above 0
    ```

    - Positives among themselves get no gradient from the ranks: their order changes nothing.
    - The anchor itself is not ranked. One without a positive contributes exactly 0 to `average_precision`.
    - Under any strategy the photos of all replicas are ranked, and the means are over the pairs of the global batch.
    - Memory is that of blocks of 8 MB, and time grows with the largest class of the batch.

    Args:
        calibration_weight: the paper's lambda, from 0 to 1, default 0.5. With 0 it is SupAP. [authors]
        temperature: of the smooth step, in units of the cosine, default 0.01. [authors]
        slope: the paper's rho, default 100. [authors]
        delta: cosine by which a negative is ahead, from which on the step rises linearly, default 0.05. [authors]
        positive_threshold: the paper's alpha, default 0.9. [authors]
        negative_threshold: the paper's beta, default 0.6. [authors]
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `calibration_weight` is not from 0 to 1, `temperature` or `slope` not above 0, `delta` not
            from 0 to 2, a threshold no cosine, or shapes are not `[B]` and `[B, D]`.

    Example:

    >>> loss = RoadmapLoss()
    >>> round(float(loss([0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])), 4)
    0.0

    Reference: Ramzi, Thome, Rambour, Audebert, Bitot, "Robust and Decomposable Average Precision for Image Retrieval",
        arXiv 2110.01445, section 3. [authors: the paper's text; the means over pairs are those of their released code]
    """

    def __init__(
        self,
        calibration_weight: float = 0.5,
        temperature: float = 0.01,
        slope: float = 100.0,
        delta: float = 0.05,
        positive_threshold: float = 0.9,
        negative_threshold: float = 0.6,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "roadmap_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        _check_roadmap(calibration_weight, temperature, slope, delta, positive_threshold, negative_threshold)
        self.calibration_weight = calibration_weight
        self.temperature = temperature
        self.slope = slope
        self.delta = delta
        self.positive_threshold = positive_threshold
        self.negative_threshold = negative_threshold
        self.from_normalized = from_normalized

    def _arguments(self) -> dict:
        return {
            "calibration_weight": self.calibration_weight,
            "temperature": self.temperature,
            "slope": self.slope,
            "delta": self.delta,
            "positive_threshold": self.positive_threshold,
            "negative_threshold": self.negative_threshold,
            "from_normalized": self.from_normalized,
        }

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """Returns the weighted terms by name, each `[B]`."""
        return roadmap_terms(labels, embeddings, **self._arguments(), memory=memory)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**self._arguments(), **super().get_config()}
