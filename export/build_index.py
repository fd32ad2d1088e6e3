"""Embeds a catalogue through a SavedModel and builds the index that is searched.

    python export/build_index.py --saved_model=runs/mine/serving --dataset=csv --data_dir=photos/catalog.csv \
        --split=all --output_dir=runs/mine/index

With --embeddings_dir instead of --saved_model it takes the embeddings that embed_beam.py wrote.
"""

import os
import sys

from absl import app, flags

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
_DATASETS = ["synthetic", "csv", "folder", "sop"]
flags.DEFINE_string("saved_model", None, "A SavedModel, or its base path: the newest version.")
flags.DEFINE_string("embeddings_dir", None, "Embeddings that embed_beam.py wrote; instead of --saved_model.")
flags.mark_flags_as_mutual_exclusive(["saved_model", "embeddings_dir"], required=True)
flags.DEFINE_enum("dataset", None, _DATASETS, "Layout of the photos.", required=True)
flags.DEFINE_string("data_dir", None, "Where the photos are.")
flags.DEFINE_string("split", "all", "Which part of the catalogue; all of it by default.")
flags.DEFINE_enum("index", "scann", ["scann", "exact", "milvus"], "Kind of index.")
flags.DEFINE_float("target_recall", None, "Share of the true 10 nearest that ScaNN must find, e.g. 0.95: tunes it.")
flags.DEFINE_enum("storage", "float32", ["float32", "bfloat16", "int8"], "How vectors are kept.")
flags.DEFINE_string("milvus_uri", None, "A Milvus cluster, http://host:port; without it milvus-lite in the folder.")
flags.DEFINE_string("milvus_collection", None, "What the cluster's collection begins with; eet_tf by default.")
flags.DEFINE_enum(
    "milvus_consistency",
    None,
    ["session", "strong"],
    "What the cluster's searches see; see MilvusIndex. Default session.",
)
flags.DEFINE_float("milvus_timeout", None, "Seconds in which the cluster must answer a call; 10 by default.")
flags.DEFINE_string("output_dir", None, "The index folder; an index in it is replaced.", required=True)
flags.DEFINE_integer("batch_size", 64, "Photos embedded at once.", lower_bound=1)


def _source(complaints: commands.Complaints):
    """What gives the embeddings: the files that embed_beam.py wrote, or a SavedModel."""
    if FLAGS.embeddings_dir is not None:
        from eet_tf.embedding_files import open_folder

        return complaints.given("embeddings_dir", FLAGS.embeddings_dir, open_folder)
    from eet_tf.serving import ServedEmbedder

    return complaints.given("saved_model", FLAGS.saved_model, ServedEmbedder)


def _embeddings(source, catalog):
    """The catalogue's embeddings, their fingerprint and the SavedModel's folder; from files, or embedded here."""
    if FLAGS.embeddings_dir is not None:
        return source.read(catalog.paths), source.fingerprint, os.path.join(source.folder, source.saved_model)
    import keras

    bar = keras.utils.Progbar(len(catalog.files), unit_name="photo")
    return source.embed_catalog(catalog, FLAGS.batch_size, bar.update), source.fingerprint, source.folder


_MILVUS = ("uri", "collection", "consistency", "timeout")  # arguments of MilvusIndex.build, each a flag milvus_...


def _options() -> dict:
    """What this kind of index takes; refuses flags of the others."""
    from eet_tf.index import MilvusIndex

    if FLAGS.target_recall is not None and FLAGS.index != "scann":
        raise ValueError(f"--target_recall is for --index=scann. Received: --index={FLAGS.index}, which tunes nothing.")
    if FLAGS.index == "milvus":
        if FLAGS.storage != "float32":
            raise ValueError(f"--storage must be float32 with --index=milvus. Received: --storage={FLAGS.storage}.")
        options = {name: FLAGS[f"milvus_{name}"].value for name in _MILVUS}
        MilvusIndex.check_place(**options)
        return options
    for name in (f"milvus_{name}" for name in _MILVUS):
        if FLAGS[name].value is not None:
            raise ValueError(f"--{name} is for --index=milvus. Received: --index={FLAGS.index}.")
    return {"storage": FLAGS.storage, **({"target_recall": FLAGS.target_recall} if FLAGS.index == "scann" else {})}


def _catalog():
    from eet_tf import data

    return data.load_dataset(FLAGS.dataset, FLAGS.data_dir).split(FLAGS.split).check_files()


def _checked() -> tuple:
    """The catalogue, its attributes, what embeds, and the kind's options; refuses in one go what cannot work."""
    from eet_tf import index
    from eet_tf.data.folders import note_of_dataset

    complaints = commands.Complaints()
    complaints.folder("output_dir", FLAGS.output_dir)
    complaints.given("output_dir", FLAGS.output_dir, index.check_replaceable)
    if FLAGS.target_recall is not None and not 0 < FLAGS.target_recall <= 1:
        complaints.add(f"--target_recall must be above 0, at most 1. Received: --target_recall={FLAGS.target_recall}.")
    options, source, catalog = complaints.check(_options), _source(complaints), complaints.check(_catalog)
    attributes = None if catalog is None else complaints.check(_attributes, catalog)
    complaints.end()
    note = note_of_dataset(FLAGS.dataset, FLAGS.data_dir)
    if note:
        print(note, flush=True)
    return catalog, attributes, source, options


def _attributes(catalog) -> dict:
    """What photos can be filtered by, checked as the index will check it."""
    from eet_tf import index

    try:
        attributes = index.typed_columns(catalog.columns())
        _kind().check_catalog(catalog.skus, catalog.paths, attributes)
    except index.CatalogIndexError as error:
        raise ValueError(f"{catalog.source}: {error}") from error
    return attributes


def _kind():
    from eet_tf import index

    return {"scann": index.ScannIndex, "exact": index.ExactIndex, "milvus": index.MilvusIndex}[FLAGS.index]


def main(argv):
    """Checks everything that can be checked early, then embeds and builds."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    try:
        catalog, columns, source, options = _checked()
        embeddings, fingerprint, saved_model = _embeddings(source, catalog)
        built = _kind().build(
            embeddings,
            catalog.skus,
            catalog.paths,
            columns,
            fingerprint=fingerprint,
            metadata={
                "saved_model": os.path.relpath(saved_model, FLAGS.output_dir),
                "photo_root": os.path.relpath(catalog.root, FLAGS.output_dir),
            },
            **options,
        )
        built.save(FLAGS.output_dir)
    except ValueError as error:
        sys.exit(f"error: {error}")
    attributes = ", ".join(f"{name} ({kind})" for name, kind in built.attributes.items())
    print(f"Searched by --where: {attributes or 'nothing, the catalogue has no categories or attributes'}.")
    if FLAGS.target_recall is not None:
        print(f"It finds {100 * built.recall['recall']:.1f} % of the true {built.recall['k']} nearest, measured.")
    print(f"The index of {built.size} photos is {FLAGS.output_dir}.")


if __name__ == "__main__":
    commands.run(main)
