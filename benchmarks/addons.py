"""What triplet losses cost here and in TensorFlow Addons: forward and backward, time, and memory over the inputs.

    .venv-addons/bin/python benchmarks/addons.py --output_dir=runs/addons

Embeddings `[B, 512]` of unit length, 8 photos of each class, float32. Both sides at a size are timed by turns in one
process; memory is measured in processes of their own. Addons' semi-hard loss holds several arrays of B x B x B numbers:
at B = 1,024 it needs more than 18 GB, so it is measured up to --largest_semi_hard.
"""

import json
import os
import subprocess
import sys
import time

from absl import app, flags
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
DIM, PHOTOS_PER_CLASS = 512, 8
ROWS = {
    "addons_hard": "`tfa.losses.TripletHardLoss`",
    "ours_hard": "`TripletLoss()`",
    "addons_semi_hard": "`tfa.losses.TripletSemiHardLoss`",
    "ours_semi_hard": '`TripletLoss(positives="all", negatives="semi_hard")`',
}

flags.DEFINE_list("sizes", ["256", "512", "1024", "4096"], "Batch sizes, with commas between.")
flags.DEFINE_integer("largest_semi_hard", 512, "Largest batch that Addons' semi-hard loss is given.")
flags.DEFINE_integer("repeats", 7, "Timings of each; the table holds medians.", lower_bound=3)
flags.DEFINE_string("output_dir", "runs/addons", "Where the table goes.")
flags.DEFINE_string("only", None, "WHAT:SIZE, for this tool's own use: measures one and prints it.")


def gradients() -> dict:
    """For each row of the table a compiled function of labels and embeddings: the gradient."""
    import tensorflow as tf

    from eet_tf import TripletLoss
    from eet_tf.training.addons import AddonsLoss

    losses = {
        "addons_hard": AddonsLoss("tfa_triplet_hard", margin=0.3),
        "ours_hard": TripletLoss(0.3, from_normalized=True),
        "addons_semi_hard": AddonsLoss("tfa_triplet_semihard", margin=0.3),
        "ours_semi_hard": TripletLoss(0.3, positives="all", negatives="semi_hard", from_normalized=True),
    }

    def gradient_of(loss):
        @tf.function(reduce_retracing=True)
        def gradient(labels, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(labels, x)
            return tape.gradient(value, x)

        return gradient

    return {name: gradient_of(loss) for name, loss in losses.items()}


def inputs(size: int):
    """Labels and unit vectors."""
    import tensorflow as tf

    x = tf.math.l2_normalize(tf.random.stateless_normal([size, DIM], [1, 2]), axis=1)
    return tf.range(size) // PHOTOS_PER_CLASS, x


def names_at(size: int) -> list[str]:
    """The rows that are measured at a size."""
    return [name for name in ROWS if name != "addons_semi_hard" or size <= FLAGS.largest_semi_hard]


def times(size: int) -> dict[str, float]:
    """Milliseconds of each, by turns."""
    import numpy as np

    calls, batch, found = gradients(), inputs(size), {name: [] for name in names_at(size)}
    for _ in range(FLAGS.repeats + 1):
        for name in found:
            started = time.perf_counter()
            calls[name](*batch)[0, 0].numpy()
            found[name].append(1000 * (time.perf_counter() - started))
    return {name: float(np.median(each[1:])) for name, each in found.items()}


def memory(name: str, size: int) -> float:
    """Megabytes over the inputs at the highest."""
    from memory import PeakMemory

    gradient = gradients()[name]
    for rows in (64, 96):  # what TensorFlow itself takes for a graph is not the loss's
        gradient(*inputs(rows))
    batch = inputs(size)
    with PeakMemory() as peak:
        gradient(*batch)[0, 0].numpy()
    return peak.megabytes


def in_own_process(what: str, size: int):
    """Runs this script for one measurement."""
    command = [sys.executable, *sys.argv, f"--only={what}:{size}"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def main(argv):
    """Measures one, or all, and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        what, size = FLAGS.only.split(":")
        print(json.dumps(times(int(size)) if what == "times" else memory(what, int(size))))
        return 0
    from eet_tf.training.addons import check_available

    try:
        check_available("loss", "tfa_triplet_hard")
    except ValueError as error:
        sys.exit(f"error: {error}")
    sizes = [int(size) for size in FLAGS.sizes]
    cells = {}
    for size in sizes:
        print(f"B = {size:,}", flush=True)
        milliseconds = in_own_process("times", size)
        for name in names_at(size):
            cells[name, size] = f"{milliseconds[name]:,.0f} ms, {in_own_process(name, size):,.0f} MB"
    text = f"| | {' | '.join(f'B = {size:,}' for size in sizes)} |\n|---|{'---|' * len(sizes)}\n"
    for name, shown in ROWS.items():
        text += f"| {shown} | {' | '.join(cells.get((name, size), 'not run') for size in sizes)} |\n"
    write_table(FLAGS.output_dir, text)
    return 0


if __name__ == "__main__":
    app.run(main)
