"""How files are replaced: written aside, flushed, then renamed, so that none is ever seen half-written."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[str]:
    """Yields the name of a file to write beside `path`; it takes the place of `path` only if the block ends well.

    The folder is made if it is missing. The name keeps the ending of `path`, which some writers look at.

    Example:

    >>> import tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "new", "metrics.json")
    >>> with replaced(path) as aside, open(aside, "w") as file:
    ...     length = file.write("{}")
    >>> os.listdir(os.path.dirname(path))
    ['metrics.json']
    """
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    # random, since processes of several machines can share a folder, and a number
    aside = os.path.join(folder, f".{secrets.token_hex(6)}.{name}")
    try:
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)


def flush(path: str | os.PathLike) -> None:
    """Waits until a file, or a folder's list of names, is on the disk: no rename may arrive before its data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
