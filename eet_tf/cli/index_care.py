"""`eet index compact`, `verify` and `stats`: how an index is, and how it is made fast again."""

from __future__ import annotations

from absl import flags

from eet_tf.cli import indexes
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import counted

FLAGS = flags.FlagValues()
indexes.define_index(Definitions(FLAGS))


def _loaded(read_only: bool):
    complaints = Complaints()
    index = indexes.load_index(complaints, FLAGS.index_dir, read_only)
    complaints.end()
    return index


def _compact(_) -> None:
    from eet_tf.index import bytes_on_disk

    index = _loaded(read_only=False)
    before = bytes_on_disk(FLAGS.index_dir)
    index.compact()
    after = bytes_on_disk(FLAGS.index_dir)
    print(f"{before / 2**20:.1f} MB before, {after / 2**20:.1f} MB after: {counted(index.size, 'photo')}.")


def _verify(_) -> None:
    from eet_tf.index import verify_index

    found = verify_index(_loaded(read_only=True), FLAGS.index_dir)
    print(f"{counted(found['files'], 'file')} with the checksums that were saved.")
    print(f"{counted(found['photos'], 'photo')}, {counted(found['skus'], 'product')}.")
    if found["torn_bytes"]:
        print(f"The log ends with {found['torn_bytes']} bytes of an update that was never acknowledged; it is ignored.")
    if found["recall"] is not None:
        print(f"It finds {100 * found['recall']:.1f} % of the true 10 nearest of some 200 of its rows.")
    print("The index is whole.")


def _stats(_) -> None:
    from eet_tf.index import MilvusIndex

    index = _loaded(read_only=True)
    facts = _facts_of_milvus(index) if isinstance(index, MilvusIndex) else _facts_of_local(index)
    for name, value in facts.items():
        print(f"{name:28s}{value}")
    if not isinstance(index, MilvusIndex) and index.num_recent + index.num_deleted > 0.1 * index.size:
        print("More than a tenth has changed since it was built: `eet index compact` makes it fast again.")


def _facts_of_milvus(index) -> dict:
    from eet_tf.index import bytes_on_disk

    return {
        "kind": _kind(index),
        "photos": f"{index.size:,}",
        "dimensions": index.dim,
        "attributes": _attributes(index),
        "searched by": _engine(index.rows_indexed),
        "rows": f"{index.collection} at {index.uri}" if index.uri else "milvus-lite, in the folder",
        "on disk": f"{bytes_on_disk(FLAGS.index_dir) / 2**20:.1f} MB",
        "embedder": index.fingerprint or "unknown",
    }


def _facts_of_local(index) -> dict:
    from eet_tf.index import bytes_on_disk

    recall = getattr(index, "recall", None)
    return {
        "kind": _kind(index),
        "photos": f"{index.size:,}",
        "products": f"{index.num_skus:,}",
        "dimensions": f"{index.dim}, {index.storage}",
        "attributes": _attributes(index),
        "added since it was built": f"{index.num_recent:,}",
        "deleted since it was built": f"{index.num_deleted:,}",
        "on disk": f"{bytes_on_disk(FLAGS.index_dir) / 2**20:.1f} MB",
        "recall": f"{recall['recall']:.3f} of the true {recall['k']}, promised {recall['target']}" if recall else "-",
        "embedder": index.fingerprint or "unknown",
    }


def _kind(index) -> str:
    return f"{index.kind}, {'exact' if index.is_exact else 'approximate'}"


def _engine(rows_indexed) -> str:
    if rows_indexed is None:
        return "comparing with all rows"
    indexed, total = rows_indexed
    return "SCANN" if indexed == total else f"SCANN, {indexed} of {total} rows indexed so far: `verify` waits for it"


def _attributes(index) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in index.attributes.items()) or "none"


_COMPACT_HELP = """\
Builds an index again from its rows, so that it is small and searches are fast. Do so when `eet index stats` says
that more than a tenth of the photos were added or deleted since it was built. It stays searchable meanwhile.

Example:
  eet index compact --index_dir=runs/mine/index"""
_VERIFY_HELP = """\
Compares every file of an index with the checksum that was saved, and measures its recall against an exact search.

Example:
  eet index verify --index_dir=runs/mine/index"""
_STATS_HELP = """\
Shows what an index holds: its kind, photos, products, attributes, recall and size.

Example:
  eet index stats --index_dir=runs/mine/index"""

COMPACT = Command(_compact, FLAGS, _COMPACT_HELP)
VERIFY = Command(_verify, FLAGS, _VERIFY_HELP)
STATS = Command(_stats, FLAGS, _STATS_HELP)
