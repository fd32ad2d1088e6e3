"""What a header declares, against Pillow's reading of the same bytes, and against bytes made by hand."""

import io
import struct

import pytest
import tensorflow as tf
from PIL import Image

from eet_tf.data import headers
from eet_tf.data.limits import MAX_CHUNKS, MAX_SCANS, MAX_TEXTS

scalar = [tf.TensorSpec([], tf.string)]
jpeg_pixels = tf.function(lambda photo: headers.jpeg(photo).pixels, input_signature=scalar)
other_pixels = tf.function(headers.other_pixels, input_signature=scalar)
plain_jpeg_pixels = tf.function(
    lambda photos: headers.plain_jpeg(photos).pixels, input_signature=[tf.TensorSpec([None], tf.string)]
)
has_few_scans = tf.function(headers.has_few_scans, input_signature=scalar)
png_chunks = tf.function(headers.png_chunks, input_signature=scalar)

SIZES = [(1, 1), (7, 300), (300, 7), (255, 256), (1000, 3)]  # width, height


def encoded(size, format, mode="RGB", **options):
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size, 9).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(size, progressive, mode):
    photo = encoded(
        size, "JPEG", mode, progressive=progressive, comment=b"\xff\xc0 is no frame", icc_profile=b"p" * 70000
    )
    assert jpeg_pixels(photo).numpy() == size[0] * size[1]
    assert plain_jpeg_pixels([photo]).numpy().tolist() == [size[0] * size[1]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("format, mode", [("PNG", "RGBA"), ("PNG", "1"), ("BMP", "RGB")])
def test_other_formats(size, format, mode):
    assert other_pixels(encoded(size, format, mode)).numpy() == size[0] * size[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["lossy", "lossless", "extended"])
def test_webp(size, kind):
    options = {"lossy": {}, "lossless": {"lossless": True}, "extended": {"exif": b"Exif\0\0II*\0"}}[kind]
    photo = encoded(size, "WEBP", **options)
    assert photo[12:16] == {"lossy": b"VP8 ", "lossless": b"VP8L", "extended": b"VP8X"}[kind]
    assert other_pixels(photo).numpy() == size[0] * size[1]


@pytest.mark.parametrize("width, height", [(16383, 16383), (16384, 1), (1, 16384), (5, 9000)])
def test_the_widest_lossless_webp(width, height):
    """Fourteen bits each, less one, across byte borders."""
    bits = (width - 1) | (height - 1) << 14
    photo = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", bits)
    assert other_pixels(photo).numpy() == width * height


@pytest.mark.parametrize("width, height", [(2**31 - 1, 2**31 - 1), (2**32 - 1, 2**32 - 1), (0, 5)])
def test_no_number_overflows(width, height):
    photo = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)
    assert other_pixels(photo).numpy() == float(width) * float(height)


def test_a_bmp_from_top_to_bottom_has_a_negative_height():
    photo = bytearray(encoded((30, 20), "BMP"))
    photo[22:26] = struct.pack("<i", -20)
    assert other_pixels(bytes(photo)).numpy() == 600


def test_extended_webp_of_24_bits():
    photo = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\xff\xff\xfe\xff\xff"
    assert other_pixels(photo).numpy() == 2**24 * (2**24 - 1)


def test_what_is_none_of_them_declares_nothing():
    assert other_pixels(b"").numpy() == 0
    assert other_pixels(b"text").numpy() == 0
    assert other_pixels(b"RIFF\0\0\0\0WAVEfmt ").numpy() == -1


# JPEG segments


def parts(size=(21, 13)):
    """A JPEG before and from its frame header on."""
    photo = encoded(size, "JPEG")
    frame = photo.index(b"\xff\xc0")
    return photo[:frame], photo[frame:]


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize(
    "between",
    [
        b"\xff" * 5,
        b"\0" * 9,
        b"\xff\0\xff\0",
        b"\xff\x01",
        b"\xff\xd0\xff\xd7",
        b"junk" * 3000,
        segment(0xFE, b"\xff\xc0\0\x11\x08\xff\xff\xff\xff"),
        segment(0xE5, b"x" * 65533) * 3,
        segment(0xFE, b"") * 900,
    ],
    ids=["fill", "zeros", "stuffed", "TEM", "RST", "12 kB", "frame in a comment", "3 x 64 kB", "900 comments"],
)
def test_what_libjpeg_passes_over_before_the_frame_is_passed_over(between):
    """And TensorFlow decodes all of these, to the declared size."""
    before, after = parts()
    photo = before + between + after
    assert jpeg_pixels(photo).numpy() == 21 * 13
    assert tf.io.decode_jpeg(photo).shape == [13, 21, 3]


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCF])
def test_every_frame_header_counts(marker):
    before, after = parts()
    assert jpeg_pixels(before + b"\xff" + bytes([marker]) + after[2:]).numpy() == 21 * 13


@pytest.mark.parametrize(
    "after",
    [b"", b"\xff", b"\xff\xd9", segment(0xDA, b"\0" * 10) + b"\xff\xc0\0\x11\x08\0\1\0\1", segment(0xFE, b"") * 2000],
    ids=["nothing", "half a marker", "EOI", "scan", "2,000 comments"],
)
def test_a_jpeg_without_a_frame_header_declares_nothing(after):
    before, frame = parts()
    assert jpeg_pixels(before + after).numpy() == -1
    assert jpeg_pixels(before + after + frame).numpy() == (-1 if len(after) > 1 else 21 * 13)


def test_a_jpeg_cut_off_anywhere_declares_its_size_or_nothing():
    before, after = parts((258, 515))
    photo = before + after
    for length in range(3, len(before) + 20):
        expected = 258 * 515 if length >= len(before) + 9 else None
        found = jpeg_pixels(photo[:length]).numpy()
        assert found in ((expected,) if expected else (-1, 0, 258 * 512, 256 * 512, 256 * 515, 258 * 0)), length


def test_plain_jpegs_are_looked_at_together():
    """Those that are no plain ones, here one with junk between segments, are not told, and harm no other."""
    before, after = parts()
    photos = [before + b"junk" + after, before + after, b"", b"\xff", encoded((40, 30), "JPEG"), b"\xff\xd8\xff\xd9"]
    assert plain_jpeg_pixels(photos).numpy().tolist() == [-1, 21 * 13, -1, -1, 1200, -1]
    assert plain_jpeg_pixels(tf.zeros([0], tf.string)).shape == [0]


# What takes long


@pytest.mark.parametrize("number", [1, MAX_SCANS, MAX_SCANS + 1, 5000])
def test_scans_of_a_jpeg_are_counted(number):
    """Bytes that stand for a scan elsewhere, as in a thumbnail, count too; a photo has few of these."""
    photo = encoded((21, 13), "JPEG", comment=segment(0xDA, b"\1\1\0\0\x3f\0") * (number - 1))
    assert bool(has_few_scans(photo)) == (number <= MAX_SCANS)


def chunk(name, content=b""):
    return struct.pack(">I", len(content)) + name + content + b"crc "


@pytest.mark.parametrize(
    "chunks, exif, is_small",
    [
        ([], 0, True),
        ([chunk(b"eXIf", b"x" * 9)], 33, True),
        ([chunk(b"IDAT", b"y" * 50)] * 20_000 + [chunk(b"IDAT", b"y")], 0, True),
        ([chunk(b"IDAT", b"y" * 50)] * 20_000 + [chunk(b"eXIf"), chunk(b"eXIf")], 33 + 20_000 * 62, True),
        ([chunk(b"IDAT", b"y" * (1 + number % 2)) for number in range(MAX_CHUNKS + 10)], 0, False),
        ([chunk(b"zTXt"), chunk(b"iTXt")] * (MAX_TEXTS // 2), 0, True),
        ([chunk(b"IDAT", b"y")] * 9 + [chunk(b"zTXt")] * (MAX_TEXTS + 1), 0, False),
        ([b"\xff\xff\xff\xffIDAT"], 0, True),
        ([chunk(b"IEND"), chunk(b"eXIf")], 0, True),
    ],
    ids=["none", "EXIF", "many alike", "EXIF behind many", "too many", "texts", "too many texts", "too long", "behind"],
)
def test_chunks_of_a_png_are_gone_through(chunks, exif, is_small):
    photo = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + b"".join(chunks)
    found = png_chunks(photo)
    assert (int(found.exif), bool(found.is_small)) == (exif, is_small)


def test_exif_of_a_jpeg_is_found_before_its_frame():
    before, after = parts()
    exif, large = segment(0xE1, b"Exif\0\0II*\0"), segment(0xE2, b"p" * 60_000)
    photos = [before + exif + after, before + large + exif + exif + after, before + after, before + exif[:6], b"Exif"]
    places = headers.plain_jpeg(tf.constant(photos)).exif.numpy().tolist()
    assert places == [len(before), len(before + large), 0, 0, 0]
    assert int(headers.jpeg(tf.constant(before + b"junk" + exif + after)).exif) == len(before) + 4
