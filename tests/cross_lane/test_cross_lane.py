"""What one supported set of versions writes, the other reads: TensorFlow 2.15 with Keras 2, and 2.20 with Keras 3.

Both environments must be there: `make test` makes `.venv`, `make test-addons` makes `.venv-addons` and runs this.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from eet_tf import compat

REPOSITORY = pathlib.Path(__file__).parents[2]
OTHER = REPOSITORY / ".venv" / "bin" / "python"

pytestmark = [
    pytest.mark.skipif(not compat.KERAS_2, reason="make test-addons runs it, for both directions"),
    pytest.mark.skipif(not OTHER.exists(), reason="needs the default environment beside: make venv"),
]


def lane(python, *arguments):
    """Runs lanes.py with one of the two interpreters; what it printed last, from JSON."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    script = pathlib.Path(__file__).parent / "lanes.py"
    ended = subprocess.run(
        [str(python), str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if ended.returncode:
        pytest.fail(f"{python} {arguments} ended with {ended.returncode}:\n{ended.stderr[-3000:]}", pytrace=False)
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=["Keras 2 to 3", "Keras 3 to 2"])
def written(request, tmp_path_factory):
    """What one set trained and wrote: its folder, its embeddings, and the interpreter of the other set."""
    folder = tmp_path_factory.mktemp("written")
    writer, reader = (sys.executable, OTHER) if request.param == "Keras 2 to 3" else (OTHER, sys.executable)
    facts = lane(writer, "write", folder)
    assert facts["keras"].startswith("2." if writer == sys.executable else "3.")
    return folder, facts, reader


def test_the_saved_model_serves_the_same_vectors(written):
    """Of JPEGs, through decoding, resizing and the trained network."""
    folder, facts, reader = written
    read = lane(reader, "serve", folder)
    assert read["keras"] != facts["keras"] and read["fingerprint"] == facts["fingerprint"]
    np.testing.assert_allclose(np.linalg.norm(read["embeddings"], axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(read["embeddings"], facts["embeddings"], atol=1e-5)


def test_an_index_finds_the_same_products(written):
    folder, facts, reader = written
    read = lane(reader, "search", folder)
    assert read["skus"] == facts["skus"]
    np.testing.assert_allclose(read["scores"], facts["scores"], atol=1e-5)


def test_weights_fill_an_embedder_of_the_same_arguments(written):
    folder, facts, reader = written
    read = lane(reader, "weights", folder)
    np.testing.assert_allclose(read["embeddings"], facts["of_images"], atol=1e-5)


def test_the_keras_file_is_refused(written):
    """Keras names the module of its own class in the file. Should this pass one day, the page can say so."""
    folder, _, reader = written
    assert "Could not deserialize class 'Functional'" in lane(reader, "keras", folder)["refused"]
