"""What a run was asked, as its folder keeps it: `flags.txt`, read without TensorFlow."""

from __future__ import annotations

import os


def read_settings(folder: str) -> dict[str, str]:
    """What a run of a folder was asked: `{name: text}`."""
    with open(os.path.join(folder, "flags.txt"), encoding="utf-8") as file:
        return dict(line.rstrip("\n")[2:].split("=", 1) for line in file)


def settings_of_begun(folder: str) -> dict[str, str] | None:
    """What a run of a folder was asked, or None where none has begun there."""
    is_begun = os.path.isdir(os.path.join(folder, "checkpoints")) and os.path.isfile(os.path.join(folder, "flags.txt"))
    return read_settings(folder) if is_begun else None
