"""Distances against NumPy, their gradients where the textbook ones are infinite, and blocks of rows of every size."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import plans
from eet_tf.pairs import pairwise


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
    extended = pairwise.extended(tf.constant(references))
    np.testing.assert_allclose(pairwise.closeness(rows, extended), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pairwise.closeness(rows, extended, transposed=True), expected.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "num_references, rows", [(0, 512), (1, 512), (4096, 512), (8192, 256), (65536, 32), (10**6, 8)]
)
def test_a_block_against_references_is_at_most_8_megabytes_unless_they_are_very_many(num_references, rows):
    assert int(pairwise.block_rows_against(tf.zeros([num_references, 1]))) == rows


def sides_by_differences(rows, references, first, second):
    """The same as `triangle_sides`, all at once, for TensorFlow to differentiate."""
    u, v = tf.gather(references, first), tf.gather(references, second)
    return tf.stack([pairwise.euclidean(rows, u), pairwise.euclidean(rows, v), pairwise.euclidean(u, v)], axis=1)


@pytest.mark.parametrize("num_rows", [1, 7, 1025])
def test_sides_of_triangles_and_their_gradients(num_rows):
    """Also in three blocks, the last one filled up; some references are chosen by many rows, some for both places."""
    rng = np.random.default_rng(0)
    rows, references = tf.constant(points(num_rows, seed=1)), tf.constant(points(6, seed=2))
    first, second = rng.integers(6, size=[2, num_rows])
    upstream = rng.normal(size=[num_rows, 3]).astype(np.float32)

    def both(sides):
        with tf.GradientTape() as tape:
            tape.watch([rows, references])
            value = sides(rows, references, first, second)
        return value, *tape.gradient(value, [rows, references], upstream)

    for found, expected in zip(both(pairwise.triangle_sides), both(sides_by_differences)):
        np.testing.assert_allclose(found, tf.convert_to_tensor(expected), rtol=1e-4, atol=1e-4)


def test_sides_of_length_0_have_no_gradient():
    references = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(references)
        sides = pairwise.triangle_sides(tf.constant([[1.0, 2.0]]), references, [0], [0])
    np.testing.assert_array_equal(sides, [[0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(tape.gradient(sides, references), np.zeros([2, 2]))


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
    assert max(sizes) == plans.block_limits()[0] == 512


@pytest.mark.parametrize(
    "mode", [lambda f: f, tf.function, tf.function(jit_compile=True)], ids=["eager", "graph", "xla"]
)
def test_blocks_hand_on_a_state(mode):
    """The largest row so far, and its number; what fills the last block is row 0 again, which changes no maximum."""
    x = points(7)[:, :1]

    def one_block(state, rows, numbers):
        best, where = state
        place = tf.argmax(rows[:, 0], output_type=tf.int32)
        is_larger = rows[place, 0] > best
        state = tf.where(is_larger, rows[place, 0], best), tf.where(is_larger, numbers[place], where)
        return state, (rows * 2.0,)

    def folded(x):
        start = (tf.constant(-1e9), tf.constant(-1))
        return pairwise.fold_row_blocks(one_block, start, [x, tf.range(7)], (tf.float32,), 3)

    (best, where), (doubled,) = mode(folded)(tf.constant(x))
    assert (float(best), int(where)) == (x.max(), x.argmax())
    np.testing.assert_array_equal(doubled, x * 2.0)


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


def angles_to_others(rows, references, labels, weights):
    """Something of every pair, of no symmetry: per row, one number from references of another label, one from all."""
    similarity = tf.matmul(rows, references, transpose_b=True)
    is_other = tf.not_equal(labels[:, tf.newaxis], tf.range(tf.shape(references)[0])[tf.newaxis, :] % 3)
    first = weights * tf.reduce_sum(tf.where(is_other, tf.sin(similarity), 0.0), axis=1)
    return tf.stack([first, tf.reduce_max(similarity, axis=1)], axis=1)


OTHERS = [np.array([2, 0, 1, 1, 0, 2, 2], np.int32), np.linspace(0.5, 2.0, 7).astype(np.float32)]
UPSTREAM = np.array([[1.0, -2.0, 0.5, 3.0, 0.0, 1.5, -1.0], [0.3, 1.0, 2.0, -1.0, 4.0, 0.0, 1.0]], np.float32).T
MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": tf.function(jit_compile=True),
}


def value_and_gradients(reduce):
    """Of a function of rows and references: its value and, with `UPSTREAM` behind it, its two gradients."""

    def both(rows, references):
        with tf.GradientTape() as tape:
            tape.watch([rows, references])
            value = reduce(rows, references)
        gradients = tape.gradient(value, [rows, references], UPSTREAM[:, : value.shape[1]])
        return value, *map(tf.convert_to_tensor, gradients)

    return both


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("block_rows", [1, 3, 7, 100])
def test_reduced_in_blocks_value_and_gradients_are_those_of_the_whole(block_rows, mode):
    """Seven rows against five references: blocks that divide them, that do not, of exactly the size, and larger."""
    rows, references = tf.constant(points(7, seed=1)), tf.constant(points(5, seed=2))
    whole = value_and_gradients(lambda r, x: angles_to_others(r, x, *OTHERS))(rows, references)
    in_blocks = value_and_gradients(lambda r, x: pairwise.reduce_row_blocks(angles_to_others, r, x, OTHERS, block_rows))
    for found, expected in zip(MODES[mode](in_blocks)(rows, references), whole):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_reduced_in_blocks_of_a_size_known_only_at_run_time():
    signature = [tf.TensorSpec([None, 5]), tf.TensorSpec([None, 5])]

    def square_sums(rows, references):
        return tf.reduce_sum(tf.square(tf.matmul(rows, references, transpose_b=True)), axis=1)

    @tf.function(input_signature=signature)
    def gradients(rows, references):
        with tf.GradientTape() as tape:
            tape.watch([rows, references])
            value = pairwise.reduce_row_blocks(square_sums, rows, references, block_rows=3)
        return tape.gradient(value, [rows, references])

    for num_rows in (1, 3, 8):
        r, x = points(num_rows, seed=1).astype(np.float64), points(4, seed=2).astype(np.float64)
        of_rows, of_references = gradients(r.astype(np.float32), x.astype(np.float32))
        np.testing.assert_allclose(of_rows, 2 * r @ x.T @ x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(of_references, 2 * x @ r.T @ r, rtol=1e-4, atol=1e-4)


def test_rows_that_are_the_references_get_both_gradients():
    """Of the sum of all products x_i . x_j, `|sum of x|^2`, the gradient to each row is twice the sum."""
    x = tf.constant(points(5))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = pairwise.reduce_row_blocks(
            lambda rows, references: tf.reduce_sum(tf.matmul(rows, references, transpose_b=True), axis=1), x, x, (), 2
        )
    np.testing.assert_allclose(tape.gradient(value, x), np.tile(2 * x.numpy().sum(0), [5, 1]), rtol=1e-5, atol=1e-5)


def test_some_of_the_reduced_rows_can_be_picked():
    """The gradient of `tf.gather` is sparse; row 2 is picked twice, row 0 once."""
    rows, references = tf.constant(points(4)), tf.constant(points(3, seed=1))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        values = pairwise.reduce_row_blocks(lambda r, x: tf.reduce_sum(r, axis=1), rows, references, (), 3)
        picked = tf.gather(values, [0, 2, 2])
    expected = np.zeros([4, 5])
    expected[0], expected[2] = 1.0, 2.0
    np.testing.assert_allclose(tape.gradient(picked, rows), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("others_alone", [False, True])
def test_reducing_gives_others_no_gradient(others_alone, mode):
    rows, references, weights = tf.constant(points(7)), tf.constant(points(5)), tf.constant(OTHERS[1])

    def gradient(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights if others_alone else [weights, rows])
            value = pairwise.reduce_row_blocks(angles_to_others, rows, references, [OTHERS[0], weights], 3)
        return tape.gradient(value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    np.testing.assert_array_equal(MODES[mode](gradient)(weights), np.zeros(7))


def test_what_is_made_of_a_block_is_thrown_away_before_the_gradient():
    """Also where the tape records every operation as it runs, without a graph."""
    made = []

    def note(rows, references):
        similarity = tf.matmul(rows, references, transpose_b=True)
        made.append(weakref.ref(similarity))
        return tf.reduce_sum(tf.square(similarity), axis=1)

    rows = tf.constant(points(6))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = pairwise.reduce_row_blocks(note, rows, rows, (), 2)
    gc.collect()
    assert len(made) == 3 and not any(reference() is not None for reference in made)
    assert np.any(tape.gradient(value, rows) != 0)


def test_no_block_of_a_reduction_is_larger_than_asked_for():
    sizes = []

    def note(rows, references):
        sizes.append(rows.shape[0])
        return tf.reduce_sum(rows, axis=1)

    rows = tf.constant(points(10))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = pairwise.reduce_row_blocks(note, rows, rows, (), 4)
    in_value = len(sizes)
    tape.gradient(value, rows)
    assert len(sizes) == 2 * in_value
    assert max(sizes) <= 4


def test_blocks_are_worked_on_one_at_a_time():
    """TensorFlow would start on ten iterations of a loop at once, and hold ten blocks."""

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = pairwise.reduce_row_blocks(lambda r, y: tf.reduce_sum(r, axis=1), x, x, (), 2)
        return tape.gradient(value, x)

    graph = gradient.get_concrete_function(tf.TensorSpec([7, 5])).graph
    at_once = [loop.get_attr("parallel_iterations") for loop in graph.get_operations() if "While" in loop.type]
    assert at_once == [1, 1]


def test_the_square_root_of_nan_is_nan():
    """A network that has broken must not look like one whose photos are all alike."""
    x = tf.constant([np.nan, 0.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        roots = pairwise.safe_sqrt(x)
    np.testing.assert_array_equal(roots, [np.nan, 0.0, 2.0])
    np.testing.assert_array_equal(tape.gradient(roots, x), [np.nan, 0.0, 0.25])
