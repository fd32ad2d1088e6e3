"""How a photo that TensorFlow does not read is converted, and what a converted catalogue looks like on disk."""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import dataclasses
import hashlib
import io
import os
import shutil
import urllib.parse
import warnings
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from eet_tf import files
from eet_tf.data import reasons, remote
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.folders import scan_folder
from eet_tf.data.limits import MAX_PIXELS
from eet_tf.wording import said_by

LIST = "catalog.csv"
_COLUMNS = ("sku", "category", "split")
_QUALITY = 95  # of JPEGs


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What became of a catalogue.

    Args:
        list_file: the new list.
        num_converted: photos that were converted, now or before.
        num_kept: photos that training reads as they are.
        failed: of each photo that could not be converted where it is listed, its file and the reason.
    """

    list_file: str
    num_converted: int
    num_kept: int
    failed: tuple[str, ...]


def load_folder_of_any_kind(data_dir: str) -> Catalog:
    """One folder per sku, by the rules of `load_folder`, with photos of kinds that are still to be converted.

    Raises:
        CatalogError: if there is no such folder or no photo in it, or something in it cannot be read.
    """
    found = scan_folder(data_dir).with_convertible()
    if not found.paths:
        raise CatalogError(f"{os.fspath(data_dir)!r} lists no photos in folders of products. {found.note()}".rstrip())
    return Catalog(found.paths, found.skus, root=data_dir, source=data_dir)


def convert_catalog(
    catalog: Catalog, output_dir: str | os.PathLike, progress: Callable[[int], None] | None = None
) -> Conversion:
    """Makes a folder with a catalogue that training reads whole: photos it reads, and others converted.

    - A photo is converted if the decoder of training refuses it and it is of a kind that Pillow reads: HEIC (with
      pillow-heif, the extra `[convert]`), AVIF, TIFF, JPEG 2000, Photoshop, unusual BMP.
    - It becomes a JPEG of quality 95, or a PNG if parts of it are transparent, upright, with its colour profile. Its
      name gets another ending behind its own: `front.heic.jpg`.
    - Photos that training reads are hard links to the originals, which take no space, or copies on another disk.
      Originals are not changed.
    - `catalog.csv` lists all of them. It is written last; called again, only what is missing is made.

    Args:
        catalog: the photos.
        output_dir: a folder outside of the catalogue's own.
        progress: called now and then with the number of photos looked at.

    Raises:
        ValueError: if `output_dir` lies in the catalogue's folder or cannot be written to.
        CatalogError: if the list could not hold all of the catalogue: roles, or attributes named as its columns are.

    Example:

    >>> import tempfile
    >>> folder, output_dir = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> Image.new("RGB", (40, 30)).save(f"{folder}/mug.tif")
    >>> convert_catalog(Catalog(["mug.tif"], ["mug"], root=folder), output_dir).num_converted
    1
    >>> sorted(os.listdir(output_dir))
    ['catalog.csv', 'mug.tif.jpg']
    """
    from eet_tf.data.reading import survey_files  # the one decoder, which loads TensorFlow

    _check_output(catalog, output_dir)
    _check_columns(catalog)
    sources = catalog.files.tolist()
    unread = survey_files(sources, 1, lambda row, decoded: None, progress, None, catalog.photo_cache)
    targets = [os.path.join(output_dir, name) for name in _names(catalog)]
    made: dict[int, str] = {}
    failed: dict[int, str] = {}

    def make(row: int) -> None:
        source = _Source(sources[row], catalog.photo_cache)
        try:
            made[row] = _converted(source, targets[row], unread[row]) if row in unread else _kept(source, targets[row])
        except _CannotConvertError as error:
            failed[row] = f"{catalog.where(row)}: {source.file!r}: {error}"

    _open_heif()
    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of photos that are large or damaged
        list(pool.map(make, range(len(catalog))))
    list_file = os.path.join(output_dir, LIST)
    _write_list(catalog, list_file, {row: os.path.relpath(made[row], output_dir) for row in sorted(made)})
    converted = len(made.keys() & unread.keys())
    return Conversion(list_file, converted, len(made) - converted, tuple(failed[row] for row in sorted(failed)))


class _CannotConvertError(Exception):
    """Why a photo cannot be converted."""


class _Source(NamedTuple):
    """A photo to convert.

    Args:
        file: of the photo, or a URL.
        photo_cache: folder in which photos at URLs are kept.
    """

    file: str
    photo_cache: str

    def open(self) -> BinaryIO:
        """Its bytes, to be read; raises `_CannotConvertError` if its server does not give them."""
        if not remote.is_url(self.file):
            return open(self.file, "rb")
        try:
            return io.BytesIO(remote.RemotePhotos(self.photo_cache).read(self.file))
        except remote.UnreadError as error:
            raise _CannotConvertError(str(error)) from error

    def is_older(self, target: str) -> bool:
        """Whether a file was made of it as it is now; what a URL names counts as the same for ever."""
        try:
            made = os.stat(target).st_mtime_ns
            return remote.is_url(self.file) or made >= os.stat(self.file).st_mtime_ns
        except OSError:
            return False


def _check_output(catalog: Catalog, output_dir: str | os.PathLike) -> None:
    output = os.path.realpath(output_dir)
    why = files.why_no_folder(output)
    if why:
        raise ValueError(f"`output_dir` must be a folder. Received: output_dir={os.fspath(output_dir)!r}, {why}.")
    root = os.path.realpath(catalog.root)
    if not remote.is_url(catalog.root) and os.path.commonpath([root, output]) == root:
        raise ValueError(
            "`output_dir` must lie outside of the catalogue's folder, whose photos stay as they are. Received: "
            f"output_dir={os.fspath(output_dir)!r}, which is in {root!r}."
        )


def _check_columns(catalog: Catalog) -> None:
    if catalog.roles is not None and (catalog.roles != "").any():
        raise CatalogError(
            f"{catalog.source} has photos that are queries or gallery, which a CSV cannot say. Convert its photos one "
            "folder at a time with --dataset=folder."
        )
    clashing = sorted({"path", *_COLUMNS} & catalog.attributes.keys())
    if clashing:
        raise CatalogError(
            f"{catalog.source} has attributes named {', '.join(map(repr, clashing))}, as the columns of a list are. "
            "Rename them."
        )


def _names(catalog: Catalog) -> list[str]:
    """Where each photo goes, without the ending that conversion adds; one from elsewhere gets a folder of its own."""
    names: list[str] = []
    taken: set[str] = set()
    for path in catalog.paths.tolist():
        name = os.path.normpath(os.path.relpath(path, catalog.root or os.curdir) if os.path.isabs(path) else path)
        if name.split(os.sep)[0] == os.pardir or "://" in path:
            digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
            name = os.path.join("elsewhere", digest, _last_part(path))
        if name in taken:  # `a.jpg` and `./a.jpg`, which are two photos to a catalogue
            name = os.path.join("again", str(len(names)), name)
        taken.add(name)
        names.append(name)
    return [f"{name}.converted" if taken & {f"{name}.jpg", f"{name}.png"} else name for name in names]


def _last_part(path: str) -> str:
    """The name of a photo's file; of a URL's without what no file name may be."""
    name = os.path.basename(urllib.parse.urlsplit(path).path if "://" in path else path)
    return name[-100:] if name not in ("", os.curdir, os.pardir) else "photo"


def _kept(source: _Source, target: str) -> str:
    if source.is_older(target):
        return target
    with _naming_the_disk(), files.replaced(target) as aside:
        if remote.is_url(source.file):
            with source.open() as opened, open(aside, "wb") as copy:
                shutil.copyfileobj(opened, copy)
            return target
        try:
            os.link(os.path.realpath(source.file), aside)
        except OSError:  # another disk, or one without links
            shutil.copy2(source.file, aside)
    return target


@contextlib.contextmanager
def _naming_the_disk():
    """An error of the system, in words."""
    try:
        yield
    except OSError as error:
        raise _CannotConvertError(f"it cannot be written: {said_by(error)}") from error


def _converted(source: _Source, target: str, why: str) -> str:
    """Writes a photo, which was refused for that reason, as a JPEG or PNG; returns its file."""
    if reasons.CONVERT not in why:
        raise _CannotConvertError(why)
    for done in (f"{target}.jpg", f"{target}.png"):
        if source.is_older(done):
            return done
    image = _opened(source, why.partition(",")[0].partition(";")[0])
    is_opaque = image.mode == "RGB"
    target, format = (f"{target}.jpg", "JPEG") if is_opaque else (f"{target}.png", "PNG")
    options = {"quality": _QUALITY, "subsampling": 0} if is_opaque else {}
    with _naming_the_disk(), files.replaced(target) as aside:
        image.save(aside, format, icc_profile=image.info.get("icc_profile"), **options)
    return target


def _opened(source: _Source, what: str) -> Image.Image:
    """A photo upright, in RGB or RGBA of 8 bits."""
    try:
        with source.open() as content, Image.open(content) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise _CannotConvertError(f"{what} of more than {MAX_PIXELS // 10**6} million pixels; make it smaller")
            opened.load()
            return _of_8_bits(ImageOps.exif_transpose(opened))
    except _CannotConvertError:
        raise
    except Exception as error:  # each of Pillow's decoders has its own
        raise _CannotConvertError(_cannot_open(what)) from error


def _cannot_open(what: str) -> str:
    if "HEIC" in what and not _has_heif():
        return f"{what}, which is read with pillow-heif: pip install 'eet-tf[convert]'"
    return f"{what} that is damaged or of an unusual kind; save it as a JPEG with another program"


def _of_8_bits(image: Image.Image) -> Image.Image:
    """What is not transparent becomes RGB; grey of 16 bits is divided, which Pillow would cut off."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        scale = 257.0 if values.max(initial=0) > 255 else 1.0
        return Image.fromarray(np.clip(values / scale + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise _CannotConvertError("its colours are floating-point numbers, of which nobody says what is white")
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.info = {} if profile is None else {"icc_profile": profile}
    return image


def _has_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    return bool(pillow_heif.__version__)


def _open_heif() -> None:
    """Lets Pillow open HEIC, where pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _write_list(catalog: Catalog, list_file: str, paths: dict[int, str]) -> None:
    columns = {"sku": catalog.skus, "category": catalog.categories, "split": catalog.splits}
    columns = {name: column for name, column in columns.items() if column is not None}
    columns |= {name: catalog.column_texts(name) for name in catalog.attributes}
    with (
        files.replaced(list_file) as aside,
        open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="") as opened,
    ):
        writer = csv.writer(opened)
        writer.writerow(["path", *columns])
        writer.writerows([path, *(str(column[row]) for column in columns.values())] for row, path in paths.items())
