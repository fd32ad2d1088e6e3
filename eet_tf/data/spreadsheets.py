"""An Excel workbook -> its table: which sheet has it, and what its cells hold."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from eet_tf.data.catalog import CatalogError, one_after_another
from eet_tf.data.lists import find_file
from eet_tf.data.tables import Table, named_columns
from eet_tf.wording import counted

_SHEET = "catalog"
_OLD_OR_LOCKED = b"\xd0\xcf\x11\xe0"  # how .xls begins, and .xlsx with a password
_WITH_ZEROS = re.compile("0{2,}")
_NOT_KNOWN = "#N/A"


class _Row(NamedTuple):
    number: int
    cells: list


def read_xlsx(file: str, needed: Collection[str], check_header: Callable[[str, list[str]], object]) -> Table:
    """The columns of a sheet, whose first row that is not empty is the header.

    Of several sheets it is the one named `catalog`, or else the only one whose header has the needed columns. Text is
    stripped. Whole numbers that a cell shows with leading zeros are the text that it shows; a day is text such as
    `2026-01-02`. Empty rows are passed over, and `#N/A` is a missing value.

    Args:
        file: the workbook, `.xlsx`.
        needed: names of columns by which the header is known.
        check_header: is called with the place and the names of the header before rows are read, to refuse it.

    Raises:
        CatalogError: names the file and the row or cell of what is wrong, or says that openpyxl must be installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what openpyxl does not draw, such as a sheet's conditional colours
        workbook = _opened(find_file("", file))
        try:
            rows = list(_rows(_sheet(file, workbook, needed)))
        finally:
            workbook.close()
    place = f"{file}, row {rows[0].number if rows else 1}"
    header = _header(rows)
    check_header(place, header)
    _refuse_errors(file, rows)
    width = max(len(header), *(len(row.cells) for row in rows)) if rows else 0
    table = [row.cells + [None] * (width - len(row.cells)) for row in rows[1:]]
    columns = [list(column) for column in zip(*table)] if table else [[] for _ in range(width)]
    named = named_columns(place, [*header, *[""] * (width - len(header))], columns)
    return Table(file, [f"{file}, row {row.number}" for row in rows[1:]], named, is_text=False)


def _opened(file: str) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise CatalogError(
            f'{file} is an Excel file, which openpyxl reads. Install it: pip install "eet-tf[xlsx]"'
        ) from error
    with open(file, "rb") as opened:
        if opened.read(4) == _OLD_OR_LOCKED:
            raise CatalogError(
                f"{file} is an old .xls file or has a password. Save it as .xlsx without one, or as CSV."
            )
    try:
        return openpyxl.load_workbook(file, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises many kinds over a damaged file
        raise CatalogError(f"{file} is no Excel workbook, or is damaged. Save it again as .xlsx, or as CSV.") from error


def _sheet(file: str, workbook: Any, needed: Collection[str]) -> Any:
    """The sheet that has the table."""
    sheets = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"]
    for sheet in sheets:
        sheet.reset_dimensions()  # some programs write wrong ones
    headers = {sheet.title: _header(list(_first_row(sheet))) for sheet in sheets}
    filled = [sheet for sheet in sheets if headers[sheet.title]] or sheets
    named = [sheet for sheet in filled if sheet.title.strip().casefold() == _SHEET]
    knowing = [sheet for sheet in filled if set(needed) <= set(headers[sheet.title])]
    for found in (named, knowing, filled):
        if len(found) == 1:
            return found[0]
    titles = ", ".join(repr(sheet.title) for sheet in filled) or "none that is shown"
    raise CatalogError(
        f"{file} has {counted(len(filled), 'sheet')}, {titles}, and it is not clear which one lists the photos. Name "
        f"that one {_SHEET!r}, or save it alone."
    )


def _first_row(sheet: Any) -> Iterator[_Row]:
    for row in _rows(sheet):
        yield row
        return


def _rows(sheet: Any) -> Iterator[_Row]:
    """The rows that are not empty, with what each cell holds."""
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        values = [_value(cell) for cell in cells]
        if any(value is not None for value in values):
            yield _Row(number, values)


def _value(cell: Any):
    value = cell.value
    if isinstance(value, str):
        return (
            None
            if value == _NOT_KNOWN or not value.strip()
            else _Error(value)
            if cell.data_type == "e"
            else value.strip()
        )
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and _WITH_ZEROS.fullmatch(cell.number_format):
        return f"{value:0{len(cell.number_format)}d}"
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    return str(value) if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)) else value


class _Error(str):
    """What a cell shows that cannot be computed, such as `#REF!`."""


def _header(rows: list[_Row]) -> list[str]:
    names = ["" if cell is None else str(cell) for cell in rows[0].cells] if rows else []
    while names and not names[-1]:
        names.pop()
    return names


def _refuse_errors(file: str, rows: list[_Row]) -> None:
    complaints = [
        f"{file}, row {row.number}, column {position}: the cell shows the error {str(cell)}. Mend it or empty it."
        for row in rows
        for position, cell in enumerate(row.cells, start=1)
        if isinstance(cell, _Error)
    ]
    if complaints:
        raise CatalogError(one_after_another(complaints))
