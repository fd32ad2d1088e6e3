"""`eet embed`: embeds a catalogue on many machines, with Apache Beam, into files that `eet index build` reads."""

from __future__ import annotations

import contextlib
import os
import threading
import time

from absl import flags, logging

from eet_tf.cli import catalogs
from eet_tf.cli.complaints import CommandError, Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.terminal import Progress
from eet_tf.wording import counted

_HELP = """\
Embeds a catalogue through a SavedModel with Apache Beam, into files that `eet index build --embeddings_dir` reads.
Killed and run again, it embeds only what is not done. It runs on this machine; every further flag is Beam's. Workers
must have this package and see the photos, the SavedModel and the output under the same paths. It needs
`pip install 'eet-tf[beam]'`.

Examples:
  eet embed --saved_model=runs/mine/serving --data=photos/catalog.csv --output_dir=runs/mine/embeddings
  eet embed --saved_model=runs/mine/serving --data=photos/catalog.csv --output_dir=runs/mine/embeddings \\
      --direct_num_workers=4 --direct_running_mode=multi_processing
  eet index build --embeddings_dir=runs/mine/embeddings --data=photos/catalog.csv --output_dir=runs/mine/index"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string(
    "saved_model", None, "Path of a SavedModel, or of the folder of its versions: the newest is used.", required=True
)
catalogs.define_catalog(define)
define.string("output_dir", None, "Folder of the embeddings. Files that are complete are kept.", required=True)
define.integer("num_shards", None, "Number of files. By default one per 5,000 photos.", lower_bound=1)
define.integer("batch_size", 64, "Number of photos embedded at once.", lower_bound=1)


def _library():
    """The part that needs Beam; says how to install it if it is not there."""
    logging.set_verbosity(logging.FATAL)  # what goes wrong comes as an exception
    try:
        from eet_tf.embedding import beam
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("apache_beam"):
            raise
        raise CommandError("`eet embed` needs Apache Beam: pip install 'eet-tf[beam]'") from error
    return beam


def _prepare(embedder, num_photos: int):
    """The folder of embeddings, ready to be written to; says if another model's are in it."""
    from eet_tf.embedding import files as embedding_files

    folder = os.path.abspath(FLAGS.output_dir)
    existing = embedding_files.find_folder(folder)
    if existing is not None and existing.fingerprint != embedder.fingerprint:
        print(f"{FLAGS.output_dir} holds embeddings of another model; they are replaced.")
    files = embedding_files.EmbeddingFolder(
        folder,
        embedder.fingerprint,
        embedder.embedding_dim,
        embedding_files.choose_num_shards(FLAGS.num_shards, existing, num_photos),
        os.path.relpath(embedder.folder, folder),
    )
    files.save()
    return files


def _undone(files, photos: list[str]) -> list[tuple[int, list[str]]]:
    """The shards to embed, each with its photos; says how many are done."""
    shards = [(shard, [photos[row] for row in rows]) for shard, rows in enumerate(files.deal(photos))]
    undone = [(shard, names) for shard, names in shards if not files.is_done(shard, names)]
    print(f"{len(shards) - len(undone)} of {len(shards)} shards are done.", flush=True)
    return undone


@contextlib.contextmanager
def _progress(files, shards):
    """Shows how many photos are embedded. Files appearing tell it, since that is the same with every runner."""
    before = {shard: _version(files.file(shard)) for shard, _ in shards}
    sizes = {shard: len(names) for shard, names in shards}
    bar = Progress("photos embedded", sum(sizes.values()))
    ended = threading.Event()

    def watch():
        is_last, shown = False, 0
        while not is_last:
            is_last = ended.wait(1)
            done = sum(size for shard, size in sizes.items() if _version(files.file(shard)) != before[shard])
            if done > shown:
                bar.update(done)
            shown = done

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _version(file: str):
    """Changes whenever the file is replaced; None where there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _refuse_unreadable(files, catalog, max_pixels: int) -> None:
    """Ends with an error if photos are no images; the others are embedded all the same."""
    from eet_tf.data import CatalogError, reasons

    unreadable = files.unreadable(catalog.paths)
    if unreadable:
        named = [(catalog.where(row), str(catalog.files[row])) for row in unreadable]
        lines = [f"{where}: {file!r}: {reasons.of_file(file, max_pixels)}" for where, file in named]
        raise CatalogError(
            f"{reasons.unreadable_message(lines, len(catalog))}\n"
            "All others are embedded. Then run the same command again."
        )


def _catalog():
    return catalogs.load(FLAGS).split(FLAGS.split)


def _checked(beam, flags_of_beam: list[str]) -> tuple:
    """Beam's options, the photos and what embeds them; refuses in one go what cannot work."""
    from eet_tf.embedding import files as embedding_files
    from eet_tf.serving import ServedEmbedder

    complaints = Complaints()
    complaints.folder("output_dir", FLAGS.output_dir)
    complaints.given("output_dir", FLAGS.output_dir, embedding_files.find_folder)
    options = complaints.check(beam.pipeline_options, flags_of_beam)
    catalog = complaints.check(_catalog)
    embedder = complaints.given("saved_model", FLAGS.saved_model, ServedEmbedder)
    complaints.end()
    catalogs.tell_notes(catalog)
    return options, catalog, embedder


def _main(flags_of_beam: list[str]) -> None:
    """Checks everything that can be checked early, then embeds what is not done."""
    from eet_tf.data.remote import joined

    beam = _library()
    options, catalog, embedder = _checked(beam, flags_of_beam)
    files = _prepare(embedder, len(catalog))
    shards = _undone(files, catalog.paths.tolist())
    root = joined(os.getcwd(), catalog.root)
    saved_model = os.path.abspath(embedder.folder)
    embed = beam.EmbedShard(files, saved_model, root, FLAGS.batch_size, catalog.photo_cache)
    max_pixels = embedder.max_pixels
    del embedder  # the workers load their own
    start = time.monotonic()
    if shards:
        with _progress(files, shards):
            beam.embed_shards(options, embed, shards)
    seconds = time.monotonic() - start
    _refuse_unreadable(files, catalog, max_pixels)
    if shards:
        num_photos = sum(len(names) for _, names in shards)
        print(f"Embedded {counted(num_photos, 'photo')}, {num_photos / seconds:.1f} a second.")
    print(f"The embeddings of {counted(len(catalog), 'photo')} are in {FLAGS.output_dir}.")


COMMAND = Command(_main, FLAGS, _HELP, takes="[flags of Beam]", leaves_rest=True)
