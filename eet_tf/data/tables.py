"""A table of any origin: columns with names, the place of each row, and the catalogue made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eet_tf.data.catalog import CatalogError


class Table(NamedTuple):
    """Columns of equal length.

    Attributes:
        source: where it comes from, for messages.
        lines: `[N]` line numbers in the source, or places such as `"catalog.xlsx, row 5"`.
        columns: `{name: [N] cells}`.
        is_text: whether all cells are texts, also those that stand for numbers.
        notes: what a user must know of how it was read, a sentence each.
    """

    source: str
    lines: Sequence[int] | Sequence[str]
    columns: dict[str, list]
    is_text: bool
    notes: tuple[str, ...] = ()


def stripped(cells: list) -> list:
    """The cells of a column, texts without blanks around them."""
    return [cell.strip() if isinstance(cell, str) else cell for cell in cells]


def named_columns(place: str, header: Sequence[str], columns: Sequence[list]) -> dict[str, list]:
    """The columns by name. One without a name is left out if it is empty or numbers the rows.

    Args:
        place: of the header, for messages.
        header: the names, `""` where there is none.
        columns: their cells.

    Raises:
        CatalogError: if a column without a name says something.
    """
    for position, (name, column) in enumerate(zip(header, columns), start=1):
        if not name and not _may_have_no_name(column):
            first = next(cell for cell in column if cell is not None and cell != "")
            raise CatalogError(
                f"{place}: column {position} has no name. Name it, or delete it. Its first cell is {str(first)!r}."
            )
    return {name: column for name, column in zip(header, columns) if name}


def _may_have_no_name(column: list) -> bool:
    texts = ["" if cell is None else str(cell) for cell in column]
    if not any(texts):
        return True
    count = len(texts)
    return any(texts == list(map(str, range(first, first + count))) for first in (0, 1))
