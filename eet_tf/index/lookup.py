"""What an index keeps of its photos, by their ids: for showing them, and for searching by one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from eet_tf.index.base import CatalogIndex
from eet_tf.index.checks import CatalogIndexError, KeptPhotos, shown
from eet_tf.index.columns import Column
from eet_tf.index.conditions import TEXTS
from eet_tf.index.local import LocalIndex

SPLIT = "split"  # the attribute


def lookup_photos(index: CatalogIndex, photos: Sequence[str]) -> KeptPhotos:
    """Reads what an index keeps of photos.

    In this process the first call numbers all photos, which takes a second for a million.

    Args:
        index: of any kind.
        photos: `[N]` their ids.

    Raises:
        CatalogIndexError: if one is not in the index.

    Example:

    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(2, dtype="float32"), ["mug", "cup"], ["a.jpg", "b.jpg"], {"price": [5, 7]})
    >>> kept = lookup_photos(index, ["b.jpg"])
    >>> kept.skus.tolist(), kept.embeddings.tolist(), kept.attributes["price"].tolist()
    (['cup'], [[0.0, 1.0]], [7.0])
    """
    return index.lookup(photos)


def attribute_values(index: LocalIndex, name: str) -> np.ndarray:
    """All values of an attribute: `[size]`, in the order of `index.photos`; as in `KeptPhotos.attributes`.

    Raises:
        CatalogIndexError: if the index has no such attribute.

    Example:

    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(2, dtype="float32"), ["mug", "cup"], attributes={"colour": ["red", "blue"]})
    >>> attribute_values(index, "colour").tolist()
    ['red', 'blue']
    """
    column, kept = _column(index, name)
    return column.decode(kept)


def splits_of(index: LocalIndex) -> np.ndarray | None:
    """The part of the catalogue that each photo is from, e.g. `"train"` or `"test"`, in the order of `index.photos`.

    An index knows it if it was built with an attribute of strings named `split`. Then a page can tell products that the
    embedder has learned from those that it has never seen, and a search can leave either out.

    Returns:
        `[size]` strings; None if the index does not know.

    Example:

    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(2), ["mug", "cup"], attributes={"split": ["train", "test"]})
    >>> splits_of(index).tolist(), index.search([1.0, 0.0], k=1, where={"split": "test"}).skus.tolist()
    (['train', 'test'], [['cup']])
    """
    return attribute_values(index, SPLIT) if index.attributes.get(SPLIT) == "string" else None


def count_values(index: LocalIndex, name: str) -> dict[str, int]:
    """How many photos have each value of an attribute of strings, by name; without reading a string per photo.

    A photo of several strings counts for each of them, and for none if it has none.

    Raises:
        CatalogIndexError: if the index has no such attribute, or it is none of strings.

    Example:

    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(2, dtype="float32"), ["mug", "cup"], attributes={"colour": ["red", "blue"]})
    >>> count_values(index, "colour")
    {'blue': 1, 'red': 1}
    """
    column, kept = _column(index, name)
    if column.kind not in TEXTS:
        raise CatalogIndexError(f"`name` must be an attribute of strings. Received: {shown(name)}, of {column.kind}s.")
    found: Counter[str] = Counter()
    for value, count in zip(column.names, np.bincount(kept, minlength=len(column.names)).tolist()):
        for text in {value} if column.kind == "string" else set(value):
            found[text] += count
    return {text: count for text, count in sorted(found.items()) if count}


def _check_local(index: LocalIndex) -> None:
    if not isinstance(index, LocalIndex):
        raise CatalogIndexError(
            f"`index` must be an ExactIndex or a ScannIndex. Received: one of kind '{index.kind}', whose rows are not "
            "in this process."
        )


def _column(index: LocalIndex, name: str) -> tuple[Column, np.ndarray]:
    _check_local(index)
    rows = index._snapshot.rows
    if name not in rows.columns:
        known = ", ".join(rows.columns) or "no attributes"
        raise CatalogIndexError(f"`name` must be one of {known}. Received: {shown(name)}.")
    return rows.columns[name], rows.attribute(name, rows.alive)
