"""A catalogue is embedded batch by batch, from files and URLs; after an unreadable photo nothing is embedded."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.serving.saved_model import SavedModelError
from eet_tf.serving.served import ServedEmbedder
from tests.data.photo_server import PhotoServer

PHOTOS = [tf.io.encode_png(tf.fill([2, 3, 3], tf.cast(row, tf.uint8))).numpy() for row in range(7)]


class FirstPixels(ServedEmbedder):
    """Embeds a photo as its first pixel, without a SavedModel, which takes a quarter of a minute to export."""

    def __init__(self):
        self.embedding_dim, self.max_pixels, self.sizes = 3, 100, []

    def embed(self, photos):
        self.sizes.append(len(photos))
        is_image = np.array([photo.startswith(b"\x89PNG") for photo in photos])
        pixels = [tf.io.decode_png(photo)[0, 0] if fine else np.zeros(3) for photo, fine in zip(photos, is_image)]
        return np.array(pixels, np.float32), is_image


@pytest.fixture
def catalog(tmp_path):
    for row, photo in enumerate(PHOTOS):
        (tmp_path / f"{row}.png").write_bytes(photo)
    paths = [f"{row}.png" for row in range(len(PHOTOS))]
    return Catalog(paths, list("aabbccc"), root=str(tmp_path), source="list.csv", lines=range(2, 9))


def test_embeddings_are_in_the_order_of_the_catalogue(catalog):
    embedder, told = FirstPixels(), []
    embeddings = embedder.embed_catalog(catalog, 3, told.append)
    np.testing.assert_array_equal(embeddings, np.arange(7, dtype=np.float32)[:, np.newaxis] * np.ones(3))
    assert embeddings.dtype == np.float32
    assert told == [3, 6, 7] and embedder.sizes == [3, 3, 1]


def test_photos_at_urls_are_embedded(catalog, tmp_path):
    with PhotoServer() as server:
        paths = [server.put(f"/{row}", PHOTOS[row]) if row > 2 else path for row, path in enumerate(catalog.paths)]
        mixed = Catalog(paths, catalog.skus, root=catalog.root, photo_cache=str(tmp_path / "cache"))
        expected = FirstPixels().embed_catalog(catalog)
        for _ in range(2):
            np.testing.assert_array_equal(FirstPixels().embed_catalog(mixed, 2), expected)
        assert set(server.asked.values()) == {1}


def test_nothing_is_embedded_after_the_first_unreadable_photo(catalog, tmp_path, monkeypatch):
    (tmp_path / "2.png").write_bytes(b"GIF89a")
    (tmp_path / "6.png").unlink()
    monkeypatch.setattr("eet_tf.data.pipeline.images.decode", lambda content, _: tf.io.decode_png(content))
    embedder = FirstPixels()
    with pytest.raises(CatalogError) as caught:
        embedder.embed_catalog(catalog, 2)
    assert embedder.sizes == [2, 2]
    first, *others = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert first.startswith("2 of 7 photos cannot be read. ")
    assert others == ["list.csv:4: '2.png': a GIF that is cut off", "list.csv:8: '6.png': the file does not exist"]


def test_a_photo_that_was_unreadable_for_a_moment_is_named(catalog, monkeypatch):
    monkeypatch.setattr("eet_tf.serving.served.check_photos", lambda catalog, max_pixels: catalog)
    monkeypatch.setattr(
        "eet_tf.serving.served.read_batches", lambda *_: iter([PHOTOS[:4], [PHOTOS[4], b"", PHOTOS[6]]])
    )
    with pytest.raises(CatalogError, match=r"^1 of 7 .*\nlist.csv:7: '.*5.png': it could not be read, but now it can"):
        FirstPixels().embed_catalog(catalog, 4)


@pytest.mark.parametrize(
    "manifest, why",
    [
        (None, "eet_tf.json cannot be read: No such file or directory"),
        (b"{", "assets.extra/eet_tf.json is damaged"),
        (b"\xff", "assets.extra/eet_tf.json is damaged"),
        (b'{"fingerprint": "a"}', "assets.extra/eet_tf.json lacks 'embedding_dim'"),
        (b'{"fingerprint": "a", "embedding_dim": 3}', "its graph or its variables are missing or damaged"),
    ],
)
def test_a_damaged_model_is_refused_in_words(tmp_path, manifest, why):
    (tmp_path / "1" / "assets.extra").mkdir(parents=True)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\x0a")
    if manifest is not None:
        (tmp_path / "1" / "assets.extra" / "eet_tf.json").write_bytes(manifest)
    with pytest.raises(SavedModelError) as caught:
        ServedEmbedder(str(tmp_path))
    assert str(caught.value) == (
        f"'{tmp_path}/1' is no complete SavedModel of this package: {why}. Write it again with `eet export`."
    )
