"""A bundle answers a C program that knows TensorFlow's C interface only: no Python, no package, no Keras."""

import glob
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.serving import ServedEmbedder

SOURCE = pathlib.Path(__file__).parents[2] / "export" / "run_bundle.c"
COMPILER = shutil.which("gcc") or shutil.which("cc")
WHEEL = os.path.dirname(tf.__file__)
LIBRARIES = [path for name in ("cc", "framework") for path in glob.glob(f"{WHEEL}/libtensorflow_{name}.so.2")]

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
    pytest.mark.skipif(len(LIBRARIES) != 2, reason="needs a wheel of TensorFlow with its libraries in it"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, compiled without a warning."""
    path = tmp_path_factory.mktemp("c") / "run_bundle"
    command = [COMPILER, "-O2", "-Wall", "-Wextra", "-Werror", f"-I{WHEEL}/include", str(SOURCE), "-o", str(path)]
    result = subprocess.run(
        [*command, *LIBRARIES, f"-Wl,-rpath,{WHEEL}"], capture_output=True, text=True, timeout=200, check=False
    )
    assert result.returncode == 0, result.stderr
    return path


def run(program, *arguments):
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_it_gives_the_vector_that_python_gives(program, bundles, version, tmp_path):
    """From a copy, since nothing in a bundle says where it is."""
    shutil.copytree(version, tmp_path / "elsewhere")
    photo = os.path.join(bundles, "photo.jpg")
    result = run(program, tmp_path / "elsewhere", photo)
    assert result.returncode == 0, result.stderr
    vector = np.array(result.stdout.split(), np.float32)
    expected, _ = ServedEmbedder(version).embed([pathlib.Path(photo).read_bytes()])
    np.testing.assert_allclose(vector, expected[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-5)


def test_what_is_no_photo_is_said_to_be_none(program, version):
    result = run(program, version, SOURCE)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"error: {SOURCE} is no photo" in result.stderr


def test_what_is_no_bundle_is_refused(program, tmp_path):
    result = run(program, tmp_path, SOURCE)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"error: {tmp_path}: Could not find" in result.stderr


def test_a_photo_that_is_not_there_is_refused(program, version, tmp_path):
    result = run(program, version, tmp_path / "none.jpg")
    assert (result.returncode, result.stdout) == (1, "")
    assert "none.jpg: cannot be read" in result.stderr
