"""A folder on disk -> Catalog, one function for each layout; readers, never downloaders."""

from __future__ import annotations

import csv
import os

from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.synthetic import make_synthetic_catalog

_PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_CSV_ROLES = ("path", "sku", "category", "split")
_SOP_HEADER = ["image_id", "class_id", "super_class_id", "path"]


def load_sop(data_dir: str) -> Catalog:
    """Stanford Online Products' layout: `Ebay_train.txt` and `Ebay_test.txt`.

    Their header is `image_id class_id super_class_id path`.

    Args:
        data_dir: folder that holds the two lists and the photos.

    Returns:
        A catalogue with splits `"train"` and `"test"`; skus are class ids, categories super-class ids.

    Raises:
        CatalogError: names the file and line of what is wrong.
    """
    rows = [row for split in ("train", "test") for row in _sop_rows(os.path.join(data_dir, f"Ebay_{split}.txt"), split)]
    paths, skus, categories, splits, places = zip(*rows) if rows else [()] * 5
    _check_listed_files(data_dir, paths, places)
    return Catalog(paths, skus, categories, splits=splits, root=data_dir, source=f"{data_dir}/Ebay_*.txt")


def _sop_rows(file: str, split: str):
    with _open_list(file) as lines:
        if next(lines, "").split() != _SOP_HEADER:
            raise CatalogError(f"{file}:1: the first line must be {' '.join(_SOP_HEADER)!r}.")
        for number, line in enumerate(lines, start=2):
            fields = line.split(maxsplit=3)
            if not fields:
                continue
            if len(fields) != 4:
                raise CatalogError(f"{file}:{number}: a row must have 4 fields. Received: {line.strip()!r}.")
            yield fields[3].strip(), fields[1], fields[2], split, f"{file}:{number}"


def load_csv(data_dir: str) -> Catalog:
    """A CSV list with a header: columns `path` and `sku`, optional `category` and `split`, any other is an attribute.

    Args:
        data_dir: the CSV file, or a folder that holds it as `catalog.csv`. Paths in it start from its folder.

    Raises:
        CatalogError: names the file and line of what is wrong.
    """
    file = os.path.join(data_dir, "catalog.csv") if os.path.isdir(data_dir) else data_dir
    with _open_list(file) as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            names = reader.fieldnames or []
            if "path" not in names or "sku" not in names or len(set(names)) < len(names):
                raise CatalogError(
                    f"{file}:1: the header must name columns 'path' and 'sku', and none twice. Received: {names}."
                )
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise CatalogError(f"{file}:{reader.line_num}: the row is no CSV: {error}. Look at its quotes.") from error
        except UnicodeDecodeError as error:
            raise CatalogError(f"{file} is not encoded as UTF-8: {error}. Save it as UTF-8.") from error
    for number, row in rows:
        if None in row or None in row.values():
            raise CatalogError(f"{file}:{number}: the row has not as many fields as the header, {len(names)}.")
    columns = {name: [row[name].strip() for _, row in rows] for name in names}
    numbers = [number for number, _ in rows]
    _check_listed_files(os.path.dirname(file), columns["path"], [f"{file}:{number}" for number in numbers])
    return Catalog(
        columns["path"],
        columns["sku"],
        columns.get("category"),
        {name: column for name, column in columns.items() if name not in _CSV_ROLES},
        columns.get("split"),
        root=os.path.dirname(file),
        source=file,
        lines=numbers,
    )


def load_folder(data_dir: str) -> Catalog:
    """One folder per sku: `data_dir/<sku>/<photo>`. Files that are no photos by their ending are passed over.

    Raises:
        CatalogError: if there is no such folder or no photo in it.
    """
    if not os.path.isdir(data_dir):
        raise CatalogError(f"`data_dir` must be a folder with one folder per sku. Received: data_dir={data_dir!r}.")
    skus = sorted(entry.name for entry in os.scandir(data_dir) if entry.is_dir())
    rows = [(f"{sku}/{name}", sku) for sku in skus for name in sorted(os.listdir(os.path.join(data_dir, sku)))]
    rows = [row for row in rows if row[0].lower().endswith(_PHOTO_ENDINGS)]
    paths, skus = zip(*rows) if rows else ((), ())
    return Catalog(paths, skus, root=data_dir, source=data_dir).check_files()


LOADERS = {"csv": load_csv, "folder": load_folder, "sop": load_sop, "synthetic": make_synthetic_catalog}
_SYNTHETIC_DIR = os.path.join("runs", "synthetic_photos")


def load_dataset(name: str, data_dir: str | None = None) -> Catalog:
    """A catalogue by the name of its layout: `"csv"`, `"folder"`, `"sop"`, or `"synthetic"`, which is drawn if need be.

    Args:
        name: the layout.
        data_dir: where it is; `"synthetic"` goes to `runs/synthetic_photos` if not told otherwise.

    Raises:
        ValueError: if there is no such layout, or `data_dir` is missing.
        CatalogError: if the data are not as they should be.
    """
    if name not in LOADERS:
        raise ValueError(f"`name` must be one of {', '.join(sorted(LOADERS))}. Received: name={name!r}.")
    if not data_dir:
        if name != "synthetic":
            raise ValueError(f"`data_dir` must say where the photos of a {name!r} dataset are. Received: {data_dir!r}.")
        data_dir = _SYNTHETIC_DIR
    return LOADERS[name](data_dir)


def _open_list(file: str):
    if not os.path.isfile(file):
        raise CatalogError(f"{file!r} does not exist. Check `data_dir`.")
    return open(file, encoding="utf-8-sig", newline="")


def _check_listed_files(root: str, paths, places) -> None:
    for path, place in zip(paths, places):
        file = os.path.join(root, path)
        if path and not os.path.isfile(file):
            raise CatalogError(f"{place}: photo file {file!r} does not exist. Mend the path or delete the row.")
