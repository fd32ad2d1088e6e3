"""A drawn catalogue, the scripts, and one training that several modules look at."""

import pytest

from eet_tf.data.synthetic import make_synthetic_catalog
from tests.end_to_end.scripts import run, start

# 6 products to learn from, of which 2 are held out, in batches of 4 x 2 photos; 2 products to test on
TINY = (
    "--backbone=small_cnn",
    "--image_size=32",
    "--embedding_dim=16",
    "--classes_per_batch=4",
    "--examples_per_class=2",
    "--steps_per_epoch=2",
)


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
