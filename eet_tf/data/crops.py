"""Random crops of photos as they are, before they become squares: what is cut out keeps the aspect it has."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from eet_tf.arguments import check_number

_ASPECT_RATIOS = (3 / 4, 4 / 3)


def photo_crop(smallest_area: float, seed: int = 0) -> Callable[..., tf.Tensor]:
    """Makes a function that draws a box in a photo, by the number of the photo in the training.

    - `augmentation(crop=...)` cuts out of the square that a photo has been squashed to: of a photo twice as wide as
      high, a crop shows things twice as narrow. Here sides in a ratio of 3:4 to 4:3 are those of the photo itself, and
      the crop has all of its pixels. What is cut out then becomes a square, as whole photos do.
    - A box that is longer than the photo becomes smaller and keeps its ratio. So of long photos less is seen.
    - It takes the place of `crop`: give `augmentation` `crop=1`.

    Args:
        smallest_area: the smallest share of the photo's area that a crop keeps, in (0, 1]. 0.16 in FastRetri, 0.08 in
            the Inception networks.
        seed: any integer.

    Returns:
        A function of the photo's number, its height and its width, scalar integers -> `[4]` int32: top, left, height,
        width in pixels.

    Raises:
        ValueError: if `smallest_area` is outside its range.

    Example:

    >>> top, left, height, width = photo_crop(0.5, seed=3)(7, height=100, width=200).numpy().tolist()
    >>> 0 <= top <= top + height <= 100 and 0 <= left <= left + width <= 200
    True

    Reference: Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842, section 6: 8 % to 100 % of the area,
        an aspect ratio between 3/4 and 4/3.
    """
    check_number("smallest_area", smallest_area, 1e-3, 1)

    @tf.autograph.experimental.do_not_convert  # as in images.py
    def draw(number, height, width) -> tf.Tensor:
        # no number of a batch is negative, so that no draw of `augmentation` is one of these
        seeds = tf.stack([tf.constant(seed, tf.int64), -1 - tf.cast(number, tf.int64)])
        area, ratio, down, right = tf.unstack(tf.random.stateless_uniform([4], seeds))
        sides = tf.cast(tf.stack([height, width]), tf.float32)
        low, high = (math.log(end) for end in _ASPECT_RATIOS)
        root = tf.sqrt((smallest_area + (1.0 - smallest_area) * area) * tf.reduce_prod(sides))
        stretch = tf.exp((low + (high - low) * ratio) / 2.0)  # the root of width over height
        box = tf.stack([root / stretch, root * stretch])
        box = tf.round(box * tf.minimum(1.0, tf.reduce_min(sides / box)))
        box = tf.clip_by_value(box, 1.0, sides)
        corner = tf.floor(tf.stack([down, right]) * (sides - box + 1.0))
        return tf.cast(tf.concat([tf.minimum(corner, sides - box), box], axis=0), tf.int32)

    return draw
