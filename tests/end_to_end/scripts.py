"""Scripts run as a person runs them, in processes of their own; most of them forked from one that has TensorFlow.

An interpreter spends four seconds on importing TensorFlow and Keras. `start` starts one; `run` forks from one that has
imported them and nothing of this package, which leaves the script as it would find itself in a fresh one. What is to be
killed, and what `make demo` runs, takes fresh ones.
"""

import atexit
import multiprocessing
import os
import pathlib
import re
import runpy
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).parents[2]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["numpy", "tensorflow", "keras"])


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


def _environment():
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(REPOSITORY)}


def start(script, *flags, environment=None):
    """Starts a script in a fresh interpreter, which sees what `environment` adds; for a test that wants to end it."""
    return subprocess.Popen(
        [sys.executable, script, *flags],
        cwd=REPOSITORY,
        env={**_environment(), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script, *flags, folder=REPOSITORY, timeout=300):
    """Runs a script of a folder to its end, in a process forked from one that has imported TensorFlow."""
    with tempfile.TemporaryDirectory() as aside:
        files = [os.path.join(aside, name) for name in ("printed", "errors")]
        process = _forks.Process(target=_main, args=(folder, script, flags, _environment(), *files))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([script, *flags], timeout)
        printed, errors = (pathlib.Path(file).read_text(encoding="utf-8") for file in files)
    return Outcome(process.exitcode, printed, errors)


def _main(folder, script, flags, environment, *files):
    """What the forked process does: all that an interpreter does before and after its script."""
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script, *flags]
    sys.orig_argv = [sys.executable, *sys.argv]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
