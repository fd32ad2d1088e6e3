"""`eet index delete`: takes photos or whole products out of an index."""

from __future__ import annotations

from absl import flags

from eet_tf.cli import indexes
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import counted

_HELP = """\
Deletes photos from an index, by their paths or by their products. The photos' files stay. Servers that have the index
open go on, and see the change at their next refresh.

Examples:
  eet index delete --index_dir=runs/mine/index --sku=4711 --sku=4712
  eet index delete --index_dir=runs/mine/index --photo=shoes/4711-2.jpg"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
indexes.define_index(define)
define.multi_string("photo", [], "Path of a photo as the index names it; may be given several times.")
define.multi_string("sku", [], "Product, with all its photos; may be given several times.")


def _main(_) -> None:
    """Checks, deletes."""
    complaints = Complaints()
    if not FLAGS.photo and not FLAGS.sku:
        complaints.add("delete must be told --photo or --sku. Received: neither.")
    if FLAGS.photo and FLAGS.sku:
        complaints.add("delete must be told --photo or --sku. Received: both. Give two commands.")
    index = indexes.load_index(complaints, FLAGS.index_dir, read_only=False)
    complaints.end()
    count = index.delete(photos=FLAGS.photo or None, skus=FLAGS.sku or None)
    print(f"{counted(count, 'photo')} deleted, {counted(index.size, 'photo')} left.")


COMMAND = Command(_main, FLAGS, _HELP)
