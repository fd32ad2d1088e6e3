"""The SavedModel: the same embeddings without this package or Keras, versions that are whole, and who made them."""

import io
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import eet_tf
from eet_tf.data import Catalog, CatalogError
from eet_tf.data.images import decode_and_resize
from eet_tf.data.limits import MAX_PIXELS
from eet_tf.evaluation.postprocessing import Whitening
from eet_tf.serving import SavedModelError, ServedEmbedder, embedder_fingerprint, export_embedder, newest_version
from eet_tf.serving.saved_model import MANIFEST

SIZE, DIM = 32, 8


def photo(format, seed, mode="RGB", exif=None, size=(50, 40)):
    """An encoded picture of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, [4, 5, 3]).astype(np.uint8)
    buffer = io.BytesIO()
    options = {"exif": exif} if exif else {}
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def turned():
    """EXIF that says: turn a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PHOTOS = [
    photo("JPEG", 1),
    photo("PNG", 2),
    photo("BMP", 3),
    photo("GIF", 4, "P"),
    photo("PNG", 5, "RGBA"),
    photo("JPEG", 6, "CMYK"),
    photo("JPEG", 7, exif=turned()),
    photo("PNG", 8, "L"),
]
BAD = [b"", b"no image", PHOTOS[0][:200]]


@pytest.fixture(scope="module")
def embedder():
    """Kernels are random and every statistic, scale and offset is off its start, so that none of them can be lost."""
    model = eet_tf.build_embedder("small_cnn", DIM, image_size=SIZE)
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 0.2, weight.shape) if weight.ndim > 1 else weight for weight in model.get_weights()]
    model.set_weights([weight if weight.ndim != 1 else rng.uniform(0.5, 1.5, weight.shape) for weight in weights])
    return model


@pytest.fixture(scope="module")
def base(embedder, tmp_path_factory):
    """A base path with version 1."""
    base = tmp_path_factory.mktemp("serving")
    export_embedder(embedder, str(base), {"run": "mine", "recall@1": 0.5})
    return str(base)


@pytest.fixture(scope="module")
def served(base):
    """Version 1, loaded."""
    return ServedEmbedder(base)


def decoded(photos):
    """What training would see."""
    return tf.stack([decode_and_resize(photo, SIZE) for photo in photos])


def python_path(embedder, photos):
    """Decode, embed."""
    return embedder(decoded(photos), training=False).numpy()


# What it answers


def test_a_server_without_this_package_and_keras_gives_the_same(embedder, base, tmp_path, run_python):
    """`sys.modules[name] = None` makes any import of that name an error, so nothing of either can be used."""
    for number, content in enumerate([*PHOTOS, *BAD]):
        (tmp_path / f"{number:02d}").write_bytes(content)
    run_python(
        f"""
import pathlib, sys
sys.modules["keras"] = sys.modules["eet_tf"] = sys.modules["keras_cv"] = sys.modules["tf_keras"] = None
import numpy as np
import tensorflow as tf

photos = [file.read_bytes() for file in sorted(pathlib.Path({str(tmp_path)!r}).iterdir())]
signature = tf.saved_model.load({base + "/1"!r}).signatures["serving_default"]
answer = signature(image_bytes=tf.constant(photos))
assert sys.modules["keras"] is sys.modules["eet_tf"] is None
np.savez({str(tmp_path / "answer.npz")!r}, **{{name: value.numpy() for name, value in answer.items()}})
""",
        fresh=True,
    )
    with np.load(tmp_path / "answer.npz") as answer:
        assert sorted(answer) == ["embedding", "ok"]
        assert answer["ok"].tolist() == [True] * len(PHOTOS) + [False] * len(BAD)
        np.testing.assert_allclose(answer["embedding"][: len(PHOTOS)], python_path(embedder, PHOTOS), atol=1e-5)
        assert not answer["embedding"][len(PHOTOS) :].any()


def test_the_signature_is_as_documented(base):
    model = tf.saved_model.load(os.path.join(base, "1"))
    assert sorted(model.signatures) == ["describe", "embed_images", "serving_default"]
    signature = model.signatures["serving_default"]
    assert signature.structured_input_signature == (
        (),
        {"image_bytes": tf.TensorSpec([None], tf.string, "image_bytes")},
    )
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in signature.structured_outputs.items()}
    assert outputs == {"embedding": (tf.float32, [None, DIM]), "ok": (tf.bool, [None])}


@pytest.mark.parametrize("number", [0, 1, 5])
def test_any_number_of_photos(served, embedder, number):
    embeddings, is_image = served.embed(PHOTOS[:number])
    assert embeddings.shape == (number, DIM)
    assert is_image.tolist() == [True] * number
    if number:
        np.testing.assert_allclose(embeddings, python_path(embedder, PHOTOS[:number]), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_photos_differ(served):
    """Else the tests above could pass on a constant."""
    embeddings, _ = served.embed(PHOTOS[:4])
    assert (np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2) + np.eye(4)).min() > 1e-3


def test_bad_photos_harm_no_other(served):
    mixed = [BAD[0], PHOTOS[0], BAD[1], BAD[2], PHOTOS[1]]
    embeddings, is_image = served.embed(mixed)
    assert is_image.tolist() == [False, True, False, False, True]
    assert not embeddings[[0, 2, 3]].any()
    np.testing.assert_allclose(embeddings[[1, 4]], served.embed(PHOTOS[:2])[0], atol=1e-6)


def test_no_photo_is_one(served):
    embeddings, is_image = served.embed(BAD)
    assert not is_image.any()
    assert not embeddings.any()
    assert np.isfinite(embeddings).all()


def test_an_iterator_of_photos_is_embedded_too(served):
    embeddings, _ = served.embed(iter(PHOTOS[:2]))
    assert embeddings.shape == (2, DIM)


def test_served_embedder_knows_what_it_is(served, embedder, base):
    assert served.folder == os.path.join(base, "1")
    assert served.embedding_dim == DIM
    assert served.fingerprint == embedder_fingerprint(embedder)


def test_the_manifest_tells_a_person(base, embedder):
    with open(os.path.join(base, "1", MANIFEST)) as file:
        manifest = json.load(file)
    assert manifest["image_size"] == SIZE
    assert manifest["embedding_dim"] == DIM
    assert manifest["fingerprint"] == embedder_fingerprint(embedder)
    assert manifest["metadata"] == {"run": "mine", "recall@1": 0.5}


# How many pixels a photo may have


def catalog_of(tmp_path, *photos):
    for row, photo in enumerate(photos):
        (tmp_path / f"{row}.jpg").write_bytes(photo)
    skus = [f"sku-{row}" for row in range(len(photos))]
    return Catalog([f"{row}.jpg" for row in range(len(photos))], skus, root=str(tmp_path))


def test_a_photo_of_more_pixels_than_the_export_allows_is_refused(embedder, tmp_path):
    """Of 50 x 40: at the limit it is embedded as ever, one pixel over it gets zeros and the reason, and harms none."""
    small = photo("JPEG", 9, size=(10, 10))
    catalog = catalog_of(tmp_path, small, PHOTOS[0])
    allowed, refused = [
        ServedEmbedder(export_embedder(embedder, str(tmp_path / str(limit)), max_pixels=limit))
        for limit in (2000, 1999)
    ]
    assert (allowed.max_pixels, refused.max_pixels) == (2000, 1999)
    assert allowed.fingerprint == refused.fingerprint
    expected, _ = allowed.embed([small, PHOTOS[0]])
    np.testing.assert_array_equal(allowed.embed_catalog(catalog), expected)
    embeddings, ok = refused.embed([small, PHOTOS[0]])
    assert ok.tolist() == [True, False]
    assert not embeddings[1].any()
    np.testing.assert_array_equal(embeddings[0], expected[0])
    with pytest.raises(CatalogError) as caught:
        refused.embed_catalog(catalog)
    assert "1 of 2 photos" in str(caught.value)
    assert (
        "1.jpg': it has more than 0.001999 million pixels, the limit of this model; make it smaller, or export the "
        in (str(caught.value))
    )
    assert "--max_megapixels" in str(caught.value)


def test_the_limit_is_40_million_and_stands_in_the_manifest(base, served):
    manifest = json.loads(pathlib.Path(base, "1", MANIFEST).read_text())
    assert manifest["max_pixels"] == served.max_pixels == 40_000_000


def test_a_version_from_before_there_was_a_limit_still_loads(base, served, tmp_path):
    shutil.copytree(os.path.join(base, "1"), tmp_path / "1")
    manifest = json.loads((tmp_path / "1" / MANIFEST).read_text())
    del manifest["max_pixels"]
    (tmp_path / "1" / MANIFEST).write_text(json.dumps(manifest))
    assert ServedEmbedder(str(tmp_path)).max_pixels == MAX_PIXELS


@pytest.mark.parametrize("limit", [0, -1, 1.5, "40", True, None, MAX_PIXELS + 1])
def test_a_limit_that_is_none_is_refused(embedder, tmp_path, limit):
    with pytest.raises(SavedModelError, match=f"`max_pixels` must be a whole number from 1 to {MAX_PIXELS}. Received:"):
        export_embedder(embedder, str(tmp_path / "new"), max_pixels=limit)
    assert not (tmp_path / "new").exists()


def test_a_version_may_be_moved(base, served, tmp_path):
    shutil.copytree(os.path.join(base, "1"), tmp_path / "elsewhere")
    moved = ServedEmbedder(str(tmp_path / "elsewhere"))
    assert (moved.embed(PHOTOS[:3])[0] == served.embed(PHOTOS[:3])[0]).all()


# Versions


@pytest.fixture
def quick_save(monkeypatch):
    """Stands in for TensorFlow's writer, which takes a second, where only folders are looked at."""

    def save(module, folder, signatures):
        os.makedirs(folder)
        pathlib.Path(folder, "saved_model.pb").write_bytes(b"")

    monkeypatch.setattr(tf.saved_model, "save", save)


def test_versions_count_up_and_old_ones_stay(embedder, tmp_path, quick_save):
    """Beside 2, 10 and names that are no version: largest as a number, not as text."""
    for name in ("2", "10", "11.tmp", "-3", "latest"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a file, not a version")
    assert export_embedder(embedder, str(tmp_path)) == str(tmp_path / "11")
    assert export_embedder(embedder, str(tmp_path)) == str(tmp_path / "12")
    assert sorted(os.listdir(tmp_path)) == sorted(["-3", "10", "11", "11.tmp", "12", "2", "99", "latest"])
    assert newest_version(str(tmp_path)) == str(tmp_path / "12")


def test_a_version_is_not_seen_before_it_is_whole(embedder, tmp_path, monkeypatch):
    """TensorFlow Serving takes any folder named by a number as soon as it is there."""
    seen = []
    real_rename = os.rename

    def rename(source, target):
        seen.extend([name for name in os.listdir(tmp_path) if name.isdecimal()])
        assert os.path.isfile(os.path.join(source, "saved_model.pb"))
        assert os.path.isfile(os.path.join(source, MANIFEST))
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", rename)
    export_embedder(embedder, str(tmp_path))
    assert seen == []
    assert os.listdir(tmp_path) == ["1"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_export_leaves_nothing(embedder, tmp_path, monkeypatch, error):
    def save(module, folder, signatures):
        os.makedirs(folder)
        pathlib.Path(folder, "saved_model.pb").write_bytes(b"half")
        raise error

    (tmp_path / "3").mkdir()
    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(type(error)):
        export_embedder(embedder, str(tmp_path))
    assert os.listdir(tmp_path) == ["3"]


def test_metadata_that_is_no_json_leaves_nothing(embedder, tmp_path, quick_save):
    with pytest.raises(TypeError):
        export_embedder(embedder, str(tmp_path), {"when": object()})
    assert os.listdir(tmp_path) == []


def test_an_output_dir_that_is_a_file_is_refused(embedder, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SavedModelError, match="`output_dir` must be a folder. .*file', which is a file"):
        export_embedder(embedder, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_newest_version_takes_a_version_folder_itself(base):
    assert newest_version(os.path.join(base, "1")) == os.path.join(base, "1")
    assert newest_version(base) == os.path.join(base, "1")


@pytest.mark.parametrize("name", ["missing", "empty", "file", ""])
def test_newest_version_of_nothing_names_the_path_and_the_mend(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")
    pathlib.Path("file").write_text("")
    with pytest.raises(SavedModelError, match=f"Received: path='{name}'. Make one with `eet export`"):
        newest_version(name)


@pytest.mark.parametrize("gone", ["saved_model.pb", MANIFEST, "variables", "variables/variables.index"])
def test_a_version_with_a_part_missing_is_refused(base, tmp_path, gone):
    shutil.copytree(base, tmp_path / "copy")
    path = tmp_path / "copy" / "1" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SavedModelError, match=r"(?s)copy/1' is no complete SavedModel .*eet export"):
        ServedEmbedder(str(tmp_path / "copy"))


@pytest.mark.parametrize("cut", ["saved_model.pb", MANIFEST, "variables/variables.data-00000-of-00001"])
def test_a_version_with_a_part_cut_short_is_refused(base, tmp_path, cut):
    shutil.copytree(base, tmp_path / "copy")
    path = tmp_path / "copy" / "1" / cut
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SavedModelError, match=r"copy/1' is no complete SavedModel"):
        ServedEmbedder(str(tmp_path / "copy"))


def test_somebody_elses_saved_model_is_refused(base, tmp_path):
    module = tf.Module()
    module.answer = tf.function(lambda: tf.constant(42), input_signature=[])
    tf.saved_model.save(module, str(tmp_path / "1"))
    with pytest.raises(SavedModelError, match="is no complete SavedModel of this package"):
        ServedEmbedder(str(tmp_path))


# Fingerprints


def test_fingerprint_survives_saving_and_loading(embedder, tmp_path):
    embedder.save(tmp_path / "model.keras")
    assert embedder_fingerprint(eet_tf.load_embedder(str(tmp_path))) == embedder_fingerprint(embedder)


def test_fingerprint_of_any_changed_weight_differs(embedder):
    weights = embedder.get_weights()
    seen = {embedder_fingerprint(embedder)}
    for number, weight in enumerate(weights):
        changed = weight.copy().reshape(-1)
        changed[-1] = np.nextafter(changed[-1], np.float32(9))
        embedder.set_weights([*weights[:number], changed.reshape(weight.shape), *weights[number + 1 :]])
        seen.add(embedder_fingerprint(embedder))
    embedder.set_weights(weights)
    assert len(seen) == len(weights) + 1


@pytest.mark.parametrize("change", [{"image_size": 48}, {"pooling": "avg"}, {"embedding_dim": DIM + 1}])
def test_fingerprint_of_another_network_differs(change):
    arguments = {"backbone": "small_cnn", "embedding_dim": DIM, "image_size": SIZE}
    keras.utils.set_random_seed(0)
    one = eet_tf.build_embedder(**arguments)
    keras.utils.set_random_seed(0)
    other = eet_tf.build_embedder(**{**arguments, **change})
    assert embedder_fingerprint(one) != embedder_fingerprint(other)


def test_fingerprint_of_another_scaling_of_pixels_differs():
    """Same layers and no weights in question: only what a layer was told differs."""
    from eet_tf.embedder.pixels import PixelScaling

    images = keras.Input([SIZE, SIZE, 3])
    one, other = (keras.Model(images, PixelScaling(mode)(images)) for mode in ("unit", "tf"))
    assert embedder_fingerprint(one) != embedder_fingerprint(other)


# Attributes


NAMES = ("striped", "red", "long sleeves")


@pytest.fixture(scope="module")
def two_heads(embedder):
    """The embedder with an attribute head on top: every other weight is the same."""
    model = eet_tf.build_embedder("small_cnn", DIM, image_size=SIZE, attribute_names=NAMES)
    rng = np.random.default_rng(4)
    for layer in model.layers:
        if layer.name == "attributes":
            layer.set_weights([rng.normal(0, 0.2, weight.shape) for weight in layer.get_weights()])
        else:
            layer.set_weights(embedder.get_layer(layer.name).get_weights())
    return model


@pytest.fixture(scope="module")
def base_of_two_heads(two_heads, tmp_path_factory):
    """A base path with version 1."""
    base = tmp_path_factory.mktemp("two_heads")
    export_embedder(two_heads, str(base))
    return str(base)


def test_an_attribute_head_is_served_as_probabilities(two_heads, base_of_two_heads):
    served = ServedEmbedder(base_of_two_heads)
    assert served.attribute_names == NAMES
    probabilities = served.predict_attributes([PHOTOS[0], BAD[1], *PHOTOS[1:]])
    expected = tf.sigmoid(two_heads(decoded(PHOTOS), training=False)["attributes"]).numpy()
    assert probabilities.dtype == np.float32
    assert np.ptp(expected) > 0.1
    assert not probabilities[1].any()
    np.testing.assert_allclose(np.delete(probabilities, 1, axis=0), expected, atol=1e-5)


def test_its_embeddings_are_those_without_the_head(served, base_of_two_heads):
    mixed = [PHOTOS[0], BAD[0], PHOTOS[1]]
    for found, expected in zip(ServedEmbedder(base_of_two_heads).embed(mixed), served.embed(mixed)):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_signature_of_two_heads_is_as_documented(base_of_two_heads):
    signature = tf.saved_model.load(os.path.join(base_of_two_heads, "1")).signatures["serving_default"]
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in signature.structured_outputs.items()}
    assert outputs == {
        "embedding": (tf.float32, [None, DIM]),
        "attributes": (tf.float32, [None, len(NAMES)]),
        "ok": (tf.bool, [None]),
    }


def test_no_photos_have_no_attributes(served, base_of_two_heads):
    assert ServedEmbedder(base_of_two_heads).predict_attributes([]).shape == (0, len(NAMES))
    assert served.predict_attributes(PHOTOS[:2]).shape == (2, 0)
    assert served.attribute_names == ()


def test_the_manifest_names_the_attributes(base, base_of_two_heads):
    names = []
    for path in (base, base_of_two_heads):
        with open(os.path.join(path, "1", MANIFEST)) as file:
            names.append(json.load(file)["attribute_names"])
    assert names == [[], list(NAMES)]


def test_a_version_from_before_there_were_attributes_still_loads(base, served, tmp_path):
    shutil.copytree(base, tmp_path / "old")
    path = tmp_path / "old" / "1" / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["attribute_names"]
    path.write_text(json.dumps(manifest))
    old = ServedEmbedder(str(tmp_path / "old"))
    assert old.attribute_names == ()
    assert (old.embed(PHOTOS[:2])[0] == served.embed(PHOTOS[:2])[0]).all()


def test_an_attribute_head_is_no_part_of_the_fingerprint(embedder, two_heads):
    """It is of the function from photo to vector. Neither the head's weights nor its names change that."""
    renamed = eet_tf.build_embedder("small_cnn", DIM, image_size=SIZE, attribute_names=["other"])
    for layer, same in zip(renamed.layers, two_heads.layers):
        if layer.name != "attributes":
            layer.set_weights(same.get_weights())
    fingerprints = {embedder_fingerprint(model) for model in (embedder, two_heads, renamed)}
    assert len(fingerprints) == 1


def test_fingerprint_of_two_heads_sees_every_other_weight(two_heads):
    before = embedder_fingerprint(two_heads)
    projection = two_heads.get_layer("projection")
    weights = projection.get_weights()
    projection.set_weights([weights[0], weights[1] + 1])
    assert embedder_fingerprint(two_heads) != before
    projection.set_weights(weights)
    assert embedder_fingerprint(two_heads) == before


def test_a_dict_without_an_attribute_head_is_served_as_an_embedding(embedder, tmp_path):
    """Whatever else a model of one's own puts out."""
    outputs = {"embedding": embedder.output, "other": keras.layers.Dense(2)(embedder.output)}
    export_embedder(keras.Model(embedder.input, outputs), str(tmp_path))
    served = ServedEmbedder(str(tmp_path))
    assert (served.attribute_names, served.embedding_dim) == ((), DIM)
    np.testing.assert_allclose(served.embed(PHOTOS[:2])[0], python_path(embedder, PHOTOS[:2]), atol=1e-5)


# Whitening


@pytest.fixture(scope="module")
def whitening():
    """To 5 of 8 dimensions."""
    rng = np.random.default_rng(0)
    return Whitening(rng.normal(size=DIM) / 9, rng.normal(size=[DIM, 5]))


@pytest.mark.parametrize("heads", ["embedder", "two_heads"])
def test_whitened_embeddings_are_the_plain_ones_whitened(heads, whitening, request, tmp_path):
    embedder = request.getfixturevalue(heads)
    export_embedder(embedder, str(tmp_path))
    export_embedder(embedder, str(tmp_path), whitening=whitening)
    plain, whitened = ServedEmbedder(str(tmp_path / "1")), ServedEmbedder(str(tmp_path / "2"))
    vectors, is_image = whitened.embed([*PHOTOS, *BAD])
    np.testing.assert_allclose(vectors[: len(PHOTOS)], whitening.apply(plain.embed(PHOTOS)[0]), atol=1e-5)
    assert not vectors[len(PHOTOS) :].any() and not is_image[len(PHOTOS) :].any()
    assert (vectors.dtype, whitened.embedding_dim, whitened.embed([])[0].shape) == (np.float32, 5, (0, 5))
    np.testing.assert_array_equal(whitened.predict_attributes(PHOTOS), plain.predict_attributes(PHOTOS))
    assert whitened.fingerprint == embedder_fingerprint(embedder, whitening) != plain.fingerprint


def test_fingerprint_sees_every_part_of_a_whitening(embedder, whitening):
    others = [Whitening(whitening.mean * 2, whitening.projection), Whitening(whitening.mean, whitening.projection * 2)]
    assert len({embedder_fingerprint(embedder, one) for one in (None, whitening, *others)}) == 4


def test_a_whitening_of_another_embedder_is_refused(embedder, tmp_path):
    with pytest.raises(SavedModelError, match="`whitening` must be of embeddings of length 8. Received: one of 3"):
        export_embedder(embedder, str(tmp_path / "new"), whitening=Whitening(np.zeros(3), np.eye(3)))
    assert not (tmp_path / "new").exists()
