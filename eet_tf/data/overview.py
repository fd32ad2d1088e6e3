"""A catalogue in a few lines: what a person looks for first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eet_tf.data.kinds import is_of_tuples, name_of
from eet_tf.wording import counted

_MOST_NAMED = 12
_MOST_CATEGORIES = 6
_MOST_CHARACTERS = 60


def overview(
    source: str,
    labels: np.ndarray,
    splits: np.ndarray | None,
    categories: np.ndarray | None,
    attributes: Mapping[str, np.ndarray],
) -> str:
    """The lines of `print(catalog)`.

    Args:
        source: where the rows come from.
        labels: `[N]` product of each photo, numbered densely.
        splits: `[N]` names, `""` for none; None if no photo has one.
        categories: `[N]` names; None if there are none.
        attributes: `{name: [N] values}`.

    Example:

    >>> print(overview("list.csv", np.array([0, 0, 1]), None, None, {"price": np.array([1.5, 2.0, 2.0])}))
    Catalog of list.csv
      photos:     3 of 2 products, 1 to 2 each
      splits:     none
      categories: none
      attributes: price (number, 1.5 to 2)
    """
    counts = np.bincount(labels)
    least, most = int(counts.min()), int(counts.max())
    each = f"{least:,} each" if least == most else f"{least:,} to {most:,} each"
    lines = {
        "photos": f"{len(labels):,} of {counted(len(counts), 'product')}, {each}",
        "splits": "none" if splits is None else _counts(splits),
        "categories": "none" if categories is None else _distinct(categories.tolist()),
        "attributes": _attributes(attributes),
    }
    return "\n".join([f"Catalog of {source}", *(f"  {name + ':':<12}{text}" for name, text in lines.items())])


def _counts(splits: np.ndarray) -> str:
    names, counts = np.unique(splits.astype(str), return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist()))
    ordered = [name for name in ("train", "validation", "test", "") if name in found]
    return ", ".join(f"{name or 'in none'} {found[name]:,}" for name in ordered)


def _distinct(cells: list) -> str:
    known = sorted(set(cells) - {""})
    shown = ", ".join(known) if len(known) <= _MOST_CATEGORIES and sum(map(len, known)) < _MOST_CHARACTERS else ""
    return f"{len(known):,}{f' ({shown})' if shown else ''}"


def _attributes(attributes: Mapping[str, np.ndarray]) -> str:
    shown = [f"{name} ({_kind(column)})" for name, column in list(attributes.items())[:_MOST_NAMED]]
    more = len(attributes) - _MOST_NAMED
    return ", ".join([*shown, *([f"and {more:,} more"] if more > 0 else [])]) or "none"


def _kind(column: np.ndarray) -> str:
    """The kind of a column, and what its values are like."""
    kind = name_of(column)
    if kind == "bool":
        return f"{kind}, {int(column.sum()):,} true"
    if kind == "number":
        known = column[~np.isnan(column.astype(np.float64))]
        return f"{kind}, {known.min():g} to {known.max():g}" if known.size else f"{kind}, none known"
    values = set().union(*column.tolist()) if is_of_tuples(column) else set(column.tolist()) - {""}
    return f"{kind}, {counted(len(values), 'value')}"
