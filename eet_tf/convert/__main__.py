"""Converts the photos of a catalogue that TensorFlow does not read, such as HEIC, AVIF and TIFF, to JPEG or PNG.

python -m eet_tf.convert --dataset=csv --data_dir=photos/catalog.csv --output_dir=converted

Ends with 0 if all photos can now be trained on, with 1 if some could not be converted or the catalogue must be mended,
with 2 if it was called wrongly.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from eet_tf.commands import os_error_text
from eet_tf.convert.conversion import Conversion, convert_catalog, load_folder_of_any_kind
from eet_tf.data.benchmarks import LOADERS, load_dataset
from eet_tf.data.catalog import CatalogError
from eet_tf.data.folders import scan_folder
from eet_tf.terminal import open_door


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m eet_tf.convert", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--dataset", default="csv", choices=sorted(LOADERS), help="layout of the photos, default csv")
    parser.add_argument("--data_dir", required=True, help="where they are; nothing in it is changed")
    parser.add_argument("--output_dir", required=True, help="the folder for converted photos and their catalog.csv")
    return parser


def _show_progress(done: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} photos read", end="", file=sys.stderr, flush=True)


def _say(result: Conversion) -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for line in result.failed:
        print(line)
    if result.failed:
        print(f"{len(result.failed)} photos cannot be converted; the list leaves them out.")
    print(f"{result.num_converted:,} photos converted, {result.num_kept:,} as they were.")
    print(f"The list is {result.list_file}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts as the command line says; returns the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        is_folder = parsed.dataset == "folder"
        catalog = (
            load_folder_of_any_kind(parsed.data_dir) if is_folder else load_dataset(parsed.dataset, parsed.data_dir)
        )
        if is_folder and (note := scan_folder(parsed.data_dir).with_convertible().note()):
            print(note)
        result = convert_catalog(catalog, parsed.output_dir, _show_progress)
    except (ValueError, OSError) as error:
        print(f"error: {os_error_text(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1 if isinstance(error, CatalogError) else 2
    _say(result)
    return int(bool(result.failed))


if __name__ == "__main__":
    open_door()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # photos are decoded by CPUs; a GPU's memory is for those who train
    sys.exit(main())
