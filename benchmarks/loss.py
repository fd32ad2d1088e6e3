"""What a loss costs: forward and backward, time as a ratio to one matrix multiplication, and memory over the inputs.

    python benchmarks/loss.py --output_dir=runs/loss
    python benchmarks/loss.py --losses=EET,naive_eet --sizes=1024,4096

Embeddings `[B, 512]`, 8 photos of each class, float32. Each loss at each size runs in a process of its own, in which
every timing stands next to one of the product `[B, 512] x [512, B]`, the one thing no exact loss over all pairs can do
without. Finished measurements are kept: the same command goes on.
"""

import csv
import json
import os
import subprocess
import sys
import time

from absl import app, flags
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
DIM, PHOTOS_PER_CLASS, NUM_ATTRIBUTES = 512, 8, 64
NUM_CLASSES = 11_318  # of losses with class vectors: the training products of Stanford Online Products
# name: (what it is in the table, largest B that fits into the time and memory of a small machine)
LOSSES = {
    "EET": ("EETLoss", 8192),
    "naive_eet": ("EET, full matrix", 8192),
    "batch_hard": ("TripletLoss", 8192),
    "naive_batch_hard": ("batch-hard, full matrix", 8192),
    "semi_hard": ("TripletLoss, semi-hard", 8192),
    "batch_all": ("TripletLoss, batch-all", 8192),
    "online_sampling": ("TripletLoss, online sampling", 8192),
    "binomial_deviance": ("BinomialDevianceLoss", 8192),
    "soft_binomial_deviance": ("SoftBinomialDevianceLoss", 8192),
    "multi_similarity": ("MultiSimilarityLoss", 8192),
    "supervised_contrastive": ("SupervisedContrastiveLoss", 8192),
    "smooth_ap": ("SmoothAPLoss", 8192),
    "roadmap": ("RoadmapLoss", 8192),
    "recall_at_k": ("RecallAtKLoss", 8192),
    "normalized_softmax": ("NormalizedSoftmaxLoss", 8192),
    "arcface": ("ArcFaceLoss", 8192),
    "proxy_anchor": ("ProxyAnchorLoss", 8192),
    "prefixes": ("PrefixLoss of EETLoss, 64 and 512", 8192),
    "distillation": ("DistillationLoss of EETLoss", 8192),
    "circle": ("Circle (Keras)", 8192),
}

flags.DEFINE_list("losses", list(LOSSES), "Which, with commas between.")
flags.DEFINE_list("sizes", ["256", "512", "1024", "2048", "4096", "8192"], "Batch sizes, with commas between.")
flags.DEFINE_integer("repeats", 7, "Timings of each; the table holds medians.", lower_bound=5)
flags.DEFINE_string("output_dir", "runs/loss", "Where measurements and tables go.")
flags.DEFINE_string("only", None, "LOSS:SIZE, for this tool's own use: measures one and prints it.")


def make(name: str):
    """A function of (labels, embeddings, attributes) that returns the loss, and the class vectors that it trains."""
    import keras
    import naive
    import tensorflow as tf

    import eet_tf

    simple = {
        "EET": eet_tf.EETLoss(),
        "naive_eet": naive.eet,
        "batch_hard": eet_tf.TripletLoss(),
        "naive_batch_hard": naive.batch_hard,
        "semi_hard": eet_tf.TripletLoss(0.2, positives="all", negatives="semi_hard", distance="squared"),
        "batch_all": eet_tf.TripletLoss(positives="all", negatives="all"),
        "online_sampling": eet_tf.TripletLoss(0.1, positives="partner", distance="cosine"),
        "binomial_deviance": eet_tf.BinomialDevianceLoss(),
        "multi_similarity": eet_tf.MultiSimilarityLoss(),
        "supervised_contrastive": eet_tf.SupervisedContrastiveLoss(),
        "smooth_ap": eet_tf.SmoothAPLoss(),
        "roadmap": eet_tf.RoadmapLoss(),
        "recall_at_k": eet_tf.RecallAtKLoss(),
        "prefixes": eet_tf.PrefixLoss(eet_tf.EETLoss(), [64, DIM]),
        "circle": getattr(keras.losses, "Circle", lambda: None)(),
    }
    if name in simple:
        return lambda labels, embeddings, attributes: simple[name](labels, embeddings), []
    with_vectors = {
        "normalized_softmax": eet_tf.normalized_softmax_loss,
        "arcface": eet_tf.arcface_loss,
        "proxy_anchor": eet_tf.proxy_anchor_loss,
    }
    if name in with_vectors:
        vectors = tf.Variable(tf.random.stateless_normal([NUM_CLASSES, DIM], [5, 6]))
        of_photos = with_vectors[name]
        return lambda labels, embeddings, attributes: tf.reduce_mean(of_photos(labels, embeddings, vectors)), [vectors]
    if name == "distillation":
        taught = eet_tf.DistillationLoss(eet_tf.EETLoss())

        def of_a_teacher(labels, embeddings, attributes):
            return taught({"label": labels, "teacher": tf.reverse(embeddings, [0])}, {"embedding": embeddings})

        return of_a_teacher, []
    soft = eet_tf.SoftBinomialDevianceLoss()

    def of_two_heads(labels, embeddings, attributes):
        return soft({"label": labels, "attributes": attributes}, {"embedding": embeddings, "attributes": attributes})

    return of_two_heads, []


def measure(name: str, size: int) -> dict:
    """Milliseconds of the loss, plain and compiled, and of the product; megabytes over the inputs of the plain one."""
    import numpy as np
    import tensorflow as tf
    from memory import PeakMemory

    loss, vectors = make(name)

    def of_batch(labels, x, attributes):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x, attributes)
        return tape.gradient(value, [x, *vectors])

    gradient, compiled = tf.function(of_batch), tf.function(of_batch, jit_compile=True)

    @tf.function
    def product(x):
        return tf.matmul(x, x, transpose_b=True)

    def inputs(rows):
        labels = tf.range(rows) // PHOTOS_PER_CLASS
        attributes = tf.cast(tf.random.stateless_uniform([rows, NUM_ATTRIBUTES], [3, 4]) < 0.2, tf.float32)
        return labels, tf.random.stateless_normal([rows, DIM], [1, 2]), attributes

    for rows in (64, 600):  # what TensorFlow itself takes for a graph is not the loss's
        gradient(*inputs(rows))
    batch = inputs(size)
    with PeakMemory() as memory:
        gradient(*batch)
    calls = {
        "product": lambda: product(batch[1]),
        "loss": lambda: gradient(*batch),
        "compiled": lambda: compiled(*batch),
    }
    times: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(FLAGS.repeats + 1):
        for what, call in calls.items():
            started = time.perf_counter()
            result = call()
            (result[0] if isinstance(result, list) else result)[0, 0].numpy()
            times[what].append(1000 * (time.perf_counter() - started))
            del result
    medians = {f"{what}_ms": float(np.median(values[1:])) for what, values in times.items()}
    return {"name": name, "size": size, **medians, "megabytes": memory.megabytes}


def write_tables(found: list[dict]) -> None:
    """`table.csv` with everything, `table.md` with both ratios and the megabytes."""
    folder = FLAGS.output_dir
    with open(os.path.join(folder, "table.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    sizes = sorted({row["size"] for row in found})
    cells = {(row["name"], row["size"]): row for row in found}
    head = f"| | {' | '.join(f'{size:,}' for size in sizes)} |\n|---|{'---|' * len(sizes)}\n"
    product = [min(row["product_ms"] for row in found if row["size"] == size) for size in sizes]
    text = "Time, forward and backward, as a multiple of one B x B x 512 matrix multiplication, at B =\n\n" + head
    text += f"| *the multiplication itself, ms* | {' | '.join(f'*{each:.1f}*' for each in product)} |\n"
    text += _lines(cells, sizes, lambda row: f"{row['loss_ms'] / row['product_ms']:.1f}")
    if all("compiled_ms" in row for row in found):  # older measurements have none
        text += "\nTime compiled by XLA, as a share of the plain graph, at B =\n\n" + head
        text += _lines(cells, sizes, lambda row: f"{row['compiled_ms'] / row['loss_ms']:.2f}")
    text += "\nPeak memory over the inputs, in MB, at B =\n\n" + head
    text += _lines(cells, sizes, lambda row: f"{row['megabytes']:,.0f}")
    write_table(folder, text)


def _lines(cells: dict, sizes: list[int], show) -> str:
    names = [name for name in LOSSES if any((name, size) in cells for size in sizes)]
    rows = [
        [LOSSES[name][0], *(show(cells[name, size]) if (name, size) in cells else "" for size in sizes)]
        for name in names
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(argv):
    """Measures one, or all that are missing, and then writes the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        name, size = FLAGS.only.split(":")
        print(json.dumps(measure(name, int(size))))
        return 0
    unknown = [name for name in FLAGS.losses if name not in LOSSES]
    if unknown:
        sys.exit(f"error: --losses must be of {', '.join(LOSSES)}. Received: {', '.join(unknown)}.")
    from eet_tf.files import replaced

    os.makedirs(FLAGS.output_dir, exist_ok=True)
    found = []
    for size in map(int, FLAGS.sizes):
        for name in FLAGS.losses:
            file = os.path.join(FLAGS.output_dir, f"{name}-{size}.json")
            if not os.path.exists(file):
                print(f"{LOSSES[name][0]}, B = {size:,}", flush=True)
                command = [sys.executable, *sys.argv, f"--only={name}:{size}"]
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                with replaced(file) as aside, open(aside, "w", encoding="utf-8") as opened:
                    opened.write(printed.splitlines()[-1] + "\n")
            with open(file, encoding="utf-8") as opened:
                found.append(json.load(opened))
    write_tables(found)
    return 0


if __name__ == "__main__":
    app.run(main)
