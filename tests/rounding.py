"""A GPU's TensorFloat-32 on a CPU: a product that rounds both factors to 10 bits of mantissa, for `tf.matmul`."""

import pytest
import tensorflow as tf

from eet_tf.pairs import precision

_matmul = tf.matmul


def rounded(numbers):
    """To 10 bits of mantissa, the nearest, ties to even, as the hardware does."""
    bits = tf.bitcast(numbers, tf.int32)
    is_odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 13), 1)
    return tf.bitcast(tf.bitwise.bitwise_and(bits + 0xFFF + is_odd, ~0x1FFF), tf.float32)


def matmul(a, b, transpose_a=False, transpose_b=False, **arguments):
    """`tf.matmul` as in TensorFloat-32; its gradient too."""
    if a.dtype != tf.float32:
        return _matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b, **arguments)

    @tf.custom_gradient
    def product(a, b):
        def gradient(upstream):
            of_a = matmul(upstream, b, transpose_b=not transpose_b)
            of_b = matmul(a, upstream, transpose_a=not transpose_a)
            return (
                tf.transpose(of_a) if transpose_a else of_a,
                tf.transpose(of_b) if transpose_b else of_b,
            )

        return _matmul(rounded(a), rounded(b), transpose_a=transpose_a, transpose_b=transpose_b), gradient

    return product(tf.convert_to_tensor(a), tf.convert_to_tensor(b))


@pytest.fixture
def tensor_float_32(monkeypatch):
    """Every `tf.matmul` of float32 matrices rounds its factors, and the package knows."""
    monkeypatch.setattr(tf, "matmul", matmul)
    monkeypatch.setattr(tf.linalg, "matmul", matmul)
    monkeypatch.setattr(precision, "rounds_factors", lambda: True)
