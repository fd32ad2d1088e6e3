"""`eet compare`: whether one training finds better than another, or whether that is chance."""

from __future__ import annotations

import contextlib
import os

from absl import flags

from eet_tf.cli.complaints import CommandError, Complaints
from eet_tf.cli.door import Command, Definitions

_HELP = """\
Says whether the second training finds better than the first, by a paired bootstrap over products. Each side is the
folder of a training or a classes.csv, or several separated by commas: the seeds of one method. Folders are compared
in the whole catalogue first, which is what a shop searches, then among the products measured on alone.

Examples:
  eet compare runs/triplet runs/eet
  eet compare runs/triplet_0,runs/triplet_1 runs/eet_0,runs/eet_1 --metric=map@r"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string("metric", "recall@1", "Figure to compare: a column of classes.csv.")


def _galleries(names: list[str]) -> dict[str, str]:
    """What is read of the folders among these, and the heading of its comparison.

    Raises:
        ValueError: if one file is of the whole catalogue and another one is not.
    """
    from eet_tf.evaluation.comparison import CLASSES, CLASSES_IN_WHOLE_CATALOGUE

    is_whole = {os.path.basename(name) == CLASSES_IN_WHOLE_CATALOGUE for name in names if os.path.isfile(name)}
    if len(is_whole) == 2:
        raise ValueError(
            f"give {CLASSES_IN_WHOLE_CATALOGUE} of all, or of none: figures in the whole catalogue are lower. "
            f"Received: {', '.join(names)}."
        )
    if True in is_whole:
        return {CLASSES_IN_WHOLE_CATALOGUE: "In the whole catalogue"}
    if False in is_whole:
        return {CLASSES: ""}
    lacking = [name for name in names if not os.path.isfile(os.path.join(name, CLASSES_IN_WHOLE_CATALOGUE))]
    if not lacking:
        return {CLASSES_IN_WHOLE_CATALOGUE: "In the whole catalogue", CLASSES: "Among the products measured on alone"}
    older = f"{lacking[0]} has no {CLASSES_IN_WHOLE_CATALOGUE}, which older versions did not write"
    return {CLASSES: "" if len(lacking) == len(names) else f"Among the products measured on alone, since {older}"}


def _unlike(names: list[str]) -> str:
    """A sentence on whole catalogues of several sizes, or nothing."""
    from eet_tf.training.run import RunError, read_run

    counts: set[int] = set()
    for name in filter(os.path.isdir, names):
        with contextlib.suppress(RunError):  # a folder with nothing but the figures
            if whole := read_run(name).metrics.get("whole_catalogue"):  # a run of an older version has none
                counts.add(whole["num_photos"])
    if len(counts) < 2:
        return ""
    sizes = f"from {min(counts):,} to {max(counts):,} photos"
    return f"The whole catalogues were not the same: {sizes}. A part of the difference may come from that."


def _read(names: str, in_folder: str, complaints: Complaints) -> list:
    """The results of each seed of one side."""
    from eet_tf.evaluation.comparison import ClassResults

    files = [os.path.join(name, in_folder) if os.path.isdir(name) else name for name in names.split(",")]
    results = []
    for file in files:
        if os.path.isfile(file):
            results.append(complaints.check(ClassResults.read, file))
        else:
            complaints.add(f"{file!r} does not exist. Give the folder of a finished training, or a classes.csv.")
    return results


def _side(name: str, results: list) -> str:
    """One side's mean, and how far its seeds scatter."""
    from eet_tf.evaluation.comparison import mean_interval

    mean, half_width = mean_interval([one.mean(FLAGS.metric) for one in results])
    text = f"{name}: {FLAGS.metric} {100 * mean:.2f} % over {results[0].num_queries.sum():,} queries"
    if len(results) == 1:
        return text
    return f"{text}, mean of {len(results)} runs (95 % interval over runs +- {100 * half_width:.2f} points)"


def _main(sides: list[str]) -> None:
    """Reads both sides, compares, prints."""
    from eet_tf.evaluation.comparison import compare

    if len(sides) != 2:
        raise CommandError(f"give two results: eet compare FIRST SECOND. Received: {len(sides)}.")
    complaints = Complaints()
    names = [name for side in sides for name in side.split(",")]
    galleries = complaints.check(_galleries, names) or {}
    read = {name: [_read(side, name, complaints) for side in sides] for name in galleries}
    complaints.end()
    comparisons = {name: compare(both[0], both[1], FLAGS.metric) for name, both in read.items()}
    for name, both in read.items():
        if galleries[name]:
            print(f"{galleries[name]}:")
        for side, results in zip(sides, both, strict=True):
            print(_side(side, results))
        print(f"second against first: {comparisons[name]}.")
    if unlike := _unlike(names):
        print(unlike)


COMMAND = Command(_main, FLAGS, _HELP, takes="FIRST SECOND")
