"""What comes from and goes to a terminal: output in any encoding, and arguments that are text."""

from __future__ import annotations

import codecs
import io
import sys

_ESCAPING = "eet_tf.escaping"
_BAR = "\N{BOX DRAWINGS HEAVY HORIZONTAL}"  # of which Keras makes the bar of progress


def open_door() -> None:
    """Makes output possible in any encoding, and ends the process if an argument is not UTF-8."""
    codecs.register_error(_ESCAPING, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPING)
    wrong = [escaped(argument) for argument in sys.argv[1:] if not is_utf8(argument)]
    if wrong:
        sys.exit(f"error: arguments must be UTF-8. Received: {' '.join(wrong)}. Rename what they name.")


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks: `=` for those of a bar, and else as in Python's source."""
    if isinstance(error, UnicodeEncodeError):
        bar = error.object[error.start : error.end]
        if set(bar) == {_BAR}:
            return "=" * len(bar), error.end
    return codecs.backslashreplace_errors(error)


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
