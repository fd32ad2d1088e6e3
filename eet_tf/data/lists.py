"""How a list in a text file is read, and how what is wrong with it is named by file and line."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from eet_tf.data.catalog import Catalog, CatalogError, missing_photos, one_after_another
from eet_tf.data.values import shared

_ROWS_AT_ONCE = 10_000


def find_file(data_dir: str, *names: str) -> str:
    """The first of some files in `data_dir` that exists.

    Raises:
        CatalogError: if none does; names them all.
    """
    files = [os.path.join(data_dir, name) for name in names]
    for file in files:
        if os.path.isfile(file):
            return file
    raise CatalogError(f"{' or '.join(repr(file) for file in files)} does not exist. Check `data_dir`.")


def numbered_lines(file: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, each with its number from 1.

    Raises:
        CatalogError: if there is no such file or it is not UTF-8.
    """
    with open(find_file("", file), encoding="utf-8-sig") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line := line.strip():
                    yield number, line
        except UnicodeDecodeError as error:
            raise _wrong_encoding(file) from error


def split_fields(place: str, line: str, num_fields: int) -> list[str]:
    """The fields of a row, which any blanks may part; the last may hold blanks itself.

    Raises:
        CatalogError: if there are fewer; names the place.
    """
    fields = line.split(maxsplit=num_fields - 1)
    if len(fields) != num_fields:
        raise CatalogError(f"{place}: a row must have {num_fields} fields. Received: {line!r}.")
    return fields


def read_csv(file: str, needed: tuple[str, ...]) -> tuple[list[int], dict[str, list[str]]]:
    """The columns of a CSV file with a header, and the number of the line that each row begins on.

    Cells are stripped. A column without a name is left out if all its cells are empty, or if they count the rows from
    0 or 1, as pandas writes them.

    Args:
        file: the CSV file, in UTF-8.
        needed: columns that the header must name.

    Raises:
        CatalogError: names the file and line of what is wrong.
    """
    numbers: list[int] = []
    complaints: list[str] = []
    rows: list[list[str]] = []
    with open(find_file("", file), encoding="utf-8-sig", newline="") as lines:
        numbered = _numbered_rows(file, csv.reader(lines, strict=True))
        header = [name.strip() for name in next(numbered, (1, []))[1]]
        _check_header(file, header, needed)
        columns: list[list[str]] = [[] for _ in header]
        known: list[dict[str, str]] = [{} for _ in header]
        for number, row in numbered:
            if row and len(row) != len(header):
                complaints.append(
                    f"{file}:{number}: the row has not as many fields as the header, {len(header)}. "
                    f"Received: {len(row)} fields."
                )
            elif row:
                numbers.append(number)
                rows.append(row)
            if len(rows) == _ROWS_AT_ONCE:
                _append(rows, columns, known)
    _append(rows, columns, known)
    if complaints:
        raise CatalogError(one_after_another(complaints))
    return numbers, _named(file, header, columns)


def _numbered_rows(file: str, reader) -> Iterator[tuple[int, list[str]]]:
    """The rows that a CSV reader gives, each with the number of the line that it begins on."""
    begins = 1
    try:
        for row in reader:
            yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise CatalogError(f"{file}:{begins}: {_csv_reason(error)}") from error
    except UnicodeDecodeError as error:
        raise _wrong_encoding(file) from error


def _append(rows: list[list[str]], columns: list[list[str]], known: list[dict[str, str]]) -> None:
    """Moves rows into the columns; equal cells of a column become one object."""
    for column, texts, cells in zip(columns, known, zip(*rows)):
        column.extend(shared([cell.strip() for cell in cells], texts))
    rows.clear()


def _csv_reason(error: csv.Error) -> str:
    if "field limit" in str(error):
        return (
            f"a cell has more than {csv.field_size_limit():,} characters. Leave the column out: a text or picture of "
            "that size is no attribute."
        )
    if "end of data" in str(error):
        return "a quote is opened in this row and never closed. Close it, or write a quote inside a cell twice."
    if "NUL" in str(error):
        return "the row holds a NUL character. Save the list as text in UTF-8."
    return "the row is no CSV: text follows a closing quote. Write a quote inside a cell twice."


def _named(file: str, header: list[str], columns: list[list[str]]) -> dict[str, list[str]]:
    """The columns by name, without those that have none."""
    for place, (name, column) in enumerate(zip(header, columns), start=1):
        if not name and not _may_have_no_name(column):
            raise CatalogError(
                f"{file}:1: column {place} has no name. Name it, or delete it. Its first cell is {column[0]!r}."
            )
    return {name: column for name, column in zip(header, columns) if name}


def _may_have_no_name(column: list[str]) -> bool:
    if not any(column):
        return True
    count = len(column)
    return any(column == list(map(str, range(first, first + count))) for first in (0, 1))


def listed(root: str, paths: Sequence[str], places: Iterable[str], make: Callable[[], Catalog]) -> Catalog:
    """The catalogue of a list; one message names all that is wrong with its rows and with the files they name.

    Args:
        root: folder that relative paths start from.
        paths: of the photos.
        places: where each is listed.
        make: makes the catalogue.

    Raises:
        CatalogError: if something is wrong.
    """
    missing = missing_photos(root, paths, places)
    try:
        catalog = make()
    except CatalogError as error:
        raise CatalogError(one_after_another([str(error), *missing])) from error
    if missing:
        raise CatalogError(one_after_another(missing))
    return catalog


def _check_header(file: str, names: list[str], needed: tuple[str, ...]) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if set(needed) <= set(names) and not twice:
        return
    what = f"{'columns' if len(needed) > 1 else 'a column'} {' and '.join(map(repr, needed))}, and none twice"
    received = f"{len(names)} columns" if len(names) > 50 else str(names)
    found = f" These stand there twice: {', '.join(map(repr, twice))}." if twice else ""
    other = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
    hint = f" Its cells are parted by {other!r}: save it with commas." if other else ""
    raise CatalogError(f"{file}:1: the header must name {what}. Received: {received}.{found}{hint}")


def _wrong_encoding(file: str) -> CatalogError:
    with open(file, "rb") as opened:
        content = opened.read()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return CatalogError(f"{file} is not encoded as UTF-8 but as UTF-16. Save it as UTF-8.")
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            shown = ascii(line[max(error.start - 20, 0) : error.start + 1])[2:-1]
            return CatalogError(f"{file}:{number}: the file is not encoded as UTF-8: ...{shown}. Save it as UTF-8.")
    return CatalogError(f"{file} is not encoded as UTF-8. Save it as UTF-8.")
