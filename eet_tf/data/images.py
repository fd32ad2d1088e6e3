"""From encoded bytes to pixels: the one way a photo is decoded, in training and in serving."""

from __future__ import annotations

import tensorflow as tf

from eet_tf.data import headers

RULES_VERSION = 1  # goes up when the same bytes become other pixels; what is refused becomes none

# a quarter GiB of 3 bytes a pixel: where Pillow, too, begins to warn of a decompression bomb (Image.MAX_IMAGE_PIXELS).
# At that size decoding takes 0.3 GB for a plain JPEG, and 2.4 GB for the worst, transparent or turned upright.
MAX_PIXELS = 1024**3 // 4 // 3

_EXIF_SEARCH_BYTES = 4096

# branches are tf.cond throughout; looking for others in Python costs every process a second
_as_written = tf.autograph.experimental.do_not_convert


@_as_written
def decode_and_resize(image_bytes: tf.Tensor, image_size: int, max_pixels: int | None = None) -> tf.Tensor:
    """Decodes one photo and squashes it to a square, whatever its aspect ratio.

    - JPEG (grey, RGB, CMYK), PNG (grey, palette, alpha, 16 bits), BMP, GIF and, with TensorFlow 2.20, WebP
      (of animations the first frame). All become RGB; a PNG's transparent pixels become white.
    - A JPEG with an EXIF orientation is turned upright, as every photo viewer does. Other formats: as stored.
    - Bilinear resizing with antialiasing.

    Args:
        image_bytes: scalar string, an encoded image file.
        image_size: side of the result in pixels.
        max_pixels: refuse photos that declare more before anything is allocated; of a GIF those of all its frames
            together. None, for files of one's own: whatever they declare. Reading headers takes 0.1 ms a photo.

    Returns:
        `[image_size, image_size, 3]` float32 in [0, 255].

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are no image of these formats, cut off, or too large.

    Example:

    >>> import tensorflow as tf
    >>> photo = tf.io.encode_png(tf.zeros([40, 30, 3], tf.uint8))
    >>> decode_and_resize(photo, 32).shape.as_list()
    [32, 32, 3]
    """
    if max_pixels is not None:
        image_bytes = _checked(image_bytes, max_pixels)
    # resizing takes bytes as they are; turned into floats first, a large photo costs more than its decoding
    return tf.cond(
        _is_plain_jpeg(image_bytes),
        lambda: resize(_decode_bytes(image_bytes), image_size),
        lambda: resize(_decode_any(image_bytes), image_size),
    )


def resize(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Squashes decoded photos to squares, as `decode_and_resize` does: `[..., H, W, 3]` -> float32 `[..., S, S, 3]`."""
    resized = tf.image.resize(images, [image_size, image_size], antialias=True)
    return tf.clip_by_value(resized, 0.0, 255.0)


@_as_written
def decode_batch(image_bytes: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes encoded photos in parallel, as `decode_and_resize` does; one that is no image harms no other.

    Args:
        image_bytes: `[B]` strings.
        image_size: S.

    Returns:
        `[B, S, S, 3]` float32 in [0, 255], black where the bytes are no image or declare more than `MAX_PIXELS`, and
        `[B]` bool, false there.
    """

    def plain_jpeg(row):
        return resize(_decode_bytes(image_bytes[row]), image_size)

    def all_kinds(row):
        return decode_and_resize(image_bytes[row], image_size, MAX_PIXELS)

    pixels = headers.plain_jpeg_pixels(image_bytes)
    is_jpeg = headers.starts_with(image_bytes, headers.JPEG_MAGIC) & (pixels >= 0) & (pixels <= MAX_PIXELS)
    has_exif = _has_exif(image_bytes)
    count = tf.size(image_bytes, out_type=tf.int64)
    # each call sets its pipeline up again, which takes the longer the more operations might be needed
    return tf.cond(
        tf.reduce_all(is_jpeg & ~has_exif),
        lambda: _collected(count, plain_jpeg, image_size),
        lambda: tf.cond(
            tf.reduce_all(is_jpeg),
            lambda: _collected(count, _jpegs_with_exif(image_bytes, has_exif, image_size), image_size),
            lambda: _collected(count, all_kinds, image_size),
        ),
    )


def _jpegs_with_exif(image_bytes: tf.Tensor, has_exif: tf.Tensor, image_size: int):
    """What reads a row of JPEGs of which some have EXIF, which is read here, outside of any pipeline."""

    def orientation(row):
        photo, has_any = row
        return tf.cond(has_any, lambda: exif_orientation(photo), lambda: 1)

    orientations = tf.map_fn(orientation, (image_bytes, has_exif), fn_output_signature=tf.int32)

    def read(row):
        image = _decode_bytes(image_bytes[row])
        return tf.cond(
            tf.equal(orientations[row], 1),
            lambda: resize(image, image_size),
            lambda: resize(_turned(tf.cast(image, tf.float32), orientations[row]), image_size),
        )

    return read


def _collected(count: tf.Tensor, read, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """See `decode_batch`; `read` makes `[S, S, 3]` of a row or fails, which only a pipeline of tf.data survives."""
    options = tf.data.Options()  # without the set-up that only long pipelines earn back
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    rows = tf.data.Dataset.range(count).with_options(options)
    decoded = rows.map(lambda row: (row, read(row)), tf.data.AUTOTUNE, deterministic=True)
    decoded = decoded.ignore_errors(log_warning=False)
    # follows where some could not be decoded, so that the batch below exists even if none could
    filler = tf.data.Dataset.from_tensors((count, tf.zeros([image_size, image_size, 3])))
    at_least_one = tf.maximum(count, 1)
    found, pixels = decoded.concatenate(filler).take(at_least_one).batch(at_least_one).get_single_element()
    places = found[:, tf.newaxis]
    is_image = tf.scatter_nd(places, tf.ones_like(found, tf.bool), [count + 1])[:count]
    batch = tf.cond(
        tf.reduce_all(is_image),
        lambda: pixels[:count],
        lambda: tf.scatter_nd(places, pixels, [count + 1, image_size, image_size, 3])[:count],
    )
    return tf.ensure_shape(batch, [None, image_size, image_size, 3]), is_image


@_as_written
def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes one photo upright, by the rules of `decode_and_resize`: `[height, width, 3]` float32 in [0, 255]."""
    is_plain = _is_plain_jpeg(image_bytes)
    return tf.cond(is_plain, lambda: tf.cast(_decode_bytes(image_bytes), tf.float32), lambda: _decode_any(image_bytes))


def _is_plain_jpeg(image_bytes: tf.Tensor) -> tf.Tensor:
    """Most photos are JPEG without EXIF, and are not to wait for all the operations that others need."""
    return headers.starts_with(image_bytes, headers.JPEG_MAGIC) & ~_has_exif(image_bytes)


def _has_exif(image_bytes: tf.Tensor) -> tf.Tensor:
    head = tf.strings.substr(image_bytes, 0, _EXIF_SEARCH_BYTES)
    return tf.strings.regex_full_match(head, r"\C*Exif\C*")


def _checked(image_bytes: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """The bytes, once they are known to declare a picture of a size that can be decoded."""
    pixels = headers.declared_pixels(image_bytes)
    message = f"a photo must declare its size, and at most {max_pixels:,} pixels. Received (-1: it declares none):"
    with tf.control_dependencies([tf.debugging.Assert((pixels >= 0) & (pixels <= max_pixels), [message, pixels])]):
        return tf.identity(image_bytes)


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},  # inlined, each of its operations is visited even where it is not run
)
def _decode_any(image_bytes: tf.Tensor) -> tf.Tensor:
    # shorter, a PNG has no header; the decoder below says so
    is_png = headers.starts_with(image_bytes, headers.PNG_MAGIC) & (tf.strings.length(image_bytes) > 25)
    return tf.cond(is_png, lambda: _decode_png(image_bytes), lambda: _decode_other(image_bytes))


def _decode_png(png_bytes: tf.Tensor) -> tf.Tensor:
    rgba = tf.io.decode_png(png_bytes, channels=4)
    # to an opaque picture of 1, 2 or 4 bits the decoder adds an alpha of that many bits: 1, 3 or 15, not 255
    bit_depth = tf.io.decode_raw(tf.strings.substr(png_bytes, 24, 1), tf.uint8)[0]
    opaque = tf.minimum(tf.pow(2.0, tf.cast(bit_depth, tf.float32)) - 1.0, 255.0)
    is_opaque = tf.reduce_all(tf.equal(rgba[..., 3], tf.cast(opaque, tf.uint8)))
    return tf.cond(is_opaque, lambda: tf.cast(rgba[..., :3], tf.float32), lambda: _on_white(rgba))


def _decode_other(image_bytes: tf.Tensor) -> tf.Tensor:
    def rgb():
        is_jpeg = headers.starts_with(image_bytes, headers.JPEG_MAGIC)
        image = tf.cast(_decode_bytes(image_bytes), tf.float32)  # floats are turned faster than bytes
        return tf.cond(is_jpeg, lambda: _turned(image, exif_orientation(image_bytes)), lambda: image)

    is_webp = headers.starts_with(image_bytes, headers.WEBP_MAGIC)
    return tf.cond(is_webp, lambda: _decode_webp(image_bytes), rgb)


def _decode_bytes(image_bytes: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _decode_webp(image_bytes: tf.Tensor) -> tf.Tensor:
    """The decoder gives a WebP its own number of channels, 3 or 4, or refuses."""
    image = tf.io.decode_image(headers.with_alpha_if_animated(image_bytes), expand_animations=False)
    has_alpha = tf.equal(tf.shape(image)[-1], 4)
    image = tf.cond(has_alpha, lambda: _on_white(image), lambda: tf.cast(image, tf.float32))
    return tf.ensure_shape(image, [None, None, 3])


def _on_white(rgba: tf.Tensor) -> tf.Tensor:
    alpha = tf.cast(rgba[..., 3:], tf.float32) / 255.0
    return tf.cast(rgba[..., :3], tf.float32) * alpha + 255.0 * (1.0 - alpha)


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation of 2 to 8 (TIFF tag 0x0112); 1 and unknown values leave the image alone."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    flip_rows = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
    flip_columns = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
    image = tf.cond(flip_rows, lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(flip_columns, lambda: tf.reverse(image, [1]), lambda: image)


def exif_orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, 1 to 8, as a scalar int32; 1 where it has none or it is malformed.

    The EXIF block is looked for in the first 4 KiB, where cameras put it.
    """
    head = tf.io.decode_raw(tf.strings.substr(image_bytes, 0, _EXIF_SEARCH_BYTES), tf.uint8)
    head = tf.concat([tf.cast(head, tf.int32), tf.zeros([16], tf.int32)], axis=0)
    block = _find(head, [0xFF, 0xE1, None, None, *b"Exif\x00\x00"])
    return tf.cond(block >= 0, lambda: _orientation_of_block(head[block:]), lambda: 1)


def _find(data: tf.Tensor, pattern: list[int | None]) -> tf.Tensor:
    """Where `pattern`, in which None is any byte, first stands in an int32 vector of bytes, or -1."""
    length = tf.size(data) - len(pattern) + 1
    wanted = [(shift, byte) for shift, byte in enumerate(pattern) if byte is not None]
    matches = tf.reduce_all(tf.stack([tf.equal(data[shift : shift + length], byte) for shift, byte in wanted]), axis=0)
    return tf.where(tf.reduce_any(matches), tf.argmax(matches, output_type=tf.int32), -1)


def _orientation_of_block(block: tf.Tensor) -> tf.Tensor:
    """Reads a JPEG's EXIF block: marker, length, "Exif", a TIFF file. What is cut off counts as zeros."""
    tiff = block[10 : 2 + block[2] * 256 + block[3]]
    tiff = tf.concat([tiff, tf.zeros([16], tf.int32)], axis=0)
    is_tiff = tf.reduce_any([tf.reduce_all(tf.equal(tiff[:4], list(magic))) for magic in (b"II*\0", b"MM\0*")])
    return tf.cond(is_tiff, lambda: _orientation_of_tiff(tiff), lambda: 1)


def _orientation_of_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """Reads tag 0x0112 from the first directory of a TIFF block; `tiff` is an int32 vector of bytes."""
    is_big_endian = tf.equal(tiff[0], ord("M"))

    def number16(offsets):
        first, second = tf.gather(tiff, offsets), tf.gather(tiff, offsets + 1)
        return tf.where(is_big_endian, first * 256 + second, second * 256 + first)

    last = tf.size(tiff) - 12
    directory = tf.clip_by_value(number16(tf.where(is_big_endian, 6, 4)), 0, last)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number16(directory), 64))
    entries = tf.boolean_mask(entries, entries <= last)
    found = tf.boolean_mask(entries, tf.equal(number16(entries), 0x0112))
    value = tf.cond(tf.size(found) > 0, lambda: number16(found[0] + 8), lambda: 1)
    return tf.where((value >= 1) & (value <= 8), value, 1)
