"""From arrays in memory to a `tf.data.Dataset` whose batches hold several photos of each product."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from eet_tf.data.sampling import PKSampler
from eet_tf.labels import check_labels


def array_dataset(
    images,
    labels,
    sampler: PKSampler,
    augment: Callable[..., tf.Tensor] | None = None,
    first_epoch: int = 0,
    steps_per_epoch: int | None = None,
    attributes: np.ndarray | None = None,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes endless training batches of arrays in memory: `(images [P*K, ...] float32, labels [P*K] int64)`.

    - The rows may be photos, features of another network, or anything else of one shape; the array may be a
      memory-mapped file.
    - The K rows of a class stand side by side. The same seed of the sampler gives the same batches.
    - Labels that are no int64, such as strings, are numbered in sorted order.
    - With `attributes` the labels become `{"label": [P*K], "attributes": [P*K, A] float32}`, as `MetricLearner` takes
      them for two heads.
    - It never ends: give `fit` the `steps_per_epoch` of the sampler, and `shuffle=False`, without which a plain Keras
      model warns that it does not shuffle a dataset.

    Args:
        images: `[N, ...]` numbers of any type.
        labels: `[N]` or `[N, 1]` integers or strings.
        sampler: decides which rows make a batch; made of the same labels.
        augment: function of a batch of images and of its number, counted from 0 over all epochs, e.g.
            `augmentation(image_size)`; also of `part` if there are several.
        first_epoch: number of the epoch it starts with, so that a resumed run sees what the first would have.
        steps_per_epoch: batches after which the sampler's next epoch begins, default `sampler.steps_per_epoch`.
        attributes: `[N, A]` of 1, 0 and -1, or None.
        part: `(k, n)`: only the k-th of n equal parts of each batch, k counted from 0, for workers that share a batch.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        ValueError: if `images` are no numbers of one shape, `labels` or `attributes` or the labels of the sampler are
            not as many as the images, a label is missing, or a batch does not fall into `n` parts.

    Example:

    >>> import keras
    >>> from eet_tf import EETLoss
    >>> images, labels = np.eye(8), ["cup", "cup", "mug", "mug", "mug", "pot", "pot", "pan"]
    >>> sampler = PKSampler(labels, classes_per_batch=3, examples_per_class=2)
    >>> dataset = array_dataset(images, labels, sampler)
    >>> [tuple(part.shape) for part in next(iter(dataset))]
    [(6, 8), (6,)]
    >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(4)])
    >>> model.compile("sgd", loss=EETLoss())
    >>> history = model.fit(dataset, steps_per_epoch=sampler.steps_per_epoch, shuffle=False, verbose=0)
    """
    images = _numbers_of_one_shape(images)
    labels = _as_int64(check_labels("labels", labels, len(images)))
    _check_rows(len(images), sampler, attributes)
    steps = steps_per_epoch or sampler.steps_per_epoch
    sampler.endless(first_epoch, steps, part)  # refuses a part before the first batch is drawn

    def batches() -> Iterator:
        for rows in sampler.endless(first_epoch, steps, part):
            known = {} if attributes is None else {"attributes": np.asarray(attributes)[rows].astype(np.float32)}
            yield images[rows].astype(np.float32), {"label": labels[rows], **known} if known else labels[rows]

    size = sampler.batch_size // part[1]
    dataset = tf.data.Dataset.from_generator(batches, output_signature=_signature(size, images, attributes))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    if augment is not None:
        told = [part] if part[1] > 1 else []  # a function of someone else's may know no parts
        dataset = dataset.enumerate(first_epoch * steps).map(
            lambda number, pair: (augment(pair[0], number, *told), pair[1]), os.cpu_count()
        )
    return dataset.prefetch(2)


def _signature(size: int, images: np.ndarray, attributes) -> tuple:
    """What a batch is."""
    labels = tf.TensorSpec([size], tf.int64)
    if attributes is not None:
        labels = {"label": labels, "attributes": tf.TensorSpec([size, np.shape(attributes)[1]], tf.float32)}
    return tf.TensorSpec([size, *images.shape[1:]], tf.float32), labels


def _numbers_of_one_shape(images) -> np.ndarray:
    try:
        array = np.asarray(images)
    except ValueError:  # rows of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf" or array.ndim < 2:
        received = f"shape {array.shape} of {array.dtype}" if array.dtype.kind != "O" else "rows of several shapes"
        raise ValueError(
            f"`images` must be numbers of the shape [N, ...], all rows alike. Received: {received}. Resize photos to "
            "one size, or read files with eet_tf.data.training_dataset."
        )
    return array


def _as_int64(labels: np.ndarray) -> np.ndarray:
    return (
        labels if labels.dtype == np.int64 else np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)
    )


def _check_rows(num_images: int, sampler: PKSampler, attributes) -> None:
    if not isinstance(sampler, PKSampler):
        received = "sampler=None" if sampler is None else f"a {type(sampler).__name__}"
        raise ValueError(f"`sampler` must be an eet_tf.data.PKSampler of the labels. Received: {received}.")
    if sampler.num_rows != num_images:
        raise ValueError(
            "`sampler` must have been made of the labels of these images. "
            f"Received: a sampler of {sampler.num_rows} labels for {num_images} images."
        )
    if attributes is not None and (np.ndim(attributes) != 2 or len(attributes) != num_images):
        raise ValueError(
            f"`attributes` must be [{num_images}, A], one row for each image. Received: shape {np.shape(attributes)}."
        )
