"""Keeps an index: adds and deletes photos, and says how it is.

python export/index_admin.py upsert  --index_dir=runs/mine/index --dataset=csv --data_dir=photos/new.csv
python export/index_admin.py delete  --index_dir=runs/mine/index --sku=4711 --sku=4712
python export/index_admin.py delete  --index_dir=runs/mine/index --photo=shoes/4711-2.jpg
python export/index_admin.py compact --index_dir=runs/mine/index
python export/index_admin.py verify  --index_dir=runs/mine/index
python export/index_admin.py stats   --index_dir=runs/mine/index

`upsert` embeds the photos with the index's own SavedModel; a photo that is already there is replaced. Servers that have
the index open go on, and see the change when they next call `refresh`. `compact` builds the index anew, which makes it
as fast as at first: do so when `stats` says that more than a tenth of the photos were added or deleted since.
"""

import os
import sys

from absl import app, flags

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("index_dir", None, "An index that build_index.py wrote.", required=True)
flags.DEFINE_enum("dataset", "csv", ["csv", "folder", "sop", "synthetic"], "upsert: layout of the photos.")
flags.DEFINE_string("data_dir", None, "upsert: where the photos are.")
flags.DEFINE_string("split", "all", "upsert: which part of the catalogue; all of it by default.")
flags.DEFINE_string("saved_model", None, "upsert: the SavedModel that embeds; by default the index's own.")
flags.DEFINE_integer("batch_size", 64, "upsert: photos embedded at once.", lower_bound=1)
flags.DEFINE_multi_string("photo", [], "delete: a photo's id; may be given several times.")
flags.DEFINE_multi_string("sku", [], "delete: a product, with all its photos; may be given several times.")


def _upsert(index):
    import keras

    beside = {name: os.path.join(FLAGS.index_dir, path) for name, path in index.metadata.items()}
    catalog, attributes, embedder = _checked(index, beside.get("saved_model", ""))
    bar = keras.utils.Progbar(len(catalog.files), unit_name="photo")
    embeddings = embedder.embed_catalog(catalog, FLAGS.batch_size, bar.update)
    photos = catalog.paths
    if "photo_root" in beside and not _is_same(catalog.root, beside["photo_root"]):
        photos = [os.path.relpath(file, beside["photo_root"]) for file in catalog.files]
    before = index.size
    index.upsert(embeddings, catalog.skus, photos, attributes, fingerprint=embedder.fingerprint)
    added = index.size - before
    print(f"{added} photos added, {len(photos) - added} replaced: {index.size} photos.")


def _checked(index, saved_model: str) -> tuple:
    """The photos, their attributes and what embeds them; refuses in one go what cannot work."""
    from eet_tf.data.folders import note_of_dataset

    complaints = commands.Complaints()
    complaints.folder("index_dir", FLAGS.index_dir)
    catalog = complaints.check(_catalog)
    attributes = None if catalog is None else complaints.check(_attributes, catalog, index)
    embedder = complaints.given("saved_model", FLAGS.saved_model or saved_model, _embedder, index)
    complaints.end()
    note = note_of_dataset(FLAGS.dataset, FLAGS.data_dir)
    if note:
        print(note, flush=True)
    return catalog, attributes, embedder


def _catalog():
    from eet_tf.data import load_dataset

    return load_dataset(FLAGS.dataset, FLAGS.data_dir).split(FLAGS.split).check_files()


def _attributes(catalog, index) -> dict:
    """What the index keeps of each photo, checked as the index will check it."""
    from eet_tf.index import CatalogIndexError, typed_columns

    columns = catalog.columns()
    missing = sorted(set(index.attributes) - set(columns))
    if missing:
        raise ValueError(f"{catalog.source} must have the index's attributes. It lacks {', '.join(missing)}.")
    try:
        attributes = typed_columns({name: columns[name] for name in index.attributes}, index.attributes)
        index.check_catalog(catalog.skus, catalog.paths, attributes)
    except CatalogIndexError as error:
        raise ValueError(f"{catalog.source}: {error}") from error
    return attributes


def _embedder(saved_model: str, index):
    from eet_tf.index.checks import check_same_embedder
    from eet_tf.serving import ServedEmbedder

    embedder = ServedEmbedder(saved_model)
    check_same_embedder(embedder.fingerprint, index.fingerprint)
    return embedder


def _is_same(folder: str, other: str) -> bool:
    return os.path.realpath(folder or ".") == os.path.realpath(other)


def _delete(index):
    if not FLAGS.photo and not FLAGS.sku:
        raise ValueError("delete must be told --photo or --sku. Received: neither.")
    if FLAGS.photo and FLAGS.sku:
        raise ValueError("delete must be told --photo or --sku. Received: both. Give two commands.")
    count = index.delete(photos=FLAGS.photo or None, skus=FLAGS.sku or None)
    print(f"{count} photos deleted: {index.size} photos.")


def _compact(index):
    from eet_tf.index import bytes_on_disk

    before = bytes_on_disk(FLAGS.index_dir)
    index.compact()
    print(
        f"{before / 2**20:.1f} MB before, {bytes_on_disk(FLAGS.index_dir) / 2**20:.1f} MB after: {index.size} photos."
    )


def _verify(index):
    from eet_tf.index import verify_index

    found = verify_index(index, FLAGS.index_dir)
    print(f"{found['files']} files have the checksums that were saved. {found['photos']} photos, {found['skus']} skus.")
    if found["torn_bytes"]:
        print(f"The log ends with {found['torn_bytes']} bytes of an update that was never acknowledged; it is ignored.")
    if found["recall"] is not None:
        print(f"It finds {100 * found['recall']:.1f} % of the true 10 nearest of some 200 of its rows.")
    print("The index is whole.")


def _stats(index):
    from eet_tf.index import MilvusIndex, bytes_on_disk

    if isinstance(index, MilvusIndex):
        _print_facts(
            {
                "kind": f"{index.kind}, {'exact' if index.is_exact else 'approximate'}",
                "photos": index.size,
                "dimensions": index.dim,
                "attributes": _described(index),
                "searched by": _described_engine(index.rows_indexed),
                "rows": f"{index.collection} at {index.uri}" if index.uri else "milvus-lite, in the folder",
                "on disk": f"{bytes_on_disk(FLAGS.index_dir) / 2**20:.1f} MB",
                "embedder": index.fingerprint or "unknown",
            }
        )
        return
    recall = getattr(index, "recall", None)
    facts = {
        "kind": f"{index.kind}, {'exact' if index.is_exact else 'approximate'}",
        "photos": index.size,
        "products": index.num_skus,
        "dimensions": f"{index.dim}, {index.storage}",
        "attributes": _described(index),
        "added since it was built": index.num_recent,
        "deleted since it was built": index.num_deleted,
        "on disk": f"{bytes_on_disk(FLAGS.index_dir) / 2**20:.1f} MB",
        "recall": f"{recall['recall']:.3f} of the true {recall['k']}, promised {recall['target']}" if recall else "-",
        "embedder": index.fingerprint or "unknown",
    }
    _print_facts(facts)
    if index.num_recent + index.num_deleted > 0.1 * index.size:
        print("More than a tenth has changed since it was built: `compact` makes it fast again.")


def _described_engine(rows_indexed) -> str:
    if rows_indexed is None:
        return "comparing with all rows"
    indexed, total = rows_indexed
    return "SCANN" if indexed == total else f"SCANN, {indexed} of {total} rows indexed so far: `verify` waits for it"


def _described(index) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in index.attributes.items()) or "none"


def _print_facts(facts: dict) -> None:
    for name, value in facts.items():
        print(f"{name:28s}{value}")


_ACTIONS = {"upsert": _upsert, "delete": _delete, "compact": _compact, "verify": _verify, "stats": _stats}


def main(argv):
    """Loads the index and does what the first argument says."""
    if len(argv) != 2 or argv[1] not in _ACTIONS:
        raise app.UsageError(f"one of {', '.join(_ACTIONS)} must follow. Received: {' '.join(argv[1:]) or 'nothing'}")
    from eet_tf.index import load_index

    try:
        complaints = commands.Complaints()
        index = complaints.given("index_dir", FLAGS.index_dir, load_index, argv[1] in ("verify", "stats"))
        complaints.end()
        _ACTIONS[argv[1]](index)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    commands.run(main)
