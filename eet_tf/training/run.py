"""A training run as a folder: what it was asked, how far it got, the best embedder so far, and how to go on."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from eet_tf import compat, files
from eet_tf.terminal import escaped, is_utf8
from eet_tf.training.settings import read_settings
from eet_tf.wording import said_by

TEACHER = "teacher.json"  # whose vectors a run learns: the path, the fingerprint and the length
_CHECKPOINT = re.compile(r"ckpt-([0-9]+)\.(?:index|data-[0-9]+-of-[0-9]+)")


class RunError(RuntimeError):
    """A run that cannot start, go on, or has failed; the message names the culprit and the mend."""


class RunFolder:
    """The folder of one training run, safe to kill at any moment: the same command goes on from the last epoch.

    ```
    flags.txt      what it was asked            history.csv    one row for each epoch
    model.keras    the best embedder so far     checkpoints/   everything needed to go on
    ```

    An epoch counts once its checkpoint is complete; whatever was written for later ones is written anew.

    Args:
        folder: made if it is missing.
        settings: `{name: text}` of everything that shapes the run, kept in `flags.txt` as `--name=text`. Going on with
            others is refused.
        may_change: names of settings that may differ when a run goes on, e.g. the number of epochs.
        writes: whether this process keeps the folder. Otherwise it reads what another one keeps there.
        defaults: what settings are taken to have been that an older version did not know when it began the run.

    Raises:
        RunError: if the folder is in use by another process or holds a run with other settings, or a setting is more
            than one line.
    """

    def __init__(
        self,
        folder: str,
        settings: Mapping[str, str],
        may_change: frozenset[str] = frozenset(),
        writes: bool = True,
        defaults: Mapping[str, str] | None = None,
    ):
        self.folder = folder
        self.writes = writes
        _check_lines(settings)
        if not writes:
            return
        _make(folder)
        self._lock = _locked(os.path.join(folder, ".lock"))
        if os.path.isdir(self.path("checkpoints")):
            try:
                _check_same(folder, {**(defaults or {}), **read_settings(folder)}, dict(settings), may_change)
            except RunError:
                self._lock.close()
                raise
        with files.replaced(self.path("flags.txt")) as aside, open(aside, "w", encoding="utf-8") as file:
            file.writelines(f"--{name}={text}\n" for name, text in settings.items())

    def holder(self) -> str:
        """Names the process that keeps the folder: the same from wherever the folder is seen, and from no other one."""
        try:
            with open(self.path(".lock"), encoding="utf-8") as lock:
                return lock.read()
        except FileNotFoundError:
            return ""

    def is_begun(self) -> bool:
        """Whether an epoch of it is complete, so that training goes on with its weights."""
        folder = self.path("checkpoints")
        return os.path.isdir(folder) and any(_CHECKPOINT.fullmatch(name) for name in os.listdir(folder))

    def path(self, name: str) -> str:
        """The path of a file in the folder."""
        return os.path.join(self.folder, name)

    def write_json(self, name: str, content: Mapping) -> None:
        """Replaces a JSON file of the folder."""
        with files.replaced(self.path(name)) as aside, open(aside, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")

    def read_json(self, name: str) -> dict | None:
        """Reads a JSON file of the folder, or None if it is not there."""
        return _read_json(self.path(name))

    def read_history(self) -> list[dict[str, float]]:
        """The epochs so far, as `{"epoch": 1, "loss": ..., ...}`."""
        return _read_history(self.path("history.csv"))

    def write_history(self, history: list[dict[str, float]]) -> None:
        """Replaces `history.csv`."""
        with files.replaced(self.path("history.csv")) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(history[0]))
            writer.writeheader()
            writer.writerows({**row, "epoch": int(row["epoch"])} for row in history)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a training run left: its flags as text, its epochs, and its figures (empty before it ended)."""

    settings: Mapping[str, str]
    history: list[dict[str, float]]
    metrics: Mapping


def read_run(folder: str) -> RunRecord:
    """Reads a run's folder, also while it is being trained.

    Raises:
        RunError: if no run has been there.
    """
    if not os.path.isfile(os.path.join(folder, "flags.txt")):
        raise RunError(f"{folder!r} is not the folder of a training run: it has no flags.txt. Run `eet train` first.")
    history = _read_history(os.path.join(folder, "history.csv"))
    return RunRecord(read_settings(folder), history, _read_json(os.path.join(folder, "metrics.json")) or {})


def read_teacher(folder: str) -> str | None:
    """The fingerprint of the teacher that a run was trained with; None without one, and where no run has been."""
    found = _read_json(os.path.join(folder, TEACHER))
    return None if found is None else found["fingerprint"]


def _read_json(path: str) -> dict | None:
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _read_history(path: str) -> list[dict[str, float]]:
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _locked(path: str):
    """Holds `path` for this process until it ends; a killed one lets go by itself."""
    lock = open(path, "a")  # noqa: SIM115 (it stays open as long as the run lives)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(secrets.token_hex(16))
        lock.flush()
        os.fsync(lock.fileno())
    except OSError as error:
        lock.close()
        folder = os.path.dirname(path)
        raise RunError(
            f"{folder!r} is in use by another training. Wait for it, or give another --model_dir."
        ) from error
    return lock


def _check_lines(settings: Mapping[str, str]) -> None:
    """Refuses a setting that `flags.txt` would not give back."""
    for name, text in settings.items():
        if text.splitlines() not in ([], [text]) or not is_utf8(text):
            raise RunError(f"--{name} must be one line of UTF-8. Received: --{name}={escaped(text)!r}. Rename it.")


def _make(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder!r} cannot be made a folder: {said_by(error)}. Give another --model_dir.") from error


def _check_same(folder: str, known: dict[str, str], settings: dict[str, str], may_change: frozenset[str]) -> None:
    names = (known.keys() | settings.keys()) - may_change
    differing = sorted(name for name in names if known.get(name) != settings.get(name))
    if differing:
        changes = ", ".join(f"--{name} was {known.get(name)!r}, is {settings.get(name)!r}" for name in differing)
        raise RunError(
            f"{folder!r} holds a run with other settings: {changes}. Go on with the old ones "
            f"(--flagfile={os.path.join(folder, 'flags.txt')}) or give another --model_dir."
        )


class Progress(keras.callbacks.Callback):
    """Keeps a `RunFolder` up to date after every epoch, and takes a run up where its folder says it stopped.

    Args:
        run: the folder.
        learner: the `MetricLearner` in training, compiled.
        monitor: name of the log that the best embedder has the highest value of; None keeps the last one.
    """

    def __init__(self, run: RunFolder, learner: keras.Model, monitor: str | None = None):
        super().__init__()
        self._run = run
        self._monitor = monitor
        self._epoch = tf.Variable(0, dtype=tf.int64, name="epoch", trainable=False)
        with learner.distribute_strategy.scope():
            compat.build_optimizer(learner.optimizer, learner.trainable_variables)
        parts = {"embedder": learner.embedder, "optimizer": learner.optimizer, "memory": learner.memory}
        parts["class_vectors"] = learner.class_vectors if learner.class_vectors.weights else None
        kept = {name: part for name, part in parts.items() if part is not None}
        state = tf.train.Checkpoint(**kept, epoch=self._epoch)
        # it would delete by a pattern, and the folder's name may hold a `*`
        self._manager = tf.train.CheckpointManager(state, run.path("checkpoints"), max_to_keep=None)
        self._history: list[dict[str, float]] = []

    def restore(self) -> int:
        """Restores the last complete epoch and returns how many are done; 0 if there is none.

        Raises:
            RunError: if the checkpoint does not fit the model.
        """
        latest = self._manager.latest_checkpoint
        if latest is None:
            return 0
        try:
            with files.without_pattern(os.path.dirname(latest)) as folder:
                prefix = os.path.join(folder, os.path.basename(latest))
                self._manager.checkpoint.restore(prefix).assert_existing_objects_matched()
        except (AssertionError, IndexError, RuntimeError, ValueError, tf.errors.OpError) as error:
            raise RunError(
                f"{latest!r} does not fit this model: it was trained with another backbone, embedding_dim, loss or "
                "optimizer. Give the same flags, or another --model_dir."
            ) from error
        done = int(self._epoch.numpy())
        self._history = [row for row in self._run.read_history() if row["epoch"] <= done]
        return done

    def on_epoch_end(self, epoch, logs=None):
        """Writes the best embedder, the history and, last, the checkpoint."""
        self._epoch.assign(epoch + 1)
        if not self._run.writes:
            self._write_for_nobody()
            return
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        if self._is_best(row):
            with self.model.averaged(), files.replaced(self._run.path("model.keras")) as aside:
                self.model.embedder.save(aside)
        self._history.append(row)
        self._run.write_history(self._history)
        self._manager.save(checkpoint_number=epoch + 1)
        _remove_checkpoints(self._run.path("checkpoints"), before=epoch)

    def _write_for_nobody(self) -> None:
        """Weights that are means over the replicas can be saved only if every worker takes part."""
        with tempfile.TemporaryDirectory() as folder:
            self._manager.checkpoint.write(os.path.join(folder, "checkpoint"))

    def _is_best(self, row: dict[str, float]) -> bool:
        if self._monitor is None:
            return True
        return all(row[self._monitor] > old[self._monitor] for old in self._history)

    def best_epoch(self) -> int:
        """The epoch whose embedder is in `model.keras`; 0 before the first."""
        if not self._history:
            return 0
        monitor = self._monitor
        if monitor is None:
            return int(self._history[-1]["epoch"])
        return int(max(self._history, key=lambda row: row[monitor])["epoch"])


def _remove_checkpoints(folder: str, before: int) -> None:
    """Removes the checkpoints of epochs before one."""
    for name in os.listdir(folder):
        checkpoint = _CHECKPOINT.fullmatch(name)
        if checkpoint and int(checkpoint[1]) < before:
            os.remove(os.path.join(folder, name))


class StopOnNaN(keras.callbacks.Callback):
    """Ends a training whose loss is no longer a number, naming the step."""

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the running loss, which stays NaN once a step's is.

        Raises:
            RunError: if it is NaN or infinite.
        """
        self._step = batch + 1
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise RunError(
                f"The loss is {loss} at epoch {self._epoch}, step {batch + 1}. Lower --learning_rate, or look at the "
                "photos of that step. The last good epoch is kept; the same command goes on from there."
            )

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the weights, which the last update may have spoilt, before they are measured and kept.

        Raises:
            RunError: if one is NaN or infinite.
        """
        if not all(np.isfinite(weight).all() for weight in self.model.get_weights()):
            raise RunError(
                f"A weight is not a number after epoch {self._epoch}, step {self._step}. Lower --learning_rate. The "
                "last good epoch is kept; the same command goes on from there."
            )
