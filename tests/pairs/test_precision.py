"""Products keep the accuracy of float32 where the machine rounds factors to 10 bits: value and gradient."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.pairs import precision
from tests import rounding
from tests.rounding import tensor_float_32  # noqa: F401

SHAPES = {  # transpose_a, transpose_b: the shapes of [37, 300] x [300, 53]
    (False, False): ([37, 300], [300, 53]),
    (False, True): ([37, 300], [53, 300]),
    (True, False): ([300, 37], [300, 53]),
    (True, True): ([300, 37], [53, 300]),
}


def factors(transposed):
    rng = np.random.default_rng(3)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES[transposed]]


UPSTREAM = np.random.default_rng(4).normal(size=[37, 53]).astype(np.float32)


def value_and_gradients(product, factors, transposed):
    left, right = (tf.convert_to_tensor(factor) for factor in factors)
    with tf.GradientTape() as tape:
        tape.watch([left, right])
        value = product(left, right, transpose_a=transposed[0], transpose_b=transposed[1])
    return [value, *tape.gradient(value, [left, right], output_gradients=tf.constant(UPSTREAM))]


def in_float64(factors, transposed):
    left, right = (factor.T if is_transposed else factor for factor, is_transposed in zip(factors, transposed))
    left, right, upstream = (each.astype(np.float64) for each in (left, right, UPSTREAM))
    gradients = upstream @ right.T, left.T @ upstream
    return [left @ right, *(each.T if is_transposed else each for each, is_transposed in zip(gradients, transposed))]


def largest_error(found, exact):
    return [float(np.max(np.abs(f - e)) / np.max(np.abs(e))) for f, e in zip(found, exact)]


@pytest.mark.parametrize(
    "mode", [lambda f: f, tf.function, tf.function(jit_compile=True)], ids=["eager", "graph", "xla"]
)
@pytest.mark.parametrize("transposed", SHAPES)
@pytest.mark.usefixtures("tensor_float_32")
def test_value_and_gradients_are_those_of_float32(transposed, mode):
    """Of float64: rounding to 10 bits is off by some 1e-3 of the largest, float32 by some 1e-7."""
    compiled = mode(lambda *given: value_and_gradients(precision.matmul, given, transposed))
    found, exact = compiled(*factors(transposed)), in_float64(factors(transposed), transposed)
    assert max(largest_error(found, exact)) < 1e-6


@pytest.mark.parametrize("transposed", SHAPES)
@pytest.mark.usefixtures("tensor_float_32")
def test_the_plain_product_is_not(transposed):
    """Otherwise the test above would not see a product that is not split."""
    found = value_and_gradients(tf.matmul, factors(transposed), transposed)
    assert min(largest_error(found, in_float64(factors(transposed), transposed))) > 1e-4


def test_without_a_gpu_it_is_one_plain_product():
    """As it has always been: nothing gets slower."""
    assert not precision.rounds_factors()
    left, right = factors((False, False))
    np.testing.assert_array_equal(precision.matmul(left, right), tf.matmul(left, right))


def test_the_two_parts_are_the_number_and_the_first_survives_rounding():
    numbers = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 10.0 ** np.arange(-20, 20).repeat(25)
    kept, rest = precision.split(tf.constant(numbers, tf.float32))
    np.testing.assert_array_equal(kept + rest, np.float32(numbers))
    np.testing.assert_array_equal(rounding.rounded(kept), kept)
    assert np.max(np.abs(rest / kept)) <= 2.0**-11


def test_what_is_not_finite_stays_so():
    kept, rest = precision.split(tf.constant([np.nan, np.inf, -np.inf, 0.0]))
    assert np.isnan(kept + rest)[0]
    assert not np.isfinite(kept + rest)[1:3].any()
    assert (kept + rest)[3] == 0
