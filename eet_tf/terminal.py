"""What comes from and goes to a terminal: output in any encoding, and arguments that are text."""

from __future__ import annotations

import io
import sys


def open_door() -> None:
    """Makes output possible in any encoding, and ends the process if an argument is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    wrong = [escaped(argument) for argument in sys.argv[1:] if not is_utf8(argument)]
    if wrong:
        sys.exit(f"error: arguments must be UTF-8. Received: {' '.join(wrong)}. Rename what they name.")


def is_utf8(name: str) -> bool:
    """Whether a name from the system is text: bytes that are none come as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def escaped(name: str) -> str:
    r"""A name with the bytes that are no text as they are in Python's source.

    Example:

    >>> print(escaped(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")))
    caf\xe9.jpg
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
