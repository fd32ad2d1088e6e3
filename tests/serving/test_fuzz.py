"""Photos with bytes cut off, flipped, spliced and inserted: nothing crashes, and rows beside them stay as they are."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eet_tf.data import images

SIZE, BATCH = 16, 64
CASES_PER_SEED = 2560  # times four seeds


def seeds():
    """Small photos of every kind, so that many can be tried and most bytes matter."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, [6, 8, 3]).astype(np.uint8)).resize((24, 18))
    exif = Image.Exif()
    exif[0x0112] = 5
    kinds = [
        (image, "JPEG", {}),
        (image, "JPEG", {"progressive": True}),
        (image, "JPEG", {"exif": exif}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", {}),
        (image.convert("RGBA"), "PNG", {}),
        (image.quantize(16), "PNG", {}),
        (image, "BMP", {}),
        (image.quantize(32), "GIF", {}),
        (image.quantize(8), "GIF", {"save_all": True, "append_images": [image.rotate(90).quantize(8)]}),
        (image, "WEBP", {}),
        (image, "WEBP", {"lossless": True}),
        (image, "WEBP", {"save_all": True, "append_images": [image.rotate(90)]}),
        (image.convert("RGBA"), "WEBP", {"save_all": True, "append_images": [image.rotate(90).convert("RGBA")]}),
    ]
    photos = []
    for picture, format, options in kinds:
        buffer = io.BytesIO()
        picture.save(buffer, format, **options)
        photos.append(buffer.getvalue())
    return photos


SEEDS = seeds()
GOOD = [SEEDS[0], SEEDS[4]]


def broken(rng):
    """One photo after one to four accidents, half of them in its first 64 bytes, where headers are."""
    photo = bytearray(SEEDS[rng.integers(len(SEEDS))])
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, max(1, min(len(photo), 64) if rng.random() < 0.5 else len(photo))))
        accident = rng.integers(5)
        if accident == 0:
            del photo[place:]
        elif accident == 1 and photo:
            photo[place] ^= 1 << rng.integers(8)
        elif accident == 2 and photo:
            photo[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif accident == 3:
            photo[place:place] = rng.integers(0, 256, rng.integers(1, 20)).astype(np.uint8).tobytes()
        else:
            other = SEEDS[rng.integers(len(SEEDS))]
            photo[place:] = other[rng.integers(len(other)) :]
    return bytes(photo)


@pytest.fixture(scope="module")
def decode():
    return tf.function(
        lambda photos: images.decode_batch(photos, SIZE), input_signature=[tf.TensorSpec([None], tf.string)]
    )


@pytest.mark.parametrize("seed", range(4))
def test_broken_photos_harm_no_other(decode, seed):
    """Each batch has two good photos in places of chance; each broken one is black or pixels in range."""
    rng = np.random.default_rng(seed)
    expected = decode(GOOD)[0].numpy()
    num_bad = 0
    for _ in range(CASES_PER_SEED // BATCH):
        photos = [broken(rng) for _ in range(BATCH)]
        places = rng.choice(BATCH + 2, 2, replace=False)
        for place, good in sorted(zip(places.tolist(), GOOD)):
            photos.insert(place, good)
        batch, is_image = (value.numpy() for value in decode(photos))
        found = [photos.index(good) for good in GOOD]
        np.testing.assert_array_equal(batch[found], expected)
        assert is_image[found].all()
        assert batch.shape == (BATCH + 2, SIZE, SIZE, 3) and np.isfinite(batch).all()
        assert batch.min() >= 0 and batch.max() <= 255
        assert not batch[~is_image].any()
        num_bad += np.count_nonzero(~is_image)
    assert 0.2 < num_bad / CASES_PER_SEED < 0.95  # the accidents are neither all harmless nor all deadly


def broken_jpeg(rng, photo):
    """One whose segments are all in their places, so that it gets as far as the decoder: bytes within them changed."""
    changed = bytearray(photo)
    frame = max(photo.find(b"\xff\xc0"), photo.find(b"\xff\xc2")) + 19
    exif = photo.find(b"Exif")
    for _ in range(rng.integers(1, 6)):
        if exif > 0 and rng.random() < 0.5:
            changed[exif + 6 + rng.integers(26)] = rng.integers(256)
        else:
            changed[rng.integers(frame, len(photo))] = rng.integers(256)
    return bytes(changed[: rng.integers(frame, len(photo))] if rng.random() < 0.2 else changed)


@pytest.mark.parametrize("kinds", [(0, 1, 3), (0, 2)], ids=["plain", "with exif"])
def test_broken_jpegs_harm_no_other(decode, kinds):
    """They are decoded in pipelines of their own, unless something else is among them; rows are the same in both."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        photos = [SEEDS[0], *(broken_jpeg(rng, SEEDS[rng.choice(kinds)]) for _ in range(BATCH)), SEEDS[kinds[-1]]]
        batch, is_image = (value.numpy() for value in decode(photos))
        assert is_image[[0, -1]].all() and not batch[~is_image].any()
        among_others, is_image_too = (value.numpy() for value in decode([*photos, GOOD[1]]))
        np.testing.assert_array_equal(batch, among_others[:-1])
        np.testing.assert_array_equal(is_image, is_image_too[:-1])
        assert 0 < np.count_nonzero(~is_image) < BATCH


@pytest.mark.parametrize("kind", range(len(SEEDS)))
def test_a_photo_cut_off_anywhere_harms_no_other(decode, kind):
    photo, expected = SEEDS[kind], decode(GOOD)[0].numpy()
    cut = [photo[:length] for length in range(0, len(photo), max(1, len(photo) // 60))]
    batch, is_image = (value.numpy() for value in decode([GOOD[0], *cut, GOOD[1]]))
    np.testing.assert_array_equal(batch[[0, -1]], expected)
    assert not batch[~is_image].any() and not is_image[1]
