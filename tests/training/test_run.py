"""A run's folder: one process at a time, one set of settings, files that are whole, and exactly where it stopped."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf.training.run import Progress, RunError, RunFolder, StopOnNaN, read_run

SETTINGS = {"dataset": "csv", "margin": "0.3", "epochs": "5"}


@pytest.fixture
def folder(tmp_path):
    """The name of a run's folder, which is not there yet."""
    return str(tmp_path / "runs" / "mine")


def let_go(run):
    """Ends a run as the end of its process does."""
    run._lock.close()


def begun(folder, settings=SETTINGS):
    """A folder that holds a run which got somewhere, and which nobody uses."""
    let_go(RunFolder(folder, settings))
    os.mkdir(os.path.join(folder, "checkpoints"))


# The folder


def test_settings_are_kept_as_a_flagfile(folder):
    settings = {"data_dir": "/photos of mine/a=b.csv", "margin": "0.3", "empty": "", "drop_singles": "False"}
    let_go(RunFolder(folder, settings))
    with open(os.path.join(folder, "flags.txt")) as file:
        assert file.read() == "--data_dir=/photos of mine/a=b.csv\n--margin=0.3\n--empty=\n--drop_singles=False\n"
    assert read_run(folder).settings == settings


def test_a_folder_in_use_is_refused(folder):
    run = RunFolder(folder, SETTINGS)
    with pytest.raises(RunError, match=f"'{folder}' is in use by another training. .*give another --model_dir"):
        RunFolder(folder, SETTINGS)
    let_go(run)
    let_go(RunFolder(folder, SETTINGS))


def test_a_killed_process_lets_go(folder):
    """The process says that it holds the folder and is killed while it waits."""
    program = f"from eet_tf.training.run import RunFolder\nrun = RunFolder({folder!r}, {SETTINGS})\n"
    program += "print('held', flush=True)\ninput()"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="in use"):
            RunFolder(folder, SETTINGS)
        process.kill()
        process.wait()
        let_go(RunFolder(folder, SETTINGS))


def test_a_refused_process_changes_nothing(folder):
    run = RunFolder(folder, SETTINGS)
    with pytest.raises(RunError):
        RunFolder(folder, {"margin": "0.9"})
    assert read_run(folder).settings == SETTINGS
    let_go(run)


def test_going_on_with_other_settings_is_refused_and_names_them(folder):
    begun(folder)
    with pytest.raises(RunError) as caught:
        RunFolder(folder, {"dataset": "csv", "margin": "0.5", "seed": "1"}, frozenset({"epochs"}))
    message = str(caught.value)
    assert "--margin was '0.3', is '0.5'" in message
    assert "--seed was None, is '1'" in message
    assert "dataset" not in message
    assert "--epochs" not in message
    assert f"--flagfile={folder}/flags.txt" in message
    assert read_run(folder).settings == SETTINGS


def test_a_setting_that_is_left_out_is_another_setting(folder):
    begun(folder)
    with pytest.raises(RunError, match="--margin was '0.3', is None"):
        RunFolder(folder, {"dataset": "csv", "epochs": "5"})


def test_settings_that_may_change_do(folder):
    begun(folder)
    let_go(RunFolder(folder, {**SETTINGS, "epochs": "9"}, frozenset({"epochs"})))
    assert read_run(folder).settings["epochs"] == "9"


def test_settings_may_change_before_the_run_got_anywhere(folder):
    let_go(RunFolder(folder, SETTINGS))
    let_go(RunFolder(folder, {"dataset": "folder"}))
    assert read_run(folder).settings == {"dataset": "folder"}


def test_history_and_figures_come_back_as_written(folder):
    run = RunFolder(folder, SETTINGS)
    assert run.read_history() == []
    assert run.read_json("metrics.json") is None
    history = [{"epoch": 1, "loss": 1 / 3, "val_recall@1": 0.1}, {"epoch": 2, "loss": 1e-30, "val_recall@1": 1.0}]
    run.write_history(history)
    run.write_json("metrics.json", {"best_epoch": 2, "after": {"recall@1": 0.25}})
    record = read_run(folder)
    assert record.history == run.read_history() == history
    assert record.metrics == run.read_json("metrics.json") == {"best_epoch": 2, "after": {"recall@1": 0.25}}
    assert sorted(os.listdir(folder)) == [".lock", "flags.txt", "history.csv", "metrics.json"]
    let_go(run)


def test_figures_that_cannot_be_written_leave_the_old_ones(folder):
    run = RunFolder(folder, SETTINGS)
    run.write_json("metrics.json", {"best_epoch": 2})
    with pytest.raises(TypeError):
        run.write_json("metrics.json", {"best_epoch": 3, "after": object()})
    assert run.read_json("metrics.json") == {"best_epoch": 2}
    with pytest.raises(ValueError):
        run.write_history([{"epoch": 1}, {"epoch": 2, "loss": 0.5}])
    assert run.read_history() == []
    assert sorted(os.listdir(folder)) == [".lock", "flags.txt", "metrics.json"]
    let_go(run)


def test_epochs_are_written_without_decimals(folder):
    run = RunFolder(folder, SETTINGS)
    run.write_history([{"epoch": 1.0, "loss": 0.5}])
    with open(run.path("history.csv")) as file:
        assert file.read().splitlines() == ["epoch,loss", "1,0.5"]
    let_go(run)


def test_a_run_that_has_not_ended_has_no_figures(folder):
    let_go(RunFolder(folder, SETTINGS))
    record = read_run(folder)
    assert (record.history, record.metrics) == ([], {})


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match=f"'{tmp_path}' is not the folder of a training run: it has no flags.txt"):
        read_run(str(tmp_path))


# Going on


def learner(dim=4, seed=0, optimizer=None):
    """A dense embedder of 6 numbers, enough for weights, biases and their slots."""
    keras.utils.set_random_seed(seed)
    embedder = keras.Sequential([keras.Input([6]), keras.layers.Dense(dim), keras.layers.BatchNormalization()])
    model = eet_tf.MetricLearner(embedder)
    model.compile(optimizer=optimizer or keras.optimizers.Adam(0.01), loss=eet_tf.EETLoss(from_normalized=False))
    return model


def dataset():
    """Endless, and the same from each start: two batches of four photos of two products."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=[8, 6]).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((images, [0, 0, 1, 1, 2, 2, 3, 3])).batch(4).repeat()


def train(run, model, epochs, monitor=None, callbacks=()):
    """Trains to an epoch, going on where the folder says; returns the callback."""
    progress = Progress(run, model, monitor)
    done = progress.restore()
    model.fit(
        dataset(),
        epochs=epochs,
        initial_epoch=done,
        steps_per_epoch=2,
        verbose=0,
        shuffle=False,
        callbacks=[*callbacks, progress],
    )
    return progress


def state(model):
    """Every number that the next update depends on."""
    return [weight.numpy() for weight in [*model.embedder.weights, *model.optimizer.variables]]


@pytest.fixture
def run(folder):
    """A run in use."""
    run = RunFolder(folder, SETTINGS)
    yield run
    let_go(run)


def test_restores_weights_and_optimizer_exactly(run):
    first = learner(seed=1)
    train(run, first, epochs=2)
    second = learner(seed=2)
    assert not np.array_equal(state(first)[0], state(second)[0])
    progress = Progress(run, second)
    assert progress.restore() == 2
    assert int(second.optimizer.iterations) == 4
    for mine, theirs in zip(state(first), state(second), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_run_in_two_parts_ends_where_one_in_one_part_does(run, tmp_path):
    """Batches of this data set are the same in every epoch, so that only the state could differ."""
    whole, other = learner(seed=1), RunFolder(str(tmp_path / "other"), SETTINGS)
    train(other, whole, epochs=4)
    let_go(other)
    train(run, learner(seed=1), epochs=2)
    resumed = learner(seed=9)
    train(run, resumed, epochs=4)
    for mine, theirs in zip(state(whole), state(resumed), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)
    assert [row["epoch"] for row in run.read_history()] == [1, 2, 3, 4]
    assert other.read_history()[3]["loss"] == pytest.approx(run.read_history()[3]["loss"], rel=1e-5)


def test_a_new_run_starts_at_0(run):
    progress = Progress(run, learner())
    assert progress.restore() == 0
    assert progress.best_epoch() == 0


def test_what_was_written_after_the_last_checkpoint_is_written_anew(run):
    """Killed between history.csv and the checkpoint, epoch 3 is in the one and not in the other."""
    train(run, learner(), epochs=2)
    history = run.read_history()
    run.write_history([*history, {**history[-1], "epoch": 3, "loss": 77.0}])
    train(run, learner(), epochs=4)
    written = run.read_history()
    assert [row["epoch"] for row in written] == [1, 2, 3, 4]
    assert written[:2] == history
    assert all(row["loss"] != 77.0 for row in written)


def test_a_checkpoint_that_was_cut_short_is_passed_over_or_named(run):
    """Killed while the checkpoint of epoch 3 is written: its index is not there yet, and epoch 2 is the last."""
    train(run, learner(), epochs=2)
    with open(run.path("checkpoints/ckpt-3.data-00000-of-00001.tempstate1"), "wb") as file:
        file.write(b"half")
    assert Progress(run, learner()).restore() == 2


def test_only_the_last_two_checkpoints_are_kept(run):
    train(run, learner(), epochs=4)
    kept = {name.split(".")[0] for name in os.listdir(run.path("checkpoints")) if name.startswith("ckpt")}
    assert kept == {"ckpt-3", "ckpt-4"}


@pytest.mark.parametrize("other", [{"dim": 5}, {"optimizer": "sgd"}], ids=["embedder", "optimizer"])
def test_the_checkpoint_of_another_model_is_refused(run, other):
    if "optimizer" in other:
        other = {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9)}
    train(run, learner(), epochs=1)
    with pytest.raises(RunError, match=r"(?s)checkpoints/ckpt-1' does not fit this model: .*or another --model_dir"):
        Progress(run, learner(**other)).restore()


@pytest.mark.parametrize("name", ["ckpt-1.data-00000-of-00001", "ckpt-1.index"])
def test_a_spoilt_checkpoint_is_refused(run, name):
    train(run, learner(), epochs=1)
    file = run.path(f"checkpoints/{name}")
    with open(file, "r+b") as checkpoint:
        checkpoint.truncate(os.path.getsize(file) // 2)
    with pytest.raises(RunError, match="checkpoints/ckpt-1' does not fit this model"):
        Progress(run, learner()).restore()


class Scores(keras.callbacks.Callback):
    """Adds a score to each epoch's logs."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch, logs=None):
        logs["val_recall@1"] = self.scores[epoch]


def test_the_best_embedder_is_kept(run):
    """Epoch 2 is the best; epoch 4 equals it and comes later, so it is not better."""
    progress = train(run, learner(), 2, "val_recall@1", [Scores([0.1, 0.5])])
    best = eet_tf.load_embedder(run.folder).get_weights()
    assert progress.best_epoch() == 2
    resumed = learner()
    progress = train(run, resumed, 5, "val_recall@1", [Scores([None, None, 0.3, 0.5, 0.2])])
    assert progress.best_epoch() == 2
    for mine, theirs in zip(best, eet_tf.load_embedder(run.folder).get_weights(), strict=True):
        assert np.array_equal(mine, theirs)
    assert not np.array_equal(best[0], resumed.embedder.get_weights()[0])


def test_without_a_score_the_last_embedder_is_kept(run):
    model = learner()
    progress = train(run, model, 3)
    assert progress.best_epoch() == 3
    for mine, theirs in zip(model.embedder.get_weights(), eet_tf.load_embedder(run.folder).get_weights(), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_restored_run_still_knows_its_best(run):
    train(run, learner(), 3, "val_recall@1", [Scores([0.1, 0.5, 0.2])])
    progress = Progress(run, learner(), "val_recall@1")
    progress.restore()
    assert progress.best_epoch() == 2


def test_a_run_may_be_moved(run, tmp_path):
    train(run, learner(seed=1), epochs=2)
    shutil.copytree(run.folder, tmp_path / "moved")
    moved = RunFolder(str(tmp_path / "moved"), SETTINGS)
    assert Progress(moved, learner(seed=2)).restore() == 2
    let_go(moved)


class NotANumber(keras.losses.Loss):
    """A loss that is NaN from the third batch on."""

    def __init__(self):
        super().__init__(name="not_a_number")
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, y_true, y_pred):
        """`[B]`."""
        calls = self.calls.assign_add(1.0)
        return tf.reduce_sum(y_pred, axis=1) * tf.where(calls >= 3, np.nan, 1.0)


def test_nan_stops_the_training_and_names_epoch_and_step(run):
    """Two steps an epoch: the third batch is the first step of epoch 2, and epoch 1 is kept."""
    model = learner()
    model.compile(optimizer="sgd", loss=NotANumber())
    with pytest.raises(RunError, match="The loss is nan at epoch 2, step 1. Lower --learning_rate"):
        train(run, model, 3, callbacks=[StopOnNaN()])
    assert [row["epoch"] for row in run.read_history()] == [1]
    with open(run.path("history.csv")) as file:
        assert "nan" not in file.read()


@pytest.mark.parametrize("loss", [float("inf"), float("nan"), -float("inf")])
def test_infinity_is_no_number_either(loss):
    stop = StopOnNaN()
    stop.on_epoch_begin(4)
    stop.on_train_batch_end(0, {"loss": 0.5})
    with pytest.raises(RunError, match=f"The loss is {loss} at epoch 5, step 8"):
        stop.on_train_batch_end(7, {"loss": loss})


def test_figures_are_json_that_others_read(run):
    run.write_json("metrics.json", {"recall@1": 0.5})
    with open(run.path("metrics.json")) as file:
        assert json.load(file) == {"recall@1": 0.5}
