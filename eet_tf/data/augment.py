"""Random changes of training photos, drawn from the number of the batch: a resumed run repeats what a whole one saw."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from eet_tf.arguments import check_number
from eet_tf.data.rand_augment import GREY, rand_augmented

_ASPECT_RATIOS = (3 / 4, 4 / 3)


def augmentation(
    image_size: int,
    crop: float = 0.6,
    color: float = 0.2,
    cutout: float = 0.3,
    seed: int = 0,
    noise: float = 0.0,
    random_erasing: float = 0.0,
    rand_augment: float = 0.0,
    mirror: bool = True,
) -> Callable[..., tf.Tensor]:
    """Makes a function that mirrors, crops, lights, cuts out and adds noise at random, by the number of the batch.

    Everything is drawn for each photo by itself, and only from `seed` and the number: the same batch under the same
    number is changed in the same way.

    Args:
        image_size: side of the images.
        crop: smallest share of the area a crop keeps, in (0, 1], sides in a ratio of 3:4 to 4:3, resized back; 1 does
            not crop.
        color: strength of changes, in [0, 1]; 0 changes none. Brightness moves by up to that share of 255, contrast and
            saturation to between `1 - color` and `1 + color` times what they are. What leaves [0, 255] is cut off.
        cutout: largest side of the rectangle that is made grey, as a share of the image's, in [0, 1]; 0 makes none.
        seed: any integer.
        noise: standard deviation of the Gaussian noise that every other photo gets, as a share of 255, in [0, 1]; 0
            adds none.
        random_erasing: probability that a rectangle of a photo is filled with noise, a random level for each pixel and
            color, in [0, 1]. It takes 2 % to 33 % of the area, its height 0.3 to 3.3 times its width. (Zhong et al.,
            arXiv 1708.04896, whose best is 0.5; arXiv 1903.07071 takes that too.)
        rand_augment: strength of RandAugment, in [0, 10]: two operations on each photo, such as rotation, shear,
            contrast and sharpness, before all the others here but crops and mirrors. 0 for none. (Cubuk et al., arXiv
            1909.13719; `eet_tf/data/rand_augment.py` has the ranges.)
        mirror: whether every other image is mirrored, left to right. False for photos whose sides tell products apart,
            or that are all taken from the same side.

    Returns:
        A function of `[B, S, S, 3]` and a scalar integer -> `[B, S, S, 3]` float32 in [0, 255]. A third argument
        `(k, n)` says that the images are the k-th of n equal parts of the batch, which change as they do in the whole.

    Raises:
        ValueError: if a strength is outside its range.

    Example:

    >>> augment = augmentation(image_size=32)
    >>> augment(tf.zeros([4, 32, 32, 3]), 7).shape
    TensorShape([4, 32, 32, 3])
    """

    check_number("crop", crop, 1e-3, 1)
    check_number("color", color, 0, 1)
    check_number("cutout", cutout, 0, 1)
    check_number("noise", noise, 0, 1)
    check_number("random_erasing", random_erasing, 0, 1)
    check_number("rand_augment", rand_augment, 0, 10)

    @tf.autograph.experimental.do_not_convert  # as in images.py
    def augment(images: tf.Tensor, number: tf.Tensor, part: tuple[int, int] = (0, 1)) -> tf.Tensor:
        draw = _Draws(seed, number, tf.shape(images)[0], part)
        images = _cropped_and_mirrored(tf.cast(images, tf.float32), draw, crop, mirror, image_size)
        if rand_augment > 0:
            images = tf.ensure_shape(images, [None, image_size, image_size, 3])
            images = rand_augmented(tf.clip_by_value(images, 0.0, 255.0), draw.uniform, rand_augment)
        if color > 0:
            images = _recolored(images, draw, color)
        if cutout > 0:
            images = _blanked(images, draw, cutout, image_size)
        if noise > 0:
            is_noisy = draw.uniform() < 0.5
            images += draw.normal(tf.shape(images)[1:], 255.0 * noise) * tf.cast(is_noisy, tf.float32)
        if random_erasing > 0:
            images = _erased(images, draw, random_erasing, image_size)
        return tf.clip_by_value(tf.ensure_shape(images, [None, image_size, image_size, 3]), 0.0, 255.0)

    return augment


class _Draws:
    """Random numbers of one batch, one of each kind for each photo; those of a part of it are drawn with the rest."""

    def __init__(self, seed: int, number: tf.Tensor, count: tf.Tensor, part: tuple[int, int]):
        number = tf.cast(number, tf.int64)
        self._seeds = (tf.stack([tf.constant(seed, tf.int64), number * 64 + draw]) for draw in range(64))
        self._of_all = count * part[1]
        self._rows = slice(count * part[0], count * (part[0] + 1))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """`[B, 1, 1, 1]` in [low, high)."""
        return tf.random.stateless_uniform([self._of_all, 1, 1, 1], next(self._seeds), low, high)[self._rows]

    def normal(self, shape: tf.Tensor, deviation: float) -> tf.Tensor:
        """`[B, *shape]`."""
        return tf.map_fn(
            lambda seed: tf.random.stateless_normal(shape, seed, stddev=deviation),
            self._seeds_of_photos(),
            fn_output_signature=tf.float32,
        )

    def levels(self, is_asked: tf.Tensor, shape: list[int]) -> tf.Tensor:
        """`[B, *shape]` in [0, 255), zeros for photos that are not asked for, which costs nothing."""

        def of_photo(args):
            seed, is_wanted = args
            return tf.cond(
                is_wanted, lambda: tf.random.stateless_uniform(shape, seed, 0.0, 255.0), lambda: tf.zeros(shape)
            )

        own = self._seeds_of_photos()
        return tf.map_fn(of_photo, (own, tf.reshape(is_asked, [-1])), fn_output_signature=tf.float32)

    def _seeds_of_photos(self) -> tf.Tensor:
        """`[B, 2]`: a seed for each photo."""
        return tf.random.stateless_uniform([self._of_all, 2], next(self._seeds), None, None, tf.int64)[self._rows]


def _cropped_and_mirrored(
    images: tf.Tensor, draw: _Draws, smallest_area: float, mirror: bool, image_size: int
) -> tf.Tensor:
    """One resampling for both: a box whose left side is on the right gives the mirror image."""
    area = draw.uniform(smallest_area, 1.0) if smallest_area < 1 else 1.0
    ratio = tf.exp(draw.uniform(*[math.log(end) for end in _ASPECT_RATIOS])) if smallest_area < 1 else 1.0
    height, width = tf.minimum(tf.sqrt(area / ratio), 1.0), tf.minimum(tf.sqrt(area * ratio), 1.0)
    top, left = draw.uniform() * (1.0 - height), draw.uniform() * (1.0 - width)
    is_mirrored = draw.uniform() < (0.5 if mirror else 0.0)
    ends = tf.where(is_mirrored, left + width, left), tf.where(is_mirrored, left, left + width)
    # a number where it is known: TensorFlow logs a warning about boxes of unknown shape
    count = images.shape[0] or tf.shape(images)[0]
    boxes = tf.reshape(tf.stack([top, ends[0], top + height, ends[1]], axis=1), [count, 4])
    return tf.image.crop_and_resize(images, boxes, tf.range(count), [image_size, image_size])


def _recolored(images: tf.Tensor, draw: _Draws, color: float) -> tf.Tensor:
    """Brightness, contrast around the mean and saturation, of which each is linear: one 3 x 3 matrix and one shift."""
    brightness = 255.0 * draw.uniform(-color, color)[:, 0]  # [B, 1, 1]
    contrast, saturation = [draw.uniform(1.0 - color, 1.0 + color)[:, 0] for _ in range(2)]
    to_grey = tf.tile(tf.constant(GREY)[:, tf.newaxis], [1, 3])
    saturate = saturation * tf.eye(3) + (1.0 - saturation) * to_grey  # [B, 3, 3], applied from the right
    pixels = tf.reshape(images, [tf.shape(images)[0], -1, 3])
    middle = tf.reduce_mean(pixels, axis=1, keepdims=True)
    shift = tf.matmul(middle + brightness - contrast * middle, saturate)
    return tf.reshape(tf.matmul(pixels, contrast * saturate) + shift, tf.shape(images))


def _blanked(images: tf.Tensor, draw: _Draws, largest_side: float, image_size: int) -> tf.Tensor:
    """A rectangle of middle grey whose centre is anywhere."""
    is_inside = True
    for axis in (1, 2):
        centre, side = draw.uniform(), draw.uniform(0.0, largest_side)
        shape = [1, image_size, 1, 1] if axis == 1 else [1, 1, image_size, 1]
        places = tf.reshape((tf.range(image_size, dtype=tf.float32) + 0.5) / image_size, shape)
        is_inside &= tf.abs(places - centre) < side / 2
    return tf.where(is_inside, 127.5, images)


def _erased(images: tf.Tensor, draw: _Draws, probability: float, image_size: int) -> tf.Tensor:
    """A rectangle of noise that lies within the photo; a side that would be longer than the photo is as long as it.

    Reference: Zhong, Zheng, Kang, Li, Yang, "Random Erasing Data Augmentation", arXiv 1708.04896, algorithm 1: s_l =
        0.02, s_h = 0.33, r_1 = 0.3, and RE-R, noise, which does best there.
    """
    is_asked = draw.uniform() < probability
    area, ratio = draw.uniform(0.02, 0.33), draw.uniform(0.3, 1 / 0.3)
    is_inside = is_asked
    for axis, side in ((1, tf.sqrt(area * ratio)), (2, tf.sqrt(area / ratio))):
        side = tf.maximum(tf.round(tf.minimum(side, 1.0) * image_size), 1.0)
        start = tf.floor(draw.uniform() * (image_size - side + 1.0))
        shape = [1, image_size, 1, 1] if axis == 1 else [1, 1, image_size, 1]
        places = tf.reshape(tf.range(image_size, dtype=tf.float32), shape)
        is_inside &= (places >= start) & (places < start + side)
    return tf.where(is_inside, draw.levels(is_asked, [image_size, image_size, 3]), images)
