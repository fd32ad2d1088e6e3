"""One small bundle that several modules look at, and the checks that the verifier makes of one."""

import functools
import importlib
import os
import pathlib
import shutil
import sys

import keras
import pytest

VERIFIER = pathlib.Path(__file__).parents[2] / "eet_tf" / "verifier"


@pytest.fixture(scope="session")
def small_embedder():
    """32 pixels in, 8 numbers out."""
    import eet_tf

    keras.utils.set_random_seed(2)
    return eet_tf.build_embedder("small_cnn", 8, image_size=32)


@pytest.fixture(scope="session")
def bundles(small_embedder, tmp_path_factory):
    """A folder of models with version 1 of `embedder`, made for batches of up to 4 photos."""
    pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")
    from eet_tf.serving import export_embedder
    from eet_tf.serving.bundle import training_vectors, write_bundle

    output_dir = str(tmp_path_factory.mktemp("bundles"))
    write_bundle(
        functools.partial(export_embedder, small_embedder, metadata={"run": "mine"}),
        output_dir,
        reference=functools.partial(training_vectors, small_embedder),
        max_batch_size=4,
    )
    return output_dir


@pytest.fixture(scope="session")
def version(bundles):
    """The folder of that version."""
    return os.path.join(bundles, "embedder", "1")


@pytest.fixture
def write_copy(version):
    """Stands in for `export_embedder` where what is exported does not matter: copies the version."""

    def write_model(folder):
        return shutil.copytree(version, os.path.join(folder, "1"))

    return write_model


@pytest.fixture(scope="session")
def _verifier_modules():
    """Modules of eet_tf/verifier/, by name; neither they nor that folder can be imported from elsewhere afterwards."""
    names = ["bundle_files", "bundle_checks", "bundle_server"]
    sys.path.insert(0, str(VERIFIER))
    try:
        return {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(VERIFIER))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def bundle_files(_verifier_modules):
    """The module eet_tf/verifier/bundle_files.py."""
    return _verifier_modules["bundle_files"]


@pytest.fixture(scope="session")
def bundle_checks(_verifier_modules):
    """The module eet_tf/verifier/bundle_checks.py."""
    return _verifier_modules["bundle_checks"]


@pytest.fixture(scope="session")
def bundle_server(_verifier_modules):
    """The module eet_tf/verifier/bundle_server.py."""
    return _verifier_modules["bundle_server"]
