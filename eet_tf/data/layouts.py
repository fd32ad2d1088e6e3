"""What lies at a path -> the name of its layout; nothing is guessed where two are possible."""

from __future__ import annotations

import os
from collections.abc import Iterator

from eet_tf.data.catalog import CatalogError
from eet_tf.data.deepfashion import benchmark_in
from eet_tf.data.folders import has_products, loose_photos
from eet_tf.wording import counted, shown_path

_TABLES = {".csv": "csv", ".tsv": "csv", ".xlsx": "xlsx", ".parquet": "parquet"}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_MOST_LOOKED_INTO = 20  # folders; an archive unpacks to one or a few
_MOST_NAMED = 5
_KNOWN = (
    "a CSV, TSV, Excel or Parquet table, a folder with one that is named catalog, a data set of a paper, or one folder "
    "for each product"
)


def detect_layout(path: str | os.PathLike) -> str:
    """Tells the layout of a dataset by what lies at a path.

    - A file that ends in `.csv`, `.tsv` or `.txt` is `"csv"`; one in `.xlsx` or `.parquet` is what it says.
    - A folder with exactly one table named `catalog` has that table's layout.
    - A folder with the lists of a data set of a paper is `"sop"`, `"inshop"`, `"consumer_to_shop"`, `"cub"` or
      `"cars196"`.
    - Any other folder with photos in folders is `"folder"`, one for each product.

    Args:
        path: the file or folder, as `load_dataset` takes it.

    Returns:
        The `name` that `load_dataset` takes.

    Raises:
        CatalogError: if nothing or more than one layout fits; lists what lies there and what to do.

    Example:

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> size = (folder / "catalog.tsv").write_text("path\\tsku\\n")
    >>> detect_layout(folder)
    'csv'
    """
    path = shown_path(os.fspath(path))
    if os.path.isfile(path):
        return _layout_of_file(path)
    if not os.path.isdir(path):
        raise CatalogError(f"`path` must be {_KNOWN}. Received: path={path!r}, which does not exist.")
    found = _signs(path)
    if len(found) == 1:
        return found[0][0]
    if found:
        files = ", ".join(file for _, file in found)
        raise CatalogError(
            f"{path!r} has more than one list of photos: {files}. Give the one to read, such as "
            f"{os.path.join(path, found[0][1])}, or say which layout to read with --dataset={found[0][0]}."
        )
    _refuse_folders_around(path)
    _refuse_other_tables(path)
    if not has_products(path):
        raise _nothing_fits(path)
    return "folder"


def _layout_of_file(path: str) -> str:
    ending = os.path.splitext(path)[1].lower()
    layout = "csv" if ending == ".txt" else _TABLES.get(ending)
    if layout:
        return layout
    mends = {".xls": "Save it as .xlsx or CSV.", **dict.fromkeys(_ARCHIVES, "Unpack it, and give the folder.")}
    mend = mends.get(ending, "Give the table that lists your photos, or the folder that they are in.")
    raise CatalogError(f"`path` must be {_KNOWN}. Received: path={path!r}, which is none of these. {mend}")


def _signs(folder: str) -> list[tuple[str, str]]:
    """The layouts whose lists are in a folder, each with the list by which it is known."""
    found = [(layout, f"catalog{ending}") for ending, layout in _TABLES.items() if _has(folder, f"catalog{ending}")]
    found += [("sop", name) for name in ("Ebay_train.txt", "Ebay_test.txt") if _has(folder, name)][:1]
    partition = benchmark_in(folder)
    found += [(partition, "list_eval_partition.txt")] if partition else []
    found += [("cub", "images.txt")] if _has(folder, "images.txt") and _has(folder, "image_class_labels.txt") else []
    cars = ("cars_annos.mat", os.path.join("devkit", "cars_meta.mat"))
    return found + [("cars196", name) for name in cars if _has(folder, name)][:1]


def _has(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))


def _refuse_folders_around(path: str) -> None:
    """Refuses a folder around a dataset, as archives unpack to: that one's folders are no products."""
    folders = [name for name in _visible(path) if os.path.isdir(os.path.join(path, name))]
    if len(folders) > _MOST_LOOKED_INTO:
        return
    for name in folders:
        inner = os.path.join(path, name)
        for layout, file in _signs(inner):
            raise CatalogError(
                f"{path!r} holds a dataset in a folder of it: {os.path.join(name, file)} is a list of the layout "
                f"{layout}. Give {inner!r}; if its folders are products, say so with --dataset=folder."
            )


def _refuse_other_tables(path: str) -> None:
    tables = [name for name in _visible(path) if os.path.splitext(name)[1].lower() in _TABLES and _has(path, name)]
    if tables:
        folders = ", or say --dataset=folder if each folder in it is a product" if has_products(path) else ""
        raise CatalogError(
            f"{path!r} has {_named(tables)}, and none is named catalog. Give the table that lists the photos, such as "
            f"{os.path.join(path, tables[0])}{folders}."
        )


def _visible(folder: str) -> Iterator[str]:
    try:
        return iter([name for name in sorted(os.listdir(folder)) if not name.startswith(".")])
    except OSError as error:
        raise CatalogError(f"{folder!r} cannot be read. Give yourself the right to read it.") from error


def _nothing_fits(path: str) -> CatalogError:
    names = list(_visible(path))
    loose = loose_photos(path, names)
    folders = [name for name in names if os.path.isdir(os.path.join(path, name))]
    others = [name for name in names if name not in loose and name not in folders]
    found = [
        *([counted(len(loose), "photo") + " beside each other"] if loose else []),
        *([f"{counted(len(folders), 'folder')} without a photo"] if folders else []),
        *([_named(others)] if others else []),
    ]
    return CatalogError(
        f"`path` must be {_KNOWN}. Received: path={path!r}, in which there is {', '.join(found) or 'nothing'}. "
        f"{_mend(loose, others)}"
    )


def _mend(loose: list[str], others: list[str]) -> str:
    archives = [name for name in others if os.path.splitext(name)[1].lower() in _ARCHIVES]
    if archives:
        return f"Unpack {archives[0]}, and give the folder that it makes."
    if loose:
        return (
            "Put the photos of each product into a folder of its own, or list all in a catalog.csv with the columns "
            "path and sku."
        )
    return "Give the folder that the photos are in, or the table that lists them."


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
