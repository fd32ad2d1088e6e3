"""How messages word what they count and where files are."""

from __future__ import annotations

import os


def counted(count: int, what: str) -> str:
    """A number with its noun, in the plural where it is not 1.

    Example:

    >>> counted(1, "photo"), counted(12000, "photo")
    ('1 photo', '12,000 photos')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def normal_path(path: str | os.PathLike) -> str:
    """The same path without `..`, where that leads to the same place.

    Behind a link to a folder, `..` is not the folder before it: then the path stays as it is.

    Example:

    >>> normal_path("photos/../list.csv"), normal_path("list.csv"), normal_path("")
    ('list.csv', 'list.csv', '')
    """
    path = os.fspath(path)
    if not _has_parents(path):
        return path
    normal = os.path.normpath(path)
    if _has_parents(normal):
        normal = os.path.abspath(path)
    return normal if os.path.realpath(normal) == os.path.realpath(path) else path


def _has_parents(path: str) -> bool:
    return os.pardir in path.replace(os.altsep or os.sep, os.sep).split(os.sep)


def shown_path(path: str | os.PathLike) -> str:
    """A path as messages write it: without `..`, and from the working directory if it lies below that.

    Example:

    >>> import os
    >>> shown_path(os.path.join(os.getcwd(), "photos", "list.csv"))
    'photos/list.csv'
    """
    path = normal_path(path)
    if not path or _has_parents(path):
        return path
    path = os.path.normpath(path)
    here = os.path.join(os.getcwd(), "")
    is_below = path.startswith(here) and len(path) > len(here) and here != os.sep
    return path[len(here) :] if is_below else path
