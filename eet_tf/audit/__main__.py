"""Audits a catalogue's photos before anything is trained on them.

python -m eet_tf.audit --dataset=csv --data_dir=photos/catalog.csv --output=audit.html

Ends with 0 if training may start, with 1 if something must be mended first, with 2 if it was called wrongly.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence

from eet_tf.audit.duplicates import TOLERANCE
from eet_tf.audit.findings import EXAMPLES_PER_CLASS, AuditResult, Finding, audit_catalog
from eet_tf.audit.page import write_page
from eet_tf.commands import Complaints, os_error_text
from eet_tf.data.benchmarks import LOADERS, load_dataset
from eet_tf.data.catalog import CatalogError
from eet_tf.data.folders import FolderScan, scan_folder
from eet_tf.terminal import open_door

_MOST_LINES = 5  # named of each finding; the page has more


class _UsageError(ValueError):
    """Called wrongly."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m eet_tf.audit", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--dataset", default="csv", choices=sorted(LOADERS), help="layout of the photos, default csv")
    parser.add_argument("--data_dir", help="where they are")
    parser.add_argument("--split", default="all", help="the part to look at, default all")
    parser.add_argument(
        "--examples_per_class",
        type=int,
        default=EXAMPLES_PER_CLASS,
        help="photos of each product in a batch, default 4",
    )
    parser.add_argument("--output", default="audit.html", help="the page to write, default audit.html")
    parser.add_argument(
        "--near", type=float, default=TOLERANCE, help="largest difference between near copies, of 255, default 3"
    )
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuses in one go what flags alone say cannot work."""
    complaints = Complaints()
    if arguments.dataset != "synthetic":
        complaints.existing("data_dir", arguments.data_dir)
    complaints.file("output", arguments.output)
    complaints.number("examples_per_class", arguments.examples_per_class, 2)
    complaints.number("near", arguments.near, 0, 255)
    complaints.end()


def _loaded(arguments: argparse.Namespace):
    _check(arguments)
    catalog = load_dataset(arguments.dataset, arguments.data_dir)
    try:
        part = catalog.split(arguments.split)
    except CatalogError as error:
        raise _UsageError(str(error)) from error
    # a part is looked at as what might be learned from
    return part if part is catalog else dataclasses.replace(part, splits=None)


def _show_progress(done: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} photos read", end="", file=sys.stderr, flush=True)


def _with_passed_over(result: AuditResult, scan: FolderScan) -> AuditResult:
    """What an audit found, and which files of a folder are no photos of a product."""
    notes = tuple(scan.notes())
    advice = "They are not learned from and not found. Convert, move or rename those that are photos of a product."
    finding = Finding("passed_over", scan.note().rstrip("."), advice, False, ((),) * len(notes), notes)
    return dataclasses.replace(result, findings=(*result.findings, finding)) if notes else result


def _audit(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    catalog = _loaded(arguments)
    result = audit_catalog(catalog, arguments.examples_per_class, arguments.near, progress=_show_progress)
    if arguments.dataset == "folder":
        result = _with_passed_over(result, scan_folder(arguments.data_dir))
    facts = {"Source": catalog.source, "Near copies": f"differ by {arguments.near:g} of 255 at most"}
    write_page(arguments.output, result, "Audit of the photos", facts)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for finding in filter(lambda finding: finding.blocks, result.findings):
        print("\n".join(filter(None, finding.notes[:_MOST_LINES])))
    print(result.summary())
    print(f"The page is {arguments.output} ({time.monotonic() - started:.0f} s).")
    return int(result.blocks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Audits as the command line says; returns the exit status."""
    try:
        return _audit(_parser().parse_args(arguments))
    except CatalogError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error_text(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    open_door()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # photos are decoded by CPUs; a GPU's memory is for those who train
    sys.exit(main())
