"""All parts of the recipe kit at once, on two devices, ended after an epoch and resumed, exported and measured."""

import json

import numpy as np
import pytest

import eet_tf
from eet_tf import data
from eet_tf.embedder import photo_fit
from eet_tf.serving import ServedEmbedder

KIT = ["--neck=batch_norm", "--fit=letterbox", "--last_stride=1", "--photo_crop=0.3", "--rand_augment=5"]
KIT += ["--random_erasing=0.5", "--pooling=avg_max", "--freeze_until=stage_0_relu", "--memory_size=16"]
KIT += ["--memory_start=1", "--strategy=mirrored", "--virtual_devices=2"]
# the rate of a schedule of all epochs would be another for fewer epochs
KIT += ["--schedule=step", "--drop_at=1", "--hold_out=0", "--steps_per_epoch=2"]


@pytest.fixture(scope="module")
def runs(root, tiny, run_script):
    """A run of two epochs, and one of one epoch that was then told to go on: the folders."""
    common = ("train/main.py", *tiny, "--dataset=csv", f"--data_dir={root / 'photos'}", *KIT)
    whole, resumed = root / "kit_whole", root / "kit_resumed"
    run_script(*common, "--epochs=2", f"--model_dir={whole}").succeeded()
    run_script(*common, "--epochs=1", f"--model_dir={resumed}").succeeded()
    again = run_script(*common, "--epochs=2", f"--model_dir={resumed}").succeeded()
    assert "Going on after epoch 1 of 2" in again.printed
    return whole, resumed


def test_a_resumed_run_ends_with_the_weights_of_a_whole_one(runs):
    whole, resumed = (eet_tf.load_embedder(str(folder)).get_weights() for folder in runs)
    for weight, expected in zip(resumed, whole, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)


def test_another_part_is_another_run(runs, root, tiny, run_script):
    common = ("train/main.py", *tiny, "--dataset=csv", f"--data_dir={root / 'photos'}", *KIT, "--epochs=3")
    run_script(*common, "--fit=squash", f"--model_dir={runs[0]}").refused("--fit was 'letterbox', is 'squash'")


def test_it_is_served_as_it_was_trained(runs, run_script):
    """The served vectors are those of the photos as the model wants them: fitted so, and after the neck."""
    folder = runs[1]
    run_script("export/main.py", f"--model={folder}", f"--output_dir={folder / 'serving'}").succeeded()
    model = eet_tf.load_embedder(str(folder))
    assert photo_fit(model) == "letterbox"
    assert sorted(model.output) == ["before_neck", "embedding"]
    manifest = json.loads((folder / "serving" / "1" / "assets.extra" / "eet_tf.json").read_text())
    assert manifest["fit"] == "letterbox"
    served = ServedEmbedder(str(folder / "serving"))
    photos = [data_of_a_wide_photo()]
    pixels = data.decode_and_resize(photos[0], model.input_shape[1], fit="letterbox")[np.newaxis]
    np.testing.assert_allclose(served.embed(photos)[0], model(pixels, training=False)["embedding"], atol=1e-5)
    squashed = data.decode_and_resize(photos[0], model.input_shape[1])[np.newaxis]
    assert np.abs(served.embed(photos)[0] - model(squashed, training=False)["embedding"]).max() > 1e-3


def data_of_a_wide_photo():
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 255, [20, 60, 3]).astype(np.uint8)
    return tf.io.encode_png(pixels).numpy()


def test_evaluation_fits_photos_as_training_did(runs, root, run_script):
    """`eet evaluate` measures the figures that training wrote."""
    after = json.loads((runs[1] / "metrics.json").read_text())["after"]
    run_script(
        *("train/evaluate.py", f"--model_dir={runs[1]}", "--dataset=csv", f"--data_dir={root / 'photos'}"),
        f"--output={runs[1] / 'again.json'}",
    ).succeeded()
    again = json.loads((runs[1] / "again.json").read_text())
    assert again["result"] == {name: pytest.approx(value, abs=1e-6) for name, value in after.items()}
