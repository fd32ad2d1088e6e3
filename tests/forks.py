"""Scripts and pieces of code in processes of their own, forked from one that has imported TensorFlow and Keras.

An interpreter spends four seconds on that import. The process that is forked from has imported nothing of this package
and started nothing of TensorFlow, so a fork is what a fresh interpreter is after its first two lines. What is about
imports takes fresh ones.
"""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import threading

REPOSITORY = pathlib.Path(__file__).parents[1]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["numpy", "tensorflow", "keras"])
_starting = threading.Lock()
TIMEOUT = 900  # seconds; what takes one minute alone took over five on a machine with other work


class Fork:
    """A process that runs a script, `["train/main.py", "--epochs=2"]`, or code, `["-c", "print(1)"]`."""

    def __init__(self, arguments, folder=REPOSITORY, environment=None):
        self._aside = tempfile.TemporaryDirectory()
        self._files = [pathlib.Path(self._aside.name, name) for name in ("printed", "errors")]
        environment = {**os.environ, **(environment or {})}
        self._process = _context.Process(target=_main, args=(arguments, folder, environment, self._files))
        _let_it_import()
        self._process.start()

    def ended(self, timeout=TIMEOUT):
        """(exit status, what it printed, what it printed as errors); killed where that takes too long."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        printed, errors = (file.read_text(encoding="utf-8") for file in self._files)
        self._aside.cleanup()
        return self._process.exitcode, printed, errors

    def kill(self):
        """Ends it, if it has not ended, and leaves nothing behind."""
        self._process.kill()
        self._process.join()
        self._aside.cleanup()


def _let_it_import():
    """Starts the process that is forked from, once, and quietly."""
    with _starting:
        before = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        multiprocessing.forkserver.ensure_running()
        del os.environ["TF_CPP_MIN_LOG_LEVEL"]
        if before is not None:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = before


def _main(arguments, folder, environment, files):
    """What the process does: all that an interpreter does before and after what it runs."""
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    is_code = arguments[0] == "-c"
    sys.argv = ["-c", *arguments[2:]] if is_code else list(arguments)
    sys.orig_argv = [sys.executable, *arguments]
    sys.path.insert(0, "" if is_code else os.path.dirname(os.path.abspath(arguments[0])))
    try:
        if is_code:
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
