"""Finds the products of a catalogue that look like a photo.

python export/search.py --index_dir=runs/mine/index --query=photo.jpg --k=10 --report=found.html
"""

import os
import sys

from absl import app, flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("index_dir", None, "An index that build_index.py wrote.", required=True)
flags.DEFINE_multi_string("query", None, "A photo; may be given several times.", required=True)
flags.DEFINE_integer("k", 10, "How many neighbours.", lower_bound=1)
flags.DEFINE_string("saved_model", None, "The SavedModel that embeds the query; by default the index's own.")
flags.DEFINE_string("photo_root", None, "Where the catalogue's photos are, for the report; by default as indexed.")
flags.DEFINE_string("report", None, "Also write what was found as an HTML page.")


def _read(file: str) -> bytes:
    if not os.path.isfile(file):
        raise ValueError(f"`query` must be a photo. Received: query={file!r}, which does not exist.")
    with open(file, "rb") as photo:
        return photo.read()


def _embed(embedder, files: list[str]):
    embeddings, is_image = embedder.embed([_read(file) for file in files])
    for file, fine in zip(files, is_image):
        if not fine:
            raise ValueError(f"`query` must be a JPEG, PNG, WebP, BMP or GIF. Received: query={file!r}, which is none.")
    return embeddings


def _write_report(neighbors, photo_root: str) -> None:
    from eet_tf.report import Neighbor, SearchResult, write_report

    results = []
    for query, photos, skus, scores in zip(FLAGS.query, neighbors.photos, neighbors.skus, neighbors.scores):
        found = zip(photos, skus, scores)
        rows = [Neighbor(os.path.join(photo_root, photo), str(sku), float(score)) for photo, sku, score in found]
        results.append(SearchResult(query, None, rows))
    write_report(FLAGS.report, "What was found", results=results)


def main(argv):
    """Loads the index and its embedder, searches, prints."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    from eet_tf.index import load_index
    from eet_tf.serving import ServedEmbedder

    try:
        index = load_index(FLAGS.index_dir)
        beside = {name: os.path.join(FLAGS.index_dir, path) for name, path in index.metadata.items()}
        embedder = ServedEmbedder(FLAGS.saved_model or beside.get("saved_model", ""))
        neighbors = index.search(_embed(embedder, FLAGS.query), FLAGS.k, fingerprint=embedder.fingerprint)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for query, photos, skus, scores in zip(FLAGS.query, neighbors.photos, neighbors.skus, neighbors.scores):
        print(f"{query}\n  rank  score  sku  (photo)")
        for rank, (photo, sku, score) in enumerate(zip(photos, skus, scores), start=1):
            print(f"  {rank:4d}  {score:5.3f}  {sku}  ({photo})")
    if FLAGS.report:
        _write_report(neighbors, FLAGS.photo_root or beside.get("photo_root", ""))
        print(f"The page is {FLAGS.report}.")


if __name__ == "__main__":
    app.run(main)
