"""A DataFrame, of whatever library -> its table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from eet_tf.data.catalog import CatalogError
from eet_tf.data.tables import Table, named_columns, stripped


class Frame(Protocol):
    """What DataFrames of pandas, polars and others have in common."""

    @property
    def columns(self) -> Iterable[str]:
        """The names of the columns."""

    def __getitem__(self, name: str, /) -> Iterable:
        """The values of a column."""


def read_frame(frame: Frame, source: str) -> Table:
    """The columns of a DataFrame, its rows counted from 0.

    Args:
        frame: the DataFrame.
        source: how messages call it.

    Raises:
        CatalogError: if it is none, or a name is no string or there twice.
    """
    names = _names(frame)
    odd = [name for name in names if not isinstance(name, str)]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if odd or twice:
        what = (
            f"names that are no strings: {', '.join(map(str, odd))}" if odd else f"{', '.join(map(repr, twice))} twice"
        )
        raise CatalogError(
            f"`frame` must have columns with names of their own, strings. Received: {what}. Rename them."
        )
    columns = [stripped(list(frame[name])) for name in names]
    lines = [f"{source}, row {row}" for row in range(len(columns[0]) if columns else 0)]
    return Table(source, lines, named_columns(source, names, columns), is_text=False)


def _names(frame: Frame) -> list:
    names = getattr(frame, "columns", None)
    if isinstance(names, Iterable) and not isinstance(frame, type):
        return list(names)
    received = "None" if frame is None else f"a {type(frame).__name__}"
    raise CatalogError(
        "`frame` must be a DataFrame, which has the names of its columns in `.columns` and their values in "
        f"`frame[name]`. Received: {received}. For lists, use Catalog(paths, skus)."
    )
