"""Scripts run as a person runs them, in processes of their own.

`start` starts a fresh interpreter, `run` forks from one that has TensorFlow (tests/forks.py). What is to be killed, and
what `make demo` runs, takes fresh ones.
"""

import os
import re
import subprocess
import sys

from tests.forks import REPOSITORY, TIMEOUT, Fork


class Outcome:
    """How a script ended and what it printed."""

    def __init__(self, returncode, printed, errors):
        self.returncode, self.printed, self.errors = returncode, printed, errors

    def succeeded(self):
        """Itself; fails the test, showing the errors, if the script did not end well."""
        assert self.returncode == 0, f"the script ended with {self.returncode}:\n{self.errors[-3000:]}"
        return self

    def refused(self, *patterns):
        """Checks that it said no in one `error: ` line that matches every pattern, without a traceback."""
        assert self.returncode not in (0, None), self.printed
        assert "Traceback" not in self.errors, self.errors
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.errors
        message = self.errors[self.errors.index("error: ") :]
        for pattern in patterns:
            assert re.search(pattern, message), f"{pattern!r} is not in: {message}"
        assert "np.str_" not in message


_HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(REPOSITORY)}


def start(script, *flags, environment=None):
    """Starts a script in a fresh interpreter, which sees what `environment` adds; for a test that wants to end it."""
    return subprocess.Popen(
        [sys.executable, script, *flags],
        cwd=REPOSITORY,
        env={**os.environ, **_HIDDEN, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script, *flags, folder=REPOSITORY, timeout=TIMEOUT):
    """Runs a script of a folder to its end."""
    return Outcome(*Fork([script, *flags], folder, _HIDDEN).ended(timeout))
