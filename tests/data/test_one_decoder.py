"""Audit, check, training, served graph and pages take the same files for photos, and see the same pixels in them."""

import re
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf.audit.prints import LUMA, read_prints
from eet_tf.data import images, reading, reasons
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.pipeline import check_photos, decode_photos, gallery_dataset, naming_unreadable
from eet_tf.pages import thumbnails
from eet_tf.serving.graph import ServingModule
from tests.data.photo_server import PhotoServer
from tests.odd_photos import HEIGHT, WIDTH, corpus

SIZE = 32  # of the audit's prints
ODD = corpus()
NAMES = list(ODD)
every_file = pytest.mark.parametrize("name", NAMES)
every_photo = pytest.mark.parametrize("name", [name for name in NAMES if not ODD[name].refused])
every_known_photo = pytest.mark.parametrize("name", [name for name in NAMES if ODD[name].right is not None])


class Seen:
    """What each way makes of the corpus: which rows it reads, and `[N, 32, 32, 3]` pixels, zeros where it does not."""

    def __init__(self, folder):
        self.files = [str(folder / f"{row:03d}.jpg") for row in range(len(ODD))]
        for file, odd in zip(self.files, ODD.values()):
            with open(file, "wb") as opened:
                opened.write(odd.content)
        self.catalog = Catalog(self.files, NAMES, source="list.csv", lines=range(2, len(ODD) + 2))
        self.prints = read_prints(self.files)
        self.said = self._said_by_the_check()
        self.served, self.is_served = self._served()
        self.fine = np.flatnonzero(self.is_served)
        self.trained, self.errors = {}, []
        for most in (len(ODD) - 1, len(ODD)):  # of what is few; by Python's calls and in the graph
            with mock.patch.object(images, "_FEW_PHOTOS", most):
                self.trained[most] = self._trained()
                self.errors += self._errors()
        self.on_page = [reading.shrunk(file, max(WIDTH, HEIGHT)) for file in self.files]

    def _said_by_the_check(self):
        with pytest.raises(CatalogError) as caught:
            check_photos(self.catalog)
        found = re.findall(r"^list\.csv:(\d+): '.*?': (.*)$", str(caught.value), re.M)
        return {int(line) - 2: why for line, why in found}

    def _served(self):
        """By the graph that is exported, around an embedder that gives the pixels back."""
        embedder = keras.Sequential([keras.Input([SIZE, SIZE, 3]), keras.layers.Flatten()])
        outputs = ServingModule(embedder).embed_bytes(tf.constant([odd.content for odd in ODD.values()]))
        return outputs["embedding"].numpy().reshape(-1, SIZE, SIZE, 3), outputs["ok"].numpy()

    def _trained(self):
        """By the dataset that is trained on, photo by photo, so that those that end it are passed over."""
        dataset = gallery_dataset(self.catalog, SIZE, batch_size=1).ignore_errors(log_warning=False)
        return np.concatenate(list(dataset.as_numpy_iterator()))

    def _errors(self):
        """What TensorFlow says of each photo that ends a training."""
        errors, batches = [], iter(gallery_dataset(self.catalog, SIZE, batch_size=1))
        for _ in self.files:
            try:
                next(batches)
            except tf.errors.OpError as error:
                errors.append(error)
        return errors


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return Seen(tmp_path_factory.mktemp("odd"))


def test_there_are_many():
    assert len(ODD) > 250
    assert 60 < sum(bool(odd.refused) for odd in ODD.values()) < len(ODD) - 120


@every_file
def test_it_is_read_everywhere_or_nowhere(seen, name):
    row = NAMES.index(name)
    is_read = not ODD[name].refused
    ways = {
        "audit": row not in seen.prints.unreadable,
        "check": row not in seen.said,
        "served": bool(seen.is_served[row]),
        "page": seen.on_page[row] is not None,
    }
    assert ways == dict.fromkeys(ways, is_read)


@every_file
def test_it_is_refused_in_the_same_words_everywhere(seen, name):
    row, why = NAMES.index(name), ODD[name].refused
    said = [seen.prints.unreadable.get(row, ""), seen.said.get(row, "")]
    said.append(reasons.of_bytes(ODD[name].content) if why else "")
    assert len(set(said)) == 1 and why in said[0]
    assert not re.search(r"Error|node|\{\{|\[Op|\btf\.|np\.|numpy|Pillow|PIL|0x", said[0])


def test_training_reads_what_is_served_and_sees_the_same(seen):
    assert len(seen.trained) == 2
    for trained in seen.trained.values():
        assert len(trained) == len(seen.fine)
        np.testing.assert_array_equal(trained, seen.served[seen.fine])
    decoded = decode_photos(seen.catalog.take(seen.fine), SIZE)
    assert np.abs(decoded - seen.served[seen.fine]).max() <= 0.5


def test_every_photo_that_ends_a_training_is_named(seen, monkeypatch):
    """TensorFlow's words for each kind of broken photo are known as such, and none of them is passed on."""
    monkeypatch.setattr("eet_tf.data.pipeline.read_files", lambda *_, **__: {7: "a GIF that is cut off"})
    assert len(seen.errors) == 2 * (len(ODD) - len(seen.fine))
    for error in seen.errors:
        with pytest.raises(CatalogError) as caught, naming_unreadable(seen.catalog):
            raise error
        assert str(caught.value).endswith(f"list.csv:9: {seen.files[7]!r}: a GIF that is cut off")


@every_photo
def test_audit_and_page_see_the_same_to_one_level(seen, name):
    row = NAMES.index(name)
    expected = seen.served[row]
    assert np.abs(seen.prints.grey[row] - expected @ LUMA).max() <= 1
    cells = expected.reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(seen.prints.color[row] - cells).max() <= 1
    page = images.resize(seen.on_page[row][np.newaxis], SIZE)[0]
    assert np.abs(page - expected).max() <= 1
    assert tuple(seen.on_page[row].shape[1::-1]) == tuple(seen.prints.sizes[row])


@every_known_photo
def test_it_is_what_it_should_be(name):
    """Against Pillow, or against the numbers that the file was made of; upright, and on white."""
    odd = ODD[name]
    got = images.decode(odd.content).numpy()
    assert got.shape == odd.right.shape
    assert np.abs(got - odd.right).max() <= odd.tolerance


def test_pages_show_no_picture_of_what_is_no_photo(seen):
    refused = next(row for row, odd in enumerate(ODD.values()) if odd.refused)
    assert thumbnails.thumbnail(seen.files[refused], 64) is None
    assert thumbnails.without_picture(seen.files[refused]) == f"{seen.files[refused]}: {seen.said[refused]}"
    assert thumbnails.thumbnail(seen.files[seen.fine[0]], 64).startswith(b"\xff\xd8")


def test_pages_show_photos_at_urls(seen, tmp_path):
    content = ODD[NAMES[seen.fine[0]]].content
    with PhotoServer() as server:
        url, gone = server.put("/photo", content), server.put("/gone", 404)
        pictures = [thumbnails.thumbnail(url, 64, photo_cache=str(tmp_path)) for _ in range(2)]
        assert pictures[0] == pictures[1] == thumbnails.thumbnail(seen.files[seen.fine[0]], 64)
        assert server.asked["/photo"] == 1
        assert thumbnails.thumbnail(gone, 64) is None
        assert thumbnails.without_picture(gone) == f"{gone}: the server has no such photo (HTTP 404)"


def test_a_pipeline_of_few_photos_begins_without_the_operations_of_every_kind(tmp_path):
    """Which take a second to set up; a longer one has them, since a call of Python for each photo takes longer."""
    nodes = {}
    for count in (500, 501):
        catalog = Catalog([str(tmp_path / f"{row}.jpg") for row in range(count)], ["a"] * count)
        dataset = gallery_dataset(catalog, SIZE)
        functions = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy()).library.function
        nodes[count] = sum(len(function.node_def) for function in functions)
    assert nodes[500] < 400 and nodes[501] > 2000
