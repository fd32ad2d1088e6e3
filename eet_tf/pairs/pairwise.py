"""Distances between embeddings, computed so that gradients stay finite and memory stays in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from eet_tf import plans
from eet_tf.pairs import precision


def unit_rows(rows: tf.Tensor) -> tf.Tensor:
    """Rows brought to length 1, `[..., D]`.

    A row of zeros has no direction and stays as it is; one shorter than 1e-6 comes out shorter than 1. A row with NaN
    or infinity, or whose square is more than float32 holds, becomes NaN throughout.
    """
    squares = tf.reduce_sum(tf.square(rows), axis=-1, keepdims=True)
    # the square of too long a row is infinity, by which a plain division would make it 0
    return rows * tf.where(tf.math.is_finite(squares), tf.math.rsqrt(tf.maximum(squares, 1e-12)), float("nan"))


def safe_sqrt(x: tf.Tensor) -> tf.Tensor:
    """Square root with value 0 and gradient 0 at 0, where the plain one has an infinite gradient; NaN of NaN."""
    is_zero = x <= 0
    return tf.where(is_zero, tf.zeros_like(x), tf.sqrt(tf.where(is_zero, tf.ones_like(x), x)))


def euclidean(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Euclidean distances of matching rows: `[..., D]`, `[..., D]` -> `[...]`.

    Taken from the differences, not from a matrix multiplication, so that it is exact for near duplicates.
    """
    return safe_sqrt(tf.reduce_sum(tf.square(left - right), axis=-1))


def triangle_sides(rows: tf.Tensor, references: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Euclidean distances within (row, reference, other reference), as exact as `euclidean`, in blocks both ways.

    Args:
        rows: `[A, D]`; has a gradient.
        references: `[B, D]`; has a gradient.
        first: `[A]` int32, the reference that each row is put together with.
        second: `[A]` int32, the other one.

    Returns:
        `[A, 3]`: from the row to the first, from it to the second, from the first to the second.
    """

    def differences(block, first, second):
        u, v = tf.gather(references, first), tf.gather(references, second)
        return block - u, block - v, u - v

    is_compiled = plans.is_compiled()

    @tf.custom_gradient
    def measure(rows, references):
        def one_block(*block):
            squared = [tf.reduce_sum(tf.square(difference), axis=1) for difference in differences(*block)]
            return (tf.sqrt(tf.stack(squared, axis=1)),)

        (sides,) = map_row_blocks(one_block, [rows, first, second], (tf.float32,))

        def gradient(upstream):
            slopes = tf.math.divide_no_nan(upstream, sides)  # 0 where two are the same

            def one_block(of_references, block, first, second, slopes, numbers):
                # what only fills the last block counts for nothing
                slopes *= tf.cast(tf.equal(numbers, numbers[0] + tf.range(tf.size(numbers))), tf.float32)[:, tf.newaxis]
                to_first, to_second, across = [
                    slopes[:, side : side + 1] * difference
                    for side, difference in enumerate(differences(block, first, second))
                ]
                where = tf.concat([first, second], axis=0)[:, tf.newaxis]
                moved = tf.concat([across - to_first, -across - to_second], axis=0)
                return tf.tensor_scatter_nd_add(of_references, where, moved), (to_first + to_second,)

            arrays = [rows, first, second, slopes, tf.range(tf.shape(rows)[0])]
            with plans.as_in_forward_pass(is_compiled):
                of_references, (of_rows,) = fold_row_blocks(one_block, tf.zeros_like(references), arrays, (tf.float32,))
            return of_rows, of_references

        return sides, gradient

    return measure(rows, references)


DISTANCES = ("euclidean", "squared", "cosine")
NEARLY_EQUAL = 1e-6  # squared distance of unit vectors below which a matrix multiplication gives noise


def distance(left: tf.Tensor, right: tf.Tensor, kind: str) -> tf.Tensor:
    """Distances of matching rows, `[..., D]`, `[..., D]` -> `[...]`; see `distance_matrix` for the kinds."""
    if kind == "cosine":
        return 1.0 - tf.reduce_sum(left * right, axis=-1)
    return euclidean(left, right) if kind == "euclidean" else tf.reduce_sum(tf.square(left - right), axis=-1)


def distance_matrix(rows: tf.Tensor, references: tf.Tensor, kind: str) -> tf.Tensor:
    """All distances by one matrix multiplication, `[R, D]`, `[B, D]` -> `[R, B]`.

    Args:
        rows: `[R, D]` unit vectors.
        references: `[B, D]` unit vectors.
        kind: `"euclidean"`, `"squared"` (its square) or `"cosine"` (1 - cosine). Euclidean distances below 0.001
            come out as 0 with gradient 0: that near, a matrix multiplication in float32 knows only noise.
    """
    if kind == "cosine":
        return 1.0 - precision.matmul(rows, references, transpose_b=True)
    squares = tf.reduce_sum(tf.square(rows), axis=-1)
    squared = tf.nn.relu(squares[:, tf.newaxis] - closeness(rows, extended(references)))
    if kind == "squared":
        return squared
    return safe_sqrt(tf.where(squared < NEARLY_EQUAL, tf.zeros_like(squared), squared))


def extended(references: tf.Tensor) -> tf.Tensor:
    """`[x, -|x|^2]` for each row x, `[B, D]` -> `[B, D + 1]`: what `closeness` measures against."""
    squares = tf.reduce_sum(tf.square(references), axis=-1, keepdims=True)
    return tf.concat([references, -squares], axis=-1)


def closeness(rows: tf.Tensor, extended_references: tf.Tensor, transposed: bool = False) -> tf.Tensor:
    """`2 r.x - |x|^2`: for each row r, larger means nearer in Euclidean distance.

    It is the negative squared distance up to a constant of the row, for one matrix multiplication and nothing besides.

    Args:
        rows: `[R, D]`.
        extended_references: `[B, D + 1]`, see `extended`.
        transposed: whether to return `[B, R]`.

    Returns:
        `[R, B]`.
    """
    doubled = tf.concat([2.0 * rows, tf.ones_like(rows[:, :1])], axis=-1)
    if transposed:
        return precision.matmul(extended_references, doubled, transpose_b=True)
    return precision.matmul(doubled, extended_references, transpose_b=True)


def block_rows_against(references: tf.Tensor):
    """How many rows to take at once where each meets all `references`; an int where their number is known."""
    most_rows, most_numbers = plans.block_limits()
    count = references.shape[0]
    if count is not None:
        return min(max(most_numbers // max(count, 1), 8), most_rows)
    return tf.clip_by_value(most_numbers // tf.maximum(tf.shape(references)[0], 1), 8, most_rows)


def is_one_block(rows: tf.Tensor, block_rows) -> bool:
    """Whether it is known that all rows make one block, so that no loop is needed."""
    return isinstance(block_rows, int) and rows.shape[0] is not None and rows.shape[0] <= block_rows


def map_row_blocks(
    fn: Callable, arrays: Sequence[tf.Tensor], out_dtypes: Sequence[tf.DType], block_rows=None
) -> tuple[tf.Tensor, ...]:
    """Applies `fn` to blocks of rows of `arrays`, so that what it makes of a row never exists for all rows at once.

    Args:
        fn: function of one block of each array (`[R, ...]`), returning a tuple of tensors with R rows.
        arrays: tensors with the same number of rows. Blocks are padded with copies of row 0.
        out_dtypes: dtypes of what `fn` returns.
        block_rows: rows in a block, fewer if the arrays are shorter; those of `plans.block_limits` by default.

    Returns:
        A tuple of tensors: the results of all rows, in order.
    """
    return fold_row_blocks(lambda state, *block: (state, fn(*block)), (), arrays, out_dtypes, block_rows)[1]


def fold_row_blocks(fn: Callable, state, arrays: Sequence[tf.Tensor], out_dtypes: Sequence[tf.DType], block_rows=None):
    """As `map_row_blocks`, with something that each block hands on to the next.

    Args:
        fn: function of the state and of one block of each array, returning the new state and a tuple of tensors with R
            rows. It sees row 0 again in what fills the last block.
        state: what the first block gets: any structure of tensors.
        arrays: as in `map_row_blocks`.
        out_dtypes: as in `map_row_blocks`.
        block_rows: as in `map_row_blocks`.

    Returns:
        The last state, and the results of all rows, in order.
    """
    block_rows = plans.block_limits()[0] if block_rows is None else block_rows
    if is_one_block(arrays[0], block_rows):
        state, results = fn(state, *arrays)
        return state, tuple(results)
    num_rows = tf.shape(arrays[0])[0]
    block = tf.maximum(tf.minimum(block_rows, num_rows), 1)
    num_blocks = (num_rows + block - 1) // block
    outs = [tf.TensorArray(dtype, num_blocks) for dtype in out_dtypes]

    def one_block(number, state, outs):
        rows = number * block + tf.range(block)
        rows = tf.where(rows < num_rows, rows, tf.zeros_like(rows))
        state, results = fn(state, *[tf.gather(array, rows) for array in arrays])
        return number + 1, state, [out.write(number, result) for out, result in zip(outs, results)]

    # one block at a time: by default a graph works on ten at once, and holds all of them
    _, state, outs = tf.while_loop(
        lambda number, *_: number < num_blocks, one_block, (0, state, outs), parallel_iterations=1
    )
    return state, tuple(_join(out.stack(), num_rows) for out in outs)


def _join(blocks: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
    """`[N, R, ...]` -> `[num_rows, ...]`."""
    shape = tf.shape(blocks)
    return tf.reshape(blocks, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))[:num_rows]


def reduce_row_blocks(
    fn: Callable, rows: tf.Tensor, references: tf.Tensor, others: Sequence[tf.Tensor] = (), block_rows=None
) -> tf.Tensor:
    """`fn(rows, references, *others)`, worked out and differentiated block by block of rows.

    What `fn` makes of a block, e.g. its distances to all references, is thrown away and made again for the gradient,
    so that a loss over all pairs costs the memory of one block both ways. Where XLA or a GPU has all rows in one block,
    it is kept.

    Args:
        fn: function of a block of rows `[R, D]`, all `references`, and the same block of each of `others`, returning
            `[R]` or `[R, C]` float32: what each row contributes.
        rows: `[A, D]` float32; has a gradient.
        references: `[B, D]` float32; has a gradient.
        others: tensors with A rows, without a gradient, such as labels.
        block_rows: rows in a block; those of `block_rows_against` by default.

    Returns:
        `[A]` or `[A, C]` float32.
    """
    others = [tf.stop_gradient(other) for other in others]

    def rows_at_once():
        return block_rows_against(references) if block_rows is None else block_rows

    if plans.uses_masks() and is_one_block(rows, rows_at_once()):
        return fn(rows, references, *others)
    is_compiled = plans.is_compiled()

    @tf.custom_gradient
    def reduce(rows, references):
        def one_block(block, *others_of_block):
            return (fn(block, references, *others_of_block),)

        # outside a graph a tape would record, and so keep, what is made of every block
        references = tf.stop_gradient(references)
        (values,) = map_row_blocks(one_block, [tf.stop_gradient(rows), *others], (tf.float32,), rows_at_once())

        def gradient(upstream):
            with plans.as_in_forward_pass(is_compiled):
                # asked again: a number that the forward pass hands on is no constant to XLA
                return _row_block_gradients(fn, rows, references, others, upstream, rows_at_once())

        return values, gradient

    return reduce(rows, references)


def _row_block_gradients(fn, rows, references, others, upstream, block_rows):
    """Gradients of `sum(upstream * fn(...))` to rows and references; the latter summed up over the blocks."""
    num_rows = tf.shape(rows)[0]
    block = tf.maximum(tf.minimum(block_rows, num_rows), 1)
    num_blocks = (num_rows + block - 1) // block
    padding = [[0, num_blocks * block - num_rows]] + [[0, 0]] * (upstream.shape.rank - 1)
    upstream = tf.pad(upstream, padding)  # rows that only fill the last block count for nothing

    def one_block(number, of_rows, of_references):
        picked = number * block + tf.range(block)
        own = tf.where(picked < num_rows, picked, tf.zeros_like(picked))
        block_of_rows, *block_of_others = [tf.gather(array, own) for array in (rows, *others)]
        with tf.GradientTape() as tape:
            tape.watch([block_of_rows, references])
            values = fn(block_of_rows, references, *block_of_others)
        row_gradient, reference_gradient = tape.gradient(
            values,
            [block_of_rows, references],
            output_gradients=tf.gather(upstream, picked),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return number + 1, of_rows.write(number, row_gradient), of_references + reference_gradient

    of_rows = tf.TensorArray(tf.float32, num_blocks, element_shape=[None, rows.shape[1]])
    _, of_rows, of_references = tf.while_loop(
        lambda number, *_: number < num_blocks,
        one_block,
        (0, of_rows, tf.zeros_like(references)),
        parallel_iterations=1,
    )
    return tf.reshape(of_rows.stack(), [-1, tf.shape(rows)[1]])[:num_rows], of_references
