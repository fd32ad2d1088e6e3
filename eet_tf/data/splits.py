"""What is learned from and what is measured, by the splits of a catalogue, and that these parts share nothing."""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from eet_tf.data.catalog import Catalog, CatalogError, one_after_another
from eet_tf.data.values import SPLITS

_READ_AT_ONCE = 2**20


class Parts(NamedTuple):
    """Holds the parts of a catalogue by its splits; no product is in two of them.

    Attributes:
        train: what is learned from.
        validation: what chooses the best epoch, or None.
        test: what the final figures come from, or None.
    """

    train: Catalog
    validation: Catalog | None
    test: Catalog | None


def count_splits(catalog: Catalog, rows: np.ndarray | slice = slice(None)) -> list[tuple[str, int]]:
    """The splits of some rows by name, each with its number of photos; `""` for those in none."""
    splits = [""] * len(catalog) if catalog.splits is None else catalog.splits.tolist()
    return sorted(collections.Counter(np.array(splits, object)[rows].tolist()).items())


def is_learned(catalog: Catalog) -> np.ndarray:
    """`[N]` bool: the photos that training learns from. Without splits it is all of them."""
    if catalog.splits is None:
        return np.ones(len(catalog), bool)
    return np.asarray(catalog.splits == "train", bool)


def shared_products(catalog: Catalog) -> list[np.ndarray]:
    """The rows of each product that is in two splits or more; a row without a split is in none."""
    if catalog.splits is None:
        return []
    marked = np.flatnonzero(catalog.splits != "")
    pairs = set(zip(catalog.labels[marked].tolist(), catalog.splits[marked].tolist()))
    counts = collections.Counter(label for label, _ in pairs)
    labels = catalog.labels[marked]
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(catalog.num_classes + 1))
    wanted = sorted(label for label, count in counts.items() if count > 1)
    return [marked[order[bounds[label] : bounds[label + 1]]] for label in wanted]


def split_complaints(catalog: Catalog) -> list[str]:
    """Why training cannot start with these splits; nothing if it can."""
    complaints = []
    if not is_learned(catalog).any():
        found = ", ".join(f"{count:,} of {name!r}" for name, count in count_splits(catalog))
        complaints.append(
            f"{catalog.source}: no photo has the split 'train', so there is nothing to learn from. Its photos: "
            f"{found}. Write train in the rows to learn from, or delete the column to learn from all."
        )
    for rows in shared_products(catalog):
        row = int(rows[0])
        found = ", ".join(f"{count:,} in {name}" for name, count in count_splits(catalog, rows) if name)
        complaints.append(
            f"{catalog.where(row)}: product {catalog.skus[row]!r} has photos in several splits ({found}). Give all "
            "photos of a product one split."
        )
    return complaints


def parts_of(catalog: Catalog) -> Parts:
    """What to learn from, what chooses the best epoch, and what is measured.

    Without splits everything is learned from. A row without a split, where others have one, is in no part.

    Raises:
        CatalogError: if nothing is to be learned from, or a product is in two splits; names all of these.

    Example:

    >>> from eet_tf.data import Catalog
    >>> catalog = Catalog(["1.jpg", "2.jpg", "3.jpg"], ["mug", "mug", "cup"], splits=["train", "Train", "test"])
    >>> parts = parts_of(catalog)
    >>> len(parts.train), parts.validation, len(parts.test)
    (2, None, 1)
    """
    if complaints := split_complaints(catalog):
        raise CatalogError(one_after_another(complaints))
    if catalog.splits is None:
        return Parts(catalog, None, None)
    present = set(catalog.splits.tolist())
    train, validation, test = [catalog.split(name) if name in present else None for name in SPLITS]
    return Parts(train, validation, test)  # type: ignore[arg-type]


def copies(learned: Catalog, measured: Catalog) -> list[tuple[int, int]]:
    """Photos that are measured and whose very bytes were learned from, whatever their paths.

    Only files of equal size are read.

    Args:
        learned: the photos learned from.
        measured: the photos that figures come from.

    Returns:
        A row of `learned` and a row of `measured` for each such photo of the latter.
    """
    sizes = _by(learned.files.tolist(), range(len(learned)), os.path.getsize)
    files = measured.files.tolist()
    alike = [(row, size) for row, file in enumerate(files) if (size := os.path.getsize(file)) in sizes]
    candidates = sorted({row for _, size in alike for row in sizes[size]})
    digests = _by(learned.files.tolist(), candidates, _digest)
    found = [(digests.get(_digest(files[row]), [None])[0], row) for row, _ in alike]
    return [(first, row) for first, row in found if first is not None]


def _by(files: list[str], rows: Sequence[int], key: Callable) -> dict:
    found: dict = collections.defaultdict(list)
    for row in rows:
        found[key(files[row])].append(row)
    return found


def _digest(file: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as opened:
        while content := opened.read(_READ_AT_ONCE):
            digest.update(content)
    return digest.digest()
