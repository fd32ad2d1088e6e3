"""The progress of a training as plain lines, for output that goes to a file; a terminal has Keras's own bar."""

from __future__ import annotations

import sys
import time

import keras

from eet_tf.terminal import seconds_text

_EVERY = 10.0  # seconds between two lines within an epoch


def verbosity() -> int:
    """Keras's `verbose`: 1 on a terminal, whose bar has escape codes, and 0 elsewhere."""
    return int(sys.stdout.isatty())


class EpochLines(keras.callbacks.Callback):
    """Prints a line after each epoch and, within long ones, every 10 seconds; nothing on a terminal.

    Args:
        write: takes a line of text without its end.
    """

    def __init__(self, write):
        super().__init__()
        self._write = write

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers when the epoch began."""
        self._epoch = epoch + 1
        self._began = self._said = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Prints where the epoch is, if the last line is long enough ago."""
        if time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            self._write(f"{self._place()}, step {batch + 1} of {self.params.get('steps')}{_shown(logs)}")

    def on_epoch_end(self, epoch, logs=None):
        """Prints the figures of the epoch."""
        self._write(f"{self._place()}, {seconds_text(time.monotonic() - self._began)}{_shown(logs)}")

    def _place(self) -> str:
        return f"Epoch {self._epoch} of {self.params.get('epochs')}"


def _shown(logs) -> str:
    return "".join(f", {name} {float(value):.4g}" for name, value in (logs or {}).items())
