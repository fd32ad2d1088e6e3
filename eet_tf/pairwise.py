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

    stacked = tf.map_fn(one_block, tf.reshape(rows, [num_blocks, block]), fn_output_signature=tuple(out_dtypes))
    return tuple(tf.reshape(out, tf.concat([[num_blocks * block], tf.shape(out)[2:]], 0))[:num_rows] for out in stacked)
