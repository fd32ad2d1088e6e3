"""`eet convert`: converts photos that TensorFlow does not read, such as HEIC, AVIF and TIFF, to JPEG or PNG."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli import catalogs
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.terminal import Progress

_HELP = """\
Converts the photos of a catalogue that TensorFlow does not read, such as HEIC, AVIF and TIFF, to JPEG or PNG in another
folder, and writes a list of all photos there. Nothing at --data is changed. It ends with 0 if all photos can now be
trained on, and with 1 if some could not be converted.

Example:
  eet convert --data=photos/catalog.csv --output_dir=converted"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
catalogs.define_catalog(define, split=None)
define.string("output_dir", None, "Folder for the converted photos and their catalog.csv.", required=True)


def _main(_) -> int:
    """Converts, says what could not be."""
    from eet_tf.convert import convert_catalog, load_folder_of_any_kind
    from eet_tf.data.folders import scan_folder

    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # photos are decoded by CPUs; a GPU's memory is for those who train
    complaints = Complaints()
    complaints.folder("output_dir", FLAGS.output_dir)
    layout = complaints.check(catalogs.layout_of, FLAGS)
    complaints.end()
    is_folder = layout == "folder"
    catalog = load_folder_of_any_kind(FLAGS.data) if is_folder else catalogs.load(FLAGS)
    if is_folder and (note := scan_folder(FLAGS.data).with_convertible().note()):
        print(note)
    progress = Progress("photos read", len(catalog))
    result = convert_catalog(catalog, FLAGS.output_dir, progress.update)
    progress.end(len(catalog))
    for line in result.failed:
        print(line)
    if result.failed:
        count = len(result.failed)
        print(f"{count:,} photo{'s' * (count != 1)} cannot be converted; the list leaves them out.")
    print(f"{result.num_converted:,} photos converted, {result.num_kept:,} as they were.")
    print(f"The list is {result.list_file}.")
    return int(bool(result.failed))


COMMAND = Command(_main, FLAGS, _HELP)
