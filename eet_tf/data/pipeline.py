"""From a catalogue to a `tf.data.Dataset`: batches to train on, photos to embed, and the check that all can be read."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from eet_tf import files
from eet_tf.arguments import check_file, check_integer
from eet_tf.data import images
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.limits import MAX_PIXELS
from eet_tf.data.reading import UNREAD, map_files, read_files
from eet_tf.data.reasons import unreadable_message
from eet_tf.data.remote import joined
from eet_tf.data.sampling import PKSampler
from eet_tf.fits import check_fit

_Catalogs = TypeVar("_Catalogs", Catalog, Sequence[Catalog])


def training_dataset(
    catalog: Catalog,
    sampler: PKSampler,
    image_size: int,
    augment: Callable[..., tf.Tensor] | None = None,
    first_epoch: int = 0,
    steps_per_epoch: int | None = None,
    attributes: np.ndarray | None = None,
    decoded: np.ndarray | None = None,
    part: tuple[int, int] = (0, 1),
    teacher: np.ndarray | None = None,
    fit: str = "squash",
    photo_crop: Callable[..., tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """Endless training batches: `(images [P*K, S, S, 3] float32 in [0, 255], labels [P*K] int64)`, class after class.

    With `attributes` the labels become `{"label": [P*K], "attributes": [P*K, A] float32}`, as `MetricLearner` takes
    them for two heads; with `teacher` `"teacher": [P*K, D] float32` is in it, as `DistillationLoss` takes it.

    Args:
        catalog: what to draw from; `sampler` must have been made of its labels.
        sampler: decides which photos make a batch.
        image_size: S.
        augment: function of a batch of images and of its number, counted from 0 over all epochs, e.g.
            `augmentation(image_size)`; also of `part` if there are several.
        first_epoch: number of the epoch it starts with, so that a resumed run sees what the first would have.
        steps_per_epoch: batches after which the sampler's next epoch begins, default `sampler.steps_per_epoch`.
        attributes: `[N, A]` of 1, 0 and -1, one row per photo of the catalogue, e.g. `encode_attributes(...).values`.
        decoded: what `decode_photos` made of the catalogue, to be taken in place of the files.
        part: `(k, n)`: only the k-th of n equal parts of each batch, k counted from 0, whose photos alone are read.
        teacher: `[N, D]`, another model's vectors of the photos of the catalogue, in its order. They are those of the
            plain photos, whatever `augment` makes of them.
        fit: how a photo becomes a square, `"squash"` or `"letterbox"`: that of the embedder. Photos in `decoded` have
            been fitted already.
        photo_crop: what draws a box in each photo before it becomes a square, e.g. `photo_crop(0.16)`; a function of
            the photo's number over all epochs, its height and its width. None: photos are taken whole.

    Raises:
        ValueError: if `attributes`, `decoded` or `teacher` has not one row per photo, or `decoded` another size, or a
            batch does not fall into `n` parts, or `fit` is none, or there are both `decoded` and `photo_crop`.

    Example:

    >>> dataset = training_dataset(catalog, PKSampler(catalog.labels, 4, 2), image_size=64)  # doctest: +SKIP
    >>> model.fit(dataset, steps_per_epoch=100)  # doctest: +SKIP
    """
    check_fit(fit)
    if photo_crop is not None and decoded is not None:
        raise ValueError(
            "`photo_crop` must be None for photos that are in memory as squares. Received: photo_crop and decoded. "
            "Leave out one of them."
        )
    targets = _targets(catalog, attributes, teacher)
    sampler.endless(first_epoch, steps_per_epoch, part)  # refuses a part that no batch has, before anything is read
    share, steps = sampler.batch_size // part[1], steps_per_epoch or sampler.steps_per_epoch

    def batches():
        return sampler.endless(first_epoch, steps_per_epoch, part)

    if decoded is None:
        read = _reader(image_size, fit, photo_crop, (first_epoch * steps, share, *part))
        dataset = _from_files(batches, catalog, share, read)
    else:
        dataset = _from_decoded(batches, _checked(decoded, catalog, image_size), share)
    dataset = dataset.map(lambda batch, rows: (batch, targets(rows)), os.cpu_count())
    if augment is not None:
        told = [part] if part[1] > 1 else []  # a function of someone else's may know no parts
        dataset = dataset.enumerate(first_epoch * steps).map(
            lambda number, pair: (augment(pair[0], number, *told), pair[1]), os.cpu_count()
        )
    return _ending_at_once(dataset.prefetch(2))


def _from_files(batches, catalog: Catalog, batch_size: int, read: Callable) -> tf.data.Dataset:
    """(images, rows) of each batch, decoded photo by photo."""
    dataset = tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec([batch_size], tf.int64)).unbatch()
    return _decoded(dataset, catalog, os.cpu_count(), read).batch(batch_size, drop_remainder=True)


def _decoded(rows: tf.data.Dataset, catalog: Catalog, num_threads, read: Callable) -> tf.data.Dataset:
    """(image, row) of each row of a catalogue."""
    places = rows.enumerate().map(lambda place, row: (row, place))
    return map_files(
        places,
        catalog.files.tolist(),
        lambda row, content, place: (read(content, place), row),
        num_threads,
        catalog.photo_cache,
    )


def _reader(image_size: int, fit: str, crop: Callable | None = None, of_batches: tuple = ()) -> Callable:
    """What makes a square of a photo's bytes and its place in the dataset.

    Args:
        image_size: S.
        fit: `"squash"` or `"letterbox"`.
        crop: draws a box by the number that a photo has in the batches of all parts; None: whole photos.
        of_batches: the number of the first batch, how many photos of each are here, and `part`.
    """
    if crop is None:
        return lambda content, place: images.decode_and_resize(content, image_size, fit=fit)
    first, share, part, num_parts = of_batches

    def read(content, place):
        number = ((first + place // share) * num_parts + part) * share + place % share
        return images.decode_cropped(content, image_size, fit, lambda *sides: crop(number, *sides))

    return read


def _from_decoded(batches, decoded: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """(images, rows) of each batch, copied out of memory."""

    def copies():
        for batch in batches():
            yield decoded[batch], batch

    signature = tf.TensorSpec([batch_size, *decoded.shape[1:]], tf.uint8), tf.TensorSpec([batch_size], tf.int64)
    dataset = tf.data.Dataset.from_generator(copies, output_signature=signature)
    return dataset.map(lambda batch, rows: (tf.cast(batch, tf.float32), rows), os.cpu_count())


def _checked(decoded: np.ndarray, catalog: Catalog, image_size: int) -> np.ndarray:
    expected = (len(catalog), image_size, image_size, 3)
    if decoded.shape != expected or decoded.dtype != np.uint8:
        raise ValueError(
            f"`decoded` must be what decode_photos made of the same catalogue and size: {expected} uint8. "
            f"Received: {decoded.shape} {decoded.dtype}."
        )
    return decoded


def decode_photos(
    catalog: Catalog, image_size: int, progress: Callable[[int], None] | None = None, fit: str = "squash"
) -> np.ndarray:
    """All photos decoded and resized once, to be kept in memory: `[N, S, S, 3]` uint8.

    Rounding to whole numbers moves a pixel by 0.5 of 255 at most. 10,000 photos of 224 px take 1.5 GB.

    Args:
        catalog: what to decode.
        image_size: S.
        progress: called with the number of photos decoded so far.
        fit: how a photo becomes a square, `"squash"` or `"letterbox"`: that of the embedder.

    Raises:
        ValueError: if `image_size` is not a positive integer, or `fit` is none.
        CatalogError: names the unreadable photos, as `check_photos` does.
    """
    check_integer("image_size", image_size, 1)
    check_fit(fit)
    decoded = np.empty([len(catalog), image_size, image_size, 3], np.uint8)

    def decode(content):
        return tf.cast(tf.round(images.decode_and_resize(content, image_size, fit=fit)), tf.uint8)

    def keep(row, image):
        decoded[row] = image

    read = read_files(catalog.files.tolist(), decode, keep, progress, photo_cache=catalog.photo_cache)
    _refuse([catalog], read)
    return decoded


def _ending_at_once(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tuning in the background: its thread may sleep for a minute when training ends, and is waited for."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _targets(catalog: Catalog, attributes: np.ndarray | None, teacher: np.ndarray | None) -> Callable:
    """From the numbers of rows to what is learnt of their photos."""
    labels, tables = tf.constant(catalog.labels), {}
    for name, given, dtype in (("attributes", attributes, tf.int8), ("teacher", teacher, tf.float32)):
        if given is None:
            continue
        if len(given) != len(catalog):
            raise ValueError(
                f"`{name}` must have one row per photo of the catalogue. "
                f"Received: {len(given)} rows for {len(catalog)} photos."
            )
        tables[name] = tf.constant(given, dtype)
    if not tables:
        return lambda rows: tf.gather(labels, rows)

    def targets(rows):
        found = {name: tf.cast(tf.gather(table, rows), tf.float32) for name, table in tables.items()}
        return {"label": tf.gather(labels, rows), **found}

    return targets


def gallery_dataset(catalog: Catalog, image_size: int, batch_size: int = 64, fit: str = "squash") -> tf.data.Dataset:
    """Makes batches of the photos of a catalogue in its order: images `[B, S, S, 3]` float32 in [0, 255].

    Args:
        catalog: what to read.
        image_size: S.
        batch_size: B, of all batches but the last.
        fit: how a photo becomes a square, `"squash"` or `"letterbox"`: that of the embedder,
            `eet_tf.embedder.photo_fit(embedder)`.

    Raises:
        ValueError: if `fit` is none of these.
    """
    check_fit(fit)
    rows = tf.data.Dataset.range(len(catalog))
    with images.pipeline_of(len(catalog)):
        dataset = _decoded(rows, catalog, tf.data.AUTOTUNE, _reader(image_size, fit))
    return dataset.map(lambda image, row: image).batch(batch_size).prefetch(2)


def check_photos(
    catalog: _Catalogs, progress: Callable[[int], None] | None = None, max_pixels: int = MAX_PIXELS
) -> _Catalogs:
    """Decodes every photo once, before long work starts on them; returns what it was given.

    Args:
        catalog: what to check, or several, of which all unreadable photos are named together.
        progress: called with the number of photos checked so far.
        max_pixels: refuse photos that declare more, as an exported embedder does: `ServedEmbedder.max_pixels`.

    Raises:
        CatalogError: names the unreadable photos, with the place that lists them and the reason.
    """
    catalogs = [catalog] if isinstance(catalog, Catalog) else list(catalog)
    _refuse(catalogs, _unreadable(catalogs, progress, max_pixels))
    return catalog


class SkippedPhoto(NamedTuple):
    """A photo that was left out.

    Attributes:
        place: where it is listed, as `file:line`.
        photo: its path or URL, as it is listed.
        reason: why it cannot be read.
    """

    place: str
    photo: str
    reason: str


def readable(
    catalog: Catalog, progress: Callable[[int], None] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Catalog, tuple[SkippedPhoto, ...]]:
    """Leaves out the photos that are missing, empty or cannot be decoded, after decoding each of them once.

    Args:
        catalog: the photos, e.g. `load_dataset(name, data_dir, check_files=False)`.
        progress: called with the number of photos checked so far.
        max_pixels: leave out photos that declare more, as an exported embedder does: `ServedEmbedder.max_pixels`.

    Returns:
        The rest of the catalogue, the same one if nothing is left out; and what was left out.

    Raises:
        CatalogError: if nothing is left; names the photos, with the place that lists them and the reason.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> tf.io.write_file(os.path.join(folder, "mug.png"), tf.io.encode_png(tf.zeros([40, 30, 3], tf.uint8)))
    >>> catalog, skipped = readable(Catalog(["mug.png", "cup.png"], ["mug", "cup"], root=folder))
    >>> catalog.paths.tolist(), [(photo.photo, photo.reason) for photo in skipped]
    (['mug.png'], [('cup.png', 'the file does not exist')])
    """
    unreadable = _unreadable([catalog], progress, max_pixels)
    if len(unreadable) == len(catalog):
        _refuse([catalog], unreadable)
    skipped = [SkippedPhoto(catalog.where(row), str(catalog.paths[row]), why) for row, why in unreadable.items()]
    rest = catalog.take(np.delete(np.arange(len(catalog)), list(unreadable))) if unreadable else catalog
    return rest, tuple(skipped)


def write_skipped(path: str | os.PathLike, skipped: Sequence[SkippedPhoto]) -> None:
    """Writes the photos that were left out to a CSV file with the columns `place`, `photo` and `reason`.

    Args:
        path: the file to write; its folder is made if it is missing. If nothing was left out, it holds the header.
        skipped: what `readable` left out.

    Raises:
        ValueError: if no file can be written at `path`.

    Example:

    >>> import tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), "skipped.csv")
    >>> write_skipped(file, [SkippedPhoto("list.csv:2", "mug.jpg", "the file is empty")])
    >>> with open(file, encoding="utf-8") as written:
    ...     print(written.read(), end="")
    place,photo,reason
    list.csv:2,mug.jpg,the file is empty
    """
    check_file("path", path)
    with (
        files.replaced(path) as aside,
        open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="") as opened,
    ):
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerows([SkippedPhoto._fields, *skipped])


@contextlib.contextmanager
def naming_unreadable(*catalogs: Catalog) -> Iterator[None]:
    """In place of TensorFlow's error about a photo that cannot be read, raises one that says which it is, and why.

    For long work on photos that were not checked, or that changed after they were. Other errors go through as they are.

    Args:
        catalogs: whose photos are read in the block.

    Raises:
        CatalogError: names the unreadable photos, with the place that lists them and the reason.

    Example:

    >>> with naming_unreadable(catalog):  # doctest: +SKIP
    ...     learner.fit(dataset, steps_per_epoch=100)
    """
    try:
        yield
    except tf.errors.OpError as error:
        text = str(error)
        if found := text.split(UNREAD)[1:3]:
            raise CatalogError(_named(catalogs, *found)) from None
        if not any(operation in text for operation in _READING):
            raise
        check_photos(catalogs)
        raise CatalogError(
            "A photo could not be read, though all of them can be read now. Start again; if this comes back, copy the "
            "photos to a disk of this machine."
        ) from None


# what TensorFlow names in an error about a photo: the operations that read and decode, and the function of the decoder
_READING = ("ReadFile", "DecodeImage", "_decode_any")


def _named(catalogs: Sequence[Catalog], file: str, why: str) -> str:
    """What is said of one photo at a URL."""
    for each in catalogs:
        for row in np.flatnonzero(each.files == file).tolist():
            return unreadable_message([f"{each.where(row)}: {file!r}: {why}"], sum(map(len, catalogs)))
    return unreadable_message([f"{file!r}: {why}"], sum(map(len, catalogs)))


def _unreadable(catalogs: Sequence[Catalog], progress: Callable[[int], None] | None, max_pixels: int) -> dict[int, str]:
    """Why photos cannot be read, by their row in all catalogues."""
    return read_files(
        [file for each in catalogs for file in each.files.tolist()],
        lambda content: images.decode(content, max_pixels)[0, 0, 0],  # what is not used is not decoded
        lambda row, pixel: None,
        progress,
        max_pixels=max_pixels,
        photo_cache=next((each.photo_cache for each in catalogs if each.photo_cache), ""),
    )


def _refuse(catalogs: Sequence[Catalog], unreadable: Mapping[int, str]) -> None:
    """Raises `CatalogError` if there are reasons why photos, by their row in all catalogues, cannot be read."""
    if not unreadable:
        return
    places = [(each, row) for each in catalogs for row in range(len(each))]
    lines = []
    for number, why in unreadable.items():
        each, row = places[number]
        lines.append(f"{each.where(row)}: {joined(each.root, str(each.paths[row]))!r}: {why}")
    raise CatalogError(unreadable_message(lines, len(places)))
