"""How messages word what they count and where files are."""

from __future__ import annotations

import os
import re


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural where there is not one.

    Example:

    >>> counted(1, "photo"), counted(1200, "photo"), counted(0, "query")
    ('1 photo', '1,200 photos', '0 queries')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def first_sentence(text: str) -> str:
    """What a library says first, without its full stop; `""` of an empty text.

    Example:

    >>> first_sentence("The kernel (9 x 9) exceeds the image. Received:\\n  images of 4 x 4")
    'The kernel (9 x 9) exceeds the image'
    """
    text = re.sub(r"\x1b\[\d*m", "", text)  # Keras writes in bold
    return re.split(r"\.\s", text.strip() + "\n", maxsplit=1)[0].partition("\n")[0].rstrip(" .:")


def said_by(error: BaseException) -> str:
    """What the system or a library says is wrong, in one sentence: never empty, without numbers of errors.

    Example:

    >>> said_by(OSError(28, "No space left on device")), said_by(ValueError("Bad magic. See 7")), said_by(EOFError())
    ('No space left on device', 'Bad magic', 'EOFError')
    """
    return first_sentence(getattr(error, "strerror", None) or str(error)) or type(error).__name__


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
