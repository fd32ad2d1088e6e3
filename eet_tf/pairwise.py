"""Distances between embeddings, computed so that gradients stay finite and memory stays in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

BLOCK_ROWS = 512


def safe_sqrt(x: tf.Tensor) -> tf.Tensor:
    """Square root with value 0 and gradient 0 at 0, where the plain one has an infinite gradient."""
    positive = x > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, x, tf.ones_like(x))), tf.zeros_like(x))


def euclidean(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Euclidean distances of matching rows: `[..., D]`, `[..., D]` -> `[...]`.

    Taken from the differences, not from a matrix product, so that it is exact for near duplicates.
    """
    return safe_sqrt(tf.reduce_sum(tf.square(left - right), axis=-1))


DISTANCES = ("euclidean", "squared", "cosine")
_NEARLY_EQUAL = 1e-6  # squared distance of unit vectors below which a matrix product gives noise


def distance(left: tf.Tensor, right: tf.Tensor, kind: str) -> tf.Tensor:
    """Distances of matching rows, `[..., D]`, `[..., D]` -> `[...]`; see `distance_matrix` for the kinds."""
    if kind == "cosine":
        return 1.0 - tf.reduce_sum(left * right, axis=-1)
    return euclidean(left, right) if kind == "euclidean" else tf.reduce_sum(tf.square(left - right), axis=-1)


def distance_matrix(rows: tf.Tensor, references: tf.Tensor, kind: str) -> tf.Tensor:
    """All distances by one matrix product, `[R, D]`, `[B, D]` -> `[R, B]`.

    Args:
        rows: `[R, D]` unit vectors.
        references: `[B, D]` unit vectors.
        kind: `"euclidean"`, `"squared"` (its square) or `"cosine"` (1 - cosine). Euclidean distances below 0.001
            come out as 0 with gradient 0: that near, a matrix product in float32 knows only noise.
    """
    if kind == "cosine":
        return 1.0 - tf.matmul(rows, references, transpose_b=True)
    squares = tf.reduce_sum(tf.square(rows), axis=-1)
    squared = tf.nn.relu(squares[:, tf.newaxis] - closeness(rows, references))
    if kind == "squared":
        return squared
    return safe_sqrt(tf.where(squared < _NEARLY_EQUAL, tf.zeros_like(squared), squared))


def closeness(rows: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """`2 r.x - |x|^2`, `[R, D]`, `[B, D]` -> `[R, B]`: for each row, larger means nearer in Euclidean distance.

    It is the negative squared distance up to a constant of the row, for one matrix product.
    """
    squares = tf.reduce_sum(tf.square(references), axis=-1)
    return 2.0 * tf.matmul(rows, references, transpose_b=True) - squares[tf.newaxis, :]


def map_row_blocks(
    fn: Callable, arrays: Sequence[tf.Tensor], out_dtypes: Sequence[tf.DType], block_rows: int = BLOCK_ROWS
) -> tuple[tf.Tensor, ...]:
    """Applies `fn` to blocks of rows of `arrays`, so that what it makes of a row never exists for all rows at once.

    Args:
        fn: function of one block of each array (`[R, ...]`), returning a tuple of tensors with R rows.
        arrays: tensors with the same number of rows. Blocks are padded with copies of row 0.
        out_dtypes: dtypes of what `fn` returns.
        block_rows: rows in a block; fewer if the arrays are shorter.

    Returns:
        A tuple of tensors: the results of all rows, in order.
    """
    num_rows = tf.shape(arrays[0])[0]
    block = tf.maximum(tf.minimum(block_rows, num_rows), 1)
    num_blocks = (num_rows + block - 1) // block
    rows = tf.range(num_blocks * block)
    rows = tf.where(rows < num_rows, rows, tf.zeros_like(rows))

    def one_block(picked):
        return tuple(fn(*[tf.gather(array, picked) for array in arrays]))

    # one block at a time: by default a graph works on ten at once, and holds all of them
    stacked = tf.map_fn(
        one_block,
        tf.reshape(rows, [num_blocks, block]),
        parallel_iterations=1,
        fn_output_signature=tuple(out_dtypes),
    )
    return tuple(tf.reshape(out, tf.concat([[num_blocks * block], tf.shape(out)[2:]], 0))[:num_rows] for out in stacked)


def reduce_row_blocks(
    fn: Callable, rows: tf.Tensor, references: tf.Tensor, others: Sequence[tf.Tensor] = (), block_rows: int = BLOCK_ROWS
) -> tf.Tensor:
    """`fn(rows, references, *others)`, worked out and differentiated block by block of rows.

    What `fn` makes of a block, e.g. its distances to all references, is thrown away and made again for the gradient,
    so that a loss over all pairs costs the memory of one block both ways.

    Args:
        fn: function of a block of rows `[R, D]`, all `references`, and the same block of each of `others`, returning
            `[R]` or `[R, C]` float32: what each row contributes.
        rows: `[A, D]` float32; has a gradient.
        references: `[B, D]` float32; has a gradient.
        others: tensors with A rows, without a gradient, such as labels.
        block_rows: rows in a block.

    Returns:
        `[A]` or `[A, C]` float32.
    """
    others = [tf.stop_gradient(other) for other in others]

    @tf.custom_gradient
    def reduce(rows, references):
        def one_block(block, *others_of_block):
            return (fn(block, references, *others_of_block),)

        # outside a graph a tape would record, and so keep, what is made of every block
        references = tf.stop_gradient(references)
        (values,) = map_row_blocks(one_block, [tf.stop_gradient(rows), *others], (tf.float32,), block_rows)

        def gradient(upstream):
            return _row_block_gradients(fn, rows, references, others, upstream, block_rows)

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
