"""What several test modules need: a fresh interpreter, a mixed-precision policy that is taken back."""

import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]


def run_python(*code_blocks: str, timeout: float = 300) -> list[str]:
    """Runs each block of code in its own fresh interpreter, all at the same time; returns what they printed."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONHASHSEED": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for code in code_blocks
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs):
        if process.returncode:
            pytest.fail(f"a fresh interpreter ended with {process.returncode}:\n{errors[-4000:]}", pytrace=False)
    return [printed for printed, _ in outputs]


def pytest_collection_modifyitems(items):
    """The longest files first, so that of two processes none is left with one of them at the end."""
    items.sort(key=lambda item: item.path.parent.name != "end_to_end")


@pytest.fixture(scope="session", name="run_python")
def run_python_fixture():
    """The function `run_python`."""
    return run_python


@pytest.fixture
def set_policy():
    """Sets Keras's global precision policy for one test; it is float32 again after it."""
    import keras

    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")
