"""Other processes that a part starts, and what is said of one that fails."""

from __future__ import annotations

import subprocess
import sys

_FRAME = ("Graph execution error", "Detected at", "<stack traces", "[[", "File ", "Traceback")
LONGEST = 300  # characters of an error that are kept


def printed_by(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Runs a command to its end and returns what it printed; its errors go to this process's errors.

    Raises:
        RuntimeError: if it fails, with its last error.
    """
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sys.stderr.write(ended.stderr)
    if ended.returncode:
        raise RuntimeError(last_error(ended.stderr, ended.returncode))
    return ended.stdout


def last_error(text: str, status: int) -> str:
    """The last line of a log that looks like an error, or the last of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line or "error:" in line or "Check failed" in line]
    return ((told or lines or [f"the process ended with {status}"])[-1])[:LONGEST]


def message_of(error: Exception) -> str:
    """The first line of an exception that tells something, after its type."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_FRAME)]
    return f"{type(error).__name__}: {(told or [''])[0]}"[:LONGEST]
