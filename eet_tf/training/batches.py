"""What a batch is: images and targets, read from what Keras hands over, and described where something is wrong."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from eet_tf import replicas


def checked(method: Callable) -> Callable:
    """A method of `keras.Model` that is given data, after a look at it: what Keras would refuse in words of its own.

    Args:
        method: `fit`, `evaluate` or one of single batches.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def _after_a_look(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        for name in ("sample_weight", "class_weight"):
            if given.get(name) is not None:
                raise _refusal_of_weights(f"`{name}`", f"a {type(given[name]).__name__}")
        y = given.get("y")
        labels = y.get("label") if isinstance(y, Mapping) else y
        if isinstance(labels, (list, np.ndarray)) and np.asarray(list(labels[:1])).dtype.kind in "US":
            raise _refusal_of_strings()
        if isinstance(given.get("x"), tf.data.Dataset):
            images_and_targets(_with_nothing_left_out(given["x"].element_spec))
        return method(self, *args, **kwargs)

    return _after_a_look


def _with_nothing_left_out(spec):
    """What a dataset says that its batches are; a part that is always None says so by a class without a public name."""
    if not isinstance(spec, tuple):
        return spec
    return tuple(None if type(part).__name__ == "NoneTensorSpec" else part for part in spec)


def images_and_targets(data):
    """The two parts of a batch; `train_on_batch` and `test_on_batch` of Keras 3 add a third, None.

    Raises:
        ValueError: if there are other parts, or labels are strings.
    """
    parts = data if isinstance(data, tuple) else (data,)
    if len(parts) < 2 or parts[1] is None:
        raise ValueError(
            f"`fit` must be given batches of (images, labels). Received: images alone, {_described(parts[0])}."
        )
    weights = [part for part in parts[2:] if part is not None]
    if weights:
        received = f"batches of (images, labels, sample_weight), the last {_described(weights[0])}"
        raise _refusal_of_weights("`sample_weight`", received)
    images, targets = parts[:2]
    labels = targets.get("label") if isinstance(targets, Mapping) else targets
    if tf.as_dtype(getattr(labels, "dtype", tf.int64)) == tf.string:
        raise _refusal_of_strings()
    return images, targets


def _refusal_of_weights(what: str, received: str) -> ValueError:
    return ValueError(
        f"{what} must be left out: a metric loss compares pairs of photos, and no photo or class has a weight "
        "in it. "
        f"Received: {received}."
    )


def _refusal_of_strings() -> ValueError:
    return ValueError(
        "`labels` must be integer labels. Received: strings. Number the skus: the labels of a Catalog are such "
        "numbers, and so is np.unique(skus, return_inverse=True)[1]."
    )


def as_mappings(targets, outputs) -> tuple[Mapping, Mapping]:
    """Both as dicts of heads."""
    targets = targets if isinstance(targets, Mapping) else {"label": targets}
    outputs = outputs if isinstance(outputs, Mapping) else {"embedding": outputs}
    return targets, outputs


def out_of_memory(error: tf.errors.ResourceExhaustedError, images: tf.TensorShape | None) -> str:
    """What to say of a step that found too little memory: the batch, the bytes that were missing, and the mend.

    Args:
        error: what TensorFlow or XLA says.
        images: the shape of the images of one replica's batch, as far as it is known.
    """
    shape = list(images) if images is not None and images.rank else []
    photos = f" of {shape[0]:,} photos" if shape and shape[0] else ""
    size = f" of {' x '.join(str(each) for each in shape[1:])}" if shape and None not in shape[1:] else ""
    needed = _bytes_asked_for(str(error))
    return (
        f"A batch{photos}{size} on each device does not fit into its memory"
        f"{f': {needed:,} bytes more could not be had' if needed else ''}. Let fewer photos pass the network at a time "
        "with microbatch (`eet train`: --microbatch=N), whose update is the same, or make the batch smaller."
    )


def _bytes_asked_for(text: str) -> int | None:
    """How much an allocator was asked for: XLA says bytes, TensorFlow the shape and type of a tensor."""
    found = re.search(r"allocate (\d+) ?bytes", text)
    if found:
        return int(found[1])
    found = re.search(r"allocating tensor with shape\[([\d,]*)\] and type (\w+)", text)
    if not found:
        return None
    kinds = {"float": 4, "half": 2, "bfloat16": 2, "double": 8, "int32": 4, "int64": 8, "uint8": 1, "bool": 1}
    return math.prod(int(each) for each in found[1].split(",") if each) * kinds.get(found[2], 4)


def _described(values) -> str:
    """Type and shape of what a batch holds."""
    return ", ".join(f"{tf.as_dtype(each.dtype).name} {list(each.shape)}" for each in tf.nest.flatten(values))


def with_a_photo(network: Callable) -> Callable:
    """A network that takes an image of zeros where a replica has no photo, and gives no output for it.

    Convolutions on CPUs fail without an image, and the statistics of batch normalisation become NaN. What the layers
    keep of that image, such as such statistics or a loss of an activation, is not undone.

    Args:
        network: images -> (outputs, losses of the layers).
    """

    def call(images):
        if images.shape[0] or replicas.num_replicas() == 1:
            return network(images)
        count = tf.shape(images)[0]
        nothing = tf.zeros(tf.concat([[1], tf.shape(images)[1:]], axis=0), images.dtype)
        shown = tf.cond(count > 0, lambda: images, lambda: nothing)
        outputs, losses = network(tf.ensure_shape(shown, images.shape))
        return tf.nest.map_structure(lambda rows: rows[:count], outputs), losses

    return call
