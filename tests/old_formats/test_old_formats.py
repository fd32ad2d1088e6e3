"""What earlier versions wrote still opens, and gives the same numbers: README.md says what is kept here, and how it was
drawn."""

import base64
import json
import pathlib
import tarfile

import numpy as np
import pytest

import eet_tf
from eet_tf import compat
from eet_tf.embedding.files import EmbeddingFilesError, open_folder
from eet_tf.evaluation.postprocessing import Whitening
from eet_tf.index import load_index, verify_index
from eet_tf.serving import ServedEmbedder
from eet_tf.training.run import read_run
from tests.forks import Fork
from tests.old_formats import drawn

FOLDER = pathlib.Path(__file__).parent
WRITTEN = ["0.1/keras3", "0.1/keras2", "0.1.0/keras3"]
OURS = "keras2" if compat.KERAS_2 else "keras3"
KINDS = ["exact", "exact_int8", "scann", "scann_leaves", "milvus"]
LEARNERS = [
    *("eet_memory_microbatch", "triplet_hard", "triplet_all_soft", "triplet_partner_semi_hard", "deviance"),
    *("soft_deviance_labels", "soft_deviance_predictions", "addons"),
]
# of another CPU, and of another version of TensorFlow
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


class Old:
    """What one version wrote with one set of packages: `folder / name`, and the numbers that it gave."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")

    def path(self, name):
        path = self.folder / name
        assert path.exists(), path
        return str(path)


@pytest.fixture(scope="module", params=WRITTEN)
def old(request, tmp_path_factory):
    return Old(request.param, tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def ours(old):
    """As `old`; a .keras file names modules of its own Keras, and the other one refuses it."""
    if not old.name.endswith(OURS):
        pytest.skip(f"{old.name} has .keras files of the other Keras")
    return old


def assert_close(found, expected):
    """Numbers in the same lists and dictionaries."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        for name in expected:
            assert_close(found[name], expected[name])
    else:
        np.testing.assert_allclose(found, expected, **CLOSE)


# Models


def files_of(old):
    return sorted(path.name for path in old.folder.glob("*.keras"))


def test_keras_loads_every_file_once_the_package_is_imported(ours, run_python):
    """Without a list of classes, and before anything else of the package has been imported."""
    paths = [ours.path(name) for name in files_of(ours)]
    assert len(paths) == 2 + len(ours.expected["learners"])
    code = (
        "import json, keras, eet_tf\n"
        f"loaded = [type(keras.models.load_model(path)).__name__ for path in {paths!r}]\n"
        "print(json.dumps(loaded))"
    )
    (printed,) = run_python(code)
    kinds = dict(zip(files_of(ours), json.loads(printed.splitlines()[-1])))
    assert {name: kind for name, kind in kinds.items() if name.startswith("learner")} == {
        f"learner_{name}.keras": "MetricLearner" for name in ours.expected["learners"]
    }
    assert kinds["embedder.keras"] == "Functional" and kinds["compiled.keras"] == "Sequential"


def test_an_embedder_gives_the_same_vectors(ours):
    embedder = eet_tf.load_embedder(ours.path("embedder.keras"))
    assert_close(drawn.as_lists(embedder(drawn.images())), ours.expected["embedder"])


def test_a_compiled_model_has_its_loss(ours):
    import keras

    model = keras.models.load_model(ours.path("compiled.keras"))
    loss = model.evaluate(drawn.vectors(8, 6), drawn.labels(), batch_size=8, verbose=0)
    assert_close({"outputs": model(drawn.vectors(8, 6)), "loss": loss}, ours.expected["compiled"])


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_goes_on(ours, name):
    """With its memory, its losses and its optimizer: two more steps have the losses that they had."""
    import keras

    expected = ours.expected["learners"].get(name)
    if expected is None:
        pytest.skip(f"{ours.name} has no such learner: before 0.1 it was not saved as a whole, addons are of Keras 2")
    learner = keras.models.load_model(ours.path(f"learner_{name}.keras"))
    config = learner.get_config()
    assert {key: config[key] for key in expected["config"]} == expected["config"]
    assert_close(drawn.as_lists(learner.embedder(drawn.images(16))), expected["embeddings"])
    assert_close(drawn.steps(learner, 2), expected["next"])


def test_the_embedder_is_taken_out_of_a_learner(ours):
    for name, expected in ours.expected["learners"].items():
        embedder = eet_tf.load_embedder(ours.path(f"learner_{name}.keras"))
        assert_close(drawn.as_lists(embedder(drawn.images(16))), expected["embeddings"])


# A run


def test_a_run_is_read(old):
    expected, record = old.expected["run"], read_run(old.path("run"))
    assert [f"--{name}={text}" for name, text in record.settings.items()] == expected["flags"]
    names, *rows = (line.split(",") for line in expected["history"])
    assert record.history == [dict(zip(names, map(float, row))) for row in rows]
    assert drawn.rounded(record.metrics) == expected["metrics"]


def test_a_runs_embedder_gives_the_same_vectors(ours):
    embedder = eet_tf.load_embedder(ours.path("run"))
    assert_close(drawn.as_lists(embedder(drawn.images())), ours.expected["run"]["embeddings"])


@pytest.mark.slow
def test_a_run_goes_on_by_its_own_flags(ours, tmp_path):
    """From the epoch that it ended with, although the command has other flags today."""
    drawn.write_photos(tmp_path / "photos")
    network = drawn.backbone_of(eet_tf.load_embedder(ours.path("run")))
    network.save_weights(str(tmp_path / "backbone.weights.h5"))
    script = str(FOLDER.parents[1] / "train" / "main.py")
    folder = ours.path("run")
    flags = [f"--flagfile={folder}/flags.txt", "--epochs=2", f"--model_dir={folder}"]
    environment = {"PYTHONPATH": str(FOLDER.parents[1]), "CUDA_VISIBLE_DEVICES": "-1"}
    status, printed, errors = Fork([script, *flags], tmp_path, environment).ended()
    assert status == 0, errors[-2000:]
    assert [row["epoch"] for row in read_run(folder).history] == [1, 2], printed


# Indexes


@pytest.fixture(params=KINDS)
def kind(old, request):
    """A kind of index that the version wrote, and that the installed packages read."""
    if request.param not in old.expected["indexes"]:
        pytest.skip(f"{old.name} has none: pymilvus is not for the second set of versions")
    if request.param == "milvus":
        pytest.importorskip("milvus_lite")
    return request.param


def test_an_index_finds_the_same_photos(old, kind):
    """With what was added and deleted after it was saved."""
    expected = old.expected["indexes"][kind]
    index = load_index(old.path(f"index_{kind}"), read_only=True)
    assert (len(index), index.kind) == (expected["size"], expected["kind"])
    assert getattr(index, "storage", None) == expected["storage"]
    assert index.fingerprint == "f00d" and index.metadata == {"made": "0.1"}
    for asked, found in drawn.answers(index).items():
        assert found["photos"] == expected[asked]["photos"], asked
        np.testing.assert_allclose(found["scores"], expected[asked]["scores"], **CLOSE)


def test_an_index_takes_updates_and_is_saved_again(old, kind, tmp_path):
    index = load_index(old.path(f"index_{kind}"))
    vector = drawn.vectors(1, seed=11)
    index.upsert(vector, ["later"], photos=["p/later.jpg"], attributes={"price": [3.0], "colour": ["red"]})
    index.save(str(tmp_path / "again"))
    again = load_index(str(tmp_path / "again"))
    verify_index(again, str(tmp_path / "again"))
    for each in (index, again):
        found = each.search(vector, k=1, where={"colour": "red", "price": 3.0})
        assert found.photos.tolist() == [["p/later.jpg"]]


# Files of embeddings, whitenings, SavedModels


def test_files_of_embeddings_are_read(old):
    expected, files = old.expected["embeddings"], open_folder(old.path("embeddings"))
    assert (files.fingerprint, files.embedding_dim, files.saved_model) == ("f00d", 8, "../serving/1")
    assert_close(files.read(expected["photos"]), expected["vectors"])
    photos = [f"p/{row}.jpg" for row in range(12)]
    assert files.unreadable(photos) == expected["unreadable"]
    with pytest.raises(EmbeddingFilesError, match="1 of 12 photos is no image, first 'p/3.jpg'"):
        files.read(photos)


def test_a_whitening_gives_the_same_vectors(old):
    whitened = Whitening.read(old.path("whitening.npz")).apply(drawn.vectors(4, seed=10))
    assert_close(whitened, old.expected["whitening"])


def test_a_saved_model_serves_the_same_vectors_and_searches_its_catalogue(old):
    expected = old.expected["serving"]
    served = ServedEmbedder(old.path("serving"))
    assert served.fingerprint == expected["fingerprint"]
    assert list(served.attribute_names) == expected["attribute_names"]
    photos = [base64.b64decode(photo) for photo in expected["photos"]]
    vectors, ok = served.embed([*photos, b"no photo"])
    assert ok.tolist() == [True] * len(photos) + [False]
    assert_close(vectors[:-1], expected["embeddings"])
    assert_close(served.predict_attributes(photos), expected["attributes"])
    found = drawn.found_by_server(served._model, photos)
    assert found["sku"] == expected["search"]["sku"]
    assert_close(found["score"], expected["search"]["score"])
