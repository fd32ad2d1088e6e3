"""Where each positive of an anchor ranks among the other photos, smoothly, so that a loss can move it up."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

Step = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def sigmoid_step(temperature: float) -> Step:
    """A step from 0 to 1 at 0, smoothed over some temperatures: differences -> (values, slopes)."""

    def step(differences):
        values = tf.sigmoid(differences / temperature)
        return values, values * (1.0 - values) / temperature

    return step


def hard_step(differences: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The step itself, 1 from 0 on, which has no slope."""
    return tf.cast(differences >= 0, tf.float32), tf.zeros_like(differences)


def over_positives(
    cosines: tf.Tensor,
    is_positive: tf.Tensor,
    is_negative: tf.Tensor,
    *,
    among_positives: Step,
    among_negatives: Step,
    value: Callable,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds up, over the positives of each anchor, a value of how many photos rank before it.

    It takes one positive of every anchor at a time, so that only matrices `[R, N]` exist, of anchors and references.
    An anchor's sum depends on its cosines alone, so the slope by each of them is all that the gradient needs; slopes
    are added up along with the values, and no positive is gone through a second time.

    Args:
        cosines: `[R, N]` float32.
        is_positive: `[R, N]` bool.
        is_negative: `[R, N]` bool.
        among_positives: function of how much closer than the positive in hand others are, `[R, N]`, returning how much
            of a place each takes before it, and the slope of that. It is asked for the other positives.
        among_negatives: the same for negatives.
        value: function of the places that positives and that negatives take before the one in hand, `[R]` each,
            returning its value and the slopes by both, `[R]` each.

    Returns:
        The sums `[R]`, whose gradient reaches `cosines`, and the number of positives, `[R]` float32.
    """
    known = tf.stop_gradient(cosines)
    numbers = tf.where(is_positive, tf.cumsum(tf.cast(is_positive, tf.int32), axis=1), 0)  # from 1 on
    counts = tf.reduce_max(numbers, axis=1)

    def one_positive(number, sums, slopes):
        is_it = tf.equal(numbers, number)
        own = tf.reduce_sum(tf.where(is_it, known, 0.0), axis=1, keepdims=True)
        by_positives, slope_of_positives = among_positives(known - own)
        by_negatives, slope_of_negatives = among_negatives(known - own)
        is_other = is_positive & tf.logical_not(is_it)
        before = [
            tf.reduce_sum(tf.where(mask, places, 0.0), axis=1)
            for mask, places in ((is_other, by_positives), (is_negative, by_negatives))
        ]
        values, slope_by_positives, slope_by_negatives = value(*before)
        exists = number <= counts
        slope_by_positives, slope_by_negatives = (
            tf.where(exists, each, 0.0)[:, tf.newaxis] for each in (slope_by_positives, slope_by_negatives)
        )
        slope = tf.where(is_other, slope_by_positives * slope_of_positives, 0.0)
        slope += tf.where(is_negative, slope_by_negatives * slope_of_negatives, 0.0)
        slope -= tf.where(is_it, tf.reduce_sum(slope, axis=1, keepdims=True), 0.0)
        return number + 1, sums + tf.where(exists, values, 0.0), slopes + slope

    start = (1, tf.zeros_like(known[:, 0]), tf.zeros_like(known))
    last = tf.reduce_max(counts)
    _, sums, slopes = tf.while_loop(lambda number, *_: number <= last, one_positive, start, parallel_iterations=1)
    sums, slopes = tf.stop_gradient(sums), tf.stop_gradient(slopes)
    return sums + tf.reduce_sum(slopes * (cosines - known), axis=1), tf.cast(counts, tf.float32)
