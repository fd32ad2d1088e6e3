"""Distances against NumPy, their gradients where the textbook ones are infinite, and blocks of rows of every size."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import pairwise

pytestmark = pytest.mark.addons


def points(rows, dim=5, seed=0):
    return np.random.default_rng(seed).normal(size=[rows, dim]).astype(np.float32)


def test_safe_sqrt_is_the_square_root():
    x = np.array([0.0, 1e-12, 0.25, 2.0, 1e6], np.float32)
    np.testing.assert_allclose(pairwise.safe_sqrt(x), np.sqrt(x), rtol=1e-6)


def test_safe_sqrt_has_the_gradient_of_the_square_root_and_none_at_zero():
    """d sqrt(x) / dx = 1 / (2 sqrt(x)): 1 at 1/4, 1/4 at 4. At 0 it would be infinite."""
    x = tf.constant([0.0, 0.25, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        roots = pairwise.safe_sqrt(x)
    np.testing.assert_allclose(tape.gradient(roots, x), [0.0, 1.0, 0.25])


def test_safe_sqrt_of_a_rounding_error_below_zero_is_zero():
    x = tf.constant([-1e-9])
    with tf.GradientTape() as tape:
        tape.watch(x)
        roots = pairwise.safe_sqrt(x)
    assert float(roots[0]) == 0.0
    assert float(tape.gradient(roots, x)[0]) == 0.0


@pytest.mark.parametrize("shape", [[7], [3, 4]])
def test_euclidean_is_numpys_norm(shape):
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=[*shape, 6]), rng.normal(size=[*shape, 6])
    distances = pairwise.euclidean(tf.constant(left), tf.constant(right))
    np.testing.assert_allclose(distances, np.linalg.norm(left - right, axis=-1), rtol=1e-12)


def test_euclidean_is_exact_for_near_duplicates():
    """Unit vectors 1e-5 apart: through `2 - 2 x.y` in float32 the distance would come out as 0 or about 3e-4."""
    left = np.zeros([1, 4], np.float32)
    left[0, 0] = 1.0
    right = left.copy()
    right[0, 1] = 1e-5
    np.testing.assert_allclose(pairwise.euclidean(left, right), [1e-5], rtol=1e-6)


def test_euclidean_of_a_point_and_itself_has_no_gradient():
    x = tf.constant(points(3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        distances = pairwise.euclidean(x, tf.identity(x))
    np.testing.assert_array_equal(distances, np.zeros(3))
    np.testing.assert_array_equal(tape.gradient(distances, x), np.zeros([3, 5]))


def test_closeness_is_the_negative_squared_distance_up_to_a_constant_of_the_row():
    """`-|r - x|^2 + |r|^2 = 2 r.x - |x|^2`."""
    rows, references = points(4, seed=1), points(9, seed=2)
    squared = ((rows[:, np.newaxis] - references[np.newaxis]) ** 2).sum(-1)
    expected = (rows**2).sum(-1, keepdims=True) - squared
    np.testing.assert_allclose(pairwise.closeness(rows, references), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_rows", [1, 2, 3, 7, 8, 100])
def test_blocks_give_what_the_whole_would(block_rows):
    """Seven rows: blocks that divide them, that do not, of exactly the size, and larger."""
    x, y = points(7), np.arange(7, dtype=np.int32)

    def both(rows, numbers):
        return rows * 2.0, numbers + 1

    doubled, following = pairwise.map_row_blocks(both, [x, y], (tf.float32, tf.int32), block_rows)
    np.testing.assert_array_equal(doubled, x * 2.0)
    np.testing.assert_array_equal(following, y + 1)


def test_no_block_is_larger_than_asked_for():
    sizes = []

    def note(rows):
        sizes.append(rows.shape[0])
        return (rows,)

    pairwise.map_row_blocks(note, [points(10)], (tf.float32,), 4)
    assert sizes and max(sizes) <= 4


def test_the_default_block_is_smaller_than_a_large_batch():
    """A batch of 1,100 rows must not make a 1,100 x 1,100 matrix at once."""
    sizes = []

    def note(rows):
        sizes.append(rows.shape[0])
        return (rows,)

    x = points(1100, dim=2)
    (same,) = pairwise.map_row_blocks(note, [x], (tf.float32,))
    np.testing.assert_array_equal(same, x)
    assert max(sizes) == pairwise.BLOCK_ROWS == 512


def test_blocks_may_return_rows_of_another_shape():
    x = points(5, dim=3)
    outer, flags = pairwise.map_row_blocks(
        lambda rows: (rows[:, :, tf.newaxis] * rows[:, tf.newaxis, :], rows[:, 0] > 0), [x], (tf.float32, tf.bool), 2
    )
    np.testing.assert_allclose(outer, x[:, :, np.newaxis] * x[:, np.newaxis, :])
    np.testing.assert_array_equal(flags, x[:, 0] > 0)


def test_blocks_of_a_batch_whose_size_is_known_only_at_run_time():
    @tf.function(input_signature=[tf.TensorSpec([None, 5])])
    def doubled(x):
        return pairwise.map_row_blocks(lambda rows: (rows * 2.0,), [x], (tf.float32,), 3)[0]

    for rows in (1, 3, 8):
        np.testing.assert_array_equal(doubled(points(rows)), points(rows) * 2.0)
