"""`eet audit`: looks at a catalogue's photos before anything is trained on them."""

from __future__ import annotations

import dataclasses
import os
import time

from absl import flags

from eet_tf.cli import catalogs
from eet_tf.cli.complaints import CommandError, Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.terminal import Progress

_HELP = """\
Looks for photos that cannot be read, near copies under different products or in different splits, and products with
too few photos, and writes a page with all of them. It ends with 0 if training may start, with 1 if something must be
mended first, and with 2 if it was called wrongly.

Examples:
  eet audit --data=photos/catalog.csv
  eet audit --data=photos/catalog.csv --split=train --output=audit.html"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
catalogs.define_catalog(define)
catalogs.define_unreadable(define)
define.integer("examples_per_class", 4, "Photos of each product in a batch of the training.", lower_bound=2)
define.string("output", "audit.html", "File of the page.")
define.float("near", 3.0, "Largest difference between near copies, from 0 to 255.")
_MOST_LINES = 5  # named of each finding; the page has more


def _check() -> None:
    """Refuses in one go what flags alone say cannot work."""
    complaints = Complaints()
    catalogs.complain(complaints, FLAGS)
    complaints.file("output", FLAGS.output)
    complaints.number("near", FLAGS.near, 0, 255)
    complaints.end()


def _loaded():
    from eet_tf.data import CatalogError

    # photos that are missing are found with all the others that cannot be read
    catalog = catalogs.load(FLAGS, check_files=False)
    try:
        part = catalog.split(FLAGS.split)
    except CatalogError as error:
        raise CommandError(str(error)) from error
    catalogs.tell_notes(catalog)
    # a part is looked at as what might be learned from
    part = part if part is catalog else dataclasses.replace(part, splits=None)
    return catalogs.readable_part(part, FLAGS, os.path.dirname(FLAGS.output)) if FLAGS.skip_unreadable else part


def _with_passed_over(result, scan):
    """What an audit found, and which files of a folder are no photos of a product."""
    from eet_tf.audit import Finding

    notes = tuple(scan.notes())
    advice = "They are not learned from and not found. Convert, move or rename those that are photos of a product."
    finding = Finding("passed_over", scan.note().rstrip("."), advice, False, ((),) * len(notes), notes)
    return dataclasses.replace(result, findings=(*result.findings, finding)) if notes else result


def _main(_) -> int:
    """Audits, writes the page, says what blocks."""
    from eet_tf.audit import audit_catalog, write_page
    from eet_tf.data.folders import scan_folder

    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # photos are decoded by CPUs; a GPU's memory is for those who train
    started = time.monotonic()
    _check()
    catalog = _loaded()
    progress = Progress("photos read", len(catalog))
    result = audit_catalog(catalog, FLAGS.examples_per_class, FLAGS.near, progress=progress.update)
    progress.end(len(catalog))
    if catalogs.layout_of(FLAGS) == "folder":
        result = _with_passed_over(result, scan_folder(FLAGS.data))
    facts = {"Source": catalog.source, "Near copies": f"differ by {FLAGS.near:g} of 255 at most"}
    write_page(FLAGS.output, result, "Audit of the photos", facts)
    for finding in filter(lambda finding: finding.blocks, result.findings):
        print("\n".join(filter(None, finding.notes[:_MOST_LINES])))
    print(result.summary())
    print(f"The page is {FLAGS.output} ({time.monotonic() - started:.0f} s).")
    return int(result.blocks)


COMMAND = Command(_main, FLAGS, _HELP)
