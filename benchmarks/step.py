"""What a training step costs over the network itself: loss, mining and logging; and large batches in pieces.

    python benchmarks/step.py
    python benchmarks/step.py --backbone=small_cnn --sizes=64,256

Part one: `MetricLearner.fit` with EET, mined over the batch and logged term by term, against `keras.Model.fit` of the
same network with a loss that costs nothing, turn by turn in one process. Part two: batches in pieces of 64, against
plain batches of 64: time for each photo, and the most memory over what the process held before its first step.
"""

import json
import os
import subprocess
import sys

from absl import app, flags
from networks import batches, make_bare, make_learner, seconds_per_step
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
flags.DEFINE_string("backbone", "mobilenet_v2", "The network; its weights are random.")
flags.DEFINE_integer("image_size", 96, "Side of the photos, which are noise.")
flags.DEFINE_integer("microbatch", 64, "Photos in a piece, and in the plain batches that large ones are compared with.")
flags.DEFINE_list("sizes", ["256", "1024"], "Batch sizes of the second part, with commas between.")
flags.DEFINE_integer("repeats", 7, "Timings of each; the figures are medians.", lower_bound=5)
flags.DEFINE_string("output_dir", "runs/step", "Where the table goes.")
flags.DEFINE_string("only", None, "PART:SIZE, for this tool's own use: measures one and prints it.")


def measure_overhead(size: int) -> dict:
    """Takes the median seconds of a step of both, in turns."""
    import numpy as np

    network = (FLAGS.backbone, FLAGS.image_size)
    models = {"learner": make_learner(*network), "bare": make_bare(*network)}
    dataset = batches(size, FLAGS.image_size)
    times = {name: [] for name in models}
    for _ in range(FLAGS.repeats + 1):
        for name, model in models.items():
            times[name].append(seconds_per_step(model, dataset, steps=10))
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def measure_pieces(size: int) -> dict:
    """Seconds for a photo, and megabytes, of batches in pieces; of plain ones if `size` is that of a piece."""
    import numpy as np
    from memory import PeakMemory

    microbatch = FLAGS.microbatch if size > FLAGS.microbatch else None
    learner = make_learner(FLAGS.backbone, FLAGS.image_size, microbatch)
    dataset = batches(size, FLAGS.image_size)
    with PeakMemory() as memory:
        times = [seconds_per_step(learner, dataset, steps=1) for _ in range(FLAGS.repeats + 2)]
    images_mb = size * FLAGS.image_size**2 * 3 * 4 / 2**20
    return {"per_photo": float(np.median(times[2:])) / size, "megabytes": memory.megabytes - images_mb}


def measured_apart(part: str, size: int) -> dict:
    """In a process of its own."""
    command = [sys.executable, *sys.argv, f"--only={part}:{size}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main(argv):
    """Measures one, or all, and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        part, size = FLAGS.only.split(":")
        print(json.dumps({"overhead": measure_overhead, "pieces": measure_pieces}[part](int(size))))
        return 0
    overhead = measured_apart("overhead", 64)
    text = (
        f"{FLAGS.backbone}, {FLAGS.image_size} px, B = 64: {1000 * overhead['learner']:.0f} ms a step with EET, "
        f"{1000 * overhead['bare']:.0f} ms without any loss: {overhead['learner'] / overhead['bare']:.3f} times.\n\n"
        f"| photos in a batch | time for a photo | | memory, MB |\n|---|---|---|---|\n"
    )
    plain = measured_apart("pieces", FLAGS.microbatch)
    rows = {f"{FLAGS.microbatch}": plain}
    rows |= {
        f"{int(size):,} in pieces of {FLAGS.microbatch}": measured_apart("pieces", int(size)) for size in FLAGS.sizes
    }
    for name, row in rows.items():
        times = f"{1000 * row['per_photo']:.2f} ms | {row['per_photo'] / plain['per_photo']:.2f} times"
        text += f"| {name} | {times} | {row['megabytes']:,.0f} |\n"
    write_table(FLAGS.output_dir, text)
    return 0


if __name__ == "__main__":
    app.run(main)
