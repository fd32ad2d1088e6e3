"""BMP files. TensorFlow's decoder makes noise of palettes, and refuses the bytes that some programs add at the end."""

from __future__ import annotations

import tensorflow as tf

from eet_tf.data import headers

_HEADER_BYTES = 66  # the file's, the picture's, and three masks
_OLDEST_HEADER = 40  # bytes; shorter ones are OS/2's
_MASKS = [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0]  # of red, green and blue, in the usual order


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},  # as `images._decode_any`
)
def decode(bmp_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP of 24 or 32 bits, or one with a palette of 1, 4 or 8 bits, not compressed: `[H, W, 3]` uint8.

    The fourth byte of 32 bits is no colour, and is left out.

    Raises:
        tf.errors.InvalidArgumentError: for any other: 16 bits, run lengths, colours in another order, OS/2.
    """
    header = headers.bytes_at(bmp_bytes, 0, _HEADER_BYTES)
    bits, packing = header[28] + header[29] * 256, headers.number(header[30:34])
    is_plain, is_ordered = tf.equal(packing, 0), tf.equal(packing, 3) & tf.reduce_all(tf.equal(header[54:66], _MASKS))
    is_direct = (is_plain & (tf.equal(bits, 24) | tf.equal(bits, 32))) | (is_ordered & tf.equal(bits, 32))
    has_palette = is_plain & tf.reduce_any(tf.equal(bits, [1, 4, 8]))
    is_known = (headers.number(header[14:18]) >= _OLDEST_HEADER) & (is_direct | has_palette)
    with tf.control_dependencies([tf.debugging.Assert(is_known, ["a BMP of a kind that is not read:", header])]):
        bits = tf.cast(bits, tf.int64)
    width, height, begin = _whole(header[18:22]), _whole(header[22:26]), _whole(header[10:14])
    is_upside_down = height < 2**31
    rows = _rows(bmp_bytes, begin, width * bits, tf.minimum(height, 2**32 - height))

    def looked_up():
        indices = tf.cast(_unpacked(rows, bits)[:, :width], tf.int32)
        return tf.gather(_palette(bmp_bytes, header, begin), indices)

    def direct():
        samples = bits // 8
        return tf.reshape(rows[:, : width * samples], [-1, width, samples])[..., 2::-1]

    image = tf.ensure_shape(tf.cond(has_palette, looked_up, direct), [None, None, 3])
    return tf.cond(is_upside_down, lambda: tf.reverse(image, [0]), lambda: image)


def _whole(data: tf.Tensor) -> tf.Tensor:
    return tf.cast(headers.number(data), tf.int64)


def _rows(bmp_bytes: tf.Tensor, begin: tf.Tensor, row_bits: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    """`[height, n]` uint8: each row is filled up to four bytes."""
    row_bytes = (row_bits + 31) // 32 * 4
    length = tf.cast(tf.strings.length(bmp_bytes), tf.int64)
    last = begin + row_bytes * (height - 1) + (row_bits + 7) // 8
    with tf.control_dependencies([tf.debugging.Assert(last <= length, ["a BMP that is cut off:", length])]):
        some = tf.strings.substr(bmp_bytes, begin, row_bytes * height)
    # the last row may lack what fills it up
    data = tf.io.decode_raw(some, tf.uint8, fixed_length=tf.cast(row_bytes * height, tf.int32))
    return tf.reshape(data, [height, row_bytes])


def _unpacked(rows: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Bytes -> the numbers of `bits` bits in them, from the highest bit on: `[H, n]` uint8 -> `[H, n * 8 / bits]`."""
    shifts = tf.cast(8 - bits * (1 + tf.range(8 // bits)), tf.uint8)
    mask = tf.cast(2**bits - 1, tf.uint8)
    numbers = tf.bitwise.bitwise_and(tf.bitwise.right_shift(rows[..., tf.newaxis], shifts), mask)
    return tf.reshape(numbers, [tf.shape(rows)[0], -1])


def _palette(bmp_bytes: tf.Tensor, header: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """`[256, 3]` uint8, red first; what the file does not define is black."""
    begin = tf.minimum(14 + _whole(header[14:18]), tf.cast(tf.strings.length(bmp_bytes), tf.int64))
    used, colors = _whole(header[46:50]), tf.clip_by_value((end - begin) // 4, 0, 256)
    colors = tf.where(used > 0, tf.minimum(used, colors), colors)
    table = tf.io.decode_raw(tf.strings.substr(bmp_bytes, begin, 4 * colors), tf.uint8, fixed_length=1024)
    return tf.reshape(table, [256, 4])[:, 2::-1]
