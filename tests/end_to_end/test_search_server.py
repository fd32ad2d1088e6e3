"""export/search.py with --server: the photo is embedded elsewhere, the index is searched here."""

import numpy as np
import pytest
from PIL import Image

from eet_tf.index import ExactIndex

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed, the extra [serving]")
from tests.serving.model_server import ModelServer  # noqa: E402
from tests.serving.served_models import FINGERPRINT, PlainModel, expected_embedding  # noqa: E402

NAMES = [f"photo-{number}.jpg" for number in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five files that the server calls photos, one that it does not, an index of the five and one by another model."""
    folder = tmp_path_factory.mktemp("served")
    for name in NAMES:
        (folder / name).write_bytes(name.encode())
    (folder / "text.jpg").write_bytes(b"bad")
    embeddings = np.stack([expected_embedding(name.encode()) for name in NAMES])
    for kind, fingerprint in (("index", FINGERPRINT), ("other", "another embedder")):
        index = ExactIndex.build(embeddings, [f"sku {name}" for name in NAMES], NAMES, fingerprint=fingerprint)
        index.save(folder / kind)
    return folder


@pytest.fixture(scope="module")
def model_server():
    with ModelServer({"embedder": {7: PlainModel()}}) as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def server(request, model_server):
    """The flag that names the running server, over gRPC and over REST."""
    addresses = {"grpc": model_server.grpc_address, "rest": f"http://{model_server.rest_address}"}
    return f"--server={addresses[request.param]}"


def test_photos_find_themselves(run_script, folder, server):
    queries = [f"--query={folder / name}" for name in NAMES[:2]]
    printed = run_script("export/search.py", *queries, f"--index_dir={folder / 'index'}", server, "--k=3").succeeded()
    for name in NAMES[:2]:
        assert f"     1  1.000  sku {name}  ({name})" in printed.printed


def test_what_is_wrong_is_said_in_one_line(run_script, folder, server):
    """No photo; an index of another embedder, refused before anything is searched; and no such model."""
    search = ("export/search.py", f"--query={folder / NAMES[0]}", server)
    no_photo = f"--query={folder / 'text.jpg'}"
    run_script(*search, no_photo, f"--index_dir={folder / 'index'}").refused(r"query=.*text\.jpg: a text, not a photo")
    run_script(*search, f"--index_dir={folder / 'other'}").refused("embedded by different models", FINGERPRINT)
    run_script(*search, f"--index_dir={folder / 'index'}", "--server_model=shoes").refused("has no model 'shoes'")
    run_script(*search, f"--index_dir={folder / 'index'}", "--server_version=8").refused(
        "has no version 8 .* It serves 7: name one of these"
    )


def test_a_server_that_is_not_there_is_named(run_script, folder):
    search = ("export/search.py", f"--query={folder / NAMES[0]}", f"--index_dir={folder / 'index'}")
    run_script(*search, "--server=http://localhost:1", "--server_deadline=0.5").refused(
        r"server at http://localhost:1 did not answer after \d+ tr.* in 0\.\d s: .*refused"
    )


def test_a_photo_of_too_many_pixels_is_refused_with_the_limit(run_script, folder, server, model_server):
    Image.new("L", (2100, 1000)).save(folder / "large.png")
    search = ("export/search.py", f"--query={folder / 'large.png'}", f"--index_dir={folder / 'index'}", server)
    run_script(*search, "--server_max_megapixels=2").refused(
        r"query=.*large\.png: it has more than 2 million pixels, the limit of this model; make it smaller"
    )
    run_script(*search, "--server_max_megapixels=2.1").succeeded()


def test_no_model_is_loaded_here(run_python, folder, model_server):
    """Over REST not even TensorFlow is."""
    target = f"http://{model_server.rest_address}"
    flags = [f"--query={folder / NAMES[0]}", f"--index_dir={folder / 'index'}", f"--server={target}"]
    code = f"""
import runpy, sys
sys.argv = ["export/search.py", *{flags!r}]
sys.path.insert(0, "export")
try:
    runpy.run_path("export/search.py", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert "tensorflow" not in sys.modules
"""
    assert f"sku {NAMES[0]}" in run_python(code, fresh=True)[0]
