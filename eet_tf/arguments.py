"""What a number or a file's name may be that a function is given, and how another is refused."""

from __future__ import annotations

import math
import numbers
import os

from eet_tf.files import why_no_file


def check_number(name: str, value, least: float = -math.inf, most: float = math.inf) -> None:
    """Raises `ValueError` unless an argument is a number from `least` to `most`, which NaN never is.

    Example:

    >>> check_number("crop", 1.5, 0, 1)
    Traceback (most recent call last):
        ...
    ValueError: `crop` must be a number from 0 to 1. Received: crop=1.5.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"`{name}` must be a number{_limits(least, most)}. Received: {name}={_shown(value)}.")


def check_integer(name: str, value, least: int, most: float = math.inf) -> None:
    """Raises `ValueError` unless an argument is a whole number from `least` to `most`.

    Example:

    >>> check_integer("image_size", 31, 32)
    Traceback (most recent call last):
        ...
    ValueError: `image_size` must be an integer of at least 32. Received: image_size=31.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or not least <= value <= most:
        raise ValueError(f"`{name}` must be an integer{_limits(least, most)}. Received: {name}={_shown(value)}.")


def check_file(name: str, path: str | os.PathLike) -> None:
    """Raises `ValueError` unless a file can be written at a path."""
    why = why_no_file(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else "which names no file"
    if why:
        raise ValueError(f"`{name}` must be a file that can be written. Received: {name}={_shown(path)}, {why}.")


def _limits(least: float, most: float) -> str:
    if most == math.inf:
        return "" if least == -math.inf else f" of at least {least}"
    return f" from {least} to {most}"


def _shown(value) -> str:
    """Short, and without NumPy's names of types."""
    return f"{value!r:.100}" if isinstance(value, str) else f"{str(value):.100}"
