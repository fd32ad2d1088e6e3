"""A Parquet file -> its table."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from eet_tf.data.catalog import CatalogError
from eet_tf.data.lists import find_file
from eet_tf.data.tables import Table, named_columns, stripped

_NUMBERING = "__index_level_"  # what pandas calls an index without a name


def read_parquet(file: str, needed: Collection[str], check_header: Callable[[str, list[str]], object]) -> Table:
    """The columns of a Parquet file, its rows counted from 0. Those of bytes or records are left out, with a note.

    Args:
        file: the file.
        needed: names of columns that there must be, whatever they hold.
        check_header: is called with the place and the names of the columns before rows are read, to refuse them.

    Raises:
        CatalogError: names the file of what is wrong, or says that pyarrow must be installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        is_there = not isinstance(error, ModuleNotFoundError)
        why = f" The one that is installed does not go with what is beside it: {error}." if is_there else ""
        raise CatalogError(
            f"{find_file('', file)} is a Parquet file, which pyarrow reads. Install it: pip install "
            f'"eet-tf[parquet]".{why}'
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(find_file("", file)) as opened:
            schema = opened.schema_arrow
            odd = [field.name for field in schema if field.name not in needed and _is_odd(pyarrow.types, field.type)]
            names = [name for name in schema.names if name not in odd]
            check_header(file, names)
            table = opened.read(columns=names)
    except pyarrow.ArrowException as error:
        raise CatalogError(f"{file} is no Parquet file, or is damaged. Write it again.") from error
    columns = [stripped(table.column(name).to_pylist()) for name in names]
    header = ["" if name.startswith(_NUMBERING) else name for name in names]
    lines = [f"{file}, row {row}" for row in range(table.num_rows)]
    return Table(file, lines, named_columns(file, header, columns), is_text=False, notes=_notes(file, odd))


def _is_odd(types: Any, kind: Any) -> bool:
    """Whether the values of a column are neither numbers, texts, days nor lists."""
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_struct, types.is_map)
    return any(test(kind) for test in tests)


def _notes(file: str, odd: list[str]) -> tuple[str, ...]:
    if not odd:
        return ()
    columns = f"column{'s' * (len(odd) > 1)} {', '.join(map(repr, odd))}"
    return (f"{file}: left out {columns}, which {'hold' if len(odd) > 1 else 'holds'} bytes or records.",)
