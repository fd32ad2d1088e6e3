"""A text table -> its columns: which mark parts the cells, where each row begins, and what is wrong with a row."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from eet_tf.data.catalog import CatalogError, one_after_another
from eet_tf.data.encodings import Encoding, encoding_of
from eet_tf.data.lists import find_file
from eet_tf.data.tables import Table, named_columns
from eet_tf.data.values import shared
from eet_tf.wording import counted

_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_ROWS_AT_ONCE = 10_000
_ROWS_LOOKED_AT = 20


class _Sample(NamedTuple):
    """The first rows of a file, its cells parted by one mark, each with the line that it begins on."""

    header: list[str]
    rows: list[tuple[int, list[str]]]

    @property
    def num_fitting(self) -> int:
        """The rows with as many cells as the header."""
        return sum(len(row) == len(self.header) for _, row in self.rows)


def read_delimited(file: str, needed: Collection[str], check_header: Callable[[str, list[str]], object]) -> Table:
    """The columns of a CSV or TSV file with a header, and the number of the line that each row begins on.

    Cells are parted by commas, semicolons, tabs or vertical bars: whichever gives a header with the needed columns.
    Cells are stripped. A column without a name is left out if all its cells are empty, or if they count the rows from
    0 or 1, as pandas writes them.

    Args:
        file: the file, in UTF-8, UTF-16 or Windows-1252; see `encoding_of`.
        needed: names of columns by which the header is known.
        check_header: is called with the place and the names of the header before rows are read, to refuse it.

    Raises:
        CatalogError: names the file and line of what is wrong.
    """
    encoding = encoding_of(find_file("", file))
    mark = _mark(file, encoding, needed)
    numbered = _numbered_rows(file, encoding, mark)
    header = [name.strip() for name in next(numbered, (1, []))[1]]
    check_header(f"{file}:1", header)
    numbers, columns = _read_rows(file, numbered, len(header))
    notes = (encoding.note,) if encoding.note else ()
    return Table(file, numbers, named_columns(f"{file}:1", header, columns), is_text=True, notes=notes)


def _read_rows(
    file: str, numbered: Iterator[tuple[int, list[str]]], num_columns: int
) -> tuple[list[int], list[list[str]]]:
    """The lines that rows begin on, and the columns; refuses all rows of another length at once."""
    numbers: list[int] = []
    complaints: list[str] = []
    rows: list[list[str]] = []
    columns: list[list[str]] = [[] for _ in range(num_columns)]
    known: list[dict[str, str]] = [{} for _ in range(num_columns)]
    for number, row in numbered:
        if row and len(row) != num_columns:
            complaints.append(
                f"{file}:{number}: the row has not as many fields as the header, {num_columns}. "
                f"Received: {counted(len(row), 'field')}."
            )
        elif row:
            numbers.append(number)
            rows.append(row)
        if len(rows) == _ROWS_AT_ONCE:
            _append(rows, columns, known)
    _append(rows, columns, known)
    if complaints:
        raise CatalogError(one_after_another(complaints))
    return numbers, columns


def _mark(file: str, encoding: Encoding, needed: Collection[str]) -> str:
    """What parts the cells of a file: told by its header, confirmed by its first rows."""
    samples = {mark: _sample(file, encoding, mark) for mark in _MARKS}
    knowing = [mark for mark, sample in samples.items() if set(needed) <= set(sample.header)]
    if not knowing:  # the header will be refused, in the words that it most likely has
        return max(samples, key=lambda mark: (len(samples[mark].header) > 1, *_likelihood(samples[mark])))
    mark = knowing[0]
    _confirm(file, mark, samples)
    return mark


def _sample(file: str, encoding: Encoding, mark: str) -> _Sample:
    rows: list[tuple[int, list[str]]] = []
    try:
        for numbered in itertools.islice(_numbered_rows(file, encoding, mark), _ROWS_LOOKED_AT + 1):
            rows.append(numbered)
    except CatalogError:  # of a mark that is not the right one, or it is said again when all rows are read
        pass
    header = [name.strip() for name in rows[0][1]] if rows else []
    return _Sample(header, [(number, row) for number, row in rows[1:] if row])


def _likelihood(sample: _Sample) -> tuple[int, int]:
    return sample.num_fitting, len(sample.header)


def _confirm(file: str, mark: str, samples: Mapping[str, _Sample]) -> None:
    """Refuses a file whose header and rows are parted by different marks."""
    sample = samples[mark]
    if len(sample.header) < 2 or not sample.rows or sample.num_fitting:
        return
    for other, name in _MARKS.items():
        rows = samples[other].rows
        if rows and all(len(row) == len(sample.header) for _, row in rows):
            raise CatalogError(
                f"{file}:{rows[0][0]}: the cells of the rows are parted by {name}, those of the header by "
                f"{_MARKS[mark]}. Part all by one of them."
            )


def _numbered_rows(file: str, encoding: Encoding, mark: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, each with the number of the line that it begins on."""
    begins = 1
    with open(file, encoding=encoding.name, newline="") as lines:
        reader = csv.reader(lines, delimiter=mark, strict=True)
        try:
            for row in reader:
                yield begins, row
                begins = reader.line_num + 1
        except csv.Error as error:
            raise CatalogError(f"{file}:{begins}: {_reason(error)}") from error


def _reason(error: csv.Error) -> str:
    if "field limit" in str(error):
        return (
            f"a cell has more than {csv.field_size_limit():,} characters. Leave the column out: a text or picture of "
            "that size is no attribute."
        )
    if "end of data" in str(error):
        return "a quote is opened in this row and never closed. Close it, or write a quote inside a cell twice."
    return "the row is no CSV: text follows a closing quote. Write a quote inside a cell twice."


def _append(rows: list[list[str]], columns: list[list[str]], known: list[dict[str, str]]) -> None:
    """Moves rows into the columns; equal cells of a column become one object."""
    for column, texts, cells in zip(columns, known, zip(*rows)):
        column.extend(shared([cell.strip() for cell in cells], texts))
    rows.clear()
