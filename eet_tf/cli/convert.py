"""`eet convert`: converts photos that TensorFlow does not read, such as HEIC, AVIF and TIFF, to JPEG or PNG."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli import catalogs
from eet_tf.cli.complaints import CommandError, Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.terminal import Progress
from eet_tf.wording import counted

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
    from eet_tf.data import CatalogError
    from eet_tf.data.folders import scan_folder

    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # photos are decoded by CPUs; a GPU's memory is for those who train
    complaints = Complaints()
    complaints.folder("output_dir", FLAGS.output_dir)
    catalogs.complain(complaints, FLAGS)
    layout = complaints.check(catalogs.layout_of, FLAGS)
    complaints.end()
    is_folder = layout == "folder"
    catalog = load_folder_of_any_kind(FLAGS.data) if is_folder else catalogs.load(FLAGS, check_files=False)
    if is_folder and (note := scan_folder(FLAGS.data).with_convertible().note()):
        print(note)
    progress = Progress("photos read", len(catalog))
    try:
        result = convert_catalog(catalog, FLAGS.output_dir, progress.update)
    except CatalogError:
        raise
    except ValueError as error:  # of the folder
        raise CommandError(str(error)) from error
    progress.end(len(catalog))
    for line in result.failed:
        print(line)
    if result.failed:
        print(f"{counted(len(result.failed), 'photo')} cannot be converted; the list leaves them out.")
    as_they_were = "as it was" if result.num_kept == 1 else "as they were"
    print(f"{counted(result.num_converted, 'photo')} converted, {result.num_kept:,} {as_they_were}.")
    print(f"The list is {result.list_file}.")
    return int(bool(result.failed))


COMMAND = Command(_main, FLAGS, _HELP)
