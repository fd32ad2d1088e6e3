"""What comes from and goes to a terminal: output in any encoding, arguments that are text, and the progress of work."""

from __future__ import annotations

import codecs
import io
import sys
import time
from typing import TextIO

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


def seconds_text(seconds: float) -> str:
    """A duration as a person says it.

    Example:

    >>> seconds_text(42.2), seconds_text(100), seconds_text(7300)
    ('42 s', '1 min 40 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Shows how far long work has come: on a terminal in one line that changes, in a file as a line every 10 seconds.

    Args:
        what: what is counted and was done with it, such as `"photos embedded"`.
        total: how many there are, or None where nobody knows.
        stream: where it is shown; by default the stream of errors, so that results may be redirected.

    Example:

    >>> import io
    >>> log = io.StringIO()
    >>> progress = Progress("photos embedded", 1200, stream=log)
    >>> progress.update(600)
    >>> progress.end(1200)
    >>> print(log.getvalue(), end="")
    1,200 of 1,200 photos embedded.
    """

    _EVERY = 10.0  # seconds between two lines of a file
    _REDRAWN = 0.2  # seconds between two changes of a terminal's line

    def __init__(self, what: str, total: int | None = None, stream: TextIO | None = None):
        self._what, self._total = what, total
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._started = self._shown = time.monotonic()
        self._width = 0

    def update(self, done: int) -> None:
        """Shows how many are done, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self._shown >= (self._REDRAWN if self._is_terminal else self._EVERY):
            self._shown = now
            self._show(f"{self._counted(done)}{self._pace(done, now - self._started)}", is_last=False)

    def end(self, done: int) -> None:
        """Shows how many are done, and ends the line."""
        self._show(f"{self._counted(done)}.", is_last=True)

    def _counted(self, done: int) -> str:
        return f"{done:,}{'' if self._total is None else f' of {self._total:,}'} {self._what}"

    def _pace(self, done: int, seconds: float) -> str:
        if not done or not seconds:
            return ""
        pace = done / seconds
        left = "" if not self._total else f", {seconds_text((self._total - done) / pace)} left"
        return f", {pace:,.0f}/s{left}" if pace >= 10 else f", {pace:.1f}/s{left}"

    def _show(self, text: str, is_last: bool) -> None:
        if self._is_terminal:
            self._stream.write(f"\r{text:{self._width}}{chr(10) * is_last}")
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()
