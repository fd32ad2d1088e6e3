"""What every command does before its long work: it gathers all that is wrong, and says it at once."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from eet_tf.files import why_no_file, why_no_folder
from eet_tf.wording import said_by

_WHOLE_NUMBER = re.compile("[1-9][0-9]{0,8}")


class CommandError(ValueError):
    """A command that was called wrongly: one line for each thing that is wrong, with the flag and what it was given."""


class Complaints:
    """Gathers what is wrong with a command before its long work, so that all of it is said at once.

    Example:

    >>> complaints = Complaints()
    >>> complaints.number("seed", -1, 0, 2**32 - 1)
    >>> ks = complaints.whole_numbers("ks", ["1", "abc"])
    >>> complaints.end()
    Traceback (most recent call last):
        ...
    eet_tf.cli.complaints.CommandError: --seed must be from 0 to 4294967295. Received: --seed=-1.
    --ks must be whole numbers from 1 to 999999999 with commas between, none twice. Received: --ks=1,abc.
    """

    def __init__(self):
        self._texts: list[str] = []

    @property
    def are_none(self) -> bool:
        """Whether nothing is wrong so far."""
        return not self._texts

    def add(self, text: str) -> None:
        """One more; a text that is already there is not said twice."""
        if text not in self._texts:
            self._texts.append(text)

    def check(self, function: Callable, *arguments) -> Any:
        """What the function returns; None if it refuses its arguments, and then its refusal is a complaint."""
        try:
            return function(*arguments)
        except ValueError as error:
            self.add(str(error))
        except OSError as error:
            self.add(os_error_text(error))
        return None

    def given(self, flag: str, value, function: Callable, *arguments) -> Any:
        """As `check`, of a flag's value and further arguments; its refusal is told with the flag."""
        try:
            return function(value, *arguments)
        except ValueError as error:
            self.add(f"--{flag}={value}: {error}")
        except OSError as error:
            self.add(f"--{flag}={value}: {os_error_text(error)}")
        return None

    def file(self, flag: str, path: str | None) -> None:
        """Complains if a file cannot be written there; None is a flag that was not given."""
        why = None if path is None else why_no_file(path)
        if why:
            self.add(f"--{flag} must be a file that can be written. Received: --{flag}={path}, {why}.")

    def folder(self, flag: str, path: str | None) -> None:
        """Complains if files cannot be written into such a folder; None is a flag that was not given."""
        why = None if path is None else why_no_folder(path)
        if why:
            self.add(f"--{flag} must be a folder that can be written to. Received: --{flag}={path}, {why}.")

    def existing(self, flag: str, path: str | None) -> None:
        """Complains if there is nothing at a path; None is a flag that was not given."""
        if path is not None and not os.path.exists(path):
            self.add(f"--{flag} must be there. Received: --{flag}={path}, which does not exist.")

    def number(self, flag: str, value: float | None, least: float, most: float = math.inf) -> None:
        """Complains about a number outside a range, both ends of which are in it; None is a flag that was not given."""
        if value is not None and not least <= value <= most:
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            self.add(f"--{flag} must be {limits}. Received: --{flag}={value}.")

    def above(self, flag: str, value: float | None, limit: float) -> None:
        """Complains about a number that is not above a limit; None is a flag that was not given."""
        if value is not None and not value > limit:
            self.add(f"--{flag} must be above {limit}. Received: --{flag}={value}.")

    def whole_numbers(self, flag: str, texts: Sequence[str]) -> tuple[int, ...]:
        """The texts as whole numbers; complains unless there is one at least, and all are positive."""
        if texts and all(map(_WHOLE_NUMBER.fullmatch, texts)) and len(set(texts)) == len(texts):
            return tuple(map(int, texts))
        self.add(
            f"--{flag} must be whole numbers from 1 to 999999999 with commas between, none twice. "
            f"Received: --{flag}={','.join(texts)}."
        )
        return ()

    def end(self) -> None:
        """Raises `CommandError` with all complaints, if there are any."""
        if self._texts:
            raise CommandError("\n".join(self._texts))


def os_error_text(error: OSError) -> str:
    """What the system refused, where, in our words."""
    place = f"{os.fspath(error.filename)!r} " if isinstance(error.filename, (str, os.PathLike)) else "A file "
    return f"{place}cannot be read or written: {said_by(error)}. Look at its rights and at the space on its disk."
