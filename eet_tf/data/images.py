"""From encoded bytes to pixels: the one way a photo is decoded, in audit, training, serving and on pages."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from eet_tf.data import bmp, gif, headers, orientation, reasons
from eet_tf.data.limits import MAX_BYTES, MAX_PIXELS
from eet_tf.fits import check_fit

# goes up when the same bytes become other pixels; what is refused becomes none. 2: palettes of BMP; transparent GIF,
# and GIF whose frames are not of its size; PNG and WebP upright; JPEG upright whatever stands before its EXIF
RULES_VERSION = 2

# up to so many photos a pipeline is sooner through if Python calls the decoder of all that are not plain JPEG: one with
# every operation that a photo might need takes a second to begin, and such a call a millisecond
_FEW_PHOTOS = 500
_are_few = contextvars.ContextVar("are_few", default=False)

# branches are tf.cond throughout; looking for others in Python costs every process a second
_as_written = tf.autograph.experimental.do_not_convert


@_as_written
def decode_and_resize(
    image_bytes: tf.Tensor, image_size: int, max_pixels: int = MAX_PIXELS, fit: str = "squash"
) -> tf.Tensor:
    """Decodes one photo and makes a square of it, whatever its aspect ratio.

    - JPEG (grey, RGB, CMYK), PNG (grey, palette, alpha, 16 bits), BMP (1, 4, 8, 24, 32 bits, not compressed), GIF and,
      with TensorFlow 2.20, WebP (of animations the first frame). All become RGB; transparent pixels become white.
    - A JPEG, PNG or WebP with an EXIF orientation is turned upright, as every photo viewer does.
    - Bilinear resizing with antialiasing.
    - What asks for more than `eet_tf/data/limits.py` allows is refused before anything is allocated.

    Args:
        image_bytes: scalar string, an encoded image file.
        image_size: side of the result in pixels.
        max_pixels: refuse photos that declare more.
        fit: `"squash"` stretches the photo to the square; `"letterbox"` keeps its aspect, in the middle of white. That
            of the embedder: `eet_tf.embedder.photo_fit(embedder)`.

    Returns:
        `[image_size, image_size, 3]` float32 in [0, 255].

    Raises:
        ValueError: if `fit` is none of these.
        tf.errors.InvalidArgumentError: if the bytes are no image of these formats, cut off, or too large.
            `eet_tf/data/reasons.py` says in words which of these it is.

    Example:

    >>> import tensorflow as tf
    >>> photo = tf.io.encode_png(tf.zeros([40, 30, 3], tf.uint8))
    >>> decode_and_resize(photo, 32).shape.as_list()
    [32, 32, 3]
    """
    check_fit(fit)
    try:
        # resizing takes bytes as they are; turned into floats first, a large photo costs more than its decoding
        return _decoded(image_bytes, max_pixels, lambda image: resize(image, image_size, fit))
    except tf.errors.InvalidArgumentError as error:  # outside a graph, where the bytes are known
        content = tf.get_static_value(tf.convert_to_tensor(image_bytes))
        why = reasons.without_command(reasons.of_bytes(content, max_pixels))
        raise tf.errors.InvalidArgumentError(None, None, f"`image_bytes` must be a photo. Received: {why}.") from error


@_as_written
def decode_cropped(image_bytes: tf.Tensor, image_size: int, fit: str, box: Callable) -> tf.Tensor:
    """As `decode_and_resize`, of a part of the photo.

    Args:
        image_bytes: scalar string, an encoded image file.
        image_size: S.
        fit: `"squash"` or `"letterbox"`.
        box: from the upright photo's height and width to `[4]` integers: top, left, height and width of the part.

    Returns:
        `[S, S, 3]` float32 in [0, 255].
    """

    def use(image):
        shape = tf.shape(image)
        top, left, height, width = tf.unstack(box(shape[0], shape[1]))
        return resize(image[top : top + height, left : left + width], image_size, fit)

    return _decoded(image_bytes, MAX_PIXELS, use)


def _decoded(image_bytes: tf.Tensor, max_pixels: int, use: Callable):
    """What `use` makes of the upright picture, `[H, W, 3]` uint8 or float32 in [0, 255]."""
    # most photos are JPEG without EXIF, and are not to wait for all the operations that others need
    decode_any = _call_decode_any if _are_few.get() else _decode_any
    return tf.cond(
        _is_plain_jpeg(image_bytes, max_pixels),
        lambda: use(_decode_bytes(image_bytes)),
        lambda: use(decode_any(image_bytes, max_pixels)),
    )


@contextlib.contextmanager
def pipeline_of(count: int | None) -> Iterator[None]:
    """A pipeline that decodes is made in the block; it decodes `count` photos, or many if that is None.

    What it decodes does not depend on it, only how soon it begins. A pipeline of few photos calls Python, so that it
    cannot be saved.
    """
    token = _are_few.set(count is not None and count <= _FEW_PHOTOS)
    try:
        yield
    finally:
        _are_few.reset(token)


def resize(images: tf.Tensor, image_size: int, fit: str = "squash") -> tf.Tensor:
    """Makes squares of decoded photos, as `decode_and_resize` does: `[..., H, W, 3]` -> float32 `[..., S, S, 3]`."""
    if fit == "letterbox":
        return _letterboxed(images, image_size)
    resized = tf.image.resize(images, [image_size, image_size], antialias=True)
    return tf.clip_by_value(resized, 0.0, 255.0)


def _letterboxed(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """The longer side becomes S, the shorter what is nearest to the aspect; an odd row stands below, a column right."""
    images = tf.convert_to_tensor(images)
    sides = tf.cast(tf.shape(images)[-3:-1], tf.int64)  # whole numbers, which no machine rounds in its own way
    longer = tf.reduce_max(sides)
    fitted = tf.cast(tf.maximum((2 * image_size * sides + longer) // (2 * longer), 1), tf.int32)
    resized = tf.clip_by_value(tf.image.resize(images, fitted, antialias=True), 0.0, 255.0)
    before = (image_size - fitted) // 2
    paddings = tf.stack([before, image_size - fitted - before], axis=1)
    around = images.shape.rank - 3
    padded = tf.pad(resized, tf.pad(paddings, [[around, 1], [0, 0]]), constant_values=255.0)
    return tf.ensure_shape(padded, [*images.shape[:-3], image_size, image_size, 3])


@_as_written
def decode_batch(
    image_bytes: tf.Tensor, image_size: int, max_pixels: int = MAX_PIXELS, fit: str = "squash"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes encoded photos in parallel, as `decode_and_resize` does; one that is no image harms no other.

    Args:
        image_bytes: `[B]` strings.
        image_size: S.
        max_pixels: refuse photos that declare more.
        fit: `"squash"` or `"letterbox"`.

    Returns:
        `[B, S, S, 3]` float32 in [0, 255], black where the bytes are no image or declare more than `max_pixels`, and
        `[B]` bool, false there.
    """

    def plain_jpeg(row):
        return resize(_decode_bytes(_with_few_scans(image_bytes[row])), image_size, fit)

    def all_kinds(row):
        return decode_and_resize(image_bytes[row], image_size, max_pixels, fit)

    header = headers.plain_jpeg(image_bytes)
    is_small = (header.pixels >= 1) & (header.pixels <= max_pixels) & (tf.strings.length(image_bytes) <= MAX_BYTES)
    is_jpeg = headers.starts_with(image_bytes, headers.JPEG_MAGIC) & is_small
    count = tf.size(image_bytes, out_type=tf.int64)
    # each call sets its pipeline up again, which takes the longer the more operations might be needed
    return tf.cond(
        tf.reduce_all(is_jpeg & tf.equal(header.exif, 0)),
        lambda: _collected(count, plain_jpeg, image_size),
        lambda: tf.cond(
            tf.reduce_all(is_jpeg),
            lambda: _collected(count, _jpegs_with_exif(image_bytes, header.exif, image_size, fit), image_size),
            lambda: _collected(count, all_kinds, image_size),
        ),
    )


def _jpegs_with_exif(image_bytes: tf.Tensor, exif: tf.Tensor, image_size: int, fit: str):
    """What reads a row of JPEGs of which some have EXIF, which is read here, outside of any pipeline."""
    turns = tf.map_fn(lambda row: orientation.of_jpeg(*row), (image_bytes, exif), fn_output_signature=tf.int32)

    def read(row):
        image = _decode_bytes(_with_few_scans(image_bytes[row]))
        return tf.cond(
            tf.equal(turns[row], 1),
            lambda: resize(image, image_size, fit),
            lambda: resize(orientation.upright(tf.cast(image, tf.float32), turns[row]), image_size, fit),
        )

    return read


def _with_few_scans(jpeg_bytes: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert(headers.has_few_scans(jpeg_bytes), ["a JPEG of many scans"])]):
        return tf.identity(jpeg_bytes)


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
def decode(image_bytes: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes one photo upright, by the rules of `decode_and_resize`: `[height, width, 3]` float32 in [0, 255]."""
    return _decoded(image_bytes, max_pixels, lambda image: tf.cast(image, tf.float32))


def _is_plain_jpeg(image_bytes: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Whether it is a JPEG within all limits that stands upright; only what others have to be asked is left open."""

    def look():
        header = headers.plain_jpeg(image_bytes)
        is_small = (header.pixels >= 1) & (header.pixels <= max_pixels) & _is_short(image_bytes)
        return is_small & tf.equal(header.exif, 0) & headers.has_few_scans(image_bytes)

    return tf.cond(headers.starts_with(image_bytes, headers.JPEG_MAGIC), look, lambda: False)


def _is_short(image_bytes: tf.Tensor) -> tf.Tensor:
    return tf.strings.length(image_bytes) <= MAX_BYTES


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.float64)],
    autograph=False,
    experimental_attributes={"_noinline": True},  # inlined, each of its operations is visited even where it is not run
)
def _decode_any(image_bytes: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    kinds = [
        (headers.JPEG_MAGIC, _decode_jpeg),
        (headers.PNG_MAGIC, _decode_png),
        (headers.WEBP_MAGIC, _decode_webp),
        (headers.GIF_MAGIC, _decode_gif),
        (headers.BMP_MAGIC, _decode_bmp),
    ]
    check = [tf.debugging.Assert(_is_short(image_bytes), [f"a file of more than {MAX_BYTES:,} bytes"])]
    with tf.control_dependencies(check):
        image_bytes = tf.identity(image_bytes)
    kind = tf.argmax([*[headers.starts_with(image_bytes, magic) for magic, _ in kinds], True], output_type=tf.int32)
    readers = [lambda read=read: read(image_bytes, max_pixels) for _, read in kinds]
    return tf.switch_case(kind, [*readers, lambda: tf.cast(_decode_bytes(image_bytes), tf.float32)])


def _call_decode_any(image_bytes: tf.Tensor, max_pixels) -> tf.Tensor:
    """`_decode_any`, called by Python, so that the graph has none of its operations."""

    def called(content: bytes, limit: np.ndarray) -> np.ndarray:
        try:
            with tf.device("CPU:0"):
                return _decode_any(tf.constant(content), tf.constant(limit)).numpy()
        except tf.errors.OpError:
            return np.zeros([0, 0, 3], np.float32)

    limit = tf.cast(max_pixels, tf.float64)
    image = tf.numpy_function(called, [image_bytes, limit], tf.float32, stateful=False, name="_decode_any")
    is_image = tf.debugging.Assert(tf.size(image) > 0, ["a photo"], name="_decode_any_failed")
    with tf.control_dependencies([is_image]):
        return tf.ensure_shape(image, [None, None, 3])


def _within(image_bytes: tf.Tensor, pixels: tf.Tensor, max_pixels: tf.Tensor, *conditions: tf.Tensor) -> tf.Tensor:
    """The bytes, once they are known to declare a picture of a size that can be decoded, and to meet conditions."""
    is_fine = tf.reduce_all([pixels >= 1, pixels <= max_pixels, *conditions])
    told = [
        "a photo must declare its size, and at most",
        max_pixels,
        "pixels. Received (-1: it declares none):",
        pixels,
    ]
    with tf.control_dependencies([tf.debugging.Assert(is_fine, told)]):
        return tf.identity(image_bytes)


def _decode_jpeg(jpeg_bytes: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    header = headers.jpeg(jpeg_bytes)
    image = _decode_bytes(_within(jpeg_bytes, header.pixels, max_pixels, headers.has_few_scans(jpeg_bytes)))
    # floats are turned faster than bytes
    return orientation.upright(tf.cast(image, tf.float32), orientation.of_jpeg(jpeg_bytes, header.exif))


def _decode_png(png_bytes: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    pixels = headers.other_pixels(png_bytes)
    chunks = headers.png_chunks(png_bytes)
    png_bytes = _within(png_bytes, pixels, max_pixels, chunks.is_small)
    rgba = tf.io.decode_png(png_bytes, channels=4)
    # to an opaque picture of 1, 2 or 4 bits the decoder adds an alpha of that many bits: 1, 3 or 15, not 255
    bit_depth = headers.bytes_at(png_bytes, 24, 1)[0]
    opaque = tf.minimum(tf.pow(2.0, tf.cast(bit_depth, tf.float32)) - 1.0, 255.0)
    is_opaque = tf.reduce_all(tf.equal(rgba[..., 3], tf.cast(opaque, tf.uint8)))
    image = tf.cond(is_opaque, lambda: tf.cast(rgba[..., :3], tf.float32), lambda: _on_white(rgba))
    return orientation.upright(image, orientation.of_png(png_bytes, chunks.exif))


def _decode_webp(webp_bytes: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    """The decoder gives a WebP its own number of channels, 3 or 4, or refuses."""
    webp_bytes = _within(webp_bytes, headers.other_pixels(webp_bytes), max_pixels)
    image = tf.io.decode_image(headers.with_alpha_if_animated(webp_bytes), expand_animations=False)
    has_alpha = tf.equal(tf.shape(image)[-1], 4)
    image = tf.cond(has_alpha, lambda: _on_white(image), lambda: tf.cast(image, tf.float32))
    return orientation.upright(tf.ensure_shape(image, [None, None, 3]), orientation.of_webp(webp_bytes))


def _decode_gif(gif_bytes: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    canvas = tf.cast(gif.first_frame(gif_bytes).canvas, tf.float64)
    return tf.cast(gif.decode(_within(gif_bytes, canvas[0] * canvas[1], max_pixels)), tf.float32)


def _decode_bmp(bmp_bytes: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(bmp.decode(_within(bmp_bytes, headers.other_pixels(bmp_bytes), max_pixels)), tf.float32)


def _decode_bytes(image_bytes: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _on_white(rgba: tf.Tensor) -> tf.Tensor:
    alpha = tf.cast(rgba[..., 3:], tf.float32) / 255.0
    return tf.cast(rgba[..., :3], tf.float32) * alpha + 255.0 * (1.0 - alpha)


@_as_written
def survey(image_bytes: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `decode_and_resize`, with the upright picture's width and height, `[2]` int32."""
    return _decoded(image_bytes, MAX_PIXELS, lambda image: (resize(image, image_size), tf.shape(image)[1::-1]))


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)],
    autograph=False,
)
def shrunk(image_bytes: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Decodes one photo upright, small enough that no side is longer than `side` pixels: `[H, W, 3]` uint8."""

    def use(image):
        shape = tf.shape(image)[:2]
        scale = tf.minimum(1.0, tf.cast(side, tf.float32) / tf.cast(tf.reduce_max(shape), tf.float32))
        small = tf.maximum(tf.cast(tf.round(scale * tf.cast(shape, tf.float32)), tf.int32), 1)
        resized = tf.image.resize(image, small, antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)

    return _decoded(image_bytes, MAX_PIXELS, use)
