"""The flags that name a catalogue and say how it is read, and the catalogue they name."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli.complaints import CommandError, Complaints
from eet_tf.cli.door import Definitions
from eet_tf.terminal import Progress
from eet_tf.wording import counted

LAYOUTS = ("csv", "xlsx", "parquet", "folder", "sop", "inshop", "consumer_to_shop", "cub", "cars196", "synthetic")


def define_catalog(define: Definitions, split: str | None = "all") -> None:
    """Defines `--data`, its layout and how it is read; with `split` also which part of it."""
    define.string(
        "data",
        None,
        "Path of the photos: a list (CSV, TSV, Excel, Parquet) with the columns path and sku, a folder with one folder "
        "per product, or the folder of a public data set.",
    )
    define.alias("data_dir", "data")
    define.enum(
        "dataset",
        "auto",
        ["auto", *LAYOUTS],
        "Layout of --data; auto recognises it by the files that lie there. synthetic draws a catalogue of its own.",
    )
    define.string("columns", None, "Columns of the list that have other names: path:image,sku:product_id.")
    define.string("separator", None, "Character between several values in one cell of the list, such as |.")
    define.string("photo_cache", None, "Folder in which photos at URLs are kept once they have been fetched.")
    if split is not None:
        define.string("split", split, "Part of the catalogue: train, validation, test or all.")


def define_unreadable(define: Definitions) -> None:
    """Defines `--skip_unreadable`."""
    define.bool(
        "skip_unreadable",
        False,
        "Leave out photos that are missing or cannot be read, and list them in skipped.csv.",
    )


def define_check(define: Definitions, before: str) -> None:
    """Defines `--check_photos`.

    Args:
        define: adds to the flags.
        before: what the check comes before, such as `"training"`.
    """
    define.bool("check_photos", True, f"Decode every photo once before {before}, and name all that cannot be read.")


def load(values: flags.FlagValues, check_files: bool = True):
    """The catalogue that the flags name; `--split` is not looked at.

    Args:
        values: the flags.
        check_files: whether photos that are missing are refused, unless `--skip_unreadable` leaves them out later.

    Raises:
        ValueError: if the flags do not name one, or it is not as it should be.
    """
    from eet_tf import data

    layout = layout_of(values)
    if values.columns == "":
        raise CommandError("--columns must be like path:image,sku:product_id. Received: --columns=.")
    columns = None if values.columns is None else data.read_columns(values.columns)
    check_files = check_files and not _skips(values)
    return data.load_dataset(layout, values.data, columns, values.separator, check_files, values.photo_cache or "")


def readable_part(catalog, values: flags.FlagValues, folder: str, max_pixels: int | None = None):
    """The photos that can be read: with `--skip_unreadable` those that are left, and otherwise all, or an error.

    Args:
        catalog: what was loaded.
        values: the flags.
        folder: where `skipped.csv` is written.
        max_pixels: of a photo at most; by default as training allows.

    Raises:
        CatalogError: names the photos that cannot be read, with their lines and reasons.
    """
    from eet_tf import data
    from eet_tf.data.limits import MAX_PIXELS

    if not _skips(values) and not _checks(values):
        return catalog
    progress = Progress("photos checked", len(catalog))
    if not _skips(values):
        data.check_photos([catalog], progress.update, max_pixels or MAX_PIXELS)
        progress.end(len(catalog))
        return catalog
    rest, skipped = data.readable(catalog, progress.update, max_pixels or MAX_PIXELS)
    progress.end(len(catalog))
    if skipped:
        file = os.path.join(folder, "skipped.csv")
        data.write_skipped(file, skipped)
        verb = "is" if len(skipped) == 1 else "are"
        print(f"{counted(len(skipped), 'photo')} that cannot be read {verb} left out: {file} says which, and why.")
    return rest


def layout_of(values: flags.FlagValues) -> str:
    """The layout that `--dataset` names, or that lies at `--data`.

    Raises:
        ValueError: if no path is given, or nothing there is recognised.
    """
    from eet_tf import data

    if values.dataset == "synthetic":
        return "synthetic"
    if not values.data:
        raise CommandError(
            "--data must be the path of your photos: a list, or a folder with one folder per product. Received: none. "
            "--dataset=synthetic draws a catalogue to try things with."
        )
    if not os.path.exists(values.data):
        raise CommandError(
            f"--data must be the path of your photos. Received: --data={values.data}, which does not exist."
        )
    return data.detect_layout(values.data) if values.dataset == "auto" else values.dataset


def _skips(values: flags.FlagValues) -> bool:
    return bool("skip_unreadable" in values and values.skip_unreadable)


def _checks(values: flags.FlagValues) -> bool:
    return "check_photos" not in values or values.check_photos


def complain(complaints: Complaints, values: flags.FlagValues) -> None:
    """Complains about flags that name no catalogue, as far as they alone tell."""
    complaints.folder("photo_cache", values.photo_cache)
    complaints.check(layout_of, values)


def tell_notes(catalog) -> None:
    """Prints what a reader of the catalogue should know, such as an encoding that was guessed."""
    for note in catalog.notes:
        print(note, flush=True)


def name_of(path: str) -> str:
    """A short name for the photos at a path, for folders that are made for them.

    Example:

    >>> name_of("photos/catalog.csv"), name_of("/data/Shoes 2026/"), name_of("lists/spring.xlsx")
    ('photos', 'Shoes_2026', 'spring')
    """
    base, ending = os.path.splitext(os.path.basename(os.path.abspath(path)))
    if base == "catalog" and ending:
        base = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in base) or "photos"
