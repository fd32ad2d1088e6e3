"""A shop's own table of photos -> Catalog."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence

from eet_tf.data.catalog import Catalog
from eet_tf.data.delimited import read_delimited
from eet_tf.data.lists import find_file, listed
from eet_tf.data.roles import check_columns, roles_of
from eet_tf.data.tables import Table

_Read = Callable[[str, Sequence[str], Callable[[str, list[str]], object]], Table]


def load_csv(data_dir: str, columns: Mapping[str, str] | None = None) -> Catalog:
    """Reads a CSV or TSV list: columns `path` and `sku`, optional `category` and `split`, any other is an attribute.

    Commas, semicolons, tabs or vertical bars part the cells; the header tells which. The file is in UTF-8, in UTF-16
    with its byte order mark, or in Windows-1252, as spreadsheets save it; `catalog.notes` says so of the last.

    A photo's split is `train`, `validation` or `test`, see `Catalog`. A column without a name is left out if it is
    empty or numbers the rows, as pandas and spreadsheets write it; with anything else in it, it is refused.

    Args:
        data_dir: the file, or a folder that holds it as `catalog.csv` or else `catalog.tsv`. Paths in it start from its
            folder.
        columns: `{role: column}` where the table has other names, such as `{"path": "image", "sku": "product_id"}`.
            The roles are `path`, `sku`, `category` and `split`.

    Raises:
        CatalogError: names the file and line of all that is wrong.

    Example:

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> size = [(folder / name).write_bytes(b"...") for name in ("1.jpg", "2.jpg")]
    >>> size = (folder / "catalog.csv").write_text("image;product_id;colour\\n1.jpg;mug;red\\n2.jpg;cup;blue\\n")
    >>> catalog = load_csv(str(folder), columns={"path": "image", "sku": "product_id"})
    >>> catalog.skus.tolist(), catalog.attributes["colour"].tolist()
    (['mug', 'cup'], ['red', 'blue'])
    """
    return _load(data_dir, ("catalog.csv", "catalog.tsv"), read_delimited, columns)


def _load(data_dir: str, names: Sequence[str], read: _Read, columns: Mapping[str, str] | None) -> Catalog:
    """The catalogue of a table's file, or of the first of some names in a folder."""
    chosen = check_columns(columns)
    file = find_file(data_dir, *names) if os.path.isdir(data_dir) else data_dir
    needed = [chosen.get(role, role) for role in ("path", "sku")]
    table = read(file, needed, functools.partial(roles_of, columns=chosen))
    return catalog_of(table, os.path.dirname(file), chosen)


def catalog_of(table: Table, root: str, columns: Mapping[str, str]) -> Catalog:
    """The catalogue of a table whose header was checked.

    Args:
        table: the table.
        root: folder that its paths start from.
        columns: `{role: column}` of the roles whose columns have other names.

    Raises:
        CatalogError: names all rows that are wrong, and the photos that are not there.
    """
    roles = roles_of(table.source, list(table.columns), columns)
    cells = {role: table.columns[column] for role, column in roles.items()}
    attributes = {name: column for name, column in table.columns.items() if name not in roles.values()}
    places = (line if isinstance(line, str) else f"{table.source}:{line}" for line in table.lines)
    return listed(
        root,
        cells["path"],
        places,
        lambda: Catalog(
            cells["path"],
            cells["sku"],
            cells.get("category"),
            attributes,
            cells.get("split"),
            root=root,
            source=table.source,
            lines=table.lines,
            notes=table.notes,
        ),
    )
