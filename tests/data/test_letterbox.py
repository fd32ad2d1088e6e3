"""Photos that keep their aspect: the same pixels at every door, and no mixing with photos that were squashed."""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import eet_tf
from eet_tf.data import (
    Catalog,
    PKSampler,
    decode_and_resize,
    decode_photos,
    gallery_dataset,
    images,
    reading,
    training_dataset,
)
from eet_tf.embedder import PixelScaling, photo_fit
from eet_tf.serving import embedder_fingerprint
from eet_tf.serving.bundle import training_vectors
from eet_tf.serving.graph import ServingModule

SIZE = 32
SHAPES = {"square": (50, 50), "wide": (90, 40), "tall": (31, 77), "tiny": (3, 2), "a pixel": (1, 1)}
SHAPES |= {"small and wide": (20, 7), "a line": (400, 1), "nearly square": (33, 32), "as large": (32, 32)}


def drawn(width, height, seed=0):
    """A smooth asymmetric picture, `[H, W, 3]` uint8."""
    corners = np.random.default_rng(seed).integers(0, 200, [3, 4, 3]).astype(np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def encoded(picture, format="PNG", orientation=None):
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(picture).save(buffer, format, exif=exif.tobytes() if orientation else b"")
    return buffer.getvalue()


PHOTOS = {name: encoded(drawn(*shape)) for name, shape in SHAPES.items()}
PHOTOS |= {"wide JPEG": encoded(drawn(90, 40), "JPEG"), "turned JPEG": encoded(drawn(90, 40), "JPEG", 6)}
PHOTOS |= {"turned PNG": encoded(drawn(90, 40), "PNG", 8), "BMP": encoded(drawn(41, 90), "BMP")}
every_photo = pytest.mark.parametrize("name", PHOTOS)


def by_hand(content):
    """Turned, resized and put on white by Pillow: `[S, S, 3]`."""
    from PIL import ImageOps

    photo = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    scale = SIZE / max(photo.size)
    width, height = (max(int(side * scale + 0.5), 1) for side in photo.size)
    canvas = Image.new("RGB", (SIZE, SIZE), "white")
    canvas.paste(photo.resize((width, height), Image.Resampling.BILINEAR), ((SIZE - width) // 2, (SIZE - height) // 2))
    return np.asarray(canvas, np.float32)


@every_photo
def test_it_stands_whole_in_the_middle_of_white(name):
    """Against Pillow, whose bilinear resizing rounds to whole numbers twice, and whose JPEG decoder is another."""
    found = decode_and_resize(PHOTOS[name], SIZE, fit="letterbox").numpy()
    expected = by_hand(PHOTOS[name])
    assert np.abs(found - expected).max() <= (12 if "JPEG" in name else 1.01)
    np.testing.assert_array_equal((found == 255).all(axis=2), (expected == 255).all(axis=2))


def test_a_square_photo_is_what_it_is_when_squashed():
    for name in ("square", "a pixel", "as large"):
        np.testing.assert_array_equal(
            decode_and_resize(PHOTOS[name], SIZE, fit="letterbox"), decode_and_resize(PHOTOS[name], SIZE)
        )


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Each photo twice, as the two photos of one product."""
    folder = tmp_path_factory.mktemp("photos")
    files = [str(folder / f"{row}_{copy}.jpg") for row in range(len(PHOTOS)) for copy in range(2)]
    for row, file in enumerate(files):
        with open(file, "wb") as opened:
            opened.write(list(PHOTOS.values())[row // 2])
    return Catalog(files, [name for name in PHOTOS for _ in range(2)], source="list.csv")


def pixels_out(fit):
    """An embedder that gives its pixels back."""
    inputs = keras.Input([SIZE, SIZE, 3])
    return keras.Model(inputs, keras.layers.Flatten()(PixelScaling("none", fit=fit)(inputs)))


def test_all_doors_see_the_same_pixels(catalog):
    """Of squashed photos `test_one_decoder.py` says so."""
    fit = "letterbox"
    contents = [content for content in PHOTOS.values() for _ in range(2)]
    expected = np.stack([decode_and_resize(content, SIZE, fit=fit) for content in contents])
    gallery = np.concatenate(list(gallery_dataset(catalog, SIZE, 7, fit).as_numpy_iterator()))
    np.testing.assert_array_equal(gallery, expected)

    sampler = PKSampler(catalog.labels, len(PHOTOS), 2)
    trained, labels = next(iter(training_dataset(catalog, sampler, SIZE, fit=fit)))
    first_of = {int(label): row for row, label in reversed(list(enumerate(catalog.labels)))}
    np.testing.assert_array_equal(trained, expected[[first_of[int(label)] for label in labels]])
    assert np.abs(decode_photos(catalog, SIZE, fit=fit) - expected).max() <= 0.5

    model = pixels_out(fit)
    module = ServingModule(model)
    for rows in (slice(None), slice(0, 2), slice(18, 20)):  # all kinds; PNG alone; JPEG alone, in their own branch
        outputs = module.embed_bytes(tf.constant(contents[rows]))
        np.testing.assert_array_equal(outputs["embedding"].numpy().reshape(-1, SIZE, SIZE, 3), expected[rows])
    np.testing.assert_array_equal(training_vectors(model, contents).reshape(-1, SIZE, SIZE, 3), expected)

    for row in range(0, len(contents), 2):
        page = reading.shrunk(catalog.files[row], 400)[np.newaxis]
        assert np.abs(images.resize(page, SIZE, fit)[0] - expected[row]).max() <= 1
        served = module.embed_images(tf.constant(page))["embedding"].numpy().reshape(SIZE, SIZE, 3)
        np.testing.assert_allclose(served, images.resize(page, SIZE, fit)[0], atol=1e-3)


def test_jpegs_with_exif_are_fitted_after_they_are_turned():
    batch, is_image = images.decode_batch(tf.constant([PHOTOS["turned JPEG"], b"none", PHOTOS["wide JPEG"]]), SIZE)
    assert is_image.numpy().tolist() == [True, False, True]
    batch, _ = images.decode_batch(tf.constant([PHOTOS["turned JPEG"], PHOTOS["wide JPEG"]]), SIZE, fit="letterbox")
    for row, name in enumerate(["turned JPEG", "wide JPEG"]):
        np.testing.assert_array_equal(batch[row], decode_and_resize(PHOTOS[name], SIZE, fit="letterbox"))
    is_white = (batch.numpy() == 255).all(axis=3)
    assert is_white[0, :, 0].all() and not is_white[0, 0].all()  # tall, once turned
    assert is_white[1, 0].all() and not is_white[1, :, 0].all()


def test_no_photos_at_the_served_graph():
    module = ServingModule(pixels_out("letterbox"))
    assert module.embed_images(tf.zeros([0, 5, 9, 3], tf.uint8))["embedding"].shape == (0, 3 * SIZE**2)


def test_an_embedder_keeps_how_photos_are_fitted(tmp_path):
    keras.utils.set_random_seed(0)
    squashed = eet_tf.build_embedder("small_cnn", 4, image_size=SIZE)
    keras.utils.set_random_seed(0)
    model = eet_tf.build_embedder("small_cnn", 4, image_size=SIZE, fit="letterbox", neck="layer_norm")
    model.save(str(tmp_path / "model.keras"))
    assert photo_fit(eet_tf.load_embedder(str(tmp_path))) == "letterbox"
    assert photo_fit(eet_tf.MetricLearner(model)) == "letterbox"
    assert photo_fit(squashed) == photo_fit(keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])) == "squash"
    assert "fit" not in squashed.get_layer("pixel_scaling").get_config()  # as in files of 0.1


def test_an_index_of_the_one_is_not_searched_with_the_other(tmp_path):
    """The weights are the same; the fingerprints are not, and the manifest says why."""
    models = {}
    for fit in ("squash", "letterbox"):
        keras.utils.set_random_seed(0)
        models[fit] = eet_tf.build_embedder("small_cnn", 4, image_size=SIZE, fit=fit)
    served = eet_tf.serving.ServedEmbedder(eet_tf.export_embedder(models["letterbox"], str(tmp_path)))
    assert served.fingerprint == embedder_fingerprint(models["letterbox"])
    manifest = json.loads((tmp_path / "1" / "assets.extra" / "eet_tf.json").read_text())
    assert manifest["fit"] == "letterbox"
    photos = [PHOTOS["wide"], PHOTOS["tall"]]
    vectors = training_vectors(models["squash"], photos)
    queries, _ = served.embed(photos)
    np.testing.assert_allclose(queries, training_vectors(models["letterbox"], photos), atol=1e-6)
    assert np.abs(queries - vectors).max() > 1e-3
    index = eet_tf.index.ExactIndex.build(vectors, ["a", "b"], fingerprint=embedder_fingerprint(models["squash"]))
    with pytest.raises(eet_tf.index.CatalogIndexError, match="fingerprint"):
        index.search(queries, 1, fingerprint=served.fingerprint)


@pytest.mark.parametrize("call", [decode_and_resize, gallery_dataset, decode_photos], ids=lambda call: call.__name__)
def test_another_fit_is_refused(call, catalog):
    first = PHOTOS["wide"] if call is decode_and_resize else catalog
    with pytest.raises(ValueError, match="`fit` must be one of squash, letterbox. Received: fit='crop'"):
        call(first, SIZE, fit="crop")
