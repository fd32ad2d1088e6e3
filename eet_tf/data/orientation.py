"""How a camera was held: where each kind of file keeps the EXIF orientation, and what it says.

Browsers and Pillow turn JPEG, PNG and WebP upright, and so does this package. What is damaged turns nothing, and
neither do XMP and the texts of a PNG.
"""

from __future__ import annotations

import tensorflow as tf

from eet_tf.data import headers

_TAG, _SHORT, _LONG = 0x0112, 3, 4
_MOST_ENTRIES = 1000  # of a directory; a camera writes 10 to 20
_MOST_CHUNKS = 10_000  # of a WebP before its EXIF; a photo has 2 to 5, and an animation one for each frame
_MOST_BYTES = 2**20  # of a block that are looked at
_PREFIX = b"Exif\0\0"


def of_jpeg(jpeg_bytes: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The orientation of a JPEG, 1 to 8, scalar int32; 1 where it has none or it is damaged.

    Args:
        jpeg_bytes: scalar string.
        place: where its segment with EXIF starts, as `headers` finds it; 0 if there is none.
    """

    def read():
        length = headers.bytes_at(jpeg_bytes, place + 2, 2)
        return of_block(tf.strings.substr(jpeg_bytes, place + 4, tf.maximum(length[0] * 256 + length[1] - 2, 0)))

    return tf.cond(place > 0, read, lambda: 1)


def of_png(png_bytes: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The orientation of a PNG; `place` is where its chunk with EXIF starts, as `headers` finds it, or 0."""

    def read():
        head = headers.bytes_at(png_bytes, place, 4)
        return of_block(tf.strings.substr(png_bytes, place + 8, tf.cast(headers.number(head[::-1]), tf.int64)))

    return tf.cond(place > 0, read, lambda: 1)


def of_webp(webp_bytes: tf.Tensor) -> tf.Tensor:
    """The orientation of a WebP, from its chunk `EXIF`, which stands behind the pixels."""
    has_exif = headers.is_extended_webp(webp_bytes, headers.EXIF_FLAG)
    return tf.cond(has_exif, lambda: of_block(_webp_exif(webp_bytes)), lambda: 1)


def _webp_exif(webp_bytes: tf.Tensor) -> tf.Tensor:
    """What the first chunk `EXIF` holds; nothing if there is none."""
    length = tf.cast(tf.strings.length(webp_bytes), tf.int64)

    def body(place, content, chunks):
        head = headers.bytes_at(webp_bytes, place, 8)
        size = tf.cast(headers.number(head[4:]), tf.int64)
        is_it = tf.reduce_all(tf.equal(head[:4], list(b"EXIF")))
        begin = tf.minimum(place + 8, length)
        content = tf.where(is_it, tf.strings.substr(webp_bytes, begin, tf.minimum(size, _MOST_BYTES)), content)
        return tf.where(is_it, length, begin + size + size % 2), content, chunks + 1

    _, content, _ = tf.while_loop(
        lambda place, content, chunks: (place < length) & (chunks < _MOST_CHUNKS),
        body,
        (tf.constant(12, tf.int64), tf.constant(b""), 0),
        parallel_iterations=1,
    )
    return content


def of_block(block: tf.Tensor) -> tf.Tensor:
    """The orientation that an EXIF block says, scalar int32; 1 where it is damaged.

    Args:
        block: scalar string, a TIFF file, which `Exif` and two zeros may precede.
    """
    starts = tf.where(headers.starts_with(block, _PREFIX), len(_PREFIX), 0)
    tiff = tf.io.decode_raw(tf.strings.substr(block, starts, _MOST_BYTES), tf.uint8)
    is_tiff = tf.reduce_any([headers.starts_with(tf.strings.substr(block, starts, 4), magic) for magic in _TIFF_MAGICS])
    return tf.cond(is_tiff, lambda: _of_tiff(tf.cast(tiff, tf.int64)), lambda: 1)


_TIFF_MAGICS = (b"II*\0", b"MM\0*")


def _of_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """Reads the tag from the first directory; `tiff` is an int64 vector of bytes."""
    size = tf.size(tiff, out_type=tf.int64)
    tiff = tf.concat([tiff, tf.zeros([16], tf.int64)], axis=0)
    is_big_endian = tf.equal(tiff[0], ord("M"))

    def numbers(places, count):
        data = tf.gather(tiff, places[:, tf.newaxis] + tf.range(count, dtype=tf.int64))
        weights = [256**place for place in range(count)]
        return tf.reduce_sum(
            data * tf.where(is_big_endian, tf.constant(weights[::-1], tf.int64), tf.constant(weights, tf.int64)), axis=1
        )

    directory = tf.minimum(numbers(tf.constant([4], tf.int64), 4), size)
    fitting = tf.maximum((size - directory[0] - 2) // 12, 0)
    entries = directory + 2 + 12 * tf.range(tf.minimum(tf.minimum(numbers(directory, 2)[0], fitting), _MOST_ENTRIES))
    kinds = numbers(entries + 2, 2)
    values = tf.where(tf.equal(kinds, _LONG), numbers(entries + 8, 4), numbers(entries + 8, 2))
    is_it = tf.equal(numbers(entries, 2), _TAG) & (tf.equal(kinds, _SHORT) | tf.equal(kinds, _LONG))
    found = tf.concat([tf.boolean_mask(values, is_it), [1]], axis=0)[0]
    return tf.cast(tf.where((found >= 1) & (found <= 8), found, 1), tf.int32)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an orientation of 2 to 8; any other leaves the image `[H, W, 3]` alone."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    flip_rows = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
    flip_columns = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
    image = tf.cond(flip_rows, lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(flip_columns, lambda: tf.reverse(image, [1]), lambda: image)
