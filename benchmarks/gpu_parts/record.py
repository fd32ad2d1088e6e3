"""What a part of `benchmarks/gpu.py` has measured so far, kept as JSON after every measurement."""

from __future__ import annotations

import json
import os

from eet_tf.files import replaced

FINISHED, TIMED_OUT, FAILED, NOT_RUN = "finished", "timed out", "failed", "not run"


class Record:
    """The file of one part: its rows by name, and how the part ended.

    The part's own process writes rows, its parent writes how that process ended; they take turns.
    """

    def __init__(self, folder: str, part: str):
        self.path = os.path.join(folder, f"{part}.json")
        self._content = {"part": part, "outcome": NOT_RUN, "reason": "", "machine": {}, "wanted": [], "rows": {}}
        self._content |= {"asked": "", "measuring": None}
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                self._content |= json.load(file)

    @property
    def content(self) -> dict:
        """All that the file holds."""
        return self._content

    @property
    def rows(self) -> dict[str, dict]:
        """What was measured, by the names of the measurements."""
        return self._content["rows"]

    @property
    def figures(self) -> dict[str, dict]:
        """The rows that hold figures."""
        return {name: row for name, row in self.rows.items() if "error" not in row}

    @property
    def errors(self) -> dict[str, str]:
        """What went wrong, by the names of the measurements."""
        return {name: row["error"] for name, row in self.rows.items() if "error" in row}

    @property
    def progress(self) -> str:
        """How much of what was wanted is there, in words."""
        wanted = self._content["wanted"]
        failed = f", {len(self.errors)} failed" if self.errors else ""
        return f"{sum(name in self.figures for name in wanted)} of {len(wanted)} measured{failed}"

    @property
    def missing(self) -> list[str]:
        """The measurements that were wanted and have no row."""
        return [name for name in self._content["wanted"] if name not in self.rows]

    def is_complete(self, asked: str) -> bool:
        """Whether nothing is left to measure of what `asked` describes."""
        return self._content["outcome"] == FINISHED and self._content["asked"] == asked and not self.errors

    def begin(self, machine: dict, wanted: list[str], asked: str) -> None:
        """Notes what is going to be measured, and on which machine; refuses to mix two machines."""
        if self.rows and self._content["machine"] != machine:
            raise RuntimeError(f"{self.path} holds figures of another machine or version: give another --output_dir")
        self._content |= {"machine": machine, "wanted": wanted, "asked": asked}
        self._save()

    def start_row(self, name: str) -> None:
        """Notes which measurement runs, so that it can be named if it takes the process along."""
        self._content["measuring"] = name
        self._save()

    def keep(self, name: str, row: dict) -> None:
        """Writes a row."""
        self.rows[name] = row
        self._content["measuring"] = None
        self._save()

    def end(self, outcome: str, reason: str = "") -> None:
        """Writes how the part ended."""
        self._content |= {"outcome": outcome, "reason": reason, "measuring": None}
        self._save()

    def blame(self, error: str) -> bool:
        """Gives the error to the measurement that was running; returns whether there was one."""
        name = self._content["measuring"]
        if name is not None:
            self.keep(name, {"error": error})
        return name is not None

    def forget_errors(self) -> None:
        """Drops the rows that failed, so that they are tried again."""
        self._content["rows"] = self.figures
        self._save()

    def _save(self) -> None:
        with replaced(self.path) as aside, open(aside, "w", encoding="utf-8") as file:
            json.dump(self._content, file, indent=1)
