"""One bad photo never hurts another's request: whatever the bytes, the other rows are the same to the last bit."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import eet_tf
from eet_tf.data import images, reasons
from eet_tf.data.images import decode_and_resize
from eet_tf.data.limits import MAX_PIXELS
from eet_tf.serving.graph import ServingModule

SIZE, DIM = 32, 8
HAS_WEBP = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 20)


def picture(seed=0, size=(50, 40)):
    """Coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, [4, 5, 3]).astype(np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def png_of(width, height):
    """One that declares that size, with a few pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def with_size(photo, at, code, *values):
    """The bytes with other numbers at a place."""
    changed = bytearray(photo)
    struct.pack_into(code, changed, at, *values)
    return bytes(changed)


def jpeg_of(width, height, progressive=False):
    photo = encoded(picture(), "JPEG", progressive=progressive)
    frame = photo.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    return with_size(photo, frame + 5, ">HH", height, width)


def frames_of(format, number=3, size=(50, 40)):
    first, *others = [picture(seed, size) for seed in range(number)]
    return encoded(first, format, save_all=True, append_images=others)


GIF = encoded(picture(), "GIF")
FRAME = GIF.index(b"\x2c\0\0\0\0")
GOOD = [
    encoded(picture(1), "JPEG"),
    encoded(picture(2), "PNG"),
    encoded(picture(3), "JPEG", exif=turned()),
    encoded(picture(4), "BMP"),
    encoded(picture(5), "JPEG", quality=50, progressive=True),
    encoded(picture(6), "GIF"),
]
BAD = {
    "empty": b"",
    "text": b"this is no image",
    "wrong magic": b"\x89PNG\r\n\x1a\n" + GOOD[0],
    "jpeg cut off": GOOD[0][:400],
    "png cut off": GOOD[1][:60],
    "bmp cut off": GOOD[3][:999],
    "gif cut off": GIF[:60],
    "png of 50,000 x 50,000": png_of(50_000, 50_000),
    "png of 2,147,483,647 x 2,147,483,647": png_of(2**31 - 1, 2**31 - 1),
    "png of 20,000 x 20,000": png_of(20_000, 20_000),
    "jpeg of 50,000 x 50,000": jpeg_of(50_000, 50_000),
    "progressive jpeg of 50,000 x 10,000": jpeg_of(50_000, 10_000, progressive=True),
    "jpeg with exif of 50,000 x 50,000": jpeg_of(50_000, 50_000).replace(b"\xff\xdb", b"\xff\xfe\0\x06Exif\xff\xdb", 1),
    "bmp of 50,000 x 50,000": with_size(GOOD[3], 18, "<ii", 50_000, 50_000),
    "bmp of 50,000 x -50,000": with_size(GOOD[3], 18, "<ii", 50_000, -50_000),
    "gif screen of 50,000 x 50,000": with_size(GIF, 6, "<HH", 50_000, 50_000),
    "gif frame of 50,000 x 50,000": with_size(GIF, FRAME + 5, "<HH", 50_000, 50_000),
    "webp of 16,383 x 16,383": b"RIFF\x40\0\0\0WEBPVP8 \x34\0\0\0\x30\x01\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(34),
    "lossless webp of 16,384 x 16,384": b"RIFF\x40\0\0\0WEBPVP8L\x34\0\0\0\x2f\xff\xff\xff\x0f" + bytes(47),
    "webp canvas of 50,000 x 50,000": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x4f\xc3\0\x4f\xc3\0" + bytes(40),
    "tiff": encoded(picture(), "TIFF"),
}
UNUSUAL = {
    "cmyk jpeg": encoded(picture(7).convert("CMYK"), "JPEG"),
    "grey jpeg": encoded(picture(7).convert("L"), "JPEG"),
    "16-bit png": tf.io.encode_png(np.random.default_rng(0).integers(0, 2**16, [9, 7, 3]).astype(np.uint16)).numpy(),
    "palette png": encoded(picture(7).quantize(16), "PNG"),
    "1-bit png": encoded(picture(7).convert("1"), "PNG"),
    "transparent png": encoded(picture(7).convert("LA"), "PNG"),
    "animated gif": frames_of("GIF"),
    "1 x 1 gif": encoded(Image.new("L", (1, 1)), "GIF"),
}
if HAS_WEBP:
    UNUSUAL["webp"] = encoded(picture(7), "WEBP")
    UNUSUAL["animated webp"] = frames_of("WEBP")


def build():
    """An embedder with every weight off its start, as a server runs it."""
    model = eet_tf.build_embedder("small_cnn", DIM, image_size=SIZE, attribute_names=["red", "round"])
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 0.2, weight.shape) if weight.ndim > 1 else weight for weight in model.get_weights()]
    model.set_weights([weight if weight.ndim != 1 else rng.uniform(0.5, 1.5, weight.shape) for weight in weights])
    return model


@pytest.fixture(scope="module")
def embedder():
    return build()


@pytest.fixture(scope="module")
def module(embedder):
    return ServingModule(embedder)


def answer(module, photos):
    outputs = module.embed_bytes(tf.constant(photos, tf.string, [len(photos)]))
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_changes_no_other_row(module, name):
    """In the place of a good one, so that the batch is of the same size: first, in the middle, last, and everywhere."""
    whole = answer(module, GOOD)
    for places in ([0], [2], [5], [0, 2, 5], range(6)):
        photos = [BAD[name] if row in places else photo for row, photo in enumerate(GOOD)]
        mixed = answer(module, photos)
        others = [row for row in range(6) if row not in places]
        assert mixed["ok"].tolist() == [row in others for row in range(6)]
        for output in ("embedding", "attributes"):
            np.testing.assert_array_equal(mixed[output][others], whole[output][others])
            assert not mixed[output][list(places)].any()


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_photo_is_answered_and_changes_no_other_row(module, embedder, name):
    whole, mixed = answer(module, GOOD), answer(module, [*GOOD[:3], UNUSUAL[name], *GOOD[4:]])
    others = [0, 1, 2, 4, 5]
    assert mixed["ok"].all()
    np.testing.assert_array_equal(mixed["embedding"][others], whole["embedding"][others])
    expected = embedder(decode_and_resize(UNUSUAL[name], SIZE)[tf.newaxis], training=False)["embedding"][0]
    np.testing.assert_allclose(mixed["embedding"][3], expected, atol=1e-6)


def test_order_and_padding_do_not_matter(module):
    """Same size: the same bits. Another size: kernels may sum in another order, which moves the last digits alone."""
    photos = [encoded(picture(seed), "JPEG" if seed % 3 else "PNG") for seed in range(16)]
    whole = answer(module, photos)["embedding"]
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(answer(module, [photos[row] for row in order])["embedding"], whole[order])
    np.testing.assert_array_equal(answer(module, photos[:9] + [photos[0]] * 7)["embedding"][:9], whole[:9])
    for size in (1, 2, 3, 7, 15):
        np.testing.assert_allclose(answer(module, photos[:size])["embedding"], whole[:size], atol=1e-6)
        padded = answer(module, photos[:size] + [photos[size - 1]] * 20)["embedding"]
        np.testing.assert_allclose(padded[:size], whole[:size], atol=1e-6)


def test_plain_jpegs_are_the_same_beside_photos_of_other_kinds(module):
    """Alone they go through a pipeline of their own."""
    plain = [encoded(picture(seed), "JPEG") for seed in range(4)]
    mixed = answer(module, [*plain[:3], GOOD[1]])["embedding"]
    np.testing.assert_array_equal(mixed[:3], answer(module, plain)["embedding"][:3])


# How many pixels

SIZED = {
    "jpeg": GOOD[0],
    "jpeg with exif": GOOD[2],
    "progressive jpeg": GOOD[4],
    "png": GOOD[1],
    "bmp": GOOD[3],
    "gif": GOOD[5],
    **({"webp": encoded(picture(8), "WEBP")} if HAS_WEBP else {}),
}


@pytest.fixture(scope="module")
def limited():
    """`decode_batch` of photos of at most so many pixels."""
    return {
        limit: tf.function(
            lambda photos, limit=limit: images.decode_batch(photos, SIZE, limit),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        for limit in (50 * 40, 50 * 40 - 1)
    }


@pytest.mark.parametrize("name", SIZED)
def test_the_limit_is_exact_and_the_reason_is_its_header(limited, name):
    """Of 50 x 40 photos, alone, and among others of 10 x 10 that take another way through the graph."""
    small = [encoded(picture(9, (10, 10)), format) for format in ("JPEG", "PNG")]
    for photos in ([SIZED[name]], [small[0], SIZED[name]], [*small, SIZED[name]]):
        for limit, is_read in ((2000, True), (1999, False)):
            batch, is_image = limited[limit](photos)
            assert is_image.numpy().tolist() == [True] * (len(photos) - 1) + [is_read]
            assert bool(batch.numpy()[-1].any()) == is_read
    assert not reasons.has_too_many_pixels(SIZED[name], 2000)
    assert reasons.has_too_many_pixels(SIZED[name], 1999)
    assert reasons.of_bytes(SIZED[name], 1999).startswith("it has more than 0.001999 million pixels, the limit of this")


def test_beyond_every_limit_no_export_helps():
    bomb = png_of(50_000, 50_000)
    assert (
        reasons.of_bytes(bomb, 1999) == reasons.of_bytes(bomb) == "it has more than 89 million pixels; make it smaller"
    )
    assert reasons.has_too_many_pixels(bomb, 1999)
    assert reasons.without_command(reasons.of_bytes(GOOD[0], 1999)).endswith("the limit of this model; make it smaller")


def test_a_server_reads_40_million_pixels_and_no_more(module, embedder):
    """A whole JPEG of 8,000 x 5,000, and one of one row more, which a higher limit reads."""
    at_limit, above = [encoded(Image.new("L", (8000, height), 70), "JPEG") for height in (5000, 5001)]
    assert answer(module, [at_limit, above])["ok"].tolist() == [True, False]
    assert answer(ServingModule(embedder, max_pixels=MAX_PIXELS), [above])["ok"].tolist() == [True]


def test_bombs_take_no_memory(run_python, tmp_path):
    """As many as there are kinds, sixteen times each, in a process that has served before."""
    bombs = [photo for name, photo in BAD.items() if "0 x" in name or ",383 x" in name or ",384 x" in name]
    assert len(bombs) == 12
    many = frames_of("GIF", 2, (2000, 2000))
    block = many[many.index(b"\x21\xf9") : -1]
    bombs.append(many[:-1] + block * 40 + b";")  # 80 frames of 4 million pixels
    for number, bomb in enumerate(bombs):
        (tmp_path / f"{number:02d}").write_bytes(bomb)
    [printed] = run_python(
        f"""
import pathlib, resource
import tensorflow as tf
from eet_tf.data import images

bombs = [file.read_bytes() for file in sorted(pathlib.Path({str(tmp_path)!r}).iterdir())]
decode = tf.function(lambda photos: images.decode_batch(photos, 32), input_signature=[tf.TensorSpec([None], tf.string)])
decode([b"none"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
is_image = decode(bombs * 16)[1].numpy()
print(is_image.sum(), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
""",
        fresh=True,
    )
    count, megabytes = map(int, printed.split())
    assert count == 16  # of the last the first frame is read, and no other
    assert megabytes < 250


def test_nothing_is_traced_twice(module):
    """One graph for each signature, whatever the number of photos and their sizes."""
    for number in (0, 1, 5):
        answer(module, GOOD[:number])
        module.embed_images(tf.zeros([number, 20 + number, 30, 3], tf.uint8))
    assert module.embed_bytes.experimental_get_tracing_count() == 1
    assert module.embed_images.experimental_get_tracing_count() == 1


# Pixels instead of bytes


@pytest.mark.parametrize("size", [(50, 40), (32, 32), (7, 90), (1, 1)])
def test_pixels_are_embedded_as_the_bytes_of_the_same_picture(module, size):
    pictures = [picture(seed, size) for seed in range(3)]
    outputs = module.embed_images(np.stack([np.asarray(each) for each in pictures]))
    expected = answer(module, [encoded(each, "PNG") for each in pictures])
    assert sorted(outputs) == ["attributes", "embedding"]
    for name, rows in outputs.items():
        np.testing.assert_array_equal(rows, expected[name])


@pytest.mark.parametrize("shape", [(0, 40, 30, 3), (0, 0, 0, 3)])
def test_no_pixels_have_no_embeddings(module, shape):
    outputs = module.embed_images(np.zeros(shape, np.uint8))
    assert {name: rows.shape.as_list() for name, rows in outputs.items()} == {
        "embedding": [0, DIM],
        "attributes": [0, 2],
    }


def test_the_signature_of_pixels_is_as_documented(module, tmp_path):
    tf.saved_model.save(module, str(tmp_path), signatures=dict(module.functions))
    signature = tf.saved_model.load(str(tmp_path)).signatures["embed_images"]
    assert signature.structured_input_signature == (
        (),
        {"images": tf.TensorSpec([None, None, None, 3], tf.uint8, "images")},
    )
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in signature.structured_outputs.items()}
    assert outputs == {"embedding": (tf.float32, [None, DIM]), "attributes": (tf.float32, [None, 2])}
