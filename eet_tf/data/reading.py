"""Many photo files at once: each is read and decoded in parallel; those that cannot be are left out, with a reason."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from eet_tf.data import images, reasons, remote
from eet_tf.data.limits import MAX_PIXELS

UNREAD = "\x1e"  # stands around what is to be said of a photo, in an error that TensorFlow makes longer
_TOLD_EACH = 500  # photos


def read_files(
    files: Sequence[str],
    decode: Callable,
    keep: Callable,
    progress: Callable[[int], None] | None = None,
    num_threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    photo_cache: str = "",
) -> dict[int, str]:
    """Reads and decodes photos in parallel, as many at a time as there are threads.

    Args:
        files: N photo files, or URLs; some may be missing.
        decode: from the bytes of a photo, a scalar string tensor, to a tensor or a tuple of them.
        keep: given each photo's row and what was decoded, as NumPy arrays, in the order of the files.
        progress: called now and then with the number of photos done, and with N at the end.
        num_threads: default the number of CPUs.
        max_pixels: the limit of `decode`, for the reasons.
        photo_cache: folder in which photos at URLs are kept.

    Returns:
        Why a photo could not be read, by row, in the order of rows.
    """
    unreadable = {row: why for row, file in enumerate(files) if (why := reasons.of_missing(file))}
    rows = np.array([row for row in range(len(files)) if row not in unreadable], np.int64)
    unread: dict[str, str] = {}
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    num_threads = num_threads or os.cpu_count()
    with images.pipeline_of(len(rows)):
        dataset = map_files(
            dataset, files, lambda row, content: (row, decode(content)), num_threads, photo_cache, unread
        )
    is_read = np.zeros(len(files), bool)
    for row, decoded in dataset.ignore_errors(log_warning=False).as_numpy_iterator():
        is_read[row] = True
        keep(row, decoded)
        if progress is not None and row % _TOLD_EACH == _TOLD_EACH - 1 and row < len(files) - 1:
            progress(int(row) + 1)
    for row in rows[~is_read[rows]].tolist():
        file = files[row]
        unreadable[row] = unread.get(file) or reasons.of_file(file, max_pixels, photo_cache)
        if reasons.CONVERT not in unreadable[row]:
            remote.RemotePhotos(photo_cache).forget(file)  # it may be mended where it comes from
    if progress is not None:
        progress(len(files))
    return dict(sorted(unreadable.items()))


def map_files(
    rows: tf.data.Dataset,
    files: Sequence[str],
    use: Callable,
    num_threads: int | None,
    photo_cache: str = "",
    unread: dict[str, str] | None = None,
) -> tf.data.Dataset:
    """A dataset of `use(row, content)`, where `content` is the bytes of the file in that row.

    Where `rows` has more than the number of a file, `use` gets the rest behind the bytes.

    TensorFlow reads files itself. If there are URLs among them, Python reads, many photos at once.

    Args:
        rows: numbers of files, scalars.
        files: N photo files, or URLs.
        use: makes tensors of a row and a scalar string.
        num_threads: that `use` runs on.
        photo_cache: folder in which photos at URLs are kept.
        unread: takes the reason, by URL, of photos that could not be fetched, whose bytes are then empty. Without it
            such a photo is an error, of which `naming_unreadable` makes a message.
    """
    names = tf.constant([os.fsencode(file) for file in files], tf.string, [len(files)])  # they need not be UTF-8
    if not any(map(remote.is_url, files)):
        return rows.map(lambda row, *rest: use(row, tf.io.read_file(names[row]), *rest), num_threads)
    read = _reader(photo_cache, unread)
    options = tf.data.Options()
    options.threading.private_threadpool_size = remote.AT_ONCE  # by default the number of CPUs, and these wait
    contents = rows.map(
        lambda row, *rest: (row, tf.ensure_shape(tf.numpy_function(read, [names[row]], tf.string), []), *rest),
        remote.AT_ONCE,
    )
    return contents.with_options(options).map(use, num_threads)


def _reader(photo_cache: str, unread: dict[str, str] | None) -> Callable[[bytes], bytes]:
    """What reads a file or URL for `map_files`."""
    photos = remote.RemotePhotos(photo_cache)

    def read(name: bytes) -> bytes:
        file = os.fsdecode(name)
        try:
            return photos.read(file) if remote.is_url(file) else reasons.bytes_of(file)
        except remote.UnreadError as error:
            if unread is None:
                raise ValueError(f"{UNREAD}{file}{UNREAD}{error}{UNREAD}") from None
            unread[file] = str(error)
            return b""

    return read


def read_batches(files: Sequence[str], batch_size: int, photo_cache: str = "") -> Iterator[list[bytes]]:
    """The bytes of photos, batch by batch; the next batch is read while one is used. None where a file is unreadable.

    Args:
        files: of the photos, or URLs.
        batch_size: photos of a batch.
        photo_cache: folder in which photos at URLs are kept.

    Example:

    >>> list(read_batches(["nowhere.jpg"] * 3, 2))
    [[b'', b''], [b'']]
    """
    num_threads = remote.AT_ONCE if any(map(remote.is_url, files)) else os.cpu_count()
    starts = range(0, len(files), batch_size)
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:

        def begun(start):
            return [pool.submit(reasons.bytes_of, file, photo_cache) for file in files[start : start + batch_size]]

        following = begun(0)
        for start in starts:
            waiting, following = following, begun(start + batch_size)
            yield [photo.result() for photo in waiting]


def survey_files(
    files: Sequence[str],
    image_size: int,
    keep: Callable,
    progress: Callable[[int], None] | None = None,
    num_threads: int | None = None,
    photo_cache: str = "",
) -> dict[int, str]:
    """`read_files` for those who look at photos.

    `keep` is given a row and three things: what `images.survey` makes of the photo, and a digest of its file, 32
    hexadecimal digits that are equal for files with the same bytes.
    """

    def look(content):
        digest = tf.ensure_shape(tf.numpy_function(_digest, [content], tf.string), [])
        return *images.survey(content, image_size), digest

    return read_files(files, look, keep, progress, num_threads, photo_cache=photo_cache)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).hexdigest().encode()


def shrunk(file: str | os.PathLike, side: int, photo_cache: str = "") -> np.ndarray | None:
    """A photo as the page shows it: upright, `[H, W, 3]` uint8, no side longer than `side`; None if it cannot be read.

    Example:

    >>> shrunk("nowhere.jpg", 160) is None
    True
    """
    content = reasons.bytes_of(file, photo_cache)
    if not content:
        return None
    try:
        with tf.device("/CPU:0"):
            return images.shrunk(content, side).numpy()
    except tf.errors.OpError:
        return None
