"""Says whether one training finds better than another, or whether that is chance: the second against the first.

    python train/compare.py runs/triplet runs/eet
    python train/compare.py runs/triplet_0,runs/triplet_1 runs/eet_0,runs/eet_1 --metric=map@r

Each side is the folder of a training or a classes.csv, or several with commas between: the seeds of one method.
"""

import os
import sys

from absl import flags

from eet_tf import commands

FLAGS = flags.FLAGS
flags.DEFINE_string("metric", "recall@1", "The figure to compare: a column of classes.csv.")


def _read(names: str, complaints: commands.Complaints) -> list:
    """The results of each seed of one side."""
    from eet_tf.comparison import ClassResults

    files = [os.path.join(name, "classes.csv") if os.path.isdir(name) else name for name in names.split(",")]
    results = []
    for file in files:
        if os.path.isfile(file):
            results.append(complaints.check(ClassResults.read, file))
        else:
            complaints.add(f"{file!r} does not exist. Give the folder of a finished training, or a classes.csv.")
    return results


def _side(name: str, results: list) -> str:
    """One side's mean, and how far its seeds scatter."""
    from eet_tf.comparison import mean_interval

    mean, half_width = mean_interval([one.mean(FLAGS.metric) for one in results])
    text = f"{name}: {FLAGS.metric} {100 * mean:.2f} % over {results[0].num_queries.sum():,} queries"
    if len(results) == 1:
        return text
    return f"{text}, mean of {len(results)} runs (95 % interval over runs +- {100 * half_width:.2f} points)"


def main(argv):
    """Reads both sides, compares, prints."""
    from eet_tf.comparison import compare

    if len(argv) != 3:
        sys.exit(f"error: give two results: python {argv[0]} FIRST SECOND. Received: {len(argv) - 1}.")
    try:
        complaints = commands.Complaints()
        first, second = _read(argv[1], complaints), _read(argv[2], complaints)
        complaints.end()
        comparison = compare(first, second, FLAGS.metric)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(_side(argv[1], first))
    print(_side(argv[2], second))
    print(f"second against first: {comparison}.")


if __name__ == "__main__":
    commands.run(main)
