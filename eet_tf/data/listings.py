"""A shop's own table of photos -> Catalog."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.delimited import read_delimited
from eet_tf.data.frames import Frame, read_frame
from eet_tf.data.kinds import TypedColumn, as_column, split_cells, typed_texts, typed_values
from eet_tf.data.lists import find_file, listed
from eet_tf.data.parquet import read_parquet
from eet_tf.data.roles import check_columns, roles_of
from eet_tf.data.spreadsheets import read_xlsx
from eet_tf.data.tables import Table
from eet_tf.data.values import is_missing
from eet_tf.wording import normal_path, shown_path

_WITH_COMMA = re.compile(r"-?[0-9]+(?:\.[0-9]{3})*,[0-9]+")
_Read = Callable[[str, Sequence[str], Callable[[str, list[str]], object]], Table]


def load_csv(
    data_dir: str | os.PathLike, columns: Mapping[str, str] | None = None, separator: str | None = None
) -> Catalog:
    """Reads a CSV or TSV list: columns `path` and `sku`, optional `category` and `split`, any other is an attribute.

    Commas, semicolons, tabs or vertical bars part the cells; the header tells which. The file is in UTF-8, in UTF-16
    with its byte order mark, or in Windows-1252, as spreadsheets save it; `catalog.notes` says so of the last.

    An attribute of numbers holds numbers, one of `true` and `false` bools, as `eet_tf.index.typed_columns` tells them:
    `0042` stays a string, and so do the versions `1.1` and `1.10`.

    A photo's split is `train`, `validation` or `test`, see `Catalog`. A column without a name is left out if it is
    empty or numbers the rows, as pandas and spreadsheets write it; with anything else in it, it is refused.

    Args:
        data_dir: the file, or a folder that holds it as `catalog.csv` or else `catalog.tsv`. Paths in it start from its
            folder.
        columns: `{role: column}` where the table has other names, such as `{"path": "image", "sku": "product_id"}`.
            The roles are `path`, `sku`, `category` and `split`.
        separator: what stands between several values in a cell, e.g. `"|"` for `red|blue`. An attribute with it in some
            cell has a tuple of strings for each photo. By default each cell is one value.

    Raises:
        CatalogError: names the file and line of all that is wrong.

    Example:

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> size = [(folder / name).write_bytes(b"...") for name in ("1.jpg", "2.jpg")]
    >>> rows = ["image;product_id;colour;price", "1.jpg;mug;red|blue;19.90", "2.jpg;cup;red;5.00"]
    >>> size = (folder / "catalog.csv").write_text("\\n".join(rows))
    >>> catalog = load_csv(str(folder), columns={"path": "image", "sku": "product_id"}, separator="|")
    >>> catalog.skus.tolist(), catalog.attributes["colour"].tolist(), catalog.attributes["price"].tolist()
    (['mug', 'cup'], [('red', 'blue'), ('red',)], [19.9, 5.0])
    """
    return _load(data_dir, ("catalog.csv", "catalog.tsv"), read_delimited, columns, separator)


def load_xlsx(
    data_dir: str | os.PathLike, columns: Mapping[str, str] | None = None, separator: str | None = None
) -> Catalog:
    """Reads an Excel workbook: a sheet whose first row names the columns, as `load_csv` has them.

    Of several sheets it is the one named `catalog`, or else the only one that has the columns. Numbers and bools are
    what the cells hold; text stays text. openpyxl reads it: `pip install "eet-tf[xlsx]"`.

    Args:
        data_dir: the `.xlsx` file, or a folder that holds it as `catalog.xlsx`. Paths in it start from its folder.
        columns: as for `load_csv`.
        separator: as for `load_csv`.

    Raises:
        CatalogError: names the file and row of all that is wrong.
    """
    return _load(data_dir, ("catalog.xlsx",), read_xlsx, columns, separator)


def load_parquet(
    data_dir: str | os.PathLike, columns: Mapping[str, str] | None = None, separator: str | None = None
) -> Catalog:
    """Reads a Parquet file with the columns that `load_csv` has; its rows are counted from 0.

    Numbers, bools and lists are what the file holds; text stays text. Columns of bytes or records are left out, which
    `catalog.notes` says. pyarrow reads it: `pip install "eet-tf[parquet]"`.

    Args:
        data_dir: the file, or a folder that holds it as `catalog.parquet`. Paths in it start from its folder.
        columns: as for `load_csv`.
        separator: as for `load_csv`.

    Raises:
        CatalogError: names the file and row of all that is wrong.
    """
    return _load(data_dir, ("catalog.parquet",), read_parquet, columns, separator)


def catalog_from_frame(
    frame: Frame,
    root: str | os.PathLike = "",
    columns: Mapping[str, str] | None = None,
    separator: str | None = None,
    source: str = "the frame",
) -> Catalog:
    """Makes a catalogue of a DataFrame of pandas, polars or another library, checked as `load_csv` checks a list.

    It is asked for the names of its columns, `frame.columns`, and for their values, `frame[name]`, and nothing else.
    Columns are those that `load_csv` has; numbers, bools and lists are kept, text stays text.

    Args:
        frame: the DataFrame.
        root: folder that its paths start from; by default the working directory.
        columns: as for `load_csv`.
        separator: as for `load_csv`.
        source: how messages call it; rows are counted from 0.

    Raises:
        CatalogError: names the rows of all that is wrong.

    Example:

    >>> import pathlib, tempfile
    >>> import pandas
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> size = [(folder / name).write_bytes(b"...") for name in ("1.jpg", "2.jpg")]
    >>> frame = pandas.DataFrame({"path": ["1.jpg", "2.jpg"], "item": ["mug", "cup"], "price": [19.9, 5.0]})
    >>> catalog = catalog_from_frame(frame, str(folder), columns={"sku": "item"})
    >>> catalog.skus.tolist(), catalog.attributes["price"].tolist()
    (['mug', 'cup'], [19.9, 5.0])
    """
    chosen, separator = check_columns(columns), check_separator(separator)
    table = read_frame(frame, source)
    roles_of(source, list(table.columns), chosen)
    return catalog_of(table, normal_path(root), chosen, separator)


def _load(
    data_dir: str | os.PathLike,
    names: Sequence[str],
    read: _Read,
    columns: Mapping[str, str] | None,
    separator: str | None,
) -> Catalog:
    """The catalogue of a table's file, or of the first of some names in a folder."""
    chosen, separator = check_columns(columns), check_separator(separator)
    file = find_file(os.fspath(data_dir), *names) if os.path.isdir(data_dir) else os.fspath(data_dir)
    needed = [chosen.get(role, role) for role in ("path", "sku")]
    table = read(shown_path(file), needed, functools.partial(roles_of, columns=chosen))
    return catalog_of(table, os.path.dirname(normal_path(file)), chosen, separator)


def catalog_of(table: Table, root: str, columns: Mapping[str, str], separator: str | None) -> Catalog:
    """The catalogue of a table whose header was checked.

    Args:
        table: the table.
        root: folder that its paths start from.
        columns: `{role: column}` of the roles whose columns have other names.
        separator: what stands between several values in a cell of an attribute; None for one value a cell.

    Raises:
        CatalogError: names all rows that are wrong, and the photos that are not there.
    """
    roles = roles_of(table.source, list(table.columns), columns)
    cells = {role: table.columns[column] for role, column in roles.items()}
    for role, column in cells.items():  # NaN in the path or sku is refused as such
        is_empty = is_missing if role in ("category", "split") else _is_none
        cells[role] = ["" if is_empty(cell) else cell for cell in column]
    paths = ["" if is_missing(path) else str(path) for path in cells["path"]]
    attributes = {
        name: _typed(column, table.is_text, separator)
        for name, column in table.columns.items()
        if name not in roles.values()
    }
    places = (line if isinstance(line, str) else f"{table.source}:{line}" for line in table.lines)
    return listed(
        root,
        paths,
        places,
        lambda: Catalog(
            cells["path"],
            cells["sku"],
            cells.get("category"),
            {name: column.values for name, column in attributes.items()},
            cells.get("split"),
            root=root,
            source=table.source,
            lines=table.lines,
            notes=(*table.notes, *_decimal_commas(table.source, attributes)),
            spellings={name: column.spellings for name, column in attributes.items() if column.spellings},
        ),
    )


def _is_none(cell: object) -> bool:
    return cell is None


def _typed(cells: list, is_text: bool, separator: str | None) -> TypedColumn:
    """An attribute of one kind. Where a separator stands in a cell, all cells of the column have several values."""
    if separator and all(cell is None or isinstance(cell, str) for cell in cells):
        several = split_cells([cell or "" for cell in cells], separator)
        if several:
            return several
    return typed_texts(cells) if is_text else typed_values(as_column(cells))


def _decimal_commas(source: str, attributes: Mapping[str, TypedColumn]) -> Iterator[str]:
    """A note for each attribute of texts that would be numbers if their commas were points."""
    for name, column in attributes.items():
        texts = set(column.values.tolist()) - {""} if column.values.dtype.kind == "O" else set()
        if texts and all(isinstance(text, str) and _WITH_COMMA.fullmatch(text) for text in texts):
            yield (
                f"{source}: column {name!r}, such as {min(texts)!r}, looks like numbers with a decimal comma and stays "
                "text. Write them with a point to compare them as numbers."
            )


def check_separator(separator: str | None) -> str | None:
    """Returns what parts the values of a cell, or refuses what cannot; None is for one value a cell."""
    if separator is None or (isinstance(separator, str) and separator and not any(map(str.isalnum, separator))):
        return separator
    raise CatalogError(
        "`separator` must be what stands between the values of one cell, such as | or ;, without letters and digits. "
        f"Received: separator={str(separator)!r}. Leave it out where each cell has one value."
    )
