"""The command `eet`: which commands there are, and which module each is in. Nothing is imported before one runs."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

# Each command by its name: the module of eet_tf.cli, the name of the `Command` in it, and what it does.
COMMANDS = {
    "train": ("train", "COMMAND", "Train an embedder on the photos of a catalogue."),
    "evaluate": ("evaluate", "COMMAND", "Measure a trained embedder on photos."),
    "compare": ("compare", "COMMAND", "Tell whether one training finds better than another."),
    "export": ("export", "COMMAND", "Write an embedder as a SavedModel or a bundle for TF Serving."),
    "verify": ("verify", "COMMAND", "Verify that a bundle can be served."),
    "publish": ("publish", "COMMAND", "Bring a version of a bundle into service."),
    "index build": ("index_build", "COMMAND", "Embed a catalogue and build the index that is searched."),
    "index upsert": ("index_upsert", "COMMAND", "Add photos to an index, or replace them."),
    "index update": ("index_update", "COMMAND", "Update an index to a changed catalogue."),
    "index delete": ("index_delete", "COMMAND", "Delete photos or products from an index."),
    "index compact": ("index_care", "COMPACT", "Build an index again from its rows, so that searches are fast again."),
    "index verify": ("index_care", "VERIFY", "Check the files of an index and measure its recall."),
    "index stats": ("index_care", "STATS", "Show what an index holds."),
    "search": ("search", "COMMAND", "Find the products that look like a photo."),
    "report": ("report", "COMMAND", "Write the page of a training: curves, figures, searches."),
    "audit": ("audit", "COMMAND", "Look for unreadable photos, copies and products with too few photos."),
    "convert": ("convert", "COMMAND", "Convert photos that TensorFlow does not read, such as HEIC."),
    "doctor": ("doctor", "COMMAND", "Show which packages are installed, which do not work, and how to repair them."),
    "serve": ("serve", "COMMAND", "Serve a page on which a person searches by a photo."),
    "embed": ("embed", "COMMAND", "Embed a large catalogue on many machines with Apache Beam."),
}
_HELP = ("", "help", "-h", "-help", "--help", "--helpfull", "--helpshort")
_FIRST_STEPS = """\
From photos to a first search:
  eet train --data=photos/catalog.csv --model_dir=runs/mine
  eet export --model=runs/mine
  eet index build --saved_model=runs/mine/serving --data=photos/catalog.csv
  eet search photo.jpg --index_dir=runs/mine/index"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name and returns its exit status.

    Args:
        arguments: the command's name, its flags and positional arguments; by default those of this process.

    Example:

    >>> main(["--version"])
    eet-tf 0.1.0
    0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    first = arguments[0] if arguments else ""
    if first in _HELP:
        print(overview())
        return 0
    if first == "--version":
        import eet_tf

        print(f"eet-tf {eet_tf.__version__}")
        return 0
    name = (
        " ".join(arguments[:2])
        if f"{first} " in {f"{known.split()[0]} " for known in COMMANDS if " " in known}
        else first
    )
    if name not in COMMANDS:
        return _unknown(first, name, arguments)
    if name == "doctor":  # which runs where not even absl is installed
        from eet_tf.cli import doctor

        return doctor.main(arguments[1:])
    from eet_tf.cli import door

    module, attribute, _ = COMMANDS[name]
    command = getattr(importlib.import_module(f"eet_tf.cli.{module}"), attribute)
    return door.run(command, f"eet {name}", arguments[len(name.split()) :])


def overview() -> str:
    """What `eet --help` shows."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{what}" for name, (_, _, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: eet COMMAND [flags]",
            "",
            "Visual product search for TensorFlow: train an embedder, export it, index a catalogue, search it.",
            "",
            "Commands:",
            *lines,
            "",
            _FIRST_STEPS,
            "",
            "`eet COMMAND --help` shows a command's examples and flags.",
        ]
    )


def _unknown(first: str, name: str, arguments: Sequence[str]) -> int:
    group = [known for known in COMMANDS if known.startswith(f"{first} ")]
    if group and (len(arguments) < 2 or arguments[1] in _HELP):
        print(f"usage: eet {first} ACTION [flags]\n\nActions:")
        width = max(map(len, group)) + 2
        print("\n".join(f"  {known:{width}}{COMMANDS[known][2]}" for known in group))
        return 0 if len(arguments) > 1 else 2
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean `eet {close[0]}`?" if close else ""
    known = ", ".join(group or COMMANDS)
    print(f"error: {name!r} is no command.{hint} The commands are: {known}.", file=sys.stderr)
    return 2
