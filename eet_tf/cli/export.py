"""`eet export`: writes an embedder as a SavedModel for TF Serving, alone or in a bundle with all a server wants."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

from absl import flags, logging

from eet_tf.cli import catalogs, pretrained
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions

_HELP = """\
Writes an embedder as the next version of a SavedModel, OUTPUT_DIR/VERSION/, whole or not at all. It takes a training's
folder or any Keras model; or, without any training, a backbone with its weights, whose pooled features are then the
vectors. With --data these are whitened, as its photos teach. With --bundle it writes all that a server wants beside it
(warm-up requests, batching, models.config, docker-compose.yml, monitoring, a README) and proves the bundle before a
server can see it. With --index_dir the server also answers photos with the nearest products, from a copy of the index
as it is now.

Examples:
  eet export --model=runs/mine
  eet export --model=mine.keras --output_dir=served --image_size=224
  eet export --model=runs/mine --prefix=64
  eet export --backbone=mobilenet_v2 --weights=imagenet
  eet export --backbone=convnext_base --weights=imagenet --image_size=224 --data=photos/catalog.csv
  eet export --backbone=hub:siglip2_base_patch16_224 --image_size=224
  eet export --model=runs/mine --output_dir=served --bundle --keep_versions=3
  eet export --model=runs/mine --output_dir=served --bundle --index_dir=runs/mine/index

--bundle needs `pip install 'eet-tf[serving]'`. Where models.config names versions, `eet publish` brings the new one
into service."""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string("model", None, "Path of a .keras file, or the folder that training wrote.")
define.string(
    "backbone",
    None,
    "In place of --model, without any training: a backbone such as resnet50, the path of a Keras model of your own, or "
    "hub: and a preset of keras-hub or a folder of one.",
)
flags.mark_flags_as_mutual_exclusive(["model", "backbone"], required=True, flag_values=FLAGS)
define.string("weights", None, "With --backbone: its weights, imagenet or the path of a file.")
define.enum(
    "pooling",
    None,
    ["gem", "avg", "max", "avg_max", "grid", "cls", "none"],
    "With --backbone: pooling of its features. By default what suits it.",
)
define.enum(
    "pixel_scaling",
    None,
    ["none", "unit", "tf", "caffe", "imagenet", "clip"],
    "With --backbone: what it gets in place of pixels from 0 to 255; must be given for a model of your own.",
)
define.enum(
    "fit",
    "squash",
    ["squash", "letterbox"],
    "With --backbone: how photos become squares: squash stretches them, letterbox keeps their aspect, on white.",
)
catalogs.define_catalog(define, split="train")
define.integer(
    "whiten_dim",
    None,
    "With --data: dimensions that the whitening keeps. By default 512, or fewer where the features have fewer or there "
    "are fewer than four photos for each.",
)
define.string(
    "output_dir",
    None,
    "Folder of the versions (a server's base path); with --bundle of all models. By default serving, beside the model.",
)
define.integer(
    "image_size",
    None,
    "Side of the photos in pixels, for a backbone (by default 224) or a model that takes any size. By default that of "
    "the model.",
)
define.integer(
    "max_megapixels",
    40,
    "Million pixels of a photo at most; a server refuses others before it decodes them.",
    lower_bound=1,
    upper_bound=89,
)
define.string("whitening", None, "File of a whitening that is folded into the model. By default none.")
define.integer(
    "prefix",
    None,
    "Number of leading dimensions that are served, of a model trained with --prefixes. By default all.",
)
define.bool("bundle", False, "Write all files that a server needs, and verify them before a server can see them.")
define.string("name", "embedder", "With --bundle: name of the model on the server.")
define.integer(
    "max_batch_size", 32, "With --bundle: the most photos of a request, and of a batch that the server puts together."
)
define.bool(
    "pad_batches",
    False,
    "With --bundle: pad batches to 1, 2, 4, ... photos (allowed_batch_sizes), for GPUs. An empty gRPC request then "
    "crashes the server, and a large photo is decoded up to 15 times.",
)
define.integer(
    "keep_versions",
    0,
    "With --bundle: how many versions stay, at least 2, and any that models.config names; 0 keeps all.",
)
define.multi_string(
    "op_library", [], "With --bundle: library of operations that the server loads, such as _scann_ops.so."
)
define.string(
    "index_dir", None, "Folder of an index that the server searches, from a copy inside the model. By default none."
)
define.integer("k", 10, "With --index_dir: number of products that a search finds.", lower_bound=1)
define.enum(
    "catalog_storage",
    None,
    ["float32", "bfloat16", "int8"],
    "With --index_dir: type in which the server keeps vectors. By default that of the index.",
)
define.bool(
    "scann_in_graph", False, "With --index_dir: search with the operations of ScaNN, which a stock server lacks."
)


def _checked():
    """The whitening and the embedder; refuses in one go what cannot work."""
    from eet_tf import load_embedder
    from eet_tf.evaluation.postprocessing import Whitening
    from eet_tf.index import load_index
    from eet_tf.serving.servable import servable

    complaints = Complaints()
    complaints.folder("output_dir", _output_dir())
    catalog = None
    whitening = None if FLAGS.whitening is None else complaints.given("whitening", FLAGS.whitening, Whitening.read)
    if FLAGS.backbone is None:
        for name in pretrained.NAMES:
            if FLAGS[name].present:
                complaints.add(f"--{name} needs --backbone. Received: --{name}={FLAGS[name].value}, without it.")
        embedder = complaints.given(
            "model", FLAGS.model, lambda path: servable(load_embedder(path), FLAGS.image_size, FLAGS.prefix)
        )
    else:
        if FLAGS.prefix is not None:
            complaints.add(
                "--prefix needs --model. With --backbone, --data and --whiten_dim shorten vectors. Received: "
                f"--prefix={FLAGS.prefix}, without it."
            )
        embedder, catalog = pretrained.checked(FLAGS, complaints)
    if FLAGS.index_dir is not None:
        complaints.given("index_dir", FLAGS.index_dir, load_index, True)
    for path in FLAGS.op_library:
        complaints.existing("op_library", path)
    if FLAGS.bundle:
        complaints.check(_check_bundle)
    complaints.end()
    return whitening, embedder if catalog is None else pretrained.whitened_by_photos(
        embedder, catalog, FLAGS.whiten_dim
    )


def _check_bundle():
    """Refuses what `write_bundle` would refuse, and that its package is missing."""
    try:
        from eet_tf.serving.bundle import check_bundle_arguments
    except ImportError as error:
        raise ValueError(f"--bundle needs tensorflow-serving-api: pip install 'eet-tf[serving]'. {error}") from error
    check_bundle_arguments(_output_dir(), FLAGS.name, FLAGS.max_batch_size, FLAGS.keep_versions)


def _training_facts():
    """Where the model comes from: this package's version, the run's flags and its figures, as far as they are there."""
    import eet_tf
    from eet_tf.training.run import RunError, read_run

    facts = {"eet_tf": eet_tf.__version__}
    if FLAGS.backbone is not None:
        return {**facts, "backbone": FLAGS.backbone, "weights": FLAGS.weights}
    try:
        record = read_run(FLAGS.model if os.path.isdir(FLAGS.model) else os.path.dirname(FLAGS.model))
    except RunError:
        return facts  # a model from elsewhere
    return {**facts, "training": {"flags": dict(record.settings), "metrics": dict(record.metrics)}}


def _compatible_with() -> list[str]:
    """The fingerprint of the teacher that a run was trained with, whose index the model as it is can search."""
    from eet_tf.training.run import read_teacher

    if FLAGS.model is None or FLAGS.prefix is not None or FLAGS.whitening is not None:
        return []  # of a backbone, which had no teacher; or its vectors are not the teacher's any more
    fingerprint = read_teacher(FLAGS.model if os.path.isdir(FLAGS.model) else os.path.dirname(FLAGS.model))
    return [] if fingerprint is None else [fingerprint]


def _bundled(write_model, embedder, whitening):
    """Writes the bundle; returns the version's folder."""
    from eet_tf.serving.bundle import training_vectors, write_bundle
    from eet_tf.serving.models_config import why_not_served

    folder = write_bundle(
        write_model,
        _output_dir(),
        name=FLAGS.name,
        reference=lambda photos: training_vectors(embedder, photos, whitening),
        max_batch_size=FLAGS.max_batch_size,
        pad_batches=FLAGS.pad_batches,
        keep_versions=FLAGS.keep_versions,
        verify=_verify,
    )
    version = os.path.basename(folder)
    why = why_not_served(_output_dir(), FLAGS.name, int(version))
    if why:
        command = f"eet publish --output_dir={_output_dir()} --name={FLAGS.name} --version={version}"
        print(f"No server loads this version yet: {why}. This adds it:\n{command} --server=HOST:8500")
    return folder


def _verify(folder):
    """Runs the verifier in a process of its own, and shows what it found."""
    from eet_tf.cli.verify import SCRIPT

    libraries = [f"--op_library={path}" for path in FLAGS.op_library]
    command = [sys.executable, SCRIPT, *libraries, os.path.abspath(folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)
    if result.returncode:
        found = result.stdout + result.stderr
        raise ValueError(f"The bundle is not fit to be served and was thrown away:\n{found}")
    print(result.stdout, end="")


def _main(_) -> None:
    """Loads, exports, says where."""
    import tensorflow as tf

    import eet_tf
    from eet_tf.serving.servable import is_brought_to_unit_length

    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    whitening, embedder = _checked()
    if is_brought_to_unit_length(embedder):
        print("The model's vectors are not of length 1; they are brought to it as they are served.")
    write_model = functools.partial(
        eet_tf.export_embedder,
        embedder,
        metadata=_training_facts(),
        whitening=whitening,
        catalog_index=FLAGS.index_dir,
        k=FLAGS.k,
        catalog_storage=FLAGS.catalog_storage,
        scann_in_graph=FLAGS.scann_in_graph,
        max_pixels=FLAGS.max_megapixels * 10**6,
        compatible_with=_compatible_with(),
    )
    folder = _bundled(write_model, embedder, whitening) if FLAGS.bundle else write_model(_output_dir())
    print(f"The SavedModel is {folder}.")


def _output_dir() -> str:
    """The folder of the flag; by default `serving` beside the model."""
    if FLAGS.output_dir is not None:
        return FLAGS.output_dir
    if FLAGS.backbone is not None:
        return os.path.join("runs", catalogs.name_of(FLAGS.backbone.removeprefix("hub:")), "serving")
    return os.path.join(FLAGS.model if os.path.isdir(FLAGS.model) else os.path.dirname(FLAGS.model), "serving")


COMMAND = Command(
    _main,
    FLAGS,
    _HELP,
    (
        *("model", "backbone", "weights", "data", "output_dir", "image_size", "whitening"),
        *("bundle", "name", "index_dir", "k"),
    ),
)
