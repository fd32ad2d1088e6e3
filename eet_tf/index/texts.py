"""Attributes as CSV files write them: all text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eet_tf.index.checks import CatalogIndexError
from eet_tf.numerals import kind_of, read_number, read_truth


def typed_columns(texts: Mapping[str, Sequence], kinds: Mapping[str, str] | None = None) -> dict[str, list]:
    """Turns columns of text into what they hold.

    A column in which each text is `true` or `false` holds bools. One in which each is a number or empty holds numbers,
    if all are written in one way, such as prices with two decimals: then no two texts are one number. All others stay
    texts: `007`, `12E3`, `nan`, ids above 2**53, the versions `1.1` and `1.10`. A column that already holds something
    else than texts, as those of `catalog.columns()`, stays as it is.

    Args:
        texts: `{name: [N] texts}`.
        kinds: of the columns of the index that is added to, `index.attributes`; None where it is being built.

    Raises:
        CatalogIndexError: if a text is not of the kind of its column.

    Example:

    >>> typed_columns({"price": ["5", "", "7.5"], "new": ["true", "false", "true"], "size": ["XL", "7", "007"]})
    {'price': [5.0, None, 7.5], 'new': [True, False, True], 'size': ['XL', '7', '007']}
    """
    columns = {name: _as_list(column) for name, column in texts.items()}
    if kinds is None:
        kinds = {name: kind_of(column) for name, column in columns.items() if all(isinstance(c, str) for c in column)}
        return {name: _read(name, column, kinds[name]) if name in kinds else column for name, column in columns.items()}
    return {name: _read(name, column, kinds.get(name, "string")) for name, column in columns.items()}


def _as_list(column: Sequence) -> list:
    """The cells of a column as Python's own objects."""
    cells = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [str(cell) if isinstance(cell, str) else cell for cell in cells]


def _read(name: str, column: list, kind: str) -> list:
    return [_cell(name, cell, kind) for cell in column]


def _cell(name: str, cell, kind: str):
    """What stands in a cell of a column; an empty one of numbers is None."""
    if isinstance(cell, str) and kind == "strings":
        return (cell,) if cell.strip() else ()
    if isinstance(cell, str):
        is_missing = kind == "number" and not cell.strip()
        return None if is_missing else _value(f"attributes['{name}']", name, cell, kind)
    if kind == "string" and isinstance(cell, (bool, int, float)):
        return "" if cell != cell else str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)
    return cell


def _value(argument: str, name: str, text: str, kind: str, read=read_number):
    if kind == "string":
        return text
    text = text.strip()
    value = read_truth(text) if kind == "bool" else read(text)
    if value is None:
        what = "true or false" if kind == "bool" else "numbers such as 12 or 19.90"
        raise CatalogIndexError(
            f"`{argument}` must hold {what}. Received: '{text}'. The index keeps '{name}' as {kind}s; where they are "
            "names, build it anew with all of them."
        )
    return value
