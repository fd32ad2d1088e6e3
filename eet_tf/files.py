"""How files are replaced: written aside, flushed, then renamed, so that none is ever seen half-written."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator

from eet_tf.wording import said_by


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


@contextlib.contextmanager
def without_pattern(folder: str) -> Iterator[str]:
    """Yields a name of a folder in which TensorFlow finds no pattern: it takes names that it reads from for one.

    That is the folder's own name, or a link to it in the temporary folder that is there for the block.

    Example:

    >>> with without_pattern("runs/[1]") as folder:
    ...     os.readlink(folder) == os.path.abspath("runs/[1]")
    True
    """
    path = os.path.abspath(folder)
    if not any(sign in path for sign in "[]*?\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = os.path.join(place, "folder")
        os.symlink(path, link)
        yield link


def why_no_file(path: str) -> str | None:
    """Why `replaced(path)` would fail, to be known before the work whose result goes there; None if it would not.

    Example:

    >>> with tempfile.NamedTemporaryFile() as file:
    ...     why_no_file(os.path.join(file.name, "report.html")) == f"where {file.name!r} is a file, not a folder"
    True
    """
    if not path:
        return "which names no file"
    if os.path.isdir(path):
        return "which is a folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return "which is a device or a pipe"
    folder, name = os.path.split(path)
    return why_no_folder(folder or ".", f".{'0' * 12}.{name}")


def why_no_folder(path: str, name: str = "") -> str | None:
    """Why no file could be written into a folder, which is made if it is missing; None if it could.

    Args:
        path: of the folder.
        name: of the file, if it is known.
    """
    if not path:
        return "which names no folder"
    try:
        os.lstat(os.path.join(path, name))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a name that is too long, a folder that may not be entered
        return f"which the system refuses: {said_by(error)}"
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there) or "."
    if not os.path.isdir(there):
        is_itself = os.path.abspath(there) == os.path.abspath(path)
        what = "leads nowhere" if os.path.islink(there) and not os.path.exists(there) else "is a file, not a folder"
        return f"which {what}" if is_itself and not name else f"where {there!r} {what}"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        takes_none = isinstance(error, FileNotFoundError)  # such as /proc, which is there
        return f"where {there!r} {'takes no files' if takes_none else f'cannot be written to: {said_by(error)}'}"
    return None
