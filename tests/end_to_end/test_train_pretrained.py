"""A training that starts from a model of one's own: what is measured before it, and where that is said."""

import contextlib
import io
import json
import os

import keras
import pytest

import eet_tf
from eet_tf import data
from eet_tf.cli import door, training_checks
from eet_tf.cli.train import COMMAND
from eet_tf.evaluation.callback import embed, rank_catalog


@pytest.fixture(scope="module", name="backbone")
def backbone_fixture(tmp_path_factory):
    """A file of a network whose features are tokens."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input([32, 32, 3]), keras.layers.Conv2D(12, 8, 8), keras.layers.Reshape([16, 12])])
    file = os.fspath(tmp_path_factory.mktemp("own") / "mine.keras")
    model.save(file)
    return file


def test_before_is_the_pretrained_features_without_the_projection(backbone, root, run_script, tmp_path):
    folder = tmp_path / "run"
    flags = ["--image_size=32", "--embedding_dim=16", "--classes_per_batch=4", "--examples_per_class=2"]
    flags += ["--steps_per_epoch=2", "--epochs=1", f"--data={root / 'photos'}", f"--model_dir={folder}"]
    flags += [f"--backbone={backbone}", "--pixel_scaling=unit", "--strategy=mirrored", "--virtual_devices=2"]
    flags += ["--projection=whitening"]
    outcome = run_script("train/main.py", *flags).succeeded()
    catalog = data.load_csv(str(root / "photos"))
    parts = [catalog.split("test"), catalog.split("train")]
    plain = eet_tf.build_embedder(backbone, None, 32, pooling="avg", pixel_scaling="unit")
    tested, learnt = (embed(plain, data.gallery_dataset(part, 32)) for part in parts)
    own = rank_catalog(tested, parts[0].labels).summary((1, 10, 100))
    whole = rank_catalog(tested, parts[0].skus, other_embeddings=learnt, other_labels=parts[1].skus).summary(
        (1, 10, 100)
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["before_model"] == "pretrained features"
    for before, expected in ((metrics["before"], own), (metrics["whole_catalogue"]["before"], whole)):
        assert {name: before[name] for name in expected} == pytest.approx(expected)
    assert "Measuring the pretrained features on 8 photos." in outcome.printed
    assert f"{100 * own['recall@1']:.1f} % before (pretrained features), " in outcome.printed
    assert {"--pooling=avg", "--pixel_scaling=unit"} <= set((folder / "flags.txt").read_text().splitlines())
    again = run_script("train/main.py", *flags).succeeded()
    assert "Going on after epoch 1 of 1." in again.printed
    assert "Learning a whitening from 16 photos." in outcome.printed
    assert "whitening" not in again.printed


def complaint(*arguments):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        assert door.run(COMMAND, "eet train", arguments) in (1, 2)
    return errors.getvalue()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--image_size=64", "--pixel_scaling=unit"], "Give image_size=32."),
        (["--image_size=32"], "`pixel_scaling` must be given for a model of your own"),
        (["--image_size=32", "--pixel_scaling=unit", "--freeze_until=conv"], "e.g. conv2d"),
        (
            ["--image_size=32", "--pixel_scaling=unit", "--weights=imagenet"],
            "`weights` must be None or a path for a model",
        ),
        (
            ["--image_size=32", "--pixel_scaling=unit", "--strategy=multi_worker"],
            "--pooling must be given with --strategy=multi_worker for a backbone that is not in the list",
        ),
        (
            ["--image_size=32", "--strategy=multi_worker", "--projection=whitening"],
            "--projection must be random with --strategy=multi_worker. Received: --projection=whitening.",
        ),
    ],
)
def test_a_model_that_is_no_backbone_is_refused_before_long_work(arguments, said, backbone, root, tmp_path):
    data_flags = [f"--data={root / 'photos'}", f"--model_dir={tmp_path / 'run'}"]
    assert said in complaint(f"--backbone={backbone}", *arguments, *data_flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, pretrained",
    [
        (["--backbone=small_cnn"], False),
        (["--backbone=mobilenet_v2", "--weights=none"], False),
        (["--backbone=mobilenet_v2", "--weights=imagenet"], True),
        (["--backbone=mine.keras"], True),
        (["--backbone=hub:vit"], True),
    ],
)
def test_what_counts_as_pretrained(arguments, pretrained):
    door.parsed(COMMAND, "eet train", arguments)
    assert training_checks.is_pretrained() is pretrained


def test_convnext_is_averaged_unless_another_pooling_is_given():
    for given, expected in (([], "avg"), (["--pooling=gem"], "gem")):
        door.parsed(COMMAND, "eet train", ["--backbone=convnext_tiny", *given])
        training_checks._check_backbone()
        assert training_checks.FLAGS.pooling == expected
