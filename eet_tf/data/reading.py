"""Many photo files at once: each is read and decoded in parallel; those that cannot be are left out, with a reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from eet_tf.data import images, reasons

_TOLD_EACH = 500  # photos


def read_files(
    files: Sequence[str],
    decode: Callable,
    keep: Callable,
    progress: Callable[[int], None] | None = None,
    num_threads: int | None = None,
) -> dict[int, str]:
    """Reads and decodes photos in parallel, as many at a time as there are threads.

    Args:
        files: N photo files; some may be missing.
        decode: from the bytes of a photo, a scalar string tensor, to a tensor or a tuple of them.
        keep: given each photo's row and what was decoded, as NumPy arrays, in the order of the files.
        progress: called now and then with the number of photos done, and with N at the end.
        num_threads: default the number of CPUs.

    Returns:
        Why a photo could not be read, by row, in the order of rows.
    """
    unreadable = {row: why for row, file in enumerate(files) if (why := reasons.of_missing(file))}
    rows = np.array([row for row in range(len(files)) if row not in unreadable], np.int64)
    names = tf.constant([os.fsencode(files[row]) for row in rows], tf.string, [len(rows)])
    dataset = tf.data.Dataset.from_tensor_slices((rows, names)).map(
        lambda row, name: (row, decode(tf.io.read_file(name))), num_threads or os.cpu_count()
    )
    is_read = np.zeros(len(files), bool)
    for row, decoded in dataset.ignore_errors(log_warning=False).as_numpy_iterator():
        is_read[row] = True
        keep(row, decoded)
        if progress is not None and row % _TOLD_EACH == _TOLD_EACH - 1 and row < len(files) - 1:
            progress(int(row) + 1)
    unreadable.update({row: reasons.of_file(files[row]) for row in rows[~is_read[rows]].tolist()})
    if progress is not None:
        progress(len(files))
    return dict(sorted(unreadable.items()))


def survey_files(
    files: Sequence[str],
    image_size: int,
    keep: Callable,
    progress: Callable[[int], None] | None = None,
    num_threads: int | None = None,
) -> dict[int, str]:
    """`read_files` for those who look at photos: `keep` is given a row and what `images.survey` makes of the photo."""
    return read_files(files, lambda content: images.survey(content, image_size), keep, progress, num_threads)


def shrunk(file: str | os.PathLike, side: int) -> np.ndarray | None:
    """A photo as the page shows it: upright, `[H, W, 3]` uint8, no side longer than `side`; None if it cannot be read.

    Example:

    >>> shrunk("nowhere.jpg", 160) is None
    True
    """
    if reasons.of_missing(file):
        return None
    try:
        with open(file, "rb") as opened, tf.device("/CPU:0"):
            return images.shrunk(opened.read(), side).numpy()
    except (OSError, tf.errors.OpError):
        return None
