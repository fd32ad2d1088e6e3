"""How a list in a text file is read, and how what is wrong with it is named by file and line."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator

from eet_tf.data.catalog import CatalogError


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
            raise _wrong_encoding(file, error) from error


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
    """The columns of a CSV file with a header, and the number of the line that each row ends on.

    Args:
        file: the CSV file, in UTF-8.
        needed: columns that the header must name.

    Raises:
        CatalogError: names the file and line of what is wrong.
    """
    with open(find_file("", file), encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            names = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise CatalogError(f"{file}:{reader.line_num}: the row is no CSV: {error}. Look at its quotes.") from error
        except UnicodeDecodeError as error:
            raise _wrong_encoding(file, error) from error
    _check_header(file, names, needed)
    for number, row in rows:
        if None in row or None in row.values():
            raise CatalogError(f"{file}:{number}: the row has not as many fields as the header, {len(names)}.")
    return [number for number, _ in rows], {name: [row[name].strip() for _, row in rows] for name in names}


def check_listed_files(root: str, paths: Iterable[str], places: Iterable[str]) -> None:
    """Raises `CatalogError` for the first listed photo that is not there, with the place it is listed at."""
    for path, place in zip(paths, places):
        file = os.path.join(root, path)
        if path and not os.path.isfile(file):
            raise CatalogError(f"{place}: photo file {file!r} does not exist. Mend the path or delete the row.")


def _check_header(file: str, names: list[str], needed: tuple[str, ...]) -> None:
    if not set(needed) <= set(names) or len(set(names)) < len(names):
        raise CatalogError(
            f"{file}:1: the header must name {'columns' if len(needed) > 1 else 'a column'} "
            f"{' and '.join(map(repr, needed))}, and none twice. Received: {names}."
        )


def _wrong_encoding(file: str, error: UnicodeDecodeError) -> CatalogError:
    return CatalogError(f"{file} is not encoded as UTF-8: {error}. Save it as UTF-8.")
