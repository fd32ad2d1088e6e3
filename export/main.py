"""Writes a trained embedder as a SavedModel for TF Serving.

    python export/main.py --model=runs/mine --output_dir=runs/mine/serving

makes the next version, `<output_dir>/<version>/`, whole or not at all. With --whitening=FILE.npz, which
`train/evaluate.py --fit_whitening` makes, it gives whitened embeddings, and the index is built and searched with them.

With --index_dir, an index that `export/build_index.py` built with a SavedModel of the same embedder, the server also
answers photos with the nearest products (signature `search`), from a copy of the index as it is now.
"""

import os
import sys

from absl import app, flags, logging

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file, or the folder that training wrote.", required=True)
flags.DEFINE_string("output_dir", None, "The model's base path on the server.", required=True)
flags.DEFINE_string("whitening", None, "A whitening that embeddings go through; none by default.")
flags.DEFINE_string("index_dir", None, "An index that the server searches by itself; none by default.")
flags.DEFINE_integer("k", 10, "Products that such a search finds.", lower_bound=1)
flags.DEFINE_enum(
    "catalog_storage", None, ["float32", "bfloat16", "int8"], "How it keeps vectors; by default as the index does."
)
flags.DEFINE_bool("scann_in_graph", False, "Search with ScaNN's operations, which a stock server does not have.")


def main(argv):
    """Loads, exports, says where."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    import tensorflow as tf

    import eet_tf
    from eet_tf.postprocessing import Whitening

    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        whitening = Whitening.read(FLAGS.whitening) if FLAGS.whitening else None
        folder = eet_tf.export_embedder(
            eet_tf.load_embedder(FLAGS.model),
            FLAGS.output_dir,
            whitening=whitening,
            catalog_index=FLAGS.index_dir,
            k=FLAGS.k,
            catalog_storage=FLAGS.catalog_storage,
            scann_in_graph=FLAGS.scann_in_graph,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"The SavedModel is {folder}.")


if __name__ == "__main__":
    app.run(main)
