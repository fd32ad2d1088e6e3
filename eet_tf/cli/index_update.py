"""`eet index update`: brings an index in step with a catalogue."""

from __future__ import annotations

from absl import flags

from eet_tf.cli import indexes
from eet_tf.cli.door import Command, Definitions
from eet_tf.cli.index_upsert import checked, readable
from eet_tf.wording import counted

_HELP = """\
Compares an index with a catalogue and does what is missing: it embeds and adds new photos, rewrites products and
attributes that have changed without embedding the photos again, and deletes photos that the catalogue no longer has.
Run twice, it changes nothing. A photo that was replaced under its old name is not noticed: `eet index upsert` embeds it
again. Servers that have the index open see the change at their next refresh.

Examples:
  eet index update --index_dir=runs/mine/index --data=photos/catalog.csv
  eet index update --index_dir=runs/mine/index --data=photos/catalog.csv --keep_gone --dry_run"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
indexes.define_index(define)
indexes.define_photos(define)
define.bool("keep_gone", False, "Keep photos that the catalogue no longer has.")
define.bool("dry_run", False, "Print the changes without making them.")


def _main(_) -> None:
    """Compares, then adds, rewrites and deletes."""
    from eet_tf.index import plan_update

    index, catalog, _, embedder = checked(FLAGS)
    catalog, photos, attributes = readable(index, catalog, FLAGS, embedder.max_pixels)
    plan = plan_update(index, catalog.skus, photos, attributes)
    gone = [] if FLAGS.keep_gone else plan.gone
    done = f"{counted(len(plan.new), 'photo')} added, {len(plan.changed):,} rewritten, {len(gone):,} deleted"
    if FLAGS.dry_run:
        print(f"Would be: {done}; {plan.num_same:,} are the same.")
        return
    if len(plan.new):
        embeddings = indexes.embedded(embedder, catalog.take(plan.new), FLAGS.batch_size)
        index.upsert(embeddings, *_rows(plan.new, catalog, photos, attributes), fingerprint=embedder.fingerprint)
    if len(plan.changed):
        index.rewrite(*_rows(plan.changed, catalog, photos, attributes))
    if gone:
        index.delete(photos=gone)
    print(f"{done}; {plan.num_same:,} are the same: {counted(index.size, 'photo')}.")


def _rows(rows, catalog, photos, attributes) -> tuple:
    """The products, names and attributes of some photos."""
    picked = {name: [column[row] for row in rows] for name, column in attributes.items()}
    return catalog.skus[rows], [photos[row] for row in rows], picked


COMMAND = Command(
    _main, FLAGS, _HELP, ("index_dir", "data", "dataset", "columns", "split", "keep_gone", "dry_run", "skip_unreadable")
)
