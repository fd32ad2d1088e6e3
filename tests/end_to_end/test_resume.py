"""A training that is killed at any moment goes on with the same command, and every epoch counts once."""

import random
import signal
import time

import numpy as np
import pytest

import eet_tf
from eet_tf.training.run import read_run


@pytest.fixture
def model_dir(tmp_path):
    """Where the run goes."""
    return tmp_path / "run"


@pytest.fixture
def flags(root, model_dir, tiny):
    """The command, but for the number of epochs."""
    return ("train/main.py", *tiny, "--dataset=csv", f"--data_dir={root / 'photos'}", f"--model_dir={model_dir}")


def num_epochs(model_dir):
    """How many rows history.csv has; 0 before it is there."""
    file = model_dir / "history.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def wait_for_epoch(process, model_dir, epoch):
    """Returns as soon as that epoch is in history.csv, which is just before its checkpoint is written."""
    deadline = time.monotonic() + 200
    while num_epochs(model_dir) < epoch:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no epoch {epoch}; ended with {process.returncode}: {process.communicate()[1][-3000:]}")
        time.sleep(0.005)


def end(process, number):
    """Sends a signal and returns how the process ended and what it printed."""
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    return process.returncode, printed, errors


@pytest.mark.long
def test_killed_again_and_again_it_ends_as_if_never_killed(flags, model_dir, start_script, run_script):
    """Killed between history.csv and the checkpoint, told to end in the middle of an epoch, then left alone.

    Where the first ends depends on the speed of the machine, so the others are asked for a few epochs more.
    """
    rng = random.Random(0)
    with start_script(*flags, "--epochs=5000") as first:
        wait_for_epoch(first, model_dir, 2)
        run_script(*flags, "--epochs=5000").refused(f"'{model_dir}' is in use by another training")
        assert first.poll() is None
        wait_for_epoch(first, model_dir, num_epochs(model_dir) + 1)
        returncode, _, _ = end(first, signal.SIGKILL)
    assert returncode == -signal.SIGKILL
    before = read_run(str(model_dir))
    done = len(before.history)
    eet_tf.load_embedder(str(model_dir))

    command = (*flags, f"--epochs={done + 40}")
    with start_script(*command) as second:
        wait_for_epoch(second, model_dir, done + 2)
        time.sleep(rng.uniform(0, 0.2))
        returncode, printed, errors = end(second, signal.SIGTERM)
    assert returncode != 0
    assert "Traceback" not in errors
    assert f"Going on after epoch {done} of" in printed or f"Going on after epoch {done - 1} of" in printed
    middle = read_run(str(model_dir))
    assert middle.history[: done - 1] == before.history[: done - 1]

    last = run_script(*command).succeeded()
    final = read_run(str(model_dir))
    assert "Going on after epoch" in last.printed
    assert [row["epoch"] for row in final.history] == list(range(1, done + 41))
    assert final.history[: len(middle.history) - 1] == middle.history[:-1]
    assert final.metrics["epochs"] == done + 40
    best = max(final.history, key=lambda row: row["val_map@r"])
    assert final.metrics["best_epoch"] == best["epoch"]
    assert final.metrics["before"] == read_run(str(model_dir)).metrics["before"]


def test_killed_in_an_epoch_it_ends_with_the_weights_of_a_whole_run(root, tiny, tmp_path, start_script, run_script):
    """Weights, optimizer, batches and the random changes of photos are those of the epoch that is begun again."""
    flags = ("train/main.py", *tiny, "--dataset=csv", f"--data_dir={root / 'photos'}", "--hold_out=0", "--epochs=12")
    flags = (
        *flags,
        "--crop=0.5",
        "--color=0.1",
        "--cutout=0.2",
        "--noise=0.05",
        "--ema=0.9",
        "--memory_size=30",
        "--memory_start=3",
    )
    with start_script(*flags, f"--model_dir={tmp_path / 'killed'}") as first:
        wait_for_epoch(first, tmp_path / "killed", 3)
        end(first, signal.SIGKILL)
    done = num_epochs(tmp_path / "killed")
    assert 3 <= done < 12
    assert "Going on after epoch" in run_script(*flags, f"--model_dir={tmp_path / 'killed'}").succeeded().printed
    run_script(*flags, f"--model_dir={tmp_path / 'whole'}").succeeded()
    killed, whole = (eet_tf.load_embedder(str(tmp_path / name)).get_weights() for name in ("killed", "whole"))
    for weight, expected in zip(killed, whole, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
