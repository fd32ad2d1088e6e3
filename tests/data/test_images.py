"""Decoding against Pillow, upright whatever EXIF says, and batches in which a bad photo harms no other."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from eet_tf.data import headers, images, orientation
from tests.odd_photos import TURNS

# libjpeg's fast and exact inverse transforms differ by up to 7 on these; a wrong channel or a flip by 100 and more
JPEG_TOLERANCE = 8.0

needs_webp = pytest.mark.skipif(
    tuple(map(int, tf.__version__.split(".")[:2])) < (2, 20), reason="WebP needs TensorFlow 2.20"
)

decode = tf.function(images.decode, input_signature=[tf.TensorSpec([], tf.string)])
exif_orientation = tf.function(
    lambda photo: orientation.of_jpeg(photo, headers.jpeg(photo).exif), input_signature=[tf.TensorSpec([], tf.string)]
)
decode_batch = tf.function(
    lambda photos: images.decode_batch(photos, 32), input_signature=[tf.TensorSpec([None], tf.string)]
)


def pixels(height=13, width=21, seed=0):
    """A smooth asymmetric picture, whose chroma survives a JPEG: a coloured gradient with one bright corner."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, [2, 2, 3]).astype(np.uint8)
    corners[0, 0] = [250, 20, 60]
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def encoded(image, format="PNG", **options):
    """The bytes of a Pillow image or an array."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def opened(photo):
    """What Pillow makes of the bytes."""
    return Image.open(io.BytesIO(photo))


def on_white(image):
    """Pillow's picture with its transparency over white, in floating point."""
    rgba = np.asarray(image.convert("RGBA"), np.float32)
    alpha = rgba[..., 3:] / 255.0
    return rgba[..., :3] * alpha + 255.0 * (1.0 - alpha)


def handmade_png(samples, bit_depth, color_type, chunks=()):
    """A PNG of rows of packed bytes, for kinds that Pillow does not write; `chunks` are (name, content)."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height = len(samples)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    width = len(samples[0]) * 8 // (bit_depth * channels)
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row) for row in samples)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


# Formats


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(subsampling, progressive):
    photo = encoded(pixels(40, 61), "JPEG", quality=95, subsampling=subsampling, progressive=progressive)
    np.testing.assert_allclose(decode(photo), np.asarray(opened(photo)), atol=JPEG_TOLERANCE)


def test_grey_jpeg():
    photo = encoded(pixels()[..., 0], "JPEG", quality=95)
    np.testing.assert_allclose(decode(photo), np.asarray(opened(photo).convert("RGB")), atol=JPEG_TOLERANCE)


def test_cmyk_jpeg():
    photo = encoded(Image.fromarray(pixels()).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(decode(photo), np.asarray(opened(photo).convert("RGB")), atol=JPEG_TOLERANCE)


@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_lossless_formats_to_the_last_bit(format):
    assert (decode(encoded(pixels(), format)).numpy() == pixels()).all()


@needs_webp
@pytest.mark.parametrize("lossless", [True, False])
def test_webp(lossless):
    photo = encoded(pixels(), "WEBP", lossless=lossless, quality=90)
    np.testing.assert_allclose(decode(photo), np.asarray(opened(photo).convert("RGB")), atol=0 if lossless else 2)


@needs_webp
@pytest.mark.parametrize("lossless", [True, False])
def test_transparent_webp_becomes_white(lossless):
    image = Image.fromarray(pixels()).convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 21).astype(np.uint8), [13, 1])))
    photo = encoded(image, "WEBP", lossless=lossless, quality=90, exact=True)
    np.testing.assert_allclose(decode(photo), on_white(opened(photo)), atol=0.01 if lossless else 2)


@needs_webp
@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_gives_its_first_frame(lossless, mode):
    """TensorFlow writes past the end of its own memory if such a file declares no alpha, and the process dies."""
    frames = [Image.fromarray(pixels(seed=seed)).convert(mode) for seed in (1, 2, 3)]
    if mode == "RGBA":
        frames[0].putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 21).astype(np.uint8), [13, 1])))
    photo = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=lossless, quality=90)
    assert opened(photo).n_frames == 3
    if mode == "RGB":
        photo = photo[:20] + bytes([photo[20] & ~0x10]) + photo[21:]  # Pillow declares it in some
    np.testing.assert_allclose(decode(photo), on_white(opened(photo)), atol=0.01 if lossless else 2)


def test_gif_gives_its_first_frame():
    frames = [Image.fromarray(pixels(seed=seed)).quantize(64) for seed in (1, 2, 3)]
    photo = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert opened(photo).n_frames == 3
    assert (decode(photo).numpy() == np.asarray(opened(photo).convert("RGB"))).all()


def test_grey_png():
    photo = encoded(pixels()[..., 1])
    assert (decode(photo).numpy() == pixels()[..., 1:2]).all()


@pytest.mark.parametrize("bit_depth", [1, 2, 4, 8])
def test_palette_png(bit_depth):
    photo = encoded(Image.fromarray(pixels()).quantize(2**bit_depth))
    assert (photo[24], photo[25]) == (bit_depth, 3)
    assert (decode(photo).numpy() == np.asarray(opened(photo).convert("RGB"))).all()


def test_one_bit_png():
    photo = encoded(Image.fromarray(pixels()).convert("1"))
    assert opened(photo).mode == "1"
    assert (decode(photo).numpy() == np.asarray(opened(photo).convert("RGB"))).all()


@pytest.mark.parametrize("bit_depth", [1, 2, 4])
def test_grey_png_of_few_bits(bit_depth):
    """Every value of that depth once, from black to white in equal steps."""
    values = np.arange(2**bit_depth).repeat(8)
    bits = (values[:, np.newaxis] >> np.arange(bit_depth)[::-1]) & 1
    photo = handmade_png([np.packbits(bits)], bit_depth, color_type=0)
    expected = np.repeat(values[np.newaxis, :, np.newaxis] * 255 // (2**bit_depth - 1), 3, axis=2)
    assert (decode(photo).numpy() == expected).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_16_bits(channels):
    """65,535 is white: v / 257, to within the rounding of dropping the low byte."""
    values = np.random.default_rng(0).integers(0, 2**16, [7, 5, channels])
    photo = tf.io.encode_png(values.astype(np.uint16))
    np.testing.assert_allclose(decode(photo), np.broadcast_to(values / 257, [7, 5, 3]), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_png_becomes_white(mode):
    image = Image.fromarray(pixels()).convert(mode)
    alpha = np.tile(np.linspace(0, 255, 21).astype(np.uint8), [13, 1])
    image.putalpha(Image.fromarray(alpha))
    photo = encoded(image)
    assert opened(photo).mode == mode
    np.testing.assert_allclose(decode(photo), on_white(opened(photo)), atol=0.01)
    assert (decode(photo)[:, 0].numpy() == 255).all()


def test_png_of_16_bits_with_alpha():
    values = np.random.default_rng(0).integers(0, 2**16, [7, 5, 4])
    colour, alpha = values[..., :3] / 257, values[..., 3:] / 65535
    photo = tf.io.encode_png(values.astype(np.uint16))
    np.testing.assert_allclose(decode(photo), colour * alpha + 255 * (1 - alpha), atol=2)


@pytest.mark.parametrize("bit_depth", [2, 4, 8])
def test_palette_png_with_a_transparent_colour(bit_depth):
    image = Image.fromarray(pixels()).quantize(2**bit_depth)
    photo = encoded(image, transparency=2)
    assert (photo[24], photo[25]) == (bit_depth, 3)
    assert (np.asarray(image) == 2).any()
    np.testing.assert_allclose(decode(photo), on_white(opened(photo)), atol=0.01)


@pytest.mark.parametrize("color_type, key", [(0, (70,)), (2, (70, 80, 90))])
def test_png_with_a_colour_that_means_transparent(color_type, key):
    row = [*key] + [10] * len(key) + [200] * len(key)
    photo = handmade_png([row, row[::-1]], 8, color_type, [(b"tRNS", struct.pack(f">{len(key)}H", *key))])
    np.testing.assert_allclose(decode(photo), on_white(opened(photo)), atol=0.01)
    assert decode(photo)[0, 0].numpy().tolist() == [255, 255, 255]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP"])
def test_thin_photos(shape, format):
    photo = encoded(np.full([*shape, 3], 90, np.uint8), format)
    result = images.decode_and_resize(photo, 32).numpy()
    np.testing.assert_allclose(result, np.full([32, 32, 3], 90), atol=2)


@pytest.mark.parametrize("shape", [(13, 21), (90, 50), (32, 32)])
def test_resizing_is_tensorflows_with_antialiasing(shape):
    expected = tf.image.resize(pixels(*shape), [32, 32], antialias=True)
    result = images.decode_and_resize(encoded(pixels(*shape)), 32)
    assert result.shape == [32, 32, 3]
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_pixels_stay_in_range():
    noise = np.random.default_rng(0).integers(0, 2, [50, 70, 3]).astype(np.uint8) * 255
    result = images.decode_and_resize(encoded(noise), 37).numpy()
    assert 0 <= result.min() <= result.max() <= 255


BAD = {
    "empty": b"",
    "text": b"this is no image",
    "short": b"\xff\xd8\xff",
    "cut off jpeg": encoded(np.random.default_rng(0).integers(0, 256, [40, 40, 3]).astype(np.uint8), "JPEG")[:700],
    "cut off png": encoded(pixels())[:60],
    "png head": encoded(pixels())[:26],
    "wrong magic": b"\x89PNG\r\n\x1a\n" + encoded(pixels(), "JPEG"),
    "jpeg after junk": b"\0\0" + encoded(pixels(), "JPEG"),
    "tiff": encoded(pixels(), "TIFF"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_is_no_image_is_refused(name):
    with pytest.raises(tf.errors.InvalidArgumentError):
        images.decode_and_resize(BAD[name], 32)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF"])
def test_more_pixels_than_asked_for_are_refused(format):
    """Of 21 x 13 = 273; the limit is what may just be."""
    photo = encoded(Image.fromarray(pixels()), format)
    assert (images.decode_and_resize(photo, 32, 273).numpy() == images.decode_and_resize(photo, 32).numpy()).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 0.000272 million pixels"):
        images.decode_and_resize(photo, 32, 272)


# EXIF


def tiff(value, order="<", tag=0x0112, kind=3, before=()):
    """A TIFF block with one directory: entries `before` as (tag, value), then the orientation."""
    entries = [*((other, 3, number) for other, number in before), (tag, kind, value)]
    directory = struct.pack(order + "H", len(entries))
    directory += b"".join(struct.pack(order + "HHIHH", *entry[:2], 1, entry[2], 0) for entry in entries)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + directory + b"\0" * 4


def jpeg_with_exif(block, seed=0):
    """An asymmetric JPEG with a TIFF block, whatever it holds."""
    return encoded(pixels(16, 24, seed), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + block)


AS_STORED = decode(encoded(pixels(16, 24), "JPEG", quality=95, subsampling=0)).numpy()
# what each orientation does to the rows, columns and axes of the stored picture (TIFF 6.0, tag 274)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_as_pillow_does(orientation, order):
    photo = jpeg_with_exif(tiff(orientation, order, before=[(0x0100, 24), (0x010F, 1)]))
    expected = np.asarray(ImageOps.exif_transpose(opened(photo)))
    result = decode(photo).numpy()
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=JPEG_TOLERANCE)
    assert (result == TURNS[orientation](AS_STORED)).all()


def test_exif_of_a_camera_is_found_among_other_blocks():
    """Pillow writes a directory of several entries, and a JFIF block, a comment and a profile stand around it."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131], exif[0x0112] = "maker", "model", "software", 6
    photo = encoded(pixels(16, 24), "JPEG", exif=exif, comment=b"a comment", icc_profile=b"p" * 500, dpi=(72, 72))
    assert exif_orientation(photo) == 6
    assert decode(photo).shape == [24, 16, 3]


def test_exif_turns_before_resizing():
    """A photo twice as wide as high, turned upright, then squashed: the bright corner goes to the upper right."""
    photo = jpeg_with_exif(tiff(6))
    expected = tf.image.resize(TURNS[6](AS_STORED), [32, 32], antialias=True)
    np.testing.assert_allclose(images.decode_and_resize(photo, 32), expected, atol=1e-3)


MALFORMED = {
    "no block": b"",
    "byte order alone": b"II",
    "header alone": b"MM\0*\0\0\0\x08",
    "no entries": b"II*\0\x08\0\0\0\0\0",
    "directory past the end": b"II*\0\xff\xff\0\0" + tiff(6)[8:],
    "directory far past the end": b"MM\0*\xff\xff\xff\xff" + tiff(6, ">")[8:],
    "more entries than fit": b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 24,
    "orientation 0": tiff(0),
    "orientation 9": tiff(9),
    "orientation 65535": tiff(65535, ">"),
    "no orientation": tiff(6, tag=0x0113),
    "neither byte order": b"XX*\0" + tiff(6)[4:],
    "no 42": b"II\0\0" + tiff(6)[4:],
}


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_malformed_exif_leaves_the_photo_as_stored(name):
    assert (decode(jpeg_with_exif(MALFORMED[name])).numpy() == AS_STORED).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_cut_off_anywhere_leaves_the_photo_as_stored(order):
    """The entry's value stands in bytes 18 and 19; without them, what follows in the file is not it."""
    block = tiff(6, order)
    assert struct.unpack_from(order + "H", block, 18) == (6,)
    for length in range(19 if order == ">" else 18):
        assert exif_orientation(jpeg_with_exif(block[:length])) == 1, f"{length} bytes"
    assert exif_orientation(jpeg_with_exif(block)) == 6


def test_the_word_exif_elsewhere_is_no_exif():
    photo = encoded(pixels(16, 24), "JPEG", quality=95, subsampling=0, comment=b"Exif\0\0" + tiff(6))
    assert (decode(photo).numpy() == AS_STORED).all()


@settings(max_examples=150, deadline=None)
@given(
    place=st.integers(0, 60), junk=st.binary(max_size=40), order=st.sampled_from("<>"), orientation=st.integers(1, 8)
)
@example(place=0, junk=b"", order="<", orientation=8)
def test_junk_in_the_exif_never_harms_the_pixels(place, junk, order, orientation):
    """Whatever stands in the block, the result is the stored picture, turned by an orientation of 1 to 8."""
    block = tiff(orientation, order, before=[(0x0100, 24), (0x010F, 1)])
    photo = jpeg_with_exif(block[:place] + junk + block[place + len(junk) :])
    found = int(exif_orientation(photo))
    assert found in TURNS
    assert (decode(photo).numpy() == TURNS[found](AS_STORED)).all()


# Batches


GOOD = [
    encoded(pixels(40, 30, 1), "JPEG"),
    encoded(pixels(20, 50, 2)),
    jpeg_with_exif(tiff(6), 3),
    encoded(pixels(33, 35, 4), "BMP"),
    encoded(Image.fromarray(pixels(seed=5)).convert("RGBA")),
]


def test_a_batch_is_its_photos_one_by_one_in_order():
    batch, is_image = decode_batch(GOOD)
    assert is_image.numpy().all()
    for row, photo in zip(batch.numpy(), GOOD):
        assert (row == images.decode_and_resize(photo, 32).numpy()).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([*GOOD, *BAD.values()]), min_size=1, max_size=12))
def test_bad_photos_harm_no_other(photos):
    batch, is_image = decode_batch(photos)
    expected = [photo in GOOD for photo in photos]
    assert batch.shape == [len(photos), 32, 32, 3]
    assert is_image.numpy().tolist() == expected
    assert (batch.numpy()[~np.array(expected)] == 0).all()
    alone = {photo: row for photo, row in zip(GOOD, decode_batch(GOOD)[0].numpy())}
    for row, photo in zip(batch.numpy(), photos):
        assert photo not in GOOD or (row == alone[photo]).all()


def test_no_photo_of_a_batch_is_one():
    batch, is_image = decode_batch(list(BAD.values()))
    assert batch.shape == [len(BAD), 32, 32, 3]
    assert not is_image.numpy().any()
    assert not batch.numpy().any()


@pytest.mark.parametrize("others", [[], GOOD[1:2]], ids=["alone", "beside a png"])
def test_jpegs_of_every_orientation_in_one_batch(others):
    """Smooth ones; orientation 9 is none, and a comment that says Exif turns nothing."""
    photos = [jpeg_with_exif(tiff(orientation), orientation) for orientation in range(1, 10)]
    photos += [GOOD[0], encoded(pixels(), "JPEG", comment=b"Exif\0\0" + tiff(6)), *others]
    batch, is_image = decode_batch(photos)
    assert is_image.numpy().all()
    for row, photo in zip(batch.numpy(), photos):
        assert (row == images.decode_and_resize(photo, 32).numpy()).all()


def test_a_batch_of_no_photos():
    batch, is_image = decode_batch(tf.zeros([0], tf.string))
    assert batch.shape == [0, 32, 32, 3]
    assert is_image.shape == [0]


def test_order_does_not_depend_on_how_long_photos_take():
    """Large photos first: with unordered parallel work, the small ones would overtake them."""
    large = np.kron(pixels(30, 30, 7), np.ones([40, 40, 1], np.uint8))
    photos = [encoded(large, "JPEG")] * 2 + [encoded(pixels(seed=number)) for number in range(30)]
    first, second = decode_batch(photos)[0].numpy(), decode_batch(photos)[0].numpy()
    assert (first == second).all()
    for number in range(30):
        assert (first[2 + number] == images.decode_and_resize(photos[2 + number], 32).numpy()).all()
