"""From a catalogue to a `tf.data.Dataset`: batches to train on, photos to embed, and the check that all can be read."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from eet_tf.data import images
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.sampling import PKSampler


def training_dataset(
    catalog: Catalog,
    sampler: PKSampler,
    image_size: int,
    augment: Callable[[tf.Tensor], tf.Tensor] | None = None,
    first_epoch: int = 0,
    steps_per_epoch: int | None = None,
    attributes: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Endless training batches: `(images [P*K, S, S, 3] float32 in [0, 255], labels [P*K] int64)`, class after class.

    With `attributes` the labels become `{"label": [P*K], "attributes": [P*K, A] float32}`, as `MetricLearner` takes
    them for two heads.

    Args:
        catalog: what to draw from; `sampler` must have been made of its labels.
        sampler: decides which photos make a batch.
        image_size: S.
        augment: function of a batch of images, e.g. `augmentation(image_size)`.
        first_epoch: number of the epoch it starts with, so that a resumed run sees what the first would have.
        steps_per_epoch: batches after which the sampler's next epoch begins, default `sampler.steps_per_epoch`.
        attributes: `[N, A]` of 1, 0 and -1, one row per photo of the catalogue, e.g. `encode_attributes(...).values`.

    Raises:
        ValueError: if `attributes` has not one row per photo.

    Example:

    >>> dataset = training_dataset(catalog, PKSampler(catalog.labels, 4, 2), image_size=64)  # doctest: +SKIP
    >>> model.fit(dataset, steps_per_epoch=100)  # doctest: +SKIP
    """
    files, targets = tf.constant(catalog.files), _targets(catalog, attributes)
    steps = steps_per_epoch or sampler.steps_per_epoch

    def rows():
        epoch = first_epoch
        while True:
            batches = sampler.batches(epoch)
            for _ in range(steps):
                yield from next(batches)
            epoch += 1

    dataset = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec([], tf.int64))
    dataset = dataset.map(lambda row: (_read(files[row], image_size), targets(row)), os.cpu_count())
    dataset = dataset.batch(sampler.batch_size, drop_remainder=True)
    if augment is not None:
        dataset = dataset.map(lambda batch, target: (augment(batch), target), os.cpu_count())
    return _ending_at_once(dataset.prefetch(2))


def _ending_at_once(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tuning in the background: its thread may sleep for a minute when training ends, and is waited for."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _targets(catalog: Catalog, attributes: np.ndarray | None) -> Callable:
    """From the number of a row to what is learnt of its photo."""
    labels = tf.constant(catalog.labels)
    if attributes is None:
        return lambda row: labels[row]
    if len(attributes) != len(catalog):
        raise ValueError(
            "`attributes` must have one row per photo of the catalogue. "
            f"Received: {len(attributes)} rows for {len(catalog)} photos."
        )
    table = tf.constant(attributes, tf.int8)
    return lambda row: {"label": labels[row], "attributes": tf.cast(table[row], tf.float32)}


def gallery_dataset(catalog: Catalog, image_size: int, batch_size: int = 64) -> tf.data.Dataset:
    """The photos of a catalogue in its order: batches of images `[B, S, S, 3]` float32 in [0, 255]."""
    dataset = tf.data.Dataset.from_tensor_slices(catalog.files)
    dataset = dataset.map(lambda file: _read(file, image_size), tf.data.AUTOTUNE)
    return dataset.batch(batch_size).prefetch(2)


def _read(file: tf.Tensor, image_size: int) -> tf.Tensor:
    return images.decode_and_resize(tf.io.read_file(file), image_size)


def augmentation(
    image_size: int,
    crop: float = 0.6,
    color: float = 0.2,
    cutout: float = 0.3,
    seed: int | None = None,
    noise: float = 0.0,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Random crop, mirror, light and cut-out by keras-cv's layers, and noise, as a function of a batch of images.

    Args:
        image_size: side of the images.
        crop: smallest share of the area a crop keeps, in (0, 1]; 1 does not crop.
        color: strength of changes in brightness, contrast and saturation, in [0, 1]; 0 changes none.
        cutout: largest side of the square that is blanked, as a share of the image's; 0 blanks none.
        seed: any integer, for random numbers that do not change from run to run.
        noise: standard deviation of the Gaussian noise that every other photo gets, as a share of 255; 0 adds none.

    Returns:
        A function `[B, S, S, 3]` -> the same shape, float32 in [0, 255].
    """
    from keras_cv import layers  # takes seconds to import, and only training needs it

    steps = [layers.RandomFlip("horizontal", seed=seed)]
    if crop < 1:
        size = (image_size, image_size)
        steps.append(layers.RandomCropAndResize(size, (crop, 1.0), (3 / 4, 4 / 3), seed=seed))
    if color > 0:
        steps.append(layers.RandomBrightness((-color, color), value_range=(0, 255), seed=seed))
        steps.append(layers.RandomContrast((0, 255), (color, color), seed=seed))
        steps.append(layers.RandomSaturation((0.5 - color / 2, 0.5 + color / 2), seed=seed))
    if cutout > 0:
        steps.append(layers.RandomCutout((0.0, cutout), (0.0, cutout), "constant", fill_value=127.5, seed=seed))

    def augment(batch: tf.Tensor) -> tf.Tensor:
        for step in steps:
            batch = step(batch, training=True)
        if noise > 0:
            batch = _add_noise(tf.cast(batch, tf.float32), 255.0 * noise, seed)
        return tf.clip_by_value(tf.cast(batch, tf.float32), 0.0, 255.0)

    return augment


def _add_noise(batch: tf.Tensor, deviation: float, seed: int | None) -> tf.Tensor:
    """Gaussian noise on each photo with probability one half."""
    is_noisy = tf.random.uniform([tf.shape(batch)[0], 1, 1, 1], seed=seed) < 0.5
    return batch + tf.where(is_noisy, tf.random.normal(tf.shape(batch), stddev=deviation, seed=seed), 0.0)


def check_photos(catalog: Catalog, progress: Callable[[int], None] | None = None) -> Catalog:
    """Decodes every photo once, before long work starts on them; returns the catalogue.

    Args:
        catalog: what to check.
        progress: called with the number of photos checked so far.

    Raises:
        CatalogError: names the unreadable photos, with the place that lists them and the reason.
    """
    catalog.check_files()
    rows = tf.data.Dataset.range(len(catalog))
    files = tf.constant(catalog.files)

    def decode(row):
        image = images.decode(tf.io.read_file(files[row]))
        return row, image[0, 0, 0]  # a use of the pixels: what is not used is not decoded

    readable = np.zeros(len(catalog), bool)
    decoded = rows.map(decode, tf.data.AUTOTUNE).ignore_errors(log_warning=False)
    for number, (row, _) in enumerate(decoded.as_numpy_iterator(), start=1):
        readable[row] = True
        if progress is not None and (number % 500 == 0 or number == len(catalog)):
            progress(number)
    unreadable = np.flatnonzero(~readable)
    if unreadable.size:
        raise CatalogError(_describe_unreadable(catalog, unreadable))
    return catalog


def _describe_unreadable(catalog: Catalog, rows: np.ndarray) -> str:
    files = catalog.files[rows[:5]].tolist()
    shown = [f"{catalog.where(row)}: {file!r}: {_reason(file)}" for row, file in zip(rows, files)]
    more = f"\n... and {len(rows) - 5} more" if len(rows) > 5 else ""
    return (
        f"{len(rows)} of {len(catalog)} photos cannot be read. Replace them or delete their rows:\n"
        + "\n".join(shown)
        + more
    )


def _reason(file: str) -> str:
    if os.path.getsize(file) == 0:
        return "the file is empty"
    try:
        images.decode(tf.io.read_file(file))
    except tf.errors.OpError as error:
        return error.message.splitlines()[0]
    return "it could not be read a moment ago"
