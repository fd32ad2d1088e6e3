"""A large batch in little memory: the network sees a piece of it at a time, and the update is that of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from eet_tf import compat, plans


def gradients(
    embedder: keras.Model,
    network: Callable,
    images: tf.Tensor,
    loss: Callable,
    scaled: Callable,
    microbatch: int,
    of_loss: Sequence = (),
) -> list[tf.Tensor | None]:
    """The gradient of the whole batch's loss, of which only `microbatch` photos at a time are in the network.

    All photos are embedded, the loss says where each embedding should move, and then each piece goes through again,
    forward and backward. Where the last piece has fewer photos, the batch's first ones fill it up, so that every piece
    has one shape; the loss does not see them twice.

    Args:
        embedder: whose weights the gradient is of.
        network: images -> (outputs, losses of the layers), the embedder in training.
        images: `[B, ...]`.
        loss: outputs of the whole batch -> this replica's loss.
        scaled: a loss -> this replica's share of it, as it is differentiated.
        microbatch: M, at least 1.
        of_loss: weights that the loss reads besides the outputs.

    Returns:
        One gradient for each trainable weight, and for each of `of_loss`; None where no loss reaches it.
    """
    pieces = _in_pieces(images, microbatch)
    num_pieces = tf.shape(pieces)[0]
    state = [tf.identity(variable) for variable in compat.raw_state(embedder)]
    outputs = _embedded(embedder, network, pieces, images.shape[0] or tf.shape(images)[0])
    for variable, before in zip(compat.raw_state(embedder), state):
        variable.assign(before)  # so that statistics and dropout are as if the photos had gone through once
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        value = scaled(loss(outputs))
    slopes, slopes_of_loss = tape.gradient(value, (tf.nest.flatten(outputs), list(of_loss)))
    # None for a head that no loss looks at
    slopes = [None if slope is None else _filled_with_zeros(slope, microbatch) for slope in slopes]
    variables = embedder.trainable_variables
    is_reached = [False] * len(variables)

    def one_piece(number, sums):
        with tf.GradientTape() as tape:
            outputs, regularization = network(tf.gather(pieces, number))
            heads = zip(tf.nest.flatten(outputs), slopes)
            aims = [tf.cast(head, tf.float32) * tf.gather(slope, number) for head, slope in heads if slope is not None]
            aim = tf.add_n([tf.reduce_sum(each) for each in aims])
            aim += scaled(tf.add_n([tf.zeros([]), *regularization])) / tf.cast(num_pieces, tf.float32)
        of_piece = tape.gradient(aim, variables)
        for place, gradient in enumerate(of_piece):
            is_reached[place] |= gradient is not None
        return number + 1, [total if g is None else total + g for total, g in zip(sums, of_piece)]

    nothing = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    _, sums = tf.while_loop(lambda number, _: number < num_pieces, one_piece, (0, nothing), parallel_iterations=1)
    return [*[total if reached else None for total, reached in zip(sums, is_reached)], *slopes_of_loss]


def _embedded(embedder: keras.Model, network: Callable, pieces: tf.Tensor, num_images: tf.Tensor | int):
    """All outputs in float32, from `[N, M, ...]`, with nothing kept for a gradient."""

    def signature(shape):
        return tf.TensorSpec([pieces.shape[1], *shape[1:]], tf.float32)  # whole, so that there may be no pieces at all

    shapes = compat.output_shape(embedder)
    named = {name: signature(shape) for name, shape in shapes.items()} if isinstance(shapes, Mapping) else None
    outputs = tf.map_fn(
        lambda piece: tf.nest.map_structure(lambda out: tf.cast(out, tf.float32), network(piece)[0]),
        pieces,
        parallel_iterations=1,
        fn_output_signature=named or signature(shapes),
    )
    return tf.nest.map_structure(lambda rows: tf.reshape(rows, [-1, rows.shape[-1]])[:num_images], outputs)


def _in_pieces(rows: tf.Tensor, microbatch: int) -> tf.Tensor:
    """`[B, ...]` -> `[N, M, ...]`, filled up with the first rows; one piece of zeros where there is no row."""
    if not rows.shape[0] or rows.shape[0] % microbatch:
        size = tf.shape(rows)[0]
        places = tf.range(_filled(size, microbatch))

        def filled():
            return tf.gather(rows, places % tf.maximum(size, 1))

        def zeros():
            return tf.zeros(tf.concat([[microbatch], tf.shape(rows)[1:]], axis=0), rows.dtype)

        if rows.shape[0] or plans.is_compiled():  # to XLA both ways would have to give one shape
            rows = filled()
        else:
            rows = tf.cond(size > 0, lambda: tf.cond(size % microbatch > 0, filled, lambda: rows), zeros)
    return tf.reshape(rows, tf.concat([[-1, microbatch], tf.shape(rows)[1:]], axis=0))


def _filled(size: tf.Tensor, microbatch: int) -> tf.Tensor:
    """How many rows whole pieces have, one piece at least."""
    return tf.maximum(-(-size // microbatch), 1) * microbatch


def _filled_with_zeros(slopes: tf.Tensor, microbatch: int) -> tf.Tensor:
    """`[B, D]` -> `[N, M, D]`, filled up with zeros: what is in the network a second time has no slope."""
    size = tf.shape(slopes)[0]
    slopes = tf.pad(slopes, [[0, _filled(size, microbatch) - size], [0, 0]])
    return tf.reshape(slopes, [-1, microbatch, slopes.shape[-1]])
