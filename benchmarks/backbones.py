"""What backbones cost to serve: milliseconds for each photo, one at a time and 32 together, and their parameters.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --backbones=resnet50,convnext_tiny,hub:dinov2_small --image_size=224 --threads=2

Random weights take as long as trained ones; a preset of keras-hub is downloaded. What is timed is the graph of the
embedder in inference, pixels in and vectors out, not compiled by XLA: the least of `--repeats` calls. Writes `table.md`
into `--output_dir`, a row after each backbone.
"""

import os
import time

from absl import app, flags
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "backbones",
    [
        *("mobilenet_v2", "mobilenet_v2_stride16", "small_cnn", "efficientnet_b0", "efficientnet_v2_b0"),
        *(
            "efficientnet_v2_s",
            "resnet18_v2",
            "resnet50",
            "resnet101",
            "convnext_tiny",
            "convnext_small",
            "convnext_base",
        ),
    ],
    "Backbones, as build_embedder takes them.",
)
flags.DEFINE_integer("image_size", 224, "Side of the photos in pixels.")
flags.DEFINE_list("batch_sizes", ["1", "32"], "Photos at a time.")
flags.DEFINE_integer("repeats", 10, "Calls of each, of which the fastest counts.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Processor's threads within an operation.")
flags.DEFINE_string("pixel_scaling", None, "Scaling of pixels, for what brings none.")
flags.DEFINE_string("output_dir", "runs/backbones", "Folder of the table.")


def seconds(function, images) -> float:
    """The fastest of some calls, after one that does not count."""
    function(images)
    found = []
    for _ in range(FLAGS.repeats):
        start = time.perf_counter()
        function(images).numpy()
        found.append(time.perf_counter() - start)
    return min(found)


def row(backbone: str) -> str:
    """The backbone's line of the table."""
    import tensorflow as tf

    import eet_tf

    embedder = eet_tf.build_embedder(backbone, None, FLAGS.image_size, pixel_scaling=FLAGS.pixel_scaling)
    graph = tf.function(lambda images: embedder(images, training=False), reduce_retracing=True)
    cells = []
    for size in map(int, FLAGS.batch_sizes):
        images = tf.random.stateless_uniform([size, FLAGS.image_size, FLAGS.image_size, 3], [1, 2], 0.0, 255.0)
        cells.append(f"{1000 * seconds(graph, images) / size:.1f}")
    parameters = f"{embedder.count_params() / 1e6:.1f} M"
    return f"| {backbone} | {parameters} | {embedder.output_shape[-1]} | {' | '.join(cells)} |"


def main(argv):
    """Times one backbone after another."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    heads = " | ".join(f"ms a photo, {size} at a time" for size in FLAGS.batch_sizes)
    lines = [
        f"{FLAGS.image_size} x {FLAGS.image_size} pixels, {FLAGS.threads} threads, TensorFlow {tf.__version__}.",
        "",
        f"| backbone | parameters | numbers | {heads} |",
        f"|---|---|---|{'---|' * len(FLAGS.batch_sizes)}",
    ]
    for backbone in FLAGS.backbones:
        lines.append(row(backbone))
        write_table(FLAGS.output_dir, "\n".join(lines) + "\n")


if __name__ == "__main__":
    app.run(main)
