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
from eet_tf.audit.findings import EXAMPLES_PER_CLASS, audit_catalog
from eet_tf.audit.page import write_page
from eet_tf.data.benchmarks import LOADERS, load_dataset
from eet_tf.data.catalog import CatalogError

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


def _loaded(arguments: argparse.Namespace):
    if arguments.data_dir and arguments.dataset != "synthetic" and not os.path.exists(arguments.data_dir):
        raise _UsageError(f"--data_dir={arguments.data_dir} does not exist.")
    if os.path.isdir(arguments.output):
        raise _UsageError(f"--output must be a file. Received: {arguments.output}, which is a folder.")
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


def _audit(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    catalog = _loaded(arguments)
    result = audit_catalog(catalog, arguments.examples_per_class, arguments.near, progress=_show_progress)
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
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
