"""A drawn catalogue, the scripts run as a person runs them, and one training that several modules look at."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from eet_tf.data.synthetic import make_synthetic_catalog

REPOSITORY = pathlib.Path(__file__).parents[2]
# 6 products to learn from, of which 2 are held out, in batches of 4 x 2 photos; 2 products to test on
TINY = (
    "--backbone=small_cnn",
    "--image_size=32",
    "--embedding_dim=16",
    "--classes_per_batch=4",
    "--examples_per_class=2",
    "--steps_per_epoch=2",
)


def _environment():
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **hidden}


class Outcome:
    """How a script ended and what it printed."""

    def __init__(self, returncode, printed, errors):
        self.returncode, self.printed, self.errors = returncode, printed, errors

    def succeeded(self):
        """Itself; fails the test, showing the errors, if the script did not end well."""
        if self.returncode != 0:
            pytest.fail(f"the script ended with {self.returncode}:\n{self.errors[-3000:]}", pytrace=False)
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


def start(script, *flags, environment=None):
    """Starts a script; for a test that wants to end it. It sees what `environment` adds."""
    return subprocess.Popen(
        [sys.executable, script, *flags],
        cwd=REPOSITORY,
        env={**_environment(), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script, *flags, timeout=300):
    """Runs a script to its end."""
    with start(script, *flags) as process:
        try:
            printed, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Outcome(process.returncode, printed, errors)


@pytest.fixture(scope="session", name="run_script")
def run_script_fixture():
    """The function `run`."""
    return run


@pytest.fixture(scope="session", name="start_script")
def start_script_fixture():
    """The function `start`."""
    return start


@pytest.fixture(scope="session")
def tiny():
    """Flags of a training that takes seconds."""
    return TINY


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder with `photos`, where a run can go beside them."""
    folder = tmp_path_factory.mktemp("root")
    make_synthetic_catalog(folder / "photos", num_products=8, photos_per_product=4, image_size=32, test_share=0.25)
    return folder


@pytest.fixture(scope="session")
def trained(root):
    """A finished run of two epochs on two devices: its folder and how the script ended."""
    folder = root / "run"
    outcome = run(
        "train/main.py",
        *TINY,
        "--dataset=csv",
        f"--data_dir={root / 'photos'}",
        f"--model_dir={folder}",
        "--epochs=2",
        "--strategy=mirrored",
        "--virtual_devices=2",
        "--microbatch=2",
    )
    return folder, outcome.succeeded()
