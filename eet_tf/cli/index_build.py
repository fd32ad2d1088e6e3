"""`eet index build`: embeds a catalogue through a SavedModel and builds the index that is searched."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli import catalogs, indexes
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import counted

_HELP = """\
Embeds the photos of a catalogue through a SavedModel and builds the index that `eet search` and `eet serve` use. Every
photo is checked before the first is embedded. An index that is already in --output_dir is replaced once the new one is
complete.

Examples:
  eet index build --saved_model=runs/mine/serving --data=photos/catalog.csv
  eet index build --saved_model=runs/mine/serving --data=photos --output_dir=runs/mine/index --skip_unreadable
  eet index build --saved_model=runs/mine/serving --data=photos/catalog.csv --target_recall=0.95
  eet index build --embeddings_dir=runs/mine/embeddings --data=photos/catalog.csv
  eet index build --saved_model=runs/mine/serving --data=photos/catalog.csv --index=milvus \\
      --milvus_uri=http://milvus:19530"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string("saved_model", None, "Path of a SavedModel, or of the folder of its versions: the newest is used.")
define.string("embeddings_dir", None, "Folder of embeddings that `eet embed` wrote, instead of --saved_model.")
flags.mark_flags_as_mutual_exclusive(["saved_model", "embeddings_dir"], required=True, flag_values=FLAGS)
catalogs.define_catalog(define)
catalogs.define_unreadable(define)
catalogs.define_check(define, "the first is embedded")
define.string("output_dir", None, "Folder of the index. By default index, beside the SavedModel's folder.")
define.enum("index", "scann", ["scann", "exact", "milvus"], "Kind of index.")
define.float(
    "target_recall",
    None,
    "Share of the true 10 nearest photos that a search must find, such as 0.95. The build tunes ScaNN and verifies it.",
)
define.integer(
    "search_prefix",
    None,
    "Number of leading dimensions by which ScaNN finds candidates, of a model trained with --prefixes; the others help "
    "to put them into order. By default all.",
    lower_bound=1,
)
define.enum("storage", "float32", ["float32", "bfloat16", "int8"], "Type in which vectors are stored.")
define.string(
    "milvus_uri", None, "Address of a Milvus cluster, http://host:port. By default milvus-lite, in the folder."
)
define.string("milvus_collection", None, "Prefix of the cluster's collection; eet_tf by default.")
define.enum(
    "milvus_consistency",
    None,
    ["session", "strong"],
    "Consistency of searches in the cluster: session sees one's own writes, strong all writes. By default session.",
)
define.float("milvus_timeout", None, "Seconds in which the cluster must answer a call; 10 by default.")
define.integer("batch_size", 64, "Number of photos embedded at once.", lower_bound=1)

_MILVUS = ("uri", "collection", "consistency", "timeout")  # arguments of MilvusIndex.build, each a flag milvus_...


def _output_dir() -> str:
    """The folder of the flag; by default `index` beside the folder of the SavedModel's versions, or the embeddings."""
    if FLAGS.output_dir is not None:
        return FLAGS.output_dir
    return os.path.join(indexes.beside_versions(FLAGS.saved_model or FLAGS.embeddings_dir), "index")


def _source(complaints: Complaints):
    """What gives the embeddings: the files that `eet embed` wrote, or a SavedModel."""
    if FLAGS.embeddings_dir is not None:
        from eet_tf.embedding.files import open_folder

        return complaints.given("embeddings_dir", FLAGS.embeddings_dir, open_folder)
    from eet_tf.serving import ServedEmbedder

    return complaints.given("saved_model", FLAGS.saved_model, ServedEmbedder)


def _embeddings(source, catalog):
    """The catalogue's embeddings, their fingerprint and the SavedModel's folder; from files, or embedded here."""
    if FLAGS.embeddings_dir is not None:
        return source.read(catalog.paths), source.fingerprint, os.path.join(source.folder, source.saved_model)
    return indexes.embedded(source, catalog, FLAGS.batch_size), source.fingerprint, source.folder


def _options() -> dict:
    """What this kind of index takes; refuses flags of the others."""
    from eet_tf.index import MilvusIndex

    if FLAGS.target_recall is not None and FLAGS.index != "scann":
        raise ValueError(f"--target_recall is for --index=scann. Received: --index={FLAGS.index}, which tunes nothing.")
    if FLAGS.search_prefix is not None and FLAGS.index != "scann":
        raise ValueError(f"--search_prefix is for --index=scann. Received: --index={FLAGS.index}.")
    if FLAGS.index == "milvus":
        if FLAGS.storage != "float32":
            raise ValueError(f"--storage must be float32 with --index=milvus. Received: --storage={FLAGS.storage}.")
        options = {name: FLAGS[f"milvus_{name}"].value for name in _MILVUS}
        MilvusIndex.check_place(**options)
        return options
    for name in (f"milvus_{name}" for name in _MILVUS):
        if FLAGS[name].value is not None:
            raise ValueError(f"--{name} is for --index=milvus. Received: --index={FLAGS.index}.")
    of_scann = {"target_recall": FLAGS.target_recall, "search_prefix": FLAGS.search_prefix}
    return {"storage": FLAGS.storage, **(of_scann if FLAGS.index == "scann" else {})}


def _checked() -> tuple:
    """The catalogue, its attributes, what embeds, and the kind's options; refuses in one go what cannot work."""
    from eet_tf import index

    complaints = Complaints()
    complaints.folder("output_dir", _output_dir())
    complaints.given("output_dir", _output_dir(), index.check_replaceable)
    if FLAGS.target_recall is not None and not 0 < FLAGS.target_recall <= 1:
        complaints.add(f"--target_recall must be above 0, at most 1. Received: --target_recall={FLAGS.target_recall}.")
    options, source = complaints.check(_options), _source(complaints)
    if source is not None:
        complaints.number("search_prefix", FLAGS.search_prefix, 1, source.embedding_dim)
    catalog = complaints.check(indexes.load_part, FLAGS)
    attributes = None if catalog is None else complaints.check(_attributes, catalog)
    catalogs.complain(complaints, FLAGS)
    complaints.end()
    catalogs.tell_notes(catalog)
    if FLAGS.embeddings_dir is None:
        beside = os.path.dirname(os.path.abspath(_output_dir()))
        readable = catalogs.readable_part(catalog, FLAGS, beside, source.max_pixels)
        if readable is not catalog:
            catalog, attributes = readable, _attributes(readable)
    return catalog, attributes, source, options


def _attributes(catalog) -> dict:
    """What photos can be filtered by, checked as the index will check it."""
    from eet_tf import index

    try:
        attributes = indexes.columns_of(catalog)
        _kind().check_catalog(catalog.skus, catalog.paths, attributes)
    except index.CatalogIndexError as error:
        raise ValueError(f"{catalog.source}: {error}") from error
    return attributes


def _kind():
    from eet_tf import index

    return {"scann": index.ScannIndex, "exact": index.ExactIndex, "milvus": index.MilvusIndex}[FLAGS.index]


def _main(_) -> None:
    """Checks everything that can be checked early, then embeds and builds."""
    from eet_tf.data.remote import relative

    catalog, columns, source, options = _checked()
    embeddings, fingerprint, saved_model = _embeddings(source, catalog)
    output_dir = _output_dir()
    built = _kind().build(
        embeddings,
        catalog.skus,
        catalog.paths,
        columns,
        fingerprint=fingerprint,
        metadata={
            "saved_model": os.path.relpath(saved_model, output_dir),
            "photo_root": relative(catalog.root, output_dir),
        },
        **options,
    )
    built.save(output_dir)
    attributes = ", ".join(f"{name} ({kind})" for name, kind in built.attributes.items())
    print(f"Searched by --where: {attributes or 'nothing, the catalogue has no categories or attributes'}.")
    if FLAGS.target_recall is not None:
        print(f"It finds {100 * built.recall['recall']:.1f} % of the true {built.recall['k']} nearest, measured.")
    print(f"The index of {counted(built.size, 'photo')} is {output_dir}.")


COMMAND = Command(
    _main,
    FLAGS,
    _HELP,
    ("saved_model", "data", "dataset", "columns", "split", "output_dir", "index", "target_recall", "skip_unreadable"),
)
