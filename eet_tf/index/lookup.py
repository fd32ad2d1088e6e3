"""What an index keeps of its photos, by their ids: for showing them, and for searching by one of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from eet_tf.index.checks import CatalogIndexError, shown
from eet_tf.index.columns import Column
from eet_tf.index.conditions import TEXTS
from eet_tf.index.local import LocalIndex


@dataclasses.dataclass(frozen=True, eq=False)
class KeptPhotos:
    """What an index keeps of some photos, in the order in which they were asked for.

    Attributes:
        skus: `[N]` the product on each.
        embeddings: `[N, dim]` float32 unit vectors, as near to what was put in as the index's storage allows.
        attributes: `{name: [N] values}`; a missing string is `""`, a missing number NaN, several strings are a tuple.
    """

    skus: np.ndarray
    embeddings: np.ndarray
    attributes: dict[str, np.ndarray]


def lookup_photos(index: LocalIndex, photos: Sequence[str]) -> KeptPhotos:
    """Reads what an index keeps of photos. The first call numbers all photos, which takes a second for a million.

    Args:
        index: an `ExactIndex` or a `ScannIndex`.
        photos: `[N]` their ids.

    Raises:
        CatalogIndexError: if one is not in the index, or the index is of another kind.

    Example:

    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(2, dtype="float32"), ["mug", "cup"], ["a.jpg", "b.jpg"], {"price": [5, 7]})
    >>> kept = lookup_photos(index, ["b.jpg"])
    >>> kept.skus.tolist(), kept.embeddings.tolist(), kept.attributes["price"].tolist()
    (['cup'], [[0.0, 1.0]], [7.0])
    """
    _check_local(index)
    if isinstance(photos, str) or np.ndim(photos) != 1:
        raise CatalogIndexError(f"`photos` must be a list of ids. Received: photos={shown(photos)}.")
    with index._lock:  # an update changes both
        rows, row_of = index._snapshot.rows, index._rows_of_photos()
        unknown = [photo for photo in photos if photo not in row_of]
        if unknown:
            raise CatalogIndexError(
                f"`photos` must be in the index. Received: {shown(unknown[0])}, which is not in it."
            )
        numbers = np.asarray([row_of[photo] for photo in photos], np.intp)
    ascending, places = np.unique(numbers, return_inverse=True)
    values = {name: column.decode(rows.attribute(name, numbers)) for name, column in rows.columns.items()}
    return KeptPhotos(rows.skus(numbers), rows.vectors(ascending)[places.reshape(-1)], values)


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
