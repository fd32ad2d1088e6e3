"""How the list of a data set is read, and how what is wrong with it is named by file and line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from eet_tf.data.catalog import Catalog, CatalogError, MissingPhotosError, missing_photos, one_after_another
from eet_tf.wording import counted, normal_path


def find_file(data_dir: str, *names: str) -> str:
    """The first of some files in `data_dir` that exists.

    Raises:
        CatalogError: if none does; names them all.
    """
    files = [normal_path(os.path.join(data_dir, name)) for name in names]
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
        raise CatalogError(f"{place}: a row must have {counted(num_fields, 'field')}. Received: {line!r}.")
    return fields


def listed(root: str, paths: Sequence[str], places: Iterable[str], make: Callable[[], Catalog]) -> Catalog:
    """The catalogue of a list; one message names all that is wrong with its rows and with the files they name.

    Args:
        root: folder that relative paths start from.
        paths: of the photos.
        places: where each is listed.
        make: makes the catalogue.

    Raises:
        CatalogError: if something is wrong; `MissingPhotosError` if it is nothing but files that are missing or empty.
    """
    missing = missing_photos(root, paths, places)
    try:
        catalog = make()
    except CatalogError as error:
        raise CatalogError(one_after_another([str(error), *missing])) from error
    if missing:
        raise MissingPhotosError(one_after_another(missing), catalog)
    return catalog


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
