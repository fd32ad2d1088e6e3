"""Crops of photos as they are: their share, their aspect, and that a resumed or shared training sees the same."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.data import Catalog, PKSampler, decode_photos, photo_crop, training_dataset

SIZE = 32


def boxes(draw, height, width, count=600):
    drawn = tf.function(draw)
    return np.array([drawn(tf.constant(number, tf.int64), height, width) for number in range(count)])


@pytest.mark.parametrize("height, width", [(200, 200), (150, 290), (500, 120), (90, 1000)])
def test_a_box_lies_in_the_photo_and_keeps_its_aspect(height, width):
    """Sides from 3:4 to 4:3 to their rounding, in a photo of any aspect; areas reach both ends where they can."""
    top, left, rows, columns = boxes(photo_crop(0.3, seed=1), height, width).T
    assert (top >= 0).all() and (left >= 0).all() and (rows >= 1).all() and (columns >= 1).all()
    assert (top + rows <= height).all() and (left + columns <= width).all()
    ratio = columns / rows
    assert 0.73 < ratio.min() < 0.80 and 1.25 < ratio.max() < 1.36
    area = rows * columns / (height * width)
    if height == width:
        assert 0.29 < area.min() < 0.33 and 0.93 < area.max() <= 1
    for start, end, side in ((top, top + rows, height), (left, left + columns, width)):
        assert start.min() <= 0.02 * side and end.max() >= 0.98 * side


def test_a_pixel_is_its_only_crop():
    assert boxes(photo_crop(0.1), 1, 1, 20).tolist() == [[0, 0, 1, 1]] * 20


def test_only_seed_and_number_decide():
    one, again, other = (boxes(photo_crop(0.2, seed=seed), 80, 100, 50) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=1).mean() > 0.9
    assert len(np.unique(one, axis=0)) > 45


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Wide photos, red from left to right, green from top to bottom, blue by the photo: eight products of two."""
    folder = tmp_path_factory.mktemp("photos")
    files = []
    for row in range(16):
        red, green = np.meshgrid(np.linspace(0, 255, 120), np.linspace(0, 255, 60))
        photo = np.stack([red, green, np.full([60, 120], 10 * row)], axis=-1).round().astype(np.uint8)
        files.append(str(folder / f"{row}.png"))
        tf.io.write_file(files[-1], tf.io.encode_png(photo))
    return Catalog(files, [str(row // 2) for row in range(16)])


def batches(catalog, count, **arguments):
    sampler = PKSampler(catalog.labels, 4, 2)
    dataset = training_dataset(
        catalog, sampler, SIZE, photo_crop=photo_crop(0.3, seed=2), steps_per_epoch=3, **arguments
    )
    return [images for images, _ in dataset.take(count).as_numpy_iterator()]


def test_what_comes_out_is_the_part_that_was_drawn(catalog):
    """The spans of red and green are the sides of the box: in pixels 3:4 to 4:3, though the photo is 2:1.

    The smallest box has sqrt(0.3 x 60 x 120 x 3 / 4) = 40.2 pixels on its shorter side.
    """
    images = np.concatenate(batches(catalog, 12))
    assert images.shape[1:] == (SIZE, SIZE, 3)
    spans = (images.max(axis=(1, 2)) - images.min(axis=(1, 2)))[:, :2] / 255 * [120, 60]
    ratio = spans[:, 0] / spans[:, 1]
    assert 0.68 < ratio.min() < 0.9 and 1.1 < ratio.max() < 1.45
    assert 38 < spans.min() < 44 and len(np.unique(spans.round(1), axis=0)) > 50


def test_with_letterbox_a_crop_keeps_its_aspect_too(catalog):
    images = np.concatenate(batches(catalog, 3, fit="letterbox"))
    is_white = (images == 255).all(axis=3)
    assert is_white[:, 0].all(axis=1).any() and is_white[:, :, 0].all(axis=1).any()
    assert is_white.mean(axis=(1, 2)).max() < 0.27  # 3:4 leaves a quarter


def test_a_resumed_training_sees_the_same(catalog):
    through, resumed = batches(catalog, 9), batches(catalog, 3, first_epoch=2)
    np.testing.assert_array_equal(resumed, through[6:9])
    assert np.abs(through[0] - through[3]).max() > 1


def test_parts_are_those_of_the_whole(catalog):
    whole = batches(catalog, 4)
    parts = [batches(catalog, 4, part=(k, 2)) for k in range(2)]
    for batch, first, second in zip(whole, *parts):
        np.testing.assert_array_equal(np.concatenate([first, second]), batch)


def test_squares_in_memory_cannot_be_cropped(catalog):
    with pytest.raises(ValueError, match="`photo_crop` must be None for photos that are in memory"):
        batches(catalog, 1, decoded=decode_photos(catalog, SIZE))
