"""The first frame of a GIF on a white ground.

TensorFlow's decoder unpacks all frames, makes transparent pixels black, and the picture as large as the largest frame.
So it is given a file that has the first frame alone, of opaque colours, and the ground is laid here.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from eet_tf.data import headers
from eet_tf.data.limits import MAX_GIF_BLOCKS

_EXTENSION, _FRAME, _CONTROL = 0x21, 0x2C, 0xF9
_MOST_STEPS = 100  # from block to block, before all places are looked at together


class FirstFrame(NamedTuple):
    """Scalars of int32.

    Args:
        place: where the frame's descriptor starts; 0 if there is none.
        transparent: the transparent colour; -1 if there is none.
        box: `[4]`: left, top, width and height of the frame.
        canvas: `[2]`: width and height of the picture: the screen, and as much more as the frame needs.
    """

    place: tf.Tensor
    transparent: tf.Tensor
    box: tf.Tensor
    canvas: tf.Tensor


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """How long the palette is that stands behind such flags."""
    return tf.where(flags >= 128, 3 * 2 ** ((flags & 7) + 1), 0)


def first_frame(gif_bytes: tf.Tensor) -> FirstFrame:
    """Goes from block to block up to the first frame of a GIF, a scalar string."""
    length = tf.strings.length(gif_bytes)
    screen = headers.bytes_at(gif_bytes, 0, 13)

    def body(place, transparent, is_inside, is_going, blocks):
        data = headers.bytes_at(gif_bytes, place, 7)
        is_control = ~is_inside & tf.reduce_all(tf.equal(data[:3], [_EXTENSION, _CONTROL, 4]))
        transparent = tf.where(is_control, tf.where(tf.equal(data[3] & 1, 1), data[6], -1), transparent)
        is_going = is_inside | tf.equal(data[0], _EXTENSION)
        step = tf.where(is_inside, data[0] + 1, 2)
        place = tf.where(is_going, tf.minimum(place + step, length), place)
        return place, transparent, ~is_inside | tf.not_equal(data[0], 0), is_going, blocks + 1

    place, transparent, *_ = tf.while_loop(
        lambda place, transparent, is_inside, is_going, blocks: is_going & (place < length) & (blocks < MAX_GIF_BLOCKS),
        body,
        (tf.minimum(13 + _table_bytes(screen[10]), length), -1, False, True, 0),
        parallel_iterations=1,
    )
    frame = headers.bytes_at(gif_bytes, place, 9)
    box = frame[1::2] + frame[2::2] * 256
    size = tf.stack([screen[6] + screen[7] * 256, screen[8] + screen[9] * 256])
    place = tf.where(tf.equal(frame[0], _FRAME), place, 0)
    return FirstFrame(place, transparent, box, tf.maximum(size, box[:2] + box[2:]))


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},  # as `images._decode_any`
)
def decode(gif_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes the first frame of a GIF, white where it is transparent and around it: `[H, W, 3]` uint8.

    Raises:
        tf.errors.InvalidArgumentError: if it has no frame, or one that is cut off.
    """
    first = first_frame(gif_bytes)
    with tf.control_dependencies([tf.debugging.Assert(first.place > 0, ["a GIF without a frame"])]):
        alone = _alone(gif_bytes, first)
    image = tf.ensure_shape(tf.io.decode_image(alone, channels=3, expand_animations=False), [None, None, 3])
    left, top = first.box[0], first.box[1]
    right, bottom = first.canvas[0] - left - tf.shape(image)[1], first.canvas[1] - top - tf.shape(image)[0]
    return tf.pad(image, [[top, bottom], [left, right], [0, 0]], constant_values=255)


def _alone(gif_bytes: tf.Tensor, first: FirstFrame) -> tf.Tensor:
    """A GIF of the first frame, which starts at the upper left and is opaque."""
    length = tf.strings.length(gif_bytes)
    head = headers.bytes_at(gif_bytes, 0, 13)
    flags = headers.bytes_at(gif_bytes, first.place + 9, 1)[0]

    def part(begin, count):
        return tf.strings.substr(gif_bytes, tf.minimum(begin, length), count)

    own = _table_bytes(flags)
    data = first.place + 10 + own
    global_table, own_table = part(13, _table_bytes(head[10])), part(first.place + 10, own)
    return tf.strings.join(
        [
            part(0, 13),
            _with_white(global_table, first.transparent),
            part(first.place, 1) + b"\0\0\0\0",
            part(first.place + 5, 5),
            _with_white(own_table, first.transparent),
            part(data, _data_end(gif_bytes, data + 1) - data),
            b";",
        ]
    )


def _with_white(table: tf.Tensor, color: tf.Tensor) -> tf.Tensor:
    """A palette whose entry of that number is white, if it has one."""

    def changed():
        rest = tf.strings.substr(table, 3 * color + 3, tf.strings.length(table))
        return tf.strings.join([tf.strings.substr(table, 0, 3 * color), b"\xff\xff\xff", rest])

    return tf.cond((color >= 0) & (3 * color + 3 <= tf.strings.length(table)), changed, lambda: table)


def _data_end(gif_bytes: tf.Tensor, begin: tf.Tensor) -> tf.Tensor:
    """Behind the chain of blocks, each behind a byte with its length, that starts at `begin`.

    All but the last blocks are of one length, as far as is known of programs that write GIF.
    """
    begin = tf.minimum(begin, tf.strings.length(gif_bytes))
    data = tf.io.decode_raw(tf.strings.substr(gif_bytes, begin, tf.strings.length(gif_bytes)), tf.uint8)
    data = tf.concat([data, [0]], axis=0)  # what is cut off ends at the end
    step = tf.cast(data[0], tf.int32) + 1
    differs = tf.concat([tf.not_equal(data[::step], data[0]), [True]], axis=0)
    start = tf.minimum(step * tf.argmax(differs, output_type=tf.int32), tf.size(data) - 1)

    def body(place, steps):
        return tf.minimum(place + 1 + tf.cast(data[place], tf.int32), tf.size(data) - 1), steps + 1

    end, _ = tf.while_loop(
        lambda place, steps: tf.not_equal(data[place], 0) & (steps < _MOST_STEPS),
        body,
        (start, 0),
        parallel_iterations=1,
    )
    end = tf.cond(tf.equal(data[end], 0), lambda: end, lambda: _chain_end(data, start))
    return begin + end + 1


def _chain_end(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Where a chain of blocks ends in a vector of bytes: all places are followed at once, each time twice as far."""
    data = tf.cast(data, tf.int32)
    places = tf.range(tf.size(data))
    ends = tf.where(tf.equal(data, 0), places, tf.minimum(places + 1 + data, tf.size(data) - 1))

    def body(ends, _):
        farther = tf.gather(ends, ends)
        return farther, tf.reduce_any(tf.not_equal(farther, ends))

    ends, _ = tf.while_loop(lambda ends, is_moving: is_moving, body, (ends, True), parallel_iterations=1)
    return ends[start]
