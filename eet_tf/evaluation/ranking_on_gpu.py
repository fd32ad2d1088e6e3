"""Counts on a GPU how many wrong answers stand before each right one; the scores never leave it.

All scores are float64: exact to 1e-13, so that nothing has to be scored again as on a CPU, and never rounded to
TensorFloat-32, which is for float32 alone. GPUs made for computing, such as A100 and H100, multiply float64 at half the
rate of float32; graphics cards at a 32nd or a 64th, where 60,502 photos take seconds.

Only operations are used whose kernels keep all `[B, N]` numbers in the GPU's memory. Many that take int32, `tf.less`
and `tf.reshape` among them, work in the host's memory even on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf


class GpuError(RuntimeError):
    """Says why a GPU cannot do it here; a CPU can."""


class Gallery:
    """What is searched, kept on the GPU: `N * D * 8` bytes.

    Args:
        unit: `[N, D]` float64 of unit length.
        classes: `[N]` the class of each row, as a number from 0.

    Raises:
        GpuError: if it does not fit.
    """

    def __init__(self, unit: np.ndarray, classes: np.ndarray):
        in_order = np.argsort(classes, kind="stable")
        with _gpu():
            self._unit = tf.constant(unit)
            self._in_order = tf.constant(in_order)
            self._last_of_class = tf.constant(np.cumsum(np.bincount(classes)) - 1)

    def num_wrong_before(self, queries, columns, is_in_class, is_right, tie: float) -> tuple[np.ndarray, np.ndarray]:
        """Counts for each right answer the wrong ones that stand before it, but not before the right one above it.

        Args:
            queries: `[B, D]` float64 of unit length.
            columns: `[B, C]` int64, the rows of the gallery that are of the query's class; any rows behind them.
            is_in_class: `[B, C]` bool, which of `columns` are meant.
            is_right: `[B, C]` bool, which of these are right answers: all but the query itself.
            tie: a wrong answer whose score is below that of a right one by no more than this stands before it.

        Returns:
            `[B, R]` int32, R being the most right answers of any query, the best right answer first. Where a query has
            fewer, the numbers behind them mean nothing. And `[B]` int64, how many classes, but for the query's own,
            have a photo that stands before the best right answer.

        Raises:
            GpuError: if the GPU has too little memory left for `B * N * 24` bytes, or operations must be deterministic:
                TensorFlow then refuses to count on a GPU, even whole numbers.
        """
        num_right = int(is_right.sum(axis=1).max())
        with _gpu():
            # the nearest first, as cosines with their sign turned
            distances = tf.matmul(-tf.constant(queries), self._unit, transpose_b=True)
            of_class = tf.gather(distances, columns, batch_dims=1)
            infinite = tf.constant(np.inf, tf.float64)
            limits = tf.sort(tf.where(is_right, of_class + tie, infinite), axis=1)[:, :num_right]
            of_class = tf.where(is_in_class, of_class, infinite)
            # all that stand before, less those of the class, whose distances are the very same numbers
            num_wrong = _num_between(limits, distances).numpy() - _num_between(limits, of_class).numpy()
            own = tf.cast(tf.reduce_any(of_class <= limits[:, :1], axis=1), tf.float32)
            return num_wrong, np.rint((self._num_classes_before(distances, limits[:, :1]) - own).numpy()).astype(int)

    def _num_classes_before(self, distances: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
        """`[B]` float32, how many classes have a photo at most `limit [B, 1]` away; exact up to 2^24 photos."""
        is_before = tf.cast(tf.gather(distances, self._in_order, axis=1) <= limit, tf.float32)
        up_to_class = tf.gather(tf.cumsum(is_before, axis=1), self._last_of_class, axis=1)
        of_class = up_to_class - tf.pad(up_to_class[:, :-1], [[0, 0], [1, 0]])
        return tf.reduce_sum(tf.cast(of_class > 0, tf.float32), axis=1)


def _num_between(limits: tf.Tensor, distances: tf.Tensor) -> tf.Tensor:
    """`[B, R]` int32, how many distances of a row exceed the limit before, if there is one, but not this one.

    Args:
        limits: `[B, R]` float64, each row ascending.
        distances: `[B, N]` float64.
    """
    limit = tf.searchsorted(limits, distances, side="left", out_type=tf.int64)
    with tf.device("CPU:0"):  # where the kernel reads it
        size = tf.constant(limits.shape[1], tf.int64)
    # what exceeds all limits has the number R and is not counted
    return tf.raw_ops.DenseBincount(input=limit, size=size, weights=tf.constant([], tf.int32))


@contextlib.contextmanager
def _gpu() -> Iterator[None]:
    """Places operations on the first GPU."""
    try:
        with tf.device("GPU:0"):
            yield
    # a library that finds no memory for its own needs ends in an internal error
    except (tf.errors.ResourceExhaustedError, tf.errors.InternalError, tf.errors.UnimplementedError) as error:
        raise GpuError(error.message.partition("\n")[0]) from error
