"""What is kept of each photo to compare it with all others: two small thumbnails, its size, a digest of its file."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from eet_tf.data import reasons

GREY_SIDE = 32
COLOR_SIDE = 8
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoPrints:
    """What is kept of N photos, about 1.3 kB each. Rows of photos that could not be decoded are zeros.

    Args:
        grey: `[N, 32, 32]` uint8, squashed to a square.
        color: `[N, 8, 8, 3]` uint8.
        sizes: `[N, 2]` int64, width and height in pixels, upright.
        digests: `[N]` 32 hexadecimal digits each; equal for files with the same bytes.
        unreadable: why a photo could not be decoded, by row.
    """

    grey: np.ndarray
    color: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    unreadable: dict[int, str]

    @property
    def is_readable(self) -> np.ndarray:
        """`[N]` bool."""
        mask = np.ones(len(self.grey), bool)
        mask[list(self.unreadable)] = False
        return mask


def read_prints(
    files: Sequence[str], num_threads: int | None = None, progress: Callable[[int], None] | None = None
) -> PhotoPrints:
    """Decodes every photo once, on threads, holding as many decoded ones as there are threads.

    The decoder is that of training and serving, so that what passes here passes there, and looks the same. Photos are
    decoded in full. Pillow's decoding of JPEGs at an eighth of their size takes half the time at 12 million pixels, but
    other pixels come out, by 2 of 255, and other files are refused.

    Args:
        files: N photo files.
        num_threads: default the number of CPUs.
        progress: called now and then with the number of photos done.

    Example:

    >>> import os, tempfile
    >>> from PIL import Image
    >>> file = os.path.join(tempfile.mkdtemp(), "photo.png")
    >>> Image.new("RGB", (40, 30), "red").save(file)
    >>> prints = read_prints([file, "missing.jpg"])
    >>> prints.sizes.tolist(), prints.unreadable
    ([[40, 30], [0, 0]], {1: 'the file does not exist'})
    """
    from eet_tf.data.reading import survey_files  # which loads TensorFlow

    number = len(files)
    grey = np.zeros([number, GREY_SIDE, GREY_SIDE], np.uint8)
    color = np.zeros([number, COLOR_SIDE, COLOR_SIDE, 3], np.uint8)
    sizes = np.zeros([number, 2], np.int64)

    def keep(row, decoded):
        pixels, sizes[row] = decoded
        grey[row] = pixels @ LUMA + 0.5
        side = GREY_SIDE // COLOR_SIDE
        color[row] = pixels.reshape(COLOR_SIDE, side, COLOR_SIDE, side, 3).mean((1, 3)) + 0.5

    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(_digests, files)
        unreadable = survey_files(files, GREY_SIDE, keep, progress, num_threads)
        digests = waiting.result()
    digests[list(unreadable)] = b""
    return PhotoPrints(grey, color, sizes, digests, unreadable)


def _digests(files: Sequence[str]) -> np.ndarray:
    """`[N]` digests of files, `""` of those that are not to be read."""
    digests = np.zeros(len(files), "S32")
    for row, file in enumerate(files):
        if not reasons.of_missing(file):
            with contextlib.suppress(OSError), open(file, "rb") as opened:
                digests[row] = hashlib.blake2b(opened.read(), digest_size=16).hexdigest().encode()
    return digests
