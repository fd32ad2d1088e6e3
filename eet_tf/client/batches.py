"""Which photos travel together: so many and so large that a server takes them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator

from eet_tf.client.retries import ServingError
from eet_tf.data import reasons
from eet_tf.wording import said_by


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo on its way: its encoded bytes and how messages name it."""

    content: bytes
    name: str


def read_photos(photos: Iterable[bytes | str | os.PathLike], max_pixels: int) -> Iterator[Photo]:
    """Yields photos given as bytes or as paths of files, each read when its turn comes.

    Args:
        photos: paths, or encoded bytes.
        max_pixels: that a photo may declare. One that declares more is without content: a server says `ok` false to
            it as to the photo, and nobody has to send or to decode it.

    Raises:
        ServingError: if a file cannot be read, or `photos` is one photo and not several.

    Example:

    >>> next(read_photos([b"encoded"], max_pixels=40_000_000))
    Photo(content=b'encoded', name='photo 0')
    """
    if isinstance(photos, bytes | bytearray | str | os.PathLike):
        raise ServingError(
            f"`photos` must be a list of paths or of bytes. Received: photos={photos!r:.60}. Write [photo] for one."
        )
    for number, photo in enumerate(photos):
        each = _read(photo, number)
        yield dataclasses.replace(each, content=b"") if reasons.has_too_many_pixels(each.content, max_pixels) else each


def _read(photo: bytes | str | os.PathLike, number: int) -> Photo:
    if isinstance(photo, bytes | bytearray | memoryview):
        return Photo(bytes(photo), f"photo {number}")
    if not isinstance(photo, str | os.PathLike):  # a whole number would be a file that this process has open
        raise _refusal(number, f"{photo!r:.60}, which is neither")
    try:
        with open(photo, "rb") as file:
            return Photo(file.read(), f"photo {number}, {os.fspath(photo)!r}")
    except (OSError, ValueError) as error:
        why = said_by(error) if isinstance(error, OSError) else "it is no name of a file"
        raise _refusal(number, f"{photo!r:.200}, which cannot be read: {why}") from error


def _refusal(number: int, received: str) -> ServingError:
    return ServingError(f"`photos` must be paths of photos, or their bytes. Received: photos[{number}]={received}.")


def batches(photos: Iterable[Photo], max_photos: int, max_bytes: int) -> Iterator[list[Photo]]:
    """Yields lists of at most `max_photos` photos of together at most `max_bytes`, in order.

    Args:
        photos: what `read_photos` yields.
        max_photos: per list.
        max_bytes: of the encoded photos of a list.

    Raises:
        ServingError: if one photo alone is larger; it names the photo.

    Example:

    >>> photos = [Photo(bytes(size), "") for size in (4, 4, 9, 1)]
    >>> [[len(photo.content) for photo in batch] for batch in batches(photos, max_photos=8, max_bytes=10)]
    [[4, 4], [9, 1]]
    """
    batch: list[Photo] = []
    size = 0
    for photo in photos:
        if len(photo.content) > max_bytes:
            raise too_large(photo, f"more than the {max_bytes:,} bytes that fit into one message")
        if len(batch) == max_photos or (batch and size + len(photo.content) > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(photo)
        size += len(photo.content)
    if batch:
        yield batch


def too_large(photo: Photo, why: str) -> ServingError:
    """The refusal of a photo that no message can carry."""
    return ServingError(
        f"{photo.name} has {len(photo.content):,} bytes, {why}. Make the photo smaller: an embedder needs a few hundred"
        " pixels; or raise `max_message_bytes` and the server's limit."
    )
