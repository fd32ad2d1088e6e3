"""The scaling of pixels: what each family of backbones expects in place of numbers from 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from eet_tf.fits import check_fit

_MEAN_AND_STD = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
PIXEL_SCALINGS = ("none", "unit", "tf", "caffe", *_MEAN_AND_STD)


def check_pixel_scaling(mode: str) -> None:
    """Raises `ValueError` unless a mode has a name."""
    if mode not in PIXEL_SCALINGS:
        raise ValueError(
            f"`pixel_scaling` must be one of {', '.join(PIXEL_SCALINGS)}. Received: pixel_scaling={mode!r}."
        )


@keras.saving.register_keras_serializable(package="eet_tf")
class PixelScaling(keras.layers.Layer):
    """Pixels in [0, 255] -> what a family of backbones expects.

    It also keeps how photos became its pixels, so that a saved model says so to whoever opens it.

    Args:
        mode: `"none"` as they are; `"unit"` [0, 1]; `"tf"` [-1, 1], which SigLIP's towers take too; `"caffe"` BGR minus
            the ImageNet mean; `"imagenet"` and `"clip"` [0, 1] minus the mean of these photos, by their standard
            deviation; `"affine"` times `scale` plus `offset`.
        scale: three numbers, for red, green and blue; for `"affine"` alone.
        offset: likewise.
        fit: `"squash"` or `"letterbox"`, as in `build_embedder`; it changes nothing here.
    """

    def __init__(
        self,
        mode: str,
        scale: Sequence[float] | None = None,
        offset: Sequence[float] | None = None,
        fit: str = "squash",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_fit(fit)
        self.mode = mode
        self.fit = fit
        self._affine = None if mode != "affine" else (tuple(map(float, scale or ())), tuple(map(float, offset or ())))

    def call(self, images):
        """`[B, H, W, 3]` -> the same shape."""
        if self.mode == "unit":
            return images / 255.0
        if self.mode == "tf":
            return images / 127.5 - 1.0
        if self.mode == "caffe":
            return images[..., ::-1] - tf.constant([103.939, 116.779, 123.68], dtype=images.dtype)
        if self.mode in _MEAN_AND_STD:
            mean, std = (tf.constant(each, images.dtype) for each in _MEAN_AND_STD[self.mode])
            return (images / 255.0 - mean) / std
        if self._affine is not None:
            scale, offset = (tf.constant(each, images.dtype) for each in self._affine)
            return images * scale + offset
        return images

    def get_config(self) -> dict:
        """The constructor's arguments."""
        affine = dict(zip(("scale", "offset"), map(list, self._affine))) if self._affine is not None else {}
        # left out where it is what older models are, so that their fingerprints stay, and older versions open new ones
        fit = {} if self.fit == "squash" else {"fit": self.fit}
        return {**super().get_config(), "mode": self.mode, **affine, **fit}


def photo_fit(embedder: keras.Model) -> str:
    """How an embedder wants photos made square, `"squash"` or `"letterbox"`; a model of someone else's: squashed.

    Example:

    >>> photo_fit(build_embedder("small_cnn", image_size=32, fit="letterbox"))
    'letterbox'
    """
    for layer in embedder.layers:
        if isinstance(layer, keras.Model):
            fit = photo_fit(layer)
            if fit != "squash":
                return fit
        elif isinstance(layer, PixelScaling):
            return layer.fit
    return "squash"
