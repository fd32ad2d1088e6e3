"""What an encoded photo says of itself before it is decoded: its kind, its pixels, and where its EXIF stands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from eet_tf.data.limits import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS, MAX_TEXTS

PNG_MAGIC, JPEG_MAGIC, GIF_MAGIC, BMP_MAGIC, WEBP_MAGIC = b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF"

_HEADER_BYTES = 32  # all that PNG, BMP, WebP need
_WINDOW = 4096  # bytes looked through for the next marker of a JPEG
_SCAN = b"\xff\xda\0"  # how each scan of a JPEG begins; among pixels no such bytes stand
_EXIF = b"Exif\0\0"
_UNKNOWN = -1.0
_CHUNKS_AT_ONCE = 1024  # of a PNG's pixels

ANIMATION_FLAG, EXIF_FLAG, ALPHA_FLAG = 0x02, 0x08, 0x10  # of an extended WebP

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


class JpegHeader(NamedTuple):
    """What stands before the pixels of a JPEG.

    Args:
        pixels: float64, what its frame header declares; -1 if none was found.
        exif: int32, where its segment with EXIF starts; 0 if it has none.
    """

    pixels: tf.Tensor
    exif: tf.Tensor


def plain_jpeg(image_bytes: tf.Tensor) -> JpegHeader:
    """Looks at JPEGs whose segments follow one another without a gap, as nearly all do.

    Args:
        image_bytes: strings of any shape.

    Returns:
        What was found, of that shape; where a look of this kind does not tell, `pixels` is -1.
    """
    lengths = tf.strings.length(image_bytes)

    def body(place, pixels, exif, kind, segments):
        segment = bytes_at(image_bytes, place, 10)  # FF, marker, length, bits, height, width
        kind = tf.where(tf.equal(segment[..., 0], 0xFF), tf.gather(_KINDS, segment[..., 1]), _NO_SEGMENT)
        exif = tf.where(_is_exif(segment) & tf.equal(exif, 0), place, exif)
        numbers = tf.gather(segment, [2, 5, 7], axis=-1) * 256 + tf.gather(segment, [3, 6, 8], axis=-1)
        sides = tf.cast(numbers, tf.float64)
        pixels = tf.where(tf.equal(kind, _FRAME), sides[..., 1] * sides[..., 2], pixels)
        # what has been found out is not looked at again
        place = tf.where(tf.equal(kind, _SEGMENT), place + 2 + numbers[..., 0], lengths)
        return place, pixels, exif, kind, segments + 1

    start = tf.ones_like(lengths)
    _, pixels, exif, _, _ = tf.while_loop(
        lambda place, pixels, exif, kind, segments: tf.reduce_any(tf.equal(kind, _SEGMENT)) & (segments < MAX_SEGMENTS),
        body,
        (2 * start, _UNKNOWN * tf.cast(start, tf.float64), 0 * start, _SEGMENT * start, 0),
        parallel_iterations=1,
    )
    return JpegHeader(pixels, exif)


def _is_exif(segment: tf.Tensor) -> tf.Tensor:
    """Whether `[..., 10]` bytes begin a segment with EXIF: FF E1, two bytes of length, its name."""
    return tf.reduce_all(tf.equal(tf.gather(segment, [1, 4, 5, 6, 7, 8, 9], axis=-1), [0xE1, *_EXIF]), axis=-1)


def jpeg(image_bytes: tf.Tensor) -> JpegHeader:
    """Looks at any JPEG, a scalar string."""
    plain = plain_jpeg(image_bytes)
    return JpegHeader(*tf.cond(plain.pixels < 0, lambda: tuple(_searched_jpeg(image_bytes)), lambda: tuple(plain)))


def _searched_jpeg(image_bytes: tf.Tensor) -> JpegHeader:
    """Finds the frame header as libjpeg does: from segment to segment, passing over what stands between them."""

    def body(place, pixels, exif, segments):
        window = bytes_at(image_bytes, place, _WINDOW + 16)
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
        exif = tf.where(is_marker[at] & _is_exif(window[at : at + 10]) & tf.equal(exif, 0), place + at, exif)
        place = tf.where(is_end, length, place + step)
        return place, tf.where(is_frame, area, pixels), exif, segments + 1

    length = tf.strings.length(image_bytes)
    _, pixels, exif, _ = tf.while_loop(
        lambda place, pixels, exif, segments: (place < length) & (pixels < 0) & (segments < MAX_SEGMENTS),
        body,
        (0, tf.constant(_UNKNOWN, tf.float64), 0, 0),
        parallel_iterations=1,
    )
    return JpegHeader(pixels, exif)


def has_few_scans(jpeg_bytes: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG, a scalar string, has at most `MAX_SCANS`: thousands of them take as many times as long."""
    return tf.raw_ops.StringSplitV2(input=[jpeg_bytes], sep=_SCAN, maxsplit=MAX_SCANS + 1).shape[1] <= MAX_SCANS + 1


class PngChunks(NamedTuple):
    """What stands between the pixels of a PNG, and around them.

    Args:
        exif: int64, where its chunk with EXIF starts; 0 if it has none.
        is_small: bool, whether it has at most `MAX_TEXTS` compressed texts, in at most `MAX_CHUNKS` chunks.
    """

    exif: tf.Tensor
    is_small: tf.Tensor


def png_chunks(png_bytes: tf.Tensor) -> PngChunks:
    """Goes from chunk to chunk of a PNG, a scalar string; over those of its pixels that are of one length at once."""
    length = tf.cast(tf.strings.length(png_bytes), tf.int64)

    def body(place, exif, texts, chunks):
        head = bytes_at(png_bytes, place, 8)
        name = tf.strings.substr(png_bytes, tf.minimum(place + 4, length), 4)
        step = 12 + tf.cast(number(head[3::-1]), tf.int64)
        exif = tf.where(tf.equal(name, b"eXIf") & tf.equal(exif, 0), place, exif)
        texts += tf.cast(tf.reduce_any(tf.equal(name, [b"zTXt", b"iTXt"])), tf.int32)
        run = tf.cond(tf.equal(name, b"IDAT"), lambda: _chunks_alike(png_bytes, place, step), lambda: np.int64(1))
        place = tf.where(tf.equal(name, b"IEND"), length, tf.minimum(place + run * step, length))
        return place, exif, texts, chunks + 1

    _, exif, texts, chunks = tf.while_loop(
        lambda place, exif, texts, chunks: (place < length) & (texts <= MAX_TEXTS) & (chunks <= MAX_CHUNKS),
        body,
        (tf.constant(8, tf.int64), tf.constant(0, tf.int64), 0, 0),
        parallel_iterations=1,
    )
    return PngChunks(exif, (texts <= MAX_TEXTS) & (chunks <= MAX_CHUNKS))


def _chunks_alike(png_bytes: tf.Tensor, place: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """How many chunks of one length and name follow one another from `place` on, each `step` bytes long.

    So many are looked at, and no more: a file may have millions of which no two are alike.
    """
    length = tf.cast(tf.strings.length(png_bytes), tf.int64)
    places = tf.range(place, tf.minimum(length, place + _CHUNKS_AT_ONCE * step), step)
    heads = tf.strings.substr(png_bytes, places, tf.fill(tf.shape(places), np.int64(8)))
    differs = tf.concat([tf.not_equal(heads, heads[0]), [True]], axis=0)
    return tf.argmax(differs, output_type=tf.int64)


def other_pixels(image_bytes: tf.Tensor) -> tf.Tensor:
    """The pixels that a PNG, BMP or WebP declares: scalar float64; 0 for bytes of another kind, -1 if in doubt."""
    header = bytes_at(image_bytes, 0, _HEADER_BYTES)
    kinds = [(PNG_MAGIC, _png_pixels), (BMP_MAGIC, _bmp_pixels), (WEBP_MAGIC, _webp_pixels)]
    pixels = tf.zeros([], tf.float64)
    for magic, read in kinds:
        pixels = tf.where(starts_with(image_bytes, magic), read(header), pixels)
    return pixels


def is_extended_webp(webp_bytes: tf.Tensor, flag: int) -> tf.Tensor:
    """Whether a WebP, a scalar string, declares that it has one of the features with a flag."""
    header = bytes_at(webp_bytes, 12, 9)
    return tf.reduce_all(tf.equal(header[:4], list(b"VP8X"))) & tf.not_equal(header[8] & flag, 0)


def with_alpha_if_animated(webp_bytes: tf.Tensor) -> tf.Tensor:
    """The same WebP; an animation says that it has an alpha channel.

    TensorFlow 2.20 writes four channels of an animation, but allocates three if its header declares no alpha: it
    writes past the end and may take the whole process down. With alpha declared it allocates four.
    """

    def declared():
        flags = bytes_at(webp_bytes, 20, 1)[0]
        flags = tf.gather([bytes([flags | ALPHA_FLAG]) for flags in range(256)], flags)
        rest = tf.strings.substr(webp_bytes, 21, tf.strings.length(webp_bytes))
        return tf.strings.join([tf.strings.substr(webp_bytes, 0, 20), flags, rest])

    return tf.cond(is_extended_webp(webp_bytes, ANIMATION_FLAG), declared, lambda: webp_bytes)


def bytes_at(image_bytes: tf.Tensor, place, count: int) -> tf.Tensor:
    """`count` bytes of strings of any shape from a place on, `[..., count]` int32; zeros behind the end."""
    place = tf.minimum(place, tf.cast(tf.strings.length(image_bytes), tf.convert_to_tensor(place).dtype))
    some = tf.strings.substr(image_bytes, place, tf.zeros_like(place) + count)
    some = tf.io.decode_raw(some, tf.uint8, fixed_length=count)
    return tf.cast(tf.ensure_shape(some, [*some.shape[:-1], count]), tf.int32)


def _big_endian(data: tf.Tensor) -> tf.Tensor:
    return data[0] * 256 + data[1]


def _little_endian(data: tf.Tensor) -> tf.Tensor:
    return data[0] + data[1] * 256


def number(data: tf.Tensor) -> tf.Tensor:
    """A number of up to four bytes, the smallest first, as float64, which a product of two cannot overflow."""
    return tf.reduce_sum(
        tf.cast(data, tf.float64) * tf.constant([256.0**place for place in range(data.shape[0])], tf.float64)
    )


def _png_pixels(header: tf.Tensor) -> tf.Tensor:
    return number(header[19:15:-1]) * number(header[23:19:-1])


def _bmp_pixels(header: tf.Tensor) -> tf.Tensor:
    height = number(header[22:26])  # two's complement: negative if rows go from top to bottom
    return number(header[18:22]) * tf.minimum(height, 2.0**32 - height)


def _webp_pixels(header: tf.Tensor) -> tf.Tensor:
    """Lossy, lossless, or extended: the canvas, in which any frames lie."""
    lossy = tf.cast((_little_endian(header[26:28]) & 0x3FFF) * (_little_endian(header[28:30]) & 0x3FFF), tf.float64)
    bits = header[21] + header[22] * 2**8 + header[23] * 2**16 + (header[24] & 0x0F) * 2**24
    lossless = tf.cast(((bits & 0x3FFF) + 1) * (bits // 2**14 + 1), tf.float64)
    extended = (number(header[24:27]) + 1) * (number(header[27:30]) + 1)
    pixels = tf.constant(_UNKNOWN, tf.float64)
    for name, of_kind in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", extended)):
        pixels = tf.where(tf.reduce_all(tf.equal(header[12:16], list(name))), of_kind, pixels)
    return pixels
