"""Two machines that train one embedder, of which either may be killed: processes of this machine, each a worker."""

import json
import os
import signal
import socket
import time

import numpy as np
import pytest

import eet_tf
from eet_tf.training.run import read_run

EPOCHS = 16


@pytest.fixture
def flags(root, tiny):
    """What all workers are given, but for the folder. Batch norm would see the photos of one worker only.

    Steps are small: what two workers and one process round differently would otherwise turn, by another hardest
    triplet, into another training; on some processors within ten epochs.
    """
    changes = (
        "--freeze_batch_norm",
        "--optimizer=sgd",
        "--learning_rate=0.001",
        "--crop=0.5",
        "--noise=0.05",
        "--memory_size=12",
        "--memory_start=3",
        "--ema=0.5",
        "--clip_norm=1",
    )
    return ("train/main.py", *tiny, "--dataset=csv", f"--data_dir={root / 'photos'}", f"--epochs={EPOCHS}", *changes)


@pytest.fixture
def start_worker(start_script):
    """Starts worker 0 or 1; ends all of them after the test."""
    doors = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{door.getsockname()[1]}" for door in doors]
    for door in doors:
        door.close()
    started = []

    def start(index, *command):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {"TF_CONFIG": json.dumps(task)}
        started.append(start_script(*command, "--strategy=multi_worker", environment=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_epoch(model_dir, epoch, *processes):
    """Returns as soon as that epoch is in history.csv."""
    file, deadline = model_dir / "history.csv", time.monotonic() + 120
    while not file.is_file() or len(file.read_text().splitlines()) <= epoch:
        for process in processes:
            if process.poll() is not None:
                pytest.fail(f"ended with {process.returncode}: {process.communicate()[1][-3000:]}")
        assert time.monotonic() < deadline, f"no epoch {epoch}"
        time.sleep(0.01)


def ended(process):
    """What a worker printed, once it has ended well."""
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    return printed


def test_whoever_is_killed_they_end_as_one_process_does(flags, tmp_path, start_worker, run_script):
    """First worker 1 is killed and started again, then the chief. The survivor begins the epoch again by itself."""
    shared = tmp_path / "shared"
    chief, other = (start_worker(index, *flags, f"--model_dir={shared}") for index in (0, 1))
    wait_for_epoch(shared, 2, chief, other)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    other = start_worker(1, *flags, f"--model_dir={shared}")
    done = len(read_run(str(shared)).history)
    wait_for_epoch(shared, done + 2, chief, other)
    chief.send_signal(signal.SIGTERM)
    chief_printed, _ = chief.communicate(timeout=60)
    assert chief.returncode == -signal.SIGTERM
    assert "Another worker is gone. This one starts again from the last epoch" in chief_printed
    assert done + 2 <= len(read_run(str(shared)).history) < EPOCHS
    chief = start_worker(0, *flags, f"--model_dir={shared}")
    assert "The embedder is" in ended(chief)
    assert "Another worker is gone" in ended(other)

    run_script(*flags, f"--model_dir={tmp_path / 'alone'}").succeeded()
    found, expected = (read_run(str(tmp_path / name)) for name in ("shared", "alone"))
    assert [row["epoch"] for row in found.history] == list(range(1, EPOCHS + 1))
    for row, other_row in zip(found.history, expected.history):
        assert row["loss"] == pytest.approx(other_row["loss"], rel=1e-4)
    assert found.metrics["after"] == pytest.approx(expected.metrics["after"], abs=1e-6)
    weights, other_weights = (eet_tf.load_embedder(str(tmp_path / name)).get_weights() for name in ("shared", "alone"))
    for weight, other_weight in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(weight, other_weight, rtol=1e-3, atol=1e-4)
    assert not [name for name in os.listdir(shared) if name.startswith(".") and name != ".lock"]


def test_workers_with_different_flags_or_folders_are_refused(flags, tmp_path, start_worker, root):
    """Each says what differs, and none trains."""
    processes = [
        start_worker(index, *flags, f"--model_dir={tmp_path / 'run'}", f"--margin=0.{index + 2}") for index in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "error: The workers were given different flags. Give all of them the same ones." in errors
        assert "Traceback" not in errors


def test_a_cluster_without_the_strategy_is_refused(flags, tmp_path, start_script):
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 0}}
    with start_script(*flags, f"--model_dir={tmp_path}", environment={"TF_CONFIG": json.dumps(cluster)}) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: TF_CONFIG names 2 workers, which only --strategy=multi_worker lets train together" in errors
