"""RandAugment: each operation against Pillow or a loop, and photos that only seed and number of the batch change."""

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from eet_tf.data.augment import augmentation
from eet_tf.data.rand_augment import OPERATIONS, apply

SIZE, B = 24, 64
PHOTOS = np.round(np.random.default_rng(0).uniform(20, 230, [B, SIZE, SIZE, 3])).astype(np.float32)
SMOOTH = np.round(tf.image.resize(np.random.default_rng(1).uniform(30, 220, [B, 3, 3, 3]), [SIZE, SIZE])).astype("f4")
OFF = {"crop": 1, "color": 0, "cutout": 0}


def applied(name, photos, sign, strength):
    kinds = tf.fill([len(photos)], OPERATIONS.index(name))
    return apply(tf.constant(photos), kinds, tf.fill([len(photos)], float(sign)), strength).numpy()


def by_pillow(name, photo, factor, strength):
    image = Image.fromarray(photo.astype(np.uint8))
    if name == "autocontrast":
        return ImageOps.autocontrast(image)
    if name == "solarize":
        return ImageOps.solarize(image, 256 * (1 - strength))
    if name == "posterize":
        return ImageOps.posterize(image, 8 - round(4 * strength))
    return getattr(ImageEnhance, name.capitalize())(image).enhance(factor)


@pytest.mark.parametrize("sign, strength", [(1, 0.5), (-1, 1.0), (-1, 0.2)])
@pytest.mark.parametrize("name", OPERATIONS[6:])
def test_tones_are_pillows(name, sign, strength):
    """To its rounding to whole numbers: of the mean grey, of each grey, of a smoothed pixel, and of the result."""
    found = applied(name, PHOTOS[:4], sign, strength)
    factor = 1 + 0.9 * strength * sign
    for photo, changed in zip(PHOTOS, found):
        expected = np.asarray(by_pillow(name, photo, factor, strength), np.float32)
        assert np.abs(changed - expected).max() <= 2.0


def by_a_loop(photo, matrix, shift):
    """Where each place of the result looks, bilinear, middle grey outside."""
    middle = (SIZE - 1) / 2

    def at(row, column):
        inside = 0 <= row < SIZE and 0 <= column < SIZE
        return photo[row, column] if inside else np.full(3, 127.5)

    result = np.zeros_like(photo)
    for row in range(SIZE):
        for column in range(SIZE):
            x, y = matrix @ [column - middle, row - middle] + shift + middle
            left, top = math.floor(x), math.floor(y)
            for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                result[row, column] += at(r, c) * (1 - abs(x - c)) * (1 - abs(y - r))
    return result


@pytest.mark.parametrize("sign, strength", [(1, 0.9), (-1, 0.4)])
def test_moves_are_their_maps(sign, strength):
    angle, shear, shift = sign * strength * math.pi / 6, sign * strength * 0.3, sign * strength * 0.3 * SIZE
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    maps = {
        "rotate": (turn, [0, 0]),
        "shear_x": ([[1, shear], [0, 1]], [0, 0]),
        "shear_y": ([[1, 0], [shear, 1]], [0, 0]),
        "translate_x": (np.eye(2), [shift, 0]),
        "translate_y": (np.eye(2), [0, shift]),
    }
    for name, (matrix, shifted) in maps.items():
        expected = by_a_loop(SMOOTH[0].astype(np.float64), np.asarray(matrix), np.asarray(shifted))
        np.testing.assert_allclose(applied(name, SMOOTH[:1], sign, strength)[0], expected, atol=0.05, err_msg=name)


def test_each_photo_gets_its_own_operation():
    """Of a batch in which every operation is asked for, each photo is what it is alone."""
    kinds = tf.range(B) % len(OPERATIONS)
    signs = tf.where(tf.range(B) % 3 == 0, -1.0, 1.0)
    together = apply(tf.constant(PHOTOS), kinds, signs, 0.6).numpy()
    for row in range(B):
        one = slice(row, row + 1)
        alone = apply(tf.constant(PHOTOS[one]), kinds[one], signs[one], 0.6).numpy()
        np.testing.assert_allclose(together[one], alone, atol=1e-3)
        is_changed = np.abs(together[row] - PHOTOS[row]).max() > 1
        assert is_changed == (OPERATIONS[int(kinds[row])] != "identity")


def test_a_photo_of_one_level_stays_finite():
    flat = np.full([1, SIZE, SIZE, 3], 90, np.float32)
    for name in OPERATIONS:
        assert np.isfinite(applied(name, flat, 1, 1.0)).all()
    np.testing.assert_array_equal(applied("autocontrast", flat, 1, 1.0), flat)


def test_only_seed_and_number_decide_and_parts_change_as_the_whole():
    augment = augmentation(SIZE, **OFF, seed=1, rand_augment=5, random_erasing=0.5)
    whole = augment(PHOTOS, 3).numpy()
    np.testing.assert_allclose(tf.function(augment)(PHOTOS, 3), whole, atol=1e-3)
    halves = [augment(PHOTOS[k * B // 2 : (k + 1) * B // 2], 3, (k, 2)).numpy() for k in range(2)]
    np.testing.assert_allclose(np.concatenate(halves), whole, atol=1e-3)
    for another in (augment(PHOTOS, 4), augmentation(SIZE, **OFF, seed=2, rand_augment=5)(PHOTOS, 3)):
        assert np.mean(np.abs(another - whole).max(axis=(1, 2, 3)) > 1) > 0.9


def test_about_a_fourteenth_and_more_is_left_as_it_is():
    """Two of 13 operations are drawn: none changes a photo with probability 1/169; of 640 photos 3.8 +- 2 (one
    standard deviation), less than 15. Mirrors are undone first."""
    augment = augmentation(SIZE, **OFF, seed=3, rand_augment=9)
    same = 0
    for number in range(10):
        after = augment(PHOTOS, number).numpy()
        same += sum(np.abs(after - before).max(axis=(1, 2, 3)) < 1e-2 for before in (PHOTOS, PHOTOS[:, :, ::-1])).sum()
    assert 0 < same < 15


def test_nothing_else_is_drawn_where_it_is_off():
    """Old settings give the photos that they gave."""
    old = augmentation(SIZE, seed=4, noise=0.02)(PHOTOS, 5)
    np.testing.assert_array_equal(
        old, augmentation(SIZE, seed=4, noise=0.02, random_erasing=0, rand_augment=0)(PHOTOS, 5)
    )


def test_erasing_fills_a_rectangle_with_noise():
    """Of grey photos: what is not grey any more is one rectangle of the published area and aspect, full of noise."""
    grey = tf.fill([400, 48, 48, 3], 127.0)
    after = augmentation(48, **OFF, seed=5, random_erasing=0.5)(grey, 0).numpy()
    is_noise = (after != 127.0).any(axis=3)
    is_erased = is_noise.any(axis=(1, 2))
    assert 150 <= is_erased.sum() <= 250  # 200 +- 10, one standard deviation
    areas, ratios = [], []
    for picture in np.flatnonzero(is_erased):
        rows, columns = (np.flatnonzero(is_noise[picture].any(axis=axis)) for axis in (1, 0))
        assert is_noise[picture][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        areas.append(len(rows) * len(columns) / 48**2)
        ratios.append(len(rows) / len(columns))
    assert 0.015 < min(areas) < 0.05 and 0.28 < max(areas) < 0.34
    assert 0.25 < min(ratios) < 0.5 and 2.5 < max(ratios) < 4
    values = after[is_noise]
    assert abs(values.mean() - 127.5) < 2 and abs(values.std() - 255 / math.sqrt(12)) < 2
    one, other = (after[picture][is_noise[picture]] for picture in np.flatnonzero(is_erased)[:2])
    assert len(np.intersect1d(one, other)) < 0.5 * min(len(one), len(other))  # each photo has its own


def test_every_photo_or_none_is_erased():
    grey = tf.fill([B, 48, 48, 3], 127.0)
    assert (augmentation(48, **OFF, random_erasing=1)(grey, 0).numpy() != 127).any(axis=(1, 2, 3)).all()
    assert (augmentation(48, **OFF, random_erasing=0)(grey, 0).numpy() == 127).all()
