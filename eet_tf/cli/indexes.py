"""What the commands of an index share: its flag, the photos that go into it, and their embeddings."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli import catalogs
from eet_tf.cli.door import Definitions
from eet_tf.terminal import Progress


def define_index(define: Definitions) -> None:
    """Defines `--index_dir`."""
    define.string("index_dir", None, "Folder of an index that `eet index build` wrote.", required=True)


def define_photos(define: Definitions) -> None:
    """Defines the flags of photos that an index gets: which they are, how they are read, and what embeds them."""
    catalogs.define_catalog(define)
    catalogs.define_unreadable(define)
    catalogs.define_check(define, "the first is embedded")
    define.string("saved_model", None, "Path of the SavedModel that embeds. By default that of the index.")
    define.integer("batch_size", 64, "Number of photos embedded at once.", lower_bound=1)


def load_part(values: flags.FlagValues):
    """The part of the catalogue that the flags name, whose photos are not looked at yet.

    Raises:
        ValueError: if the flags do not name one.
    """
    return catalogs.load(values).split(values.split)


def columns_of(catalog, kinds: dict[str, str] | None = None) -> dict:
    """What an index keeps of each photo: its category, its attributes and, where there is one, its split.

    Args:
        catalog: the photos.
        kinds: `index.attributes` of an index that they are added to; None where it is being built.
    """
    splits = {} if catalog.splits is None else {"split": catalog.splits}
    return {**catalog.columns(kinds), **splits}


def beside_versions(folder: str) -> str:
    """The folder that holds the folder of an export's versions, given that or one version in it."""
    versions = os.path.abspath(folder)
    if os.path.basename(versions).isdecimal():  # one version
        versions = os.path.dirname(versions)
    beside = os.path.dirname(versions)
    if os.path.isabs(folder):
        return beside
    relative = os.path.relpath(beside)
    return "" if relative == os.curdir else relative


def embedded(embedder, catalog, batch_size: int):
    """`[N, D]`, a catalogue's embeddings, with its progress shown."""
    progress = Progress("photos embedded", len(catalog))
    embeddings = embedder.embed_catalog(catalog, batch_size, progress.update)
    progress.end(len(catalog))
    return embeddings


def beside(index, folder: str) -> dict[str, str]:
    """The paths that an index's metadata name, `saved_model` and `photo_root`, from where this process is."""
    from eet_tf.data.remote import is_url, joined

    paths = {name: joined(folder, path) for name, path in index.metadata.items()}
    return {name: path if is_url(path) else os.path.normpath(path) for name, path in paths.items()}


def load_index(complaints, folder: str, read_only: bool = True):
    """The index of a folder; refusals are complaints about `--index_dir`."""
    from eet_tf.index import load_index

    return complaints.given("index_dir", folder, load_index, read_only)
