"""Matrix multiplications that keep the accuracy of float32 where the machine rounds their factors to fewer bits.

TensorFlow multiplies float32 matrices on NVIDIA GPUs in TensorFloat-32 unless `tf.config.experimental` says otherwise:
both factors are rounded to 10 bits of mantissa. That is fine inside a network; differences of nearly
equal distances are lost by it.
"""

from __future__ import annotations

import tensorflow as tf

_HALF_OF_LAST_KEPT_BIT = 1 << 12  # of the 23 bits of a mantissa the upper 10 are kept
_DROPPED_BITS = (1 << 13) - 1


def rounds_factors() -> bool:
    """Whether a multiplication of float32 matrices may be worked out in TensorFloat-32 on this machine."""
    return bool(tf.config.list_physical_devices("GPU") and tf.config.experimental.tensor_float_32_execution_enabled())


def matmul(left: tf.Tensor, right: tf.Tensor, transpose_a: bool = False, transpose_b: bool = False) -> tf.Tensor:
    """`tf.matmul` of float32 matrices, with the accuracy of float32, and so is its gradient.

    Where factors would be rounded, each is split into a part that rounding leaves as it is and the rest, and three
    multiplications are added up. What is left out is below `2 ** -22` of the product of the absolute values.

    Args:
        left: `[n, d]` float32.
        right: `[d, m]` float32.
        transpose_a: whether `left` is given as `[d, n]`.
        transpose_b: whether `right` is given as `[m, d]`.

    Returns:
        `[n, m]` float32.

    Example:

    >>> matmul(tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 4.0]]), transpose_b=True).numpy()
    array([[11.]], dtype=float32)
    """
    if not rounds_factors():
        return tf.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b)

    @tf.custom_gradient
    def product(left, right):
        def gradient(upstream):
            if transpose_a:
                of_left = matmul(right, upstream, transpose_a=transpose_b, transpose_b=True)
            else:
                of_left = matmul(upstream, right, transpose_b=not transpose_b)
            if transpose_b:
                of_right = matmul(upstream, left, transpose_a=True, transpose_b=transpose_a)
            else:
                of_right = matmul(left, upstream, transpose_a=not transpose_a)
            return of_left, of_right

        return _in_three_products(left, right, transpose_a, transpose_b), gradient

    return product(left, right)


def _in_three_products(left, right, transpose_a: bool, transpose_b: bool) -> tf.Tensor:
    (left, left_rest), (right, right_rest) = split(left), split(right)
    large, small, other = [
        tf.matmul(*pair, transpose_a=transpose_a, transpose_b=transpose_b)
        for pair in ((left, right), (left, right_rest), (left_rest, right))
    ]
    return large + (small + other)


def split(numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Float32 numbers as a sum: what rounding to 10 bits of mantissa makes of them, and the rest, which has 12 bits.

    Rounded in integers, since a compiler folds `x - (x - y)` away.
    """
    bits = tf.bitcast(numbers, tf.int32)
    kept = tf.bitwise.bitwise_and(bits + _HALF_OF_LAST_KEPT_BIT, ~_DROPPED_BITS)
    rounded = tf.bitcast(kept, tf.float32)
    return rounded, numbers - rounded
