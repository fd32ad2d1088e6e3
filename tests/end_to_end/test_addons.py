"""Trainings with losses and optimizers of tensorflow-addons: begun, gone on with, repeated; refused where it is not."""

import numpy as np
import pytest

import eet_tf
from eet_tf import compat
from eet_tf.training.run import read_run

needs_addons = pytest.mark.skipif(not compat.KERAS_2, reason="tensorflow-addons needs Keras 2: make test-addons")


@pytest.fixture(scope="module")
def train(root, tiny, run_script):
    """A function that trains in a folder beside the photos, at a constant rate, so that a run can be made longer."""
    always = (
        "--dataset=csv",
        f"--data_dir={root / 'photos'}",
        "--schedule=step",
        "--drop_at=1",
        "--learning_rate=0.01",
    )

    def run(name, *flags):
        return run_script("train/main.py", *tiny, *always, f"--model_dir={root / name}", *flags), root / name

    return run


@needs_addons
@pytest.mark.parametrize(
    "loss, optimizer, flags",
    [
        ("tfa_triplet_semihard", "tfa_lamb", ("--strategy=mirrored", "--virtual_devices=2")),
        ("tfa_npairs", "tfa_sgdw", ("--weight_decay=0.001", "--clip_norm=0.5")),
    ],
)
def test_a_run_gone_on_with_is_one_that_never_stopped(train, loss, optimizer, flags):
    flags = (f"--loss={loss}", f"--optimizer={optimizer}", *flags)
    train(f"{loss}-whole", *flags, "--epochs=2")[0].succeeded()
    train(f"{loss}-parts", *flags, "--epochs=1")[0].succeeded()
    outcome, folder = train(f"{loss}-parts", *flags, "--epochs=2")
    assert "Going on after epoch 1 of 2." in outcome.succeeded().printed
    whole = folder.parent / f"{loss}-whole"
    for one, other in zip(read_run(str(folder)).history, read_run(str(whole)).history, strict=True):
        assert one == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in other.items()}
    weights = [eet_tf.load_embedder(str(path)).get_weights() for path in (folder, whole)]
    for one, other in zip(*weights):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@needs_addons
def test_its_flagfile_runs_it_again(train, run_script, tmp_path):
    folder = train("lifted", "--loss=tfa_lifted", "--optimizer=tfa_adamw", "--weight_decay=1e-4", "--epochs=1")[1]
    flags = (f"--flagfile={folder / 'flags.txt'}", f"--model_dir={tmp_path}")
    run_script("train/main.py", *flags).succeeded()
    first, again = read_run(str(folder)), read_run(str(tmp_path))
    assert again.settings["loss"] == "tfa_lifted" and again.settings["optimizer"] == "tfa_adamw"
    assert again.history[0] == {name: pytest.approx(value, rel=1e-4) for name, value in first.history[0].items()}


@needs_addons
@pytest.mark.parametrize(
    "flags, patterns",
    [
        (("--loss=tfa_npairs", "--examples_per_class=3"), ("needs an even --examples_per_class", "per_class=3")),
        (("--optimizer=tfa_lamb", "--ema=0.9"), ("--ema needs an optimizer of Keras", "--optimizer=tfa_lamb")),
        (("--optimizer=tfa_yogi", "--weight_decay=0.1"), ("`weight_decay` must be 0 for tfa_yogi",)),
    ],
    ids=["odd", "ema", "decay"],
)
def test_what_addons_has_not_is_refused(train, flags, patterns):
    outcome, _ = train("refused", *flags)
    outcome.refused(*patterns)


@pytest.mark.skipif(compat.KERAS_2, reason="what is said where Addons is not")
@pytest.mark.parametrize("flag", ["--loss=tfa_triplet_hard", "--optimizer=tfa_lamb"])
def test_without_addons_it_is_refused_before_photos_are_drawn(run_script, tmp_path, flag):
    folder = tmp_path / "photos"
    outcome = run_script("train/main.py", flag, f"--data_dir={folder}", f"--model_dir={tmp_path / 'run'}")
    outcome.refused("needs Keras 2, and this is Keras 3", r"pip install 'eet-tf\[addons\]'", "Or take --")
    assert not folder.exists() and not (tmp_path / "run").exists()
