"""Random changes of photos: each has its form and its bounds, and only the seed and the number of the batch decide."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.data.augment import augmentation

SIZE = 32


@pytest.fixture(scope="module")
def photos():
    """Eight smooth pictures, none like its mirror image."""
    corners = np.random.default_rng(0).uniform(20, 230, [8, 3, 3, 3])
    return tf.image.resize(corners, [SIZE, SIZE])


def identity_or_mirror(before, after):
    """For each picture whether it is (itself, its mirror image)."""
    same = np.isclose(before, after, atol=1e-3).all(axis=(1, 2, 3))
    mirrored = np.isclose(before[:, :, ::-1], after, atol=1e-3).all(axis=(1, 2, 3))
    return same, mirrored


def test_with_everything_off_only_the_mirror_is_left(photos):
    augment = augmentation(SIZE, crop=1, color=0, cutout=0, seed=1)
    mirrored_ever = []
    for number in range(3):
        same, mirrored = identity_or_mirror(photos.numpy(), augment(photos, number).numpy())
        assert (same != mirrored).all()
        mirrored_ever.extend(mirrored)
    assert 0 < sum(mirrored_ever) < len(mirrored_ever)


@pytest.mark.parametrize(
    "settings",
    [{}, {"crop": 0.3}, {"color": 1.0}, {"cutout": 0.5}, {"noise": 0.1}],
    ids=["default", "crop", "color", "cutout", "noise"],
)
def test_augmentation_changes_images_and_keeps_their_form(photos, settings):
    if settings:
        settings = {"crop": 1, "color": 0, "cutout": 0, **settings}
    result = augmentation(SIZE, **settings, seed=2)(photos, 0)
    assert result.shape == photos.shape
    assert result.dtype == tf.float32
    assert np.isfinite(result).all()
    assert 0 <= result.numpy().min() <= result.numpy().max() <= 255
    same, mirrored = identity_or_mirror(photos.numpy(), result.numpy())
    assert (same | mirrored).sum() <= (len(photos) - 1 if settings.get("noise") else 2)


def test_photos_of_a_batch_are_changed_differently(photos):
    """The same picture eight times; crops, colours and squares must not be drawn once for the whole batch."""
    same = tf.repeat(photos[:1], 8, axis=0)
    for settings in ({"crop": 0.3}, {"color": 0.5}, {"cutout": 0.5}):
        result = augmentation(SIZE, **{"crop": 1, "color": 0, "cutout": 0, **settings}, seed=3)(same, 0).numpy()
        assert len({picture.tobytes() for picture in np.round(result)}) >= 5, settings


def test_cutout_blanks_at_most_its_share(photos):
    """A rectangle of at most half of each side is at most a quarter of the area; 127.5 is no pixel of the pictures."""
    result = augmentation(SIZE, crop=1, color=0, cutout=0.5, seed=4)(photos, 0).numpy()
    blank = (result == 127.5).all(axis=3).mean(axis=(1, 2))
    assert 0 < blank.max() <= 0.25 + 2 / SIZE


def test_noise_falls_on_every_other_photo_with_its_deviation():
    """100 grey photos of 32 x 32 x 3: each is noisy with probability 1/2, so 50 +- 5 (one standard deviation) are; five
    of them are 25. The deviation of 3,072 values is 0.02 * 255 = 5.1 to within 5 * 5.1 / sqrt(2 * 3072) = 0.33."""
    grey = tf.fill([100, 32, 32, 3], 127.0)
    result = augmentation(32, crop=1, color=0, cutout=0, seed=5, noise=0.02)(grey, 0).numpy()
    deviations = result.std(axis=(1, 2, 3))
    assert 25 <= np.sum(deviations > 0) <= 75
    assert np.all(np.abs(deviations[deviations > 0] - 5.1) < 0.33)


def test_only_seed_and_number_decide(photos):
    augment, other = augmentation(SIZE, seed=1, noise=0.02), augmentation(SIZE, seed=2, noise=0.02)
    changed = augment(photos, 3).numpy()
    np.testing.assert_array_equal(augment(photos, tf.constant(3, tf.int64)), changed)
    np.testing.assert_array_equal(tf.function(augment)(photos, 3), changed)
    for another in (augment(photos, 4), other(photos, 3)):
        assert not np.isclose(another, changed, atol=1.0).all(axis=(1, 2, 3)).any()


def test_a_crop_keeps_its_share_of_the_area():
    """Red grows from left to right and green from top to bottom, so that the span of each is that side of the crop."""
    ramp = tf.linspace(0.0, 255.0, SIZE)
    picture = tf.stack([tf.tile(ramp[tf.newaxis], [SIZE, 1]), tf.tile(ramp[:, tf.newaxis], [1, SIZE])], axis=-1)
    pictures = tf.tile(tf.concat([picture, picture[..., :1]], axis=-1)[tf.newaxis], [200, 1, 1, 1])
    cropped = augmentation(SIZE, crop=0.3, color=0, cutout=0, seed=6)(pictures, 0).numpy()
    width = (cropped[..., 0].max(axis=(1, 2)) - cropped[..., 0].min(axis=(1, 2))) / 255
    height = (cropped[..., 1].max(axis=(1, 2)) - cropped[..., 1].min(axis=(1, 2))) / 255
    area, ratio = width * height, width / height
    assert 0.28 < area.min() < 0.4 and 0.9 < area.max() < 1.01
    assert 0.74 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.35


def test_changes_of_color_stay_within_their_strength():
    """Of a grey photo only the brightness can move: by at most 0.1 x 255 = 25.5."""
    grey = tf.fill([100, SIZE, SIZE, 3], 100.0)
    moved = augmentation(SIZE, crop=1, color=0.1, cutout=0, seed=7)(grey, 0).numpy().mean(axis=(1, 2, 3)) - 100
    assert -25.6 < moved.min() < -20 and 20 < moved.max() < 25.6


def test_pixels_of_whole_numbers_are_taken_too(photos):
    whole = tf.cast(tf.round(photos), tf.uint8)
    augment = augmentation(SIZE, seed=8)
    np.testing.assert_allclose(augment(whole, 0), augment(tf.cast(whole, tf.float32), 0))


def test_changes_of_color_are_brightness_contrast_and_saturation(photos):
    """By NumPy, from what three pixels of a photo became: an affine change that keeps grey grey, about its own mean."""
    after = augmentation(SIZE, crop=1, color=0.2, cutout=0, seed=9)(photos, 0).numpy()
    for picture, changed in zip(photos.numpy(), after):
        mirrored = picture[:, ::-1]
        fits = []
        for before in (picture, mirrored):
            pixels = np.concatenate([before.reshape(-1, 3), np.ones([SIZE * SIZE, 1])], axis=1)
            inside = ((changed > 0) & (changed < 255)).all(axis=2).reshape(-1)
            matrix, residual, _, _ = np.linalg.lstsq(pixels[inside], changed.reshape(-1, 3)[inside], rcond=None)
            fits.append((residual.sum(), matrix))
        _, matrix = min(fits, key=lambda fit: fit[0])
        grey = np.array([100.0, 100.0, 100.0, 1.0]) @ matrix
        np.testing.assert_allclose(grey, grey.mean(), atol=25)
        contrast = (np.array([200.0] * 3 + [0.0]) @ matrix).mean() / 200
        assert 0.8 <= contrast <= 1.2
        saturation = (matrix[0, 0] - matrix[0, 1]) / contrast
        assert 0.79 <= saturation <= 1.21


def test_without_mirrors_no_image_is_turned_round():
    """Halves of other colours: where mirrors are, some of 64 images change sides, and none where they are not."""
    image = np.zeros([SIZE, SIZE, 3], np.float32)
    image[:, SIZE // 2 :] = 255.0
    images = np.repeat(image[np.newaxis], 64, axis=0)
    for mirror in (True, False):
        changed = augmentation(SIZE, crop=0.9, color=0, cutout=0, seed=4, mirror=mirror)(images, 0).numpy()
        is_turned = changed[:, :, 0].mean(axis=(1, 2)) > changed[:, :, -1].mean(axis=(1, 2))
        assert 16 < is_turned.sum() < 48 if mirror else not is_turned.any()
