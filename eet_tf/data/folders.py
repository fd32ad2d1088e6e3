"""A folder of products' folders: which files are photos, and what is passed over, with the reason."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from eet_tf.data import reasons
from eet_tf.data.catalog import CatalogError
from eet_tf.terminal import escaped, is_utf8

_PHOTO_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif")
_CONVERTED = {".heic": "HEIC", ".heif": "HEIC", ".hif": "HEIC", ".avif": "AVIF", ".tif": "TIFF", ".tiff": "TIFF"}
_TO_CONVERT = "to be converted with `eet convert`"
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # their lengths
# of NAS devices, operating systems and archives; what begins with a dot is passed over too
_OF_TOOLS = {
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "__pycache__", "$recycle.bin"),
    *("recycler", "system volume information", "lost+found", "found.000"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_TOOL = "hidden or of a tool"
_BESIDE = "beside the products' folders"
_NO_PHOTO = "of another kind"
_RAW = "camera's raw file, to be exported as JPEG"
_NOWHERE = "a link that leads nowhere"
_AROUND = "a link to a folder around it"
_NOT_UTF8 = "has a name that is not UTF-8"
_CLOSED = "cannot be read"
_MOST_NAMED = 3


class _Entry(NamedTuple):
    """A file or folder, relative to the products' folders, and why it is no photo; None if it is one."""

    path: str
    reason: str | None


@dataclasses.dataclass(frozen=True)
class FolderScan:
    """What a folder of products' folders holds.

    Args:
        paths: the photos, relative to the folder.
        skus: the product of each: the name of its folder.
        passed_over: reason -> files and folders that are no photos of a product.
        empty: products' folders of which nothing is left.
    """

    paths: tuple[str, ...]
    skus: tuple[str, ...]
    passed_over: Mapping[str, tuple[str, ...]]
    empty: tuple[str, ...]

    def with_convertible(self) -> FolderScan:
        """The same, with those among the photos that `eet convert` converts."""
        kept = {reason: names for reason, names in self.passed_over.items() if not reason.endswith(_TO_CONVERT)}
        moved = [path for reason in self.passed_over.keys() - kept for path in self.passed_over[reason]]
        inside = [path for path in moved if "/" in path]  # in a product's folder
        if len(inside) < len(moved):
            kept[_BESIDE] = tuple(sorted({*kept.get(_BESIDE, ()), *moved}.difference(inside)))
        rows = sorted([*zip(self.paths, self.skus), *((path, path.partition("/")[0]) for path in inside)])
        skus = tuple(sku for _, sku in rows)
        empty = tuple(product for product in self.empty if product not in skus)
        return FolderScan(tuple(path for path, _ in rows), skus, kept, empty)

    def notes(self) -> list[str]:
        """A text for each reason: how many there are, why, and which are the first."""
        return [
            f"{len(names)} {reason}: {_listed(names)}"
            for reason, names in (*self.passed_over.items(), *self._products())
        ]

    def _products(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(f"product{'s' * (len(self.empty) > 1)} without a photo", self.empty)] if self.empty else []

    def note(self) -> str:
        """All that is passed over, in a sentence; empty if nothing is.

        Example:

        >>> FolderScan(("mug/a.jpg",), ("mug",), {_BESIDE: ("loose.jpg",)}, ()).note()
        "1 file or folder is passed over: 1 beside the products' folders: loose.jpg."
        """
        count = sum(map(len, self.passed_over.values())) + len(self.empty)
        what = "1 file or folder is" if count == 1 else f"{count:,} files and folders are"
        return f"{what} passed over: {'; '.join(self.notes())}." if count else ""


def note_of_dataset(name: str, data_dir: str | None) -> str:
    """What reading a dataset passes over, in a sentence; empty if nothing. `catalog.notes` says it too."""
    return scan_folder(data_dir).note() if name == "folder" and data_dir else ""


def has_products(data_dir: str) -> bool:
    """Whether a folder has a folder with a photo in it, or with one to be converted; ends with the first."""
    tops = [entry.path for entry in _entries(data_dir, "", frozenset(), depth=0) if entry.reason == ""]
    outer = frozenset([_identity(data_dir)])
    inner = (entry for top in tops for entry in _entries(os.path.join(data_dir, top), top, outer, depth=1))
    return any(_is_picture(entry.reason) for entry in inner)


def _is_picture(reason: str | None) -> bool:
    return reason is None or reason == _RAW or reason.endswith(_TO_CONVERT)


def loose_photos(folder: str, names: Sequence[str]) -> list[str]:
    """Those of the names in a folder that are photos, or photos to be converted."""
    files = [name for name in names if not os.path.isdir(os.path.join(folder, name))]
    return [name for name in files if _is_picture(_reason(os.path.join(folder, name)))]


def scan_folder(data_dir: str) -> FolderScan:
    """Looks through `data_dir/<sku>/...`: photos of any depth belong to the product whose folder they are in.

    A photo is what ends like one (`.jpg`, `.jpeg`, `.jpe`, `.jfif`, `.png`, `.webp`, `.bmp`, `.dib`, `.gif`), and any
    other file that begins like one. Hidden folders and files are passed over, and those of tools.

    Raises:
        CatalogError: if there is no such folder, something in it cannot be read or has a name that is not UTF-8, or its
            folders are splits.
    """
    if not os.path.isdir(data_dir):
        raise CatalogError(f"`data_dir` must be a folder with one folder per sku. Received: data_dir={data_dir!r}.")
    if not is_utf8(data_dir):
        raise CatalogError(
            f"`data_dir` must have a name in UTF-8. Received: data_dir='{escaped(data_dir)}'. Rename it."
        )
    tops = list(_entries(data_dir, "", frozenset(), depth=0))
    outer = frozenset([_identity(data_dir)])
    products = [entry.path for entry in tops if entry.reason == ""]
    _refuse_splits(data_dir, products)
    found = {product: list(_entries(os.path.join(data_dir, product), product, outer, depth=1)) for product in products}
    entries = [*(entry for entry in tops if entry.reason), *(entry for inner in found.values() for entry in inner)]
    _refuse(data_dir, entries)
    photos = [(path, sku) for sku in products for path in sorted(path for path, reason in found[sku] if reason is None)]
    passed_over: dict[str, list[str]] = {}
    for path, reason in entries:
        if reason is not None:
            passed_over.setdefault(reason, []).append(path)
    skus = tuple(sku for _, sku in photos)
    reasons = {reason: tuple(names) for reason, names in passed_over.items()}
    return FolderScan(tuple(path for path, _ in photos), skus, reasons, tuple(sorted({*products} - {*skus})))


def _entries(folder: str, below: str, outer: frozenset, depth: int) -> Iterator[_Entry]:
    """What is in a folder, in sorted order and as deep as it goes; at depth 0 products' folders, with reason `""`."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError:
        yield _Entry(below or ".", _CLOSED)
        return
    outer |= {_identity(folder)}
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith(".") or entry.name.lower() in _OF_TOOLS:
            yield _Entry(path, _TOOL)
        elif not is_utf8(entry.name):
            yield _Entry(path, _NOT_UTF8)
        elif not os.path.exists(entry.path):
            yield _Entry(path, _NOWHERE)
        elif not os.path.isdir(entry.path):
            reason = _reason(entry.path)
            yield _Entry(path, _BESIDE if reason is None and depth == 0 else reason)
        elif _identity(entry.path) in outer:
            yield _Entry(path, _AROUND)
        elif depth == 0:
            yield _Entry(path, "")
        else:
            yield from _entries(entry.path, path, outer, depth + 1)


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _reason(file: str) -> str | None:
    """Why a file is no photo; None if it is one."""
    ending = os.path.splitext(file)[1].lower()
    if ending in _PHOTO_ENDINGS:
        return None
    if not os.path.isfile(file):  # a pipe or a device, which one may wait for
        return _NO_PHOTO
    try:
        with open(file, "rb") as opened:
            start = opened.read(32)
    except OSError:
        return _CLOSED
    if _begins_like_photo(start):
        return None
    if ending in reasons.RAW_ENDINGS:
        return _RAW
    kind = reasons.kind_to_convert(start) or _CONVERTED.get(ending)
    return f"{kind}, {_TO_CONVERT}" if kind else _NO_PHOTO


def _begins_like_photo(start: bytes) -> bool:
    is_bmp = start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return is_bmp or is_webp or start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(escaped, names[:_MOST_NAMED])) + more


def _refuse_splits(data_dir: str, products: list[str]) -> None:
    if products and {product.lower() for product in products} <= _SPLITS:
        raise CatalogError(
            f"`data_dir` must hold one folder per sku. Received: data_dir={data_dir!r}, whose folders are splits: "
            f"{', '.join(products)}. Give the folder of one split, or a CSV with a column `split`."
        )


def _refuse(data_dir: str, entries: list[_Entry]) -> None:
    mends = {
        _CLOSED: "Give yourself the right to read it, or move it away.",
        _NOT_UTF8: "Rename it, for example with `convmv -f latin1 -t utf8 -r --notest`.",
    }
    lines = []
    for reason, mend in mends.items():
        paths = tuple(entry.path for entry in entries if entry.reason == reason)
        if paths:
            lines.append(f"{data_dir}: {_listed(paths)}: {reason}. {mend}")
    if lines:
        raise CatalogError("\n".join(lines))
