"""A folder on disk -> Catalog, one function for each layout; readers, never downloaders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from eet_tf.data.catalog import Catalog, CatalogError, MissingPhotosError
from eet_tf.data.deepfashion import load_consumer_to_shop, load_inshop
from eet_tf.data.delimited import read_delimited
from eet_tf.data.fine_grained import load_cars196, load_cub
from eet_tf.data.folders import scan_folder
from eet_tf.data.kinds import TypedColumn, typed_texts
from eet_tf.data.layouts import detect_layout
from eet_tf.data.listings import load_csv, load_parquet, load_xlsx
from eet_tf.data.lists import listed, numbered_lines, split_fields
from eet_tf.data.roles import check_header
from eet_tf.data.synthetic import make_synthetic_catalog
from eet_tf.data.tables import Table
from eet_tf.files import why_no_folder
from eet_tf.wording import normal_path, shown_path

_SOP_HEADER = ["image_id", "class_id", "super_class_id", "path"]


def load_sop(data_dir: str) -> Catalog:
    """Stanford Online Products' layout: `Ebay_train.txt` and `Ebay_test.txt`.

    Their header is `image_id class_id super_class_id path`. An `attributes.csv` beside them is read too, where there
    is one: the row of a photo is found by its column `path`, and every other column but `class_id` is an attribute.
    A photo without a row has `""`, unknown, for each.

    Args:
        data_dir: folder that holds the two lists and the photos.

    Returns:
        A catalogue with splits `"train"` and `"test"`; skus are class ids, categories super-class ids.

    Raises:
        CatalogError: names the file and line of what is wrong.

    Reference:
        Oh Song, Xiang, Jegelka, Savarese, Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016.
    """
    data_dir = normal_path(data_dir)
    rows = [row for split in ("train", "test") for row in _sop_rows(os.path.join(data_dir, f"Ebay_{split}.txt"), split)]
    paths, skus, categories, splits, places = zip(*rows) if rows else [()] * 5
    attributes, notes = _attributes_by_path(os.path.join(data_dir, "attributes.csv"), paths)
    source = os.path.join(data_dir, "Ebay_*.txt")
    return listed(
        data_dir,
        paths,
        places,
        lambda: Catalog(
            paths,
            skus,
            categories,
            {name: column.values for name, column in attributes.items()},
            splits,
            root=data_dir,
            source=source,
            lines=places,
            notes=notes,
            spellings={name: column.spellings for name, column in attributes.items() if column.spellings},
        ),
    )


def _sop_rows(file: str, split: str) -> Iterator[tuple[str, ...]]:
    lines = numbered_lines(file)
    if next(lines, (1, ""))[1].split() != _SOP_HEADER:
        raise CatalogError(f"{file}:1: the first line must be {' '.join(_SOP_HEADER)!r}.")
    for number, line in lines:
        _, sku, category, path = split_fields(f"{file}:{number}", line, 4)
        yield path, sku, category, split, f"{file}:{number}"


def _attributes_by_path(file: str, paths: Sequence[str]) -> tuple[dict[str, TypedColumn], tuple[str, ...]]:
    """The attributes of listed photos, and what a user must know of how they were read."""
    if not os.path.isfile(file):
        return {}, ()
    table = read_delimited(file, ["path"], lambda place, names: check_header(place, names, ["path"]))
    rows = _rows_of(table)
    if paths and rows.keys().isdisjoint(paths):
        raise CatalogError(f"{file} has no row for any listed photo. Its paths must be those of the lists.")
    picked = [rows.get(path, -1) for path in paths]  # -1 is the cell that stands behind the last row
    attributes = {
        name: typed_texts(_picked([*column, ""], picked))
        for name, column in table.columns.items()
        if name not in ("path", "class_id")
    }
    return attributes, table.notes


def _picked(cells: list[str], rows: Sequence[int]) -> list[str]:
    return [cells[row] for row in rows]


def _rows_of(table: Table) -> dict[str, int]:
    """The row of each photo."""
    rows: dict[str, int] = {}
    for row, path in enumerate(table.columns["path"]):
        if rows.setdefault(path, row) != row:
            raise CatalogError(
                f"{table.source}:{table.lines[row]}: photo {path!r} has a second row (the first is in line "
                f"{table.lines[rows[path]]}). Delete one of them."
            )
    return rows


def load_folder(data_dir: str) -> Catalog:
    """One folder per sku: `data_dir/<sku>/<photo>`, or deeper in it.

    What is no photo of a product is passed over: other files, those beside the products' folders, hidden folders and
    those of tools. `catalog.notes` names it.

    Raises:
        CatalogError: if there is no such folder or no photo in it, or something in it cannot be read.
    """
    shown = shown_path(data_dir)
    found = scan_folder(shown)
    if not found.paths:
        raise CatalogError(f"{shown!r} lists no photos in folders of products. {found.note()}".rstrip())
    notes = (found.note(),) if found.note() else ()
    return Catalog(found.paths, found.skus, root=normal_path(data_dir), source=shown, notes=notes).check_files()


_TABLES = {"csv": load_csv, "parquet": load_parquet, "xlsx": load_xlsx}
LOADERS: dict[str, Callable[[str], Catalog]] = {
    "cars196": load_cars196,
    "consumer_to_shop": load_consumer_to_shop,
    "cub": load_cub,
    "folder": load_folder,
    "inshop": load_inshop,
    "sop": load_sop,
    "synthetic": make_synthetic_catalog,
    **_TABLES,
}
_SYNTHETIC_DIR = os.path.join("runs", "synthetic_photos")


def load_dataset(
    name: str,
    data_dir: str | os.PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    separator: str | None = None,
    check_files: bool = True,
    photo_cache: str = "",
) -> Catalog:
    """Reads a catalogue by the name of its layout.

    Args:
        name: `"auto"` for what lies at `data_dir`, see `detect_layout`, or a layout, a key of `LOADERS`. Your own
            photos are in a table, `"csv"`, `"xlsx"` or `"parquet"`, or in folders of products, `"folder"`. The data
            sets of papers are `"sop"`, `"inshop"`, `"consumer_to_shop"`, `"cub"` and `"cars196"`. `"synthetic"` is
            drawn if need be.
        data_dir: where it is, a table's file or a folder; `"synthetic"` goes to `runs/synthetic_photos` if not told
            otherwise.
        columns: `{role: column}`, which columns of a table to use; see `load_csv`. For tables alone.
        separator: what stands between several values in a cell of a table; see `load_csv`. For tables alone.
        check_files: whether photos that are missing or empty are refused. If not, `eet_tf.data.readable` leaves them
            out, with those that cannot be decoded.
        photo_cache: folder in which photos at URLs are kept once they have been fetched; `""` for none.

    Raises:
        ValueError: if there is no such layout, `data_dir` is missing, the layout is no table and has no columns, or
            `photo_cache` cannot be written to.
        CatalogError: if the data are not as they should be.
    """
    known = ["auto", *sorted(LOADERS)]
    if name not in known:
        raise ValueError(f"`name` must be one of {', '.join(known)}. Received: name={name!r}.")
    if not data_dir:
        data_dir = _default_dir(name, data_dir)
    if photo_cache and (why := why_no_folder(photo_cache)):
        raise ValueError(f"`photo_cache` must be a folder. Received: photo_cache={photo_cache!r}, {why}.")
    try:
        catalog = _read(name, os.fspath(data_dir), columns, separator)
    except MissingPhotosError as error:
        if check_files:
            raise
        catalog = error.catalog
    return dataclasses.replace(catalog, photo_cache=photo_cache) if photo_cache else catalog


def _read(name: str, data_dir: str, columns, separator) -> Catalog:
    layout = detect_layout(data_dir) if name == "auto" else name
    if layout in _TABLES:
        return _TABLES[layout](data_dir, columns, separator)
    given = {"columns": columns, "separator": separator}
    wrong = [f"`{argument}` must be left out" for argument, value in given.items() if value]
    if wrong:
        raise ValueError(f"{' and '.join(wrong)} for the layout {layout!r}, which is no table with named columns.")
    return LOADERS[layout](data_dir)


def _default_dir(name: str, data_dir: object) -> str:
    if name == "synthetic":
        return _SYNTHETIC_DIR
    if name == "auto":
        raise ValueError(
            "`data_dir` must say where the photos are: a table that lists them, or a folder (--data=PATH). Received: "
            f"{data_dir!r}. To try it on photos that are drawn for it, use --dataset=synthetic."
        )
    raise ValueError(f"`data_dir` must say where the photos of a {name!r} dataset are. Received: {data_dir!r}.")
