"""`eet index upsert`: adds photos to an index; one that is already there is replaced."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli import catalogs, indexes
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import counted

_HELP = """\
Embeds photos with the index's own SavedModel and adds them; a photo that is already there is replaced. Servers that
have the index open go on, and see the change at their next refresh.

Examples:
  eet index upsert --index_dir=runs/mine/index --data=photos/new.csv
  eet index upsert --index_dir=runs/mine/index --data=photos/new.csv --skip_unreadable"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
indexes.define_index(define)
indexes.define_photos(define)


def _main(_) -> None:
    """Checks, embeds, adds."""
    index, catalog, _, embedder = checked(FLAGS)
    catalog, photos, attributes = readable(index, catalog, FLAGS, embedder.max_pixels)
    embeddings = indexes.embedded(embedder, catalog, FLAGS.batch_size)
    before = index.size
    index.upsert(embeddings, catalog.skus, photos, attributes, fingerprint=embedder.fingerprint)
    added = index.size - before
    print(f"{counted(added, 'photo')} added, {len(photos) - added:,} replaced: {counted(index.size, 'photo')} now.")


def checked(values: flags.FlagValues) -> tuple:
    """The index, the photos, their attributes and what embeds them; refuses what cannot work."""
    complaints = Complaints()
    complaints.folder("index_dir", values.index_dir)
    index = indexes.load_index(complaints, values.index_dir, read_only=False)
    catalog = complaints.check(indexes.load_part, values)
    attributes = embedder = None
    if index is not None:
        attributes = None if catalog is None else complaints.check(_attributes, catalog, index)
        own = indexes.beside(index, values.index_dir).get("saved_model", "")
        embedder = complaints.given("saved_model", values.saved_model or own, _embedder, index)
    catalogs.complain(complaints, values)
    complaints.end()
    catalogs.tell_notes(catalog)
    return index, catalog, attributes, embedder


def readable(index, catalog, values: flags.FlagValues, max_pixels: int) -> tuple:
    """The photos that can be read, their names in the index and their attributes; the others end it or are left out."""
    beside = os.path.dirname(os.path.abspath(values.index_dir))
    rest = catalogs.readable_part(catalog, values, beside, max_pixels)
    return rest, _names(index, rest, values.index_dir), _attributes(rest, index)


def _names(index, catalog, index_dir: str):
    """The photos as the index names them: by paths that start from where its own photos are."""
    from eet_tf.data.remote import relative

    root = indexes.beside(index, index_dir).get("photo_root")
    if root is None or os.path.realpath(catalog.root or ".") == os.path.realpath(root):
        return catalog.paths
    return [relative(file, root) for file in catalog.files]


def _attributes(catalog, index) -> dict:
    """What the index keeps of each photo, checked as the index will check it."""
    from eet_tf.index import CatalogIndexError

    columns = indexes.columns_of(catalog, index.attributes)
    missing = sorted(set(index.attributes) - set(columns))
    if missing:
        raise ValueError(f"{catalog.source} must have the index's attributes. It lacks {', '.join(missing)}.")
    try:
        attributes = {name: columns[name] for name in index.attributes}
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


COMMAND = Command(_main, FLAGS, _HELP, ("index_dir", "data", "dataset", "columns", "split", "skip_unreadable"))
