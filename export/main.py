"""Writes a trained embedder as a SavedModel for TF Serving.

    python export/main.py --model=runs/mine --output_dir=runs/mine/serving

makes the next version, `<output_dir>/<version>/`, whole or not at all. With --whitening=FILE.npz, which
`train/evaluate.py --fit_whitening` makes, it gives whitened embeddings, and the index is built and searched with them.
"""

import os
import sys

from absl import app, flags, logging

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file, or the folder that training wrote.", required=True)
flags.DEFINE_string("output_dir", None, "The model's base path on the server.", required=True)
flags.DEFINE_string("whitening", None, "A whitening that embeddings go through; none by default.")


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
        folder = eet_tf.export_embedder(eet_tf.load_embedder(FLAGS.model), FLAGS.output_dir, whitening=whitening)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"The SavedModel is {folder}.")


if __name__ == "__main__":
    app.run(main)
