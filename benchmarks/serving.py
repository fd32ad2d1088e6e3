"""What the signatures of a SavedModel cost beside the work in them that cannot be saved.

    python benchmarks/serving.py --output_dir=runs/serving_cost

First `serving_default`, against decoding and resizing the same photos with nothing around it (in parallel, and one bad
photo fails all) plus the embedder on decoded photos, each timed apart. The three take turns; the ratio is the median of
each turn's own, so that what else runs on the machine weighs on both sides.

Then `search` over drawn vectors, three photos a product: what comparing takes, and how large the version is on disk.
"""

import os
import tempfile
import time

from absl import app, flags, logging
from photos import draw_photos
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
flags.DEFINE_list("backbones", ["small_cnn", "mobilenet_v2"], "Embedders that are timed; their weights are random.")
flags.DEFINE_list("batch_sizes", ["1", "16"], "Photos of one call.")
flags.DEFINE_integer("image_size", 224, "Side of the photos that the embedder takes.")
flags.DEFINE_integer("catalog_size", 100_000, "Photos that are searched.")
flags.DEFINE_integer("dim", 128, "Length of an embedding.")
flags.DEFINE_integer("repeats", 40, "Turns; the figures are medians.", lower_bound=5)
flags.DEFINE_string("output_dir", "runs/serving_cost", "Where the table goes.")


def milliseconds(*calls) -> list[list[float]]:
    """How long each call takes in each turn."""
    times = []
    for turn in range(FLAGS.repeats + 3):
        row = []
        for call in calls:
            started = time.perf_counter()
            call()
            row.append(1000 * (time.perf_counter() - started))
        if turn >= 3:
            times.append(row)
    return times


def bytes_table(folder: str) -> str:
    """`serving_default` against its parts."""
    import numpy as np
    import tensorflow as tf

    import eet_tf

    size = FLAGS.image_size

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode_all(image_bytes):
        def decode(photo):
            image = tf.io.decode_image(photo, channels=3, expand_animations=False)
            return tf.image.resize(image, [size, size], antialias=True)

        return tf.map_fn(decode, image_bytes, parallel_iterations=64, fn_output_signature=tf.float32)

    lines = ["| embedder | photos | decode, ms | embed, ms | signature, ms | ratio |", "|---|---|---|---|---|---|"]
    for backbone in FLAGS.backbones:
        embedder = eet_tf.build_embedder(backbone, FLAGS.dim, image_size=size, weights=None)
        version = eet_tf.export_embedder(embedder, os.path.join(folder, backbone))
        signature = tf.saved_model.load(version).signatures["serving_default"]
        embed = tf.function(lambda batch, embedder=embedder: embedder(batch, training=False))
        for number in map(int, FLAGS.batch_sizes):
            encoded = tf.constant(draw_photos(number))
            decoded = decode_all(encoded)
            calls = (
                lambda encoded=encoded: decode_all(encoded),
                lambda decoded=decoded, embed=embed: embed(decoded),
                lambda encoded=encoded, signature=signature: signature(image_bytes=encoded),
            )
            times = np.asarray(milliseconds(*calls))
            ratio = np.median(times[:, 2] / (times[:, 0] + times[:, 1]))
            figures = " | ".join(f"{value:.1f}" for value in np.median(times, axis=0))
            lines.append(f"| {backbone} | {number} | {figures} | {ratio:.2f} |")
    return "\n".join(lines)


def search_table(folder: str) -> str:
    """Comparing with every photo, and the files."""
    import numpy as np
    import tensorflow as tf

    import eet_tf
    from eet_tf.index import ExactIndex
    from eet_tf.serving import embedder_fingerprint
    from eet_tf.serving.catalog import served_catalog
    from eet_tf.serving.search_graph import CatalogSearch

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=[FLAGS.catalog_size, FLAGS.dim])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    skus = rng.integers(0, FLAGS.catalog_size // 3, FLAGS.catalog_size)
    embedder = eet_tf.build_embedder("small_cnn", FLAGS.dim, image_size=FLAGS.image_size)
    fingerprint = embedder_fingerprint(embedder)
    index = ExactIndex.build(vectors, skus, fingerprint=fingerprint)
    head = " | ".join(f"{number} at once, ms" for number in FLAGS.batch_sizes)
    lines = [
        f"| storage | {head} | saved_model.pb, MB | variables, MB |",
        "|---|" + "---|" * (len(FLAGS.batch_sizes) + 2),
    ]
    for storage in ("float32", "bfloat16", "int8"):
        search = CatalogSearch(served_catalog(index, 10, storage, [fingerprint], FLAGS.dim), 10)
        compare = tf.function(search.__call__, input_signature=[tf.TensorSpec([None, FLAGS.dim], tf.float32)])
        queries = [tf.constant(vectors[: int(number)], tf.float32) for number in FLAGS.batch_sizes]
        times = milliseconds(*(lambda batch=batch, compare=compare: compare(batch) for batch in queries))
        figures = " | ".join(f"{value:.1f}" for value in np.median(times, axis=0))
        version = eet_tf.export_embedder(
            embedder, os.path.join(folder, "search"), catalog_index=index, catalog_storage=storage
        )
        graph = os.path.getsize(os.path.join(version, "saved_model.pb"))
        kept = sum(entry.stat().st_size for entry in os.scandir(os.path.join(version, "variables")))
        lines.append(f"| {storage} | {figures} | {graph / 1e6:.1f} | {kept / 1e6:.1f} |")
    return "\n".join(lines)


def main(argv):
    """Times both and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        text = (
            f"`serving_default`, photos of 640 x 480 px to {FLAGS.image_size} px, {os.cpu_count()} cores:\n\n"
            f"{bytes_table(folder)}\n\nComparing within `search`, {FLAGS.catalog_size:,} x {FLAGS.dim}, k=10:\n\n"
            f"{search_table(folder)}\n"
        )
    write_table(FLAGS.output_dir, text)


if __name__ == "__main__":
    app.run(main)
