"""`eet export --backbone`: a model that finds photos without any training, whitened or not, and what it refuses."""

import contextlib
import io
import json
import os

import keras
import numpy as np
import pytest

from eet_tf import build_embedder, data
from eet_tf.cli import door
from eet_tf.cli.export import COMMAND
from eet_tf.data.synthetic import make_synthetic_catalog
from eet_tf.evaluation.callback import embed
from eet_tf.evaluation.postprocessing import fit_whitening
from eet_tf.serving import ServedEmbedder


@pytest.fixture(scope="module", name="places")
def places_fixture(tmp_path_factory):
    """Photos of 24 products with splits, a backbone in a file, and weights of a named one."""
    root = tmp_path_factory.mktemp("pretrained")
    catalog = make_synthetic_catalog(root / "photos", num_products=24, photos_per_product=4, image_size=32)
    keras.utils.set_random_seed(3)
    network = build_embedder("small_cnn", 8, 32).layers[2]
    network(np.random.default_rng(0).uniform(0, 1, [64, 32, 32, 3]).astype(np.float32), training=True)
    network.save(root / "mine.keras")
    network.save_weights(root / "mine.weights.h5")
    (root / "flat.csv").write_text("path,sku\n" + "".join(f"{each},{n % 4}\n" for n, each in enumerate(catalog.files)))
    names = ("photos", "mine.keras", "mine.weights.h5", "flat.csv", "out")
    return {"mine": os.fspath(root / "mine.keras"), **{name: os.fspath(root / name) for name in names}}


def export(*arguments):
    """(status, what was printed, what was said as an error)."""
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        status = door.run(COMMAND, "eet export", arguments)
    return status, printed.getvalue(), errors.getvalue()


def folder_of(printed):
    return printed.strip().splitlines()[-1].removeprefix("The SavedModel is ").removesuffix(".")


def test_a_named_backbone_with_weights_is_served_as_its_features(places):
    where = [f"--weights={places['mine.weights.h5']}", "--image_size=32", f"--output_dir={places['out']}"]
    status, printed, errors = export("--backbone=small_cnn", *where)
    assert (status, errors) == (0, "")
    plain = build_embedder("small_cnn", None, 32, places["mine.weights.h5"])
    test = data.load_dataset("csv", places["photos"]).split("test")
    expected = embed(plain, data.gallery_dataset(test, 32))
    assert expected.shape[1] == 256
    np.testing.assert_allclose(ServedEmbedder(folder_of(printed)).embed_catalog(test), expected, atol=1e-5)


def test_photos_of_the_train_split_teach_a_whitening(places):
    where = ["--image_size=32", f"--output_dir={places['out']}", "--pixel_scaling=unit", "--pooling=avg"]
    status, printed, errors = export(
        f"--backbone={places['mine.keras']}", *where, f"--data={places['photos']}", "--whiten_dim=6"
    )
    assert (status, errors) == (0, "")
    catalog = data.load_dataset("csv", places["photos"])
    train, test = catalog.split("train"), catalog.split("test")
    assert f"Learning a whitening from {len(train)} photos.\nIt keeps 6 of 256 dimensions." in printed
    plain = build_embedder(places["mine.keras"], None, 32, pooling="avg", pixel_scaling="unit")
    learnt, vectors = (embed(plain, data.gallery_dataset(each, 32)) for each in (train, test))
    expected = fit_whitening(learnt, 6).apply(vectors)
    np.testing.assert_allclose(ServedEmbedder(folder_of(printed)).embed_catalog(test), expected, atol=1e-3)


def test_photos_keep_their_aspect_where_that_is_asked_for(places, tmp_path):
    """What teaches the whitening, what is served and what the manifest says: tall photos, with white at both sides."""
    photos = tmp_path / "tall"
    for number in range(12):
        rng = np.random.default_rng(number)
        (photos / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(photos / f"{number % 3}" / f"{number}.png", rng.integers(0, 255, [40, 20, 3]), scale=False)
    where = ["--image_size=32", f"--output_dir={places['out']}", "--pixel_scaling=unit", "--pooling=avg"]
    status, printed, errors = export(
        f"--backbone={places['mine.keras']}", *where, f"--data={photos}", "--whiten_dim=2", "--fit=letterbox"
    )
    assert (status, errors) == (0, "")
    catalog, found = data.load_dataset("folder", photos), {}
    for fit in ("letterbox", "squash"):
        plain = build_embedder(places["mine.keras"], None, 32, pooling="avg", pixel_scaling="unit", fit=fit)
        vectors = embed(plain, data.gallery_dataset(catalog, 32, fit=fit))
        found[fit] = fit_whitening(vectors, 2).apply(vectors)
    served = ServedEmbedder(folder_of(printed))
    with open(os.path.join(folder_of(printed), "assets.extra", "eet_tf.json"), encoding="utf-8") as file:
        assert json.load(file)["fit"] == "letterbox"
    np.testing.assert_allclose(served.embed_catalog(catalog), found["letterbox"], atol=1e-3)
    assert np.abs(found["letterbox"] - found["squash"]).max() > 0.05


def test_few_photos_teach_few_dimensions(places):
    """A list without splits teaches as a whole: a dimension for each four of its 96 photos."""
    where = ["--image_size=32", f"--output_dir={places['out']}", "--pixel_scaling=unit"]
    status, printed, _ = export(f"--backbone={places['mine.keras']}", *where, f"--data={places['flat.csv']}")
    assert status == 0 and "from 96 photos.\nIt keeps 24 of 256 dimensions." in printed


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], ["One of --model and --backbone must be given. Received: neither."]),
        (["--backbone=small_cnn"], ["--weights must be given for a backbone of the list", "--backbone=small_cnn"]),
        (["--backbone=resnet51"], ["`backbone` must be one of", "Received: backbone='resnet51'"]),
        (["--backbone={mine}"], ["`pixel_scaling` must be given for a model of your own"]),
        (
            ["--backbone=small_cnn", "--image_size=31", "--whiten_dim=0", "--split=test", "--output_dir={mine}"],
            ["--image_size must be from 32", "--whiten_dim must be at least 1", "--split needs --data", "--output_dir"],
        ),
        (["--backbone={mine}", "--data=gone.csv"], ["--data must be the path of your photos"]),
        (
            ["--backbone={mine}", "--data={photos}", "--split=holidays", "--whitening=gone.npz"],
            ["`split` must be", "split='holidays'", "--whitening must be left out with --data"],
        ),
        (["--backbone={mine}", "--prefix=8"], ["--prefix needs --model", "--whiten_dim shorten vectors"]),
        (["--model={mine}", "--pooling=avg", "--data={photos}"], ["--pooling needs --backbone", "--data needs"]),
        (["--model={mine}", "--fit=letterbox"], ["--fit needs --backbone. Received: --fit=letterbox, without it."]),
        (
            [
                "--backbone={mine}",
                "--pixel_scaling=unit",
                "--data={photos}",
                "--whiten_dim=5000",
                "--image_size=32",
            ],
            ["`dim` must be from 1 to", "Received: dim=5000"],
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(arguments, said, places):
    given = [argument.format(**places) for argument in arguments]
    where = [] if any(each.startswith("--output_dir") for each in given) else [f"--output_dir={places['out']}"]
    status, _, errors = export(*given, *where)
    assert status in (1, 2)
    assert not [part for part in said if part not in errors], errors
