"""Writes a trained embedder as a SavedModel for TF Serving, alone or as a bundle with all that a server wants.

    python export/main.py --model=runs/mine --output_dir=runs/mine/serving

makes the next version, `<output_dir>/<version>/`, whole or not at all. With --whitening=FILE.npz, which
`train/evaluate.py --fit_whitening` makes, it gives whitened embeddings, and the index is built and searched with them.

    python export/main.py --model=mine.keras --output_dir=served

takes a Keras model of one's own, or a whole `MetricLearner`. Vectors that are not of length 1 are brought to it; a
model of images of any size needs --image_size.

    python export/main.py --model=runs/mine --output_dir=runs/mine/served --bundle

makes `<output_dir>/<name>/<version>/` with warm-up requests, batching parameters and a manifest, and beside the models
`models.config`, `docker-compose.yml`, Prometheus's files and a `README.md` with the lines to ask a server. A bundle is
proven by export/verify.py before a server can see it; one that fails never gets its number. With --keep_versions=3 the
newest three stay, and those that `models.config` names. It needs `pip install 'eet-tf[serving]'`. Where `models.config`
names versions, export/publish.py brings the new one into service.

With --index_dir, an index that `export/build_index.py` built with a SavedModel of the same embedder, the server also
answers photos with the nearest products (signature `search`), from a copy of the index as it is now.
"""

import functools
import os
import subprocess
import sys

from absl import app, flags, logging

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file, or the folder that training wrote.", required=True)
flags.DEFINE_string(
    "output_dir",
    None,
    "The model's base path on the server; with --bundle the folder of all its models.",
    required=True,
)
flags.DEFINE_integer("image_size", None, "Side of the photos in pixels, for a model of any size; by default its own.")
flags.DEFINE_integer(
    "max_megapixels",
    40,
    "Million pixels of a photo at most; a server refuses others before it decodes them.",
    lower_bound=1,
    upper_bound=89,
)
flags.DEFINE_string("whitening", None, "A whitening that embeddings go through; none by default.")
flags.DEFINE_bool("bundle", False, "Write all that a server wants, and verify it before it can be seen.")
flags.DEFINE_string("name", "embedder", "With --bundle: the model's name on the server.")
flags.DEFINE_integer(
    "max_batch_size", 32, "With --bundle: the most photos of a request, and of a batch that the server puts together."
)
flags.DEFINE_bool(
    "pad_batches",
    False,
    "With --bundle: pad batches to 1, 2, 4, ... photos (allowed_batch_sizes), for GPUs. A gRPC request without photos "
    "then ends the server for all, and a large photo is decoded up to 15 times.",
)
flags.DEFINE_integer(
    "keep_versions",
    0,
    "With --bundle: how many versions stay, at least 2, and any that models.config names; 0 keeps all.",
)
flags.DEFINE_multi_string("op_library", [], "With --bundle: a library of operations that the server will have loaded.")
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
    from eet_tf.serving.servable import is_brought_to_unit_length

    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        whitening, embedder = checked()
        if is_brought_to_unit_length(embedder):
            print("The model's vectors are not of length 1; they are brought to it as they are served.")
        write_model = functools.partial(
            eet_tf.export_embedder,
            embedder,
            metadata=training_facts(),
            whitening=whitening,
            catalog_index=FLAGS.index_dir,
            k=FLAGS.k,
            catalog_storage=FLAGS.catalog_storage,
            scann_in_graph=FLAGS.scann_in_graph,
            max_pixels=FLAGS.max_megapixels * 10**6,
        )
        folder = bundled(write_model, embedder, whitening) if FLAGS.bundle else write_model(FLAGS.output_dir)
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"The SavedModel is {folder}.")


def checked():
    """The whitening and the embedder; refuses in one go what cannot work."""
    from eet_tf import load_embedder
    from eet_tf.index import load_index
    from eet_tf.postprocessing import Whitening
    from eet_tf.serving.servable import servable

    complaints = commands.Complaints()
    complaints.folder("output_dir", FLAGS.output_dir)
    whitening = None if FLAGS.whitening is None else complaints.given("whitening", FLAGS.whitening, Whitening.read)
    embedder = complaints.given("model", FLAGS.model, lambda path: servable(load_embedder(path), FLAGS.image_size))
    if FLAGS.index_dir is not None:
        complaints.given("index_dir", FLAGS.index_dir, load_index, True)
    for path in FLAGS.op_library:
        complaints.existing("op_library", path)
    if FLAGS.bundle:
        complaints.check(check_bundle)
    complaints.end()
    return whitening, embedder


def check_bundle():
    """Refuses what `write_bundle` would refuse, and that its package is missing."""
    try:
        from eet_tf.serving.bundle import check_bundle_arguments
    except ImportError as error:
        raise ValueError(f"--bundle needs tensorflow-serving-api: pip install 'eet-tf[serving]'. {error}") from error
    check_bundle_arguments(FLAGS.output_dir, FLAGS.name, FLAGS.max_batch_size, FLAGS.keep_versions)


def training_facts():
    """Where the model comes from: this package's version, the run's flags and its figures, as far as they are there."""
    import eet_tf
    from eet_tf.run import RunError, read_run

    facts = {"eet_tf": eet_tf.__version__}
    try:
        record = read_run(FLAGS.model if os.path.isdir(FLAGS.model) else os.path.dirname(FLAGS.model))
    except RunError:
        return facts  # a model from elsewhere
    return {**facts, "training": {"flags": dict(record.settings), "metrics": dict(record.metrics)}}


def bundled(write_model, embedder, whitening):
    """Writes the bundle; returns the version's folder."""
    from eet_tf.serving.bundle import training_vectors, write_bundle
    from eet_tf.serving.models_config import why_not_served

    folder = write_bundle(
        write_model,
        FLAGS.output_dir,
        name=FLAGS.name,
        reference=lambda photos: training_vectors(embedder, photos, whitening),
        max_batch_size=FLAGS.max_batch_size,
        pad_batches=FLAGS.pad_batches,
        keep_versions=FLAGS.keep_versions,
        verify=verify,
    )
    version = os.path.basename(folder)
    why = why_not_served(FLAGS.output_dir, FLAGS.name, int(version))
    if why:
        command = f"python export/publish.py --output_dir={FLAGS.output_dir} --name={FLAGS.name} --version={version}"
        print(f"No server loads this version yet: {why}. This adds it:\n{command} --server=HOST:8500")
    return folder


def verify(folder):
    """Runs export/verify.py in a process of its own, and shows what it found."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "verify.py")
    libraries = [f"--op_library={path}" for path in FLAGS.op_library]
    command = [sys.executable, script, *libraries, os.path.abspath(folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
    if result.returncode:
        found = result.stdout + result.stderr
        raise ValueError(f"The bundle is not fit to be served and was thrown away:\n{found}")
    print(result.stdout, end="")


if __name__ == "__main__":
    commands.run(main)
