"""How many pixels an encoded photo says it has, read from its first bytes: what is too large is never decoded.

A file of a few hundred bytes can declare a picture of gigabytes, and the decoders allocate what is declared.
"""

from __future__ import annotations

import tensorflow as tf

PNG_MAGIC, JPEG_MAGIC, GIF_MAGIC, BMP_MAGIC, WEBP_MAGIC = b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF"

_HEADER_BYTES = 32  # all that PNG, BMP, WebP need
_WINDOW = 4096  # bytes looked through for the next marker of a JPEG
_MOST_SEGMENTS = 1000  # of a JPEG before its frame header; a photo has 5 to 50
_MOST_BLOCKS = 2_000  # of a GIF; an animation has 2 a frame
_UNKNOWN = -1.0

_ANIMATION, _ALPHA = 0x02, 0x10  # of the flags of an extended WebP

# what stands behind 0xFF in a JPEG: a frame header, SOF0 to SOF15; a segment that is passed over (tables, DRI, DQT,
# APP0 to APP15, comments); or neither
_NO_SEGMENT, _SEGMENT, _FRAME = 0, 1, 2
_TABLES = (0xC4, 0xC8, 0xCC)
_PASSED_OVER = (*_TABLES, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)
_FRAMES = tuple(marker for marker in range(0xC0, 0xD0) if marker not in _TABLES)
_KINDS = [_FRAME * (marker in _FRAMES) + _SEGMENT * (marker in _PASSED_OVER) for marker in range(256)]


def starts_with(image_bytes: tf.Tensor, magic: bytes) -> tf.Tensor:
    """Whether a scalar string starts so."""
    return tf.equal(tf.strings.substr(image_bytes, 0, len(magic)), magic)


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},  # as `images._decode_any`
)
def declared_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    """The pixels that a photo of any kind declares: scalar float64; 0 for bytes of no kind, -1 if in doubt."""
    is_jpeg = starts_with(image_bytes, JPEG_MAGIC)
    return tf.cond(is_jpeg, lambda: jpeg_pixels(image_bytes), lambda: other_pixels(image_bytes))


def plain_jpeg_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    """The pixels that JPEGs declare whose segments follow one another without a gap, as nearly all do.

    Args:
        image_bytes: strings of any shape.

    Returns:
        float64 of that shape; -1 where a look of this kind does not tell.
    """
    lengths = tf.strings.length(image_bytes)

    def body(place, pixels, kind, segments):
        segment = _bytes_at(image_bytes, tf.minimum(place, lengths), 9)  # FF, marker, length, bits, height, width
        kind = tf.where(tf.equal(segment[..., 0], 0xFF), tf.gather(_KINDS, segment[..., 1]), _NO_SEGMENT)
        numbers = tf.gather(segment, [2, 5, 7], axis=-1) * 256 + tf.gather(segment, [3, 6, 8], axis=-1)
        sides = tf.cast(numbers, tf.float64)
        pixels = tf.where(tf.equal(kind, _FRAME), sides[..., 1] * sides[..., 2], pixels)
        # what has been found out is not looked at again
        return tf.where(tf.equal(kind, _SEGMENT), place + 2 + numbers[..., 0], lengths), pixels, kind, segments + 1

    start = tf.ones_like(lengths)
    _, pixels, _, _ = tf.while_loop(
        lambda place, pixels, kind, segments: tf.reduce_any(tf.equal(kind, _SEGMENT)) & (segments < _MOST_SEGMENTS),
        body,
        (2 * start, _UNKNOWN * tf.cast(start, tf.float64), _SEGMENT * start, 0),
        parallel_iterations=1,
    )
    return pixels


def jpeg_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    """The pixels that the frame header of a JPEG declares: scalar float64; -1 if it has none."""
    pixels = plain_jpeg_pixels(image_bytes)
    return tf.cond(pixels < 0, lambda: _searched_jpeg_pixels(image_bytes), lambda: pixels)


def _searched_jpeg_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    """Finds the frame header as libjpeg does: from segment to segment, passing over what stands between them."""

    def body(place, pixels, segments):
        window = _bytes_at(image_bytes, place, _WINDOW + 16)
        first, second = window[:_WINDOW], window[1 : _WINDOW + 1]
        is_marker = tf.equal(first, 0xFF) & tf.not_equal(second, 0) & tf.not_equal(second, 0xFF)
        at = tf.argmax(is_marker, output_type=tf.int32)
        marker, segment = second[at], window[at + 2 : at + 9]
        # what is no marker at all, and those that stand alone: TEM, RST0 to RST7, and the SOI at the start
        is_short = ~is_marker[at] | tf.equal(marker, 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        step = tf.where(is_marker[at], at + 2 + tf.where(is_short, 0, _big_endian(segment[:2])), _WINDOW)
        is_table = tf.equal(marker, 0xC4) | tf.equal(marker, 0xC8) | tf.equal(marker, 0xCC)
        is_frame = is_marker[at] & (marker >= 0xC0) & (marker <= 0xCF) & ~is_table
        is_end = is_marker[at] & (tf.equal(marker, 0xD9) | tf.equal(marker, 0xDA))
        area = tf.cast(_big_endian(segment[3:5]), tf.float64) * tf.cast(_big_endian(segment[5:7]), tf.float64)
        place = tf.where(is_end, length, place + step)
        return place, tf.where(is_frame, area, pixels), segments + 1

    length = tf.strings.length(image_bytes)
    _, pixels, _ = tf.while_loop(
        lambda place, pixels, segments: (place < length) & (pixels < 0) & (segments < _MOST_SEGMENTS),
        body,
        (0, tf.constant(_UNKNOWN, tf.float64), 0),
        parallel_iterations=1,
    )
    return pixels


def other_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    """The pixels that a PNG, GIF, BMP or WebP declares: scalar float64; 0 for bytes of another kind, -1 if in doubt."""
    header = _bytes_at(image_bytes, 0, _HEADER_BYTES)
    kinds = [(PNG_MAGIC, _png_pixels), (BMP_MAGIC, _bmp_pixels), (WEBP_MAGIC, _webp_pixels)]
    pixels = tf.zeros([], tf.float64)
    for magic, read in kinds:
        pixels = tf.where(starts_with(image_bytes, magic), read(header), pixels)
    return tf.cond(starts_with(image_bytes, GIF_MAGIC), lambda: _gif_pixels(image_bytes), lambda: pixels)


def with_alpha_if_animated(webp_bytes: tf.Tensor) -> tf.Tensor:
    """The same WebP; an animation says that it has an alpha channel.

    TensorFlow 2.20 writes four channels of an animation, but allocates three if its header declares no alpha: it
    writes past the end and may take the whole process down. With alpha declared it allocates four.
    """
    header = _bytes_at(webp_bytes, 0, _HEADER_BYTES)
    is_animated = tf.reduce_all(tf.equal(header[12:16], list(b"VP8X"))) & tf.not_equal(header[20] & _ANIMATION, 0)

    def declared():
        flags = tf.gather([bytes([flags | _ALPHA]) for flags in range(256)], header[20])
        rest = tf.strings.substr(webp_bytes, 21, tf.strings.length(webp_bytes))
        return tf.strings.join([tf.strings.substr(webp_bytes, 0, 20), flags, rest])

    return tf.cond(is_animated, declared, lambda: webp_bytes)


def _bytes_at(image_bytes: tf.Tensor, place, count: int) -> tf.Tensor:
    """`[..., count]` int32; zeros behind the end."""
    some = tf.strings.substr(image_bytes, place, tf.zeros_like(place) + count)
    some = tf.io.decode_raw(some, tf.uint8, fixed_length=count)
    return tf.cast(tf.ensure_shape(some, [*some.shape[:-1], count]), tf.int32)


def _big_endian(data: tf.Tensor) -> tf.Tensor:
    return data[0] * 256 + data[1]


def _little_endian(data: tf.Tensor) -> tf.Tensor:
    return data[0] + data[1] * 256


def _number(data: tf.Tensor) -> tf.Tensor:
    """A number of up to four bytes, the smallest first, as float64, which a product of two cannot overflow."""
    return tf.reduce_sum(
        tf.cast(data, tf.float64) * tf.constant([256.0**place for place in range(data.shape[0])], tf.float64)
    )


def _png_pixels(header: tf.Tensor) -> tf.Tensor:
    return _number(header[19:15:-1]) * _number(header[23:19:-1])


def _bmp_pixels(header: tf.Tensor) -> tf.Tensor:
    height = _number(header[22:26])  # two's complement: negative if rows go from top to bottom
    return _number(header[18:22]) * tf.minimum(height, 2.0**32 - height)


def _webp_pixels(header: tf.Tensor) -> tf.Tensor:
    """Lossy, lossless, or extended: the canvas, in which any frames lie."""
    lossy = tf.cast((_little_endian(header[26:28]) & 0x3FFF) * (_little_endian(header[28:30]) & 0x3FFF), tf.float64)
    bits = header[21] + header[22] * 2**8 + header[23] * 2**16 + (header[24] & 0x0F) * 2**24
    lossless = tf.cast(((bits & 0x3FFF) + 1) * (bits // 2**14 + 1), tf.float64)
    extended = (_number(header[24:27]) + 1) * (_number(header[27:30]) + 1)
    pixels = tf.constant(_UNKNOWN, tf.float64)
    for name, of_kind in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", extended)):
        pixels = tf.where(tf.reduce_all(tf.equal(header[12:16], list(name))), of_kind, pixels)
    return pixels


def _gif_pixels(gif_bytes: tf.Tensor) -> tf.Tensor:
    """Of all frames together, since the decoder unpacks them all; or of the canvas, if that is more."""
    data = tf.cast(tf.io.decode_raw(gif_bytes, tf.uint8), tf.int32)
    end = tf.size(data)
    data = tf.concat([data, tf.zeros([1024], tf.int32)], axis=0)
    chain_ends = _chain_ends(data)

    def table_size(flags):
        return tf.where(flags >= 128, 3 * 2 ** ((flags & 7) + 1), 0)

    def body(place, pixels, sides, blocks):
        place = tf.minimum(place, end)
        is_frame = tf.equal(data[place], 0x2C)
        is_known = is_frame | tf.equal(data[place], 0x21)
        size = tf.cast([_little_endian(data[place + 5 :]), _little_endian(data[place + 7 :])], tf.float64)
        size = tf.where(is_frame, size, tf.zeros([], tf.float64))
        chain = tf.where(is_frame, place + 11 + table_size(data[place + 9]), place + 2)
        place = tf.where(is_known, chain_ends[tf.minimum(chain, end)] + 1, end)
        return place, pixels + size[0] * size[1], tf.maximum(sides, size), blocks + 1

    screen = tf.cast([_little_endian(data[6:]), _little_endian(data[8:])], tf.float64)
    _, pixels, sides, blocks = tf.while_loop(
        lambda place, pixels, sides, blocks: (place < end) & (blocks < _MOST_BLOCKS),
        body,
        (13 + table_size(data[10]), tf.zeros([], tf.float64), screen, 0),
        parallel_iterations=1,
    )
    return tf.where(blocks < _MOST_BLOCKS, tf.maximum(pixels, sides[0] * sides[1]), tf.constant(_UNKNOWN, tf.float64))


def _chain_ends(data: tf.Tensor) -> tf.Tensor:
    """For each place: if a chain of blocks, each behind a byte with its length, starts there, where its 0 stands."""
    places = tf.range(tf.size(data))
    ends = tf.where(tf.equal(data, 0), places, tf.minimum(places + 1 + data, tf.size(data) - 1))

    def body(ends, _):
        farther = tf.gather(ends, ends)
        return farther, tf.reduce_any(tf.not_equal(farther, ends))

    return tf.while_loop(lambda ends, is_moving: is_moving, body, (ends, True), parallel_iterations=1)[0]
