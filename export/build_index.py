"""Embeds a catalogue through a SavedModel and builds the index that is searched.

    python export/build_index.py --saved_model=runs/mine/serving --dataset=csv --data_dir=photos/catalog.csv \
        --split=all --output_dir=runs/mine/index

With --embeddings_dir instead of --saved_model it takes the embeddings that embed_beam.py wrote.
"""

import os
import sys

from absl import app, flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
_DATASETS = ["synthetic", "csv", "folder", "sop"]
flags.DEFINE_string("saved_model", None, "A SavedModel, or its base path: the newest version.")
flags.DEFINE_string("embeddings_dir", None, "Embeddings that embed_beam.py wrote; instead of --saved_model.")
flags.mark_flags_as_mutual_exclusive(["saved_model", "embeddings_dir"], required=True)
flags.DEFINE_enum("dataset", None, _DATASETS, "Layout of the photos.", required=True)
flags.DEFINE_string("data_dir", None, "Where the photos are.")
flags.DEFINE_string("split", "all", "Which part of the catalogue; all of it by default.")
flags.DEFINE_enum("index", "scann", ["scann", "exact"], "Kind of index.")
flags.DEFINE_string("output_dir", None, "The index folder; an index in it is replaced.", required=True)
flags.DEFINE_integer("batch_size", 64, "Photos embedded at once.", lower_bound=1)


def _embed(embedder, catalog):
    """The catalogue's embeddings, with a progress bar; refuses photos that are no images."""
    import keras
    import numpy as np

    from eet_tf.data import CatalogError

    files, embeddings, unreadable = catalog.files, [], []
    bar = keras.utils.Progbar(len(files), unit_name="photo")
    for start in range(0, len(files), FLAGS.batch_size):
        photos = [_read(file) for file in files[start : start + FLAGS.batch_size]]
        vectors, is_image = embedder.embed(photos)
        embeddings.append(vectors)
        unreadable.extend(start + np.flatnonzero(~is_image))
        bar.update(start + len(photos))
    if unreadable:
        shown = "\n".join(f"{catalog.where(row)}: {files[row]!r}" for row in unreadable[:5])
        raise CatalogError(f"{len(unreadable)} photos are no images. Replace them or delete their rows:\n{shown}")
    return np.concatenate(embeddings)


def _read(file: str) -> bytes:
    with open(file, "rb") as photo:
        return photo.read()


def _embeddings(catalog):
    """The catalogue's embeddings, their fingerprint and the SavedModel's folder; from files, or embedded here."""
    if FLAGS.embeddings_dir is not None:
        from eet_tf.embedding_files import open_folder

        files = open_folder(FLAGS.embeddings_dir)
        return files.read(catalog.paths), files.fingerprint, os.path.join(files.folder, files.saved_model)
    from eet_tf.serving import ServedEmbedder

    embedder = ServedEmbedder(FLAGS.saved_model)
    return _embed(embedder, catalog), embedder.fingerprint, embedder.folder


def main(argv):
    """Checks everything that can be checked early, then embeds and builds."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    from eet_tf import data, index

    try:
        index.check_replaceable(FLAGS.output_dir)
        catalog = data.load_dataset(FLAGS.dataset, FLAGS.data_dir).split(FLAGS.split).check_files()
        embeddings, fingerprint, saved_model = _embeddings(catalog)
        kind = {"scann": index.ScannIndex, "exact": index.ExactIndex}[FLAGS.index]
        built = kind.build(
            embeddings,
            catalog.skus,
            catalog.paths,
            fingerprint=fingerprint,
            metadata={
                "saved_model": os.path.relpath(saved_model, FLAGS.output_dir),
                "photo_root": os.path.relpath(catalog.root, FLAGS.output_dir),
            },
        )
        built.save(FLAGS.output_dir)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"The index of {built.size} photos is {FLAGS.output_dir}.")


if __name__ == "__main__":
    app.run(main)
