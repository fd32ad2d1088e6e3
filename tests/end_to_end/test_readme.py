"""Every command and every piece of Python in README.md runs, on a tiny catalogue and a tiny training."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from eet_tf import build_embedder, compat, export_embedder
from eet_tf.data import make_synthetic_catalog

pytestmark = pytest.mark.skipif(compat.KERAS_2, reason="its commands are for the default set of versions: make test")
ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_LINES = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()]
BEAM = [line for line in _LINES if "embed_beam.py" in line or "--embeddings_dir" in line]
COMMANDS = [line for line in _LINES if line not in BEAM]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
DATA = ROOT.parent / "shared" / "data"
TINY = "--image_size=32 --embedding_dim=8 --epochs=1 --steps_per_epoch=2 --classes_per_batch=2 --examples_per_class=2"


def run(command, folder, **environment):
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with `photos/catalog.csv` and `photo.jpg`, from which the tools can be named as in the README."""
    folder = tmp_path_factory.mktemp("readme")
    catalog = make_synthetic_catalog(str(folder / "photos"), num_products=12, photos_per_product=4, image_size=32)
    shutil.copy(catalog.files[0], folder / "photo.jpg")
    for tools in ("train", "export"):
        (folder / tools).symlink_to(ROOT / tools)
    return folder


def test_readme_has_the_commands_that_are_run_below():
    assert COMMANDS[:2] == ["make demo", "make test"]
    assert len(COMMANDS) == 12
    assert len(BEAM) == 2
    assert [command for command in COMMANDS if "DATA" in command] == COMMANDS[-2:]
    assert len(PYTHON) == 4


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real photos in ../shared/data")
@pytest.mark.parametrize(
    "command, said",
    [
        (COMMANDS[-2], ["R@1 on unseen test products"]),
        (COMMANDS[-1], ["14 of the 5,955 photos to measure on are copies", "R@1 on test products"]),
    ],
    ids=["grocery", "fashion"],
)
def test_commands_on_real_photos(workplace, run_script, command, said):
    """The recipes of the measured figures, with fewer steps and small images; a grid needs 64 pixels."""
    arguments = shlex.split(command.replace("DATA", str(DATA)))
    outcome = run_script(*arguments[1:], *shlex.split(TINY), "--image_size=64", folder=workplace).succeeded()
    assert all(text in outcome.printed for text in said)


def test_commands_on_own_photos(workplace, run_script):
    for command in COMMANDS[2:-2]:
        arguments = shlex.split(command)
        assert arguments[0] == "python", command
        tiny = shlex.split(TINY) if arguments[1] == "train/main.py" else []
        run_script(*arguments[1:], *tiny, folder=workplace).succeeded()
    for made in (
        "model.keras",
        "serving/1/saved_model.pb",
        "index/manifest.json",
        "found.html",
        "report.html",
        "served/models.config",
    ):
        assert (workplace / "runs" / "mine" / made).is_file(), made
    for block in PYTHON[2:]:  # they read what the commands wrote; the last goes on from the one before it
        compile(block, "README.md", "exec")
    result = run([sys.executable, "-c", "\n".join(PYTHON[2:])], workplace)
    assert result.returncode == 0, result.stderr
    assert "(1, 8) tf.Tensor([ True]" in result.stdout


def test_commands_for_a_large_catalogue(workplace, run_script):
    export_embedder(build_embedder("small_cnn", 8, image_size=32), str(workplace / "runs" / "mine" / "serving"))
    for command in BEAM:
        run_script(*shlex.split(command)[1:], folder=workplace).succeeded()
    assert (workplace / "runs" / "mine" / "index" / "manifest.json").is_file()


def test_python_that_needs_no_run(workplace):
    """The plain Keras model gets random photos, as the README names the arrays but does not make them."""
    arrays = "import numpy as np\nimages = np.random.rand(32, 64, 64, 3)\nlabels = np.repeat(np.arange(8), 4)\n"
    smaller = PYTHON[1].replace("=64", "=32").replace("classes_per_batch=8", "classes_per_batch=4")
    for block in (arrays + PYTHON[0], smaller):
        result = run([sys.executable, "-c", block], workplace)
        assert result.returncode == 0, f"{block}\n{result.stderr}"


def test_make_demo(tmp_path):
    """The demo's own recipe, with fewer steps, in the environment the tests run in."""
    result = run(
        [
            *("make", "--no-print-directory", "demo", "--old-file=venv", f"PY={sys.executable}", f"RUN={tmp_path}/run"),
            *(f"PHOTOS={tmp_path}/photos", "DEMO_FLAGS=--epochs=1 --steps_per_epoch=3 --virtual_devices=2"),
        ],
        ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stdout.strip().splitlines()
    assert re.fullmatch(r"R@1 on unseen products: [\d.]+ % before training, [\d.]+ % after\.", last[-2])
    assert last[-1] == f"The page is {tmp_path}/run/report.html."
    assert 1e5 < (tmp_path / "run" / "report.html").stat().st_size < 3e6


def test_the_targets_of_the_makefile_exist():
    for target in re.findall(r"`?make ([a-z-]+)", README):
        result = run(["make", "--dry-run", "--old-file=venv", target], ROOT)
        assert result.returncode == 0, target
