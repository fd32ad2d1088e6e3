"""Finds the products of a catalogue that look like a photo.

python export/search.py --index_dir=runs/mine/index --query=photo.jpg --k=10 --report=found.html

With --where it looks among some photos only, and with --group_by_sku for different products:

python export/search.py --index_dir=runs/mine/index --query=photo.jpg --where=category=shoes --group_by_sku

With --server a TensorFlow Serving embeds the photo, and no model is loaded here:

python export/search.py --index_dir=runs/mine/index --query=photo.jpg --server=localhost:8500
"""

import os
import sys

import serving_flags  # beside this script
from absl import app, flags

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("index_dir", None, "An index that build_index.py wrote.", required=True)
flags.DEFINE_multi_string("query", None, "A photo; may be given several times.", required=True)
flags.DEFINE_integer("k", 10, "How many neighbours.", lower_bound=1)
flags.DEFINE_multi_string(
    "where",
    [],
    "What a photo must meet: colour=red, price>=10, price<=50, in_stock=true. All of them; several = are a choice.",
)
flags.DEFINE_bool("group_by_sku", False, "k different products, each by its best photo.")
flags.DEFINE_string("photo_root", None, "Where the catalogue's photos are, for the report; by default as indexed.")
flags.DEFINE_string("report", None, "Also write what was found as an HTML page.")


def _read(file: str) -> bytes:
    from eet_tf.data import reasons

    why = reasons.of_missing(file)
    if why:
        raise ValueError(f"--query must be a photo. Received: --query={file}: {why}.")
    with open(file, "rb") as photo:
        return photo.read()


def _embed(embedder, photos: list[bytes]):
    from eet_tf.data import reasons

    embeddings, is_image = embedder.embed(photos)
    complaints = commands.Complaints()
    for file, photo, fine in zip(FLAGS.query, photos, is_image):
        if not fine:
            why = reasons.without_command(reasons.of_bytes(photo, embedder.max_pixels))
            complaints.add(f"--query must be a JPEG, PNG, WebP, BMP or GIF. Received: --query={file}: {why}.")
    complaints.end()
    return embeddings


def _checked() -> tuple:
    """The index, the conditions and the photos; refuses in one go what cannot work."""
    from eet_tf.index import load_index, read_where

    complaints = commands.Complaints()
    complaints.file("report", FLAGS.report)
    complaints.existing("photo_root", FLAGS.photo_root)
    serving_flags.check(complaints)
    index = complaints.given("index_dir", FLAGS.index_dir, load_index, True)
    where = None if index is None else complaints.check(read_where, FLAGS.where, index.attributes)
    queries = [complaints.check(_read, file) for file in FLAGS.query]
    complaints.end()
    return index, where, queries


def _attribute_lines(embedder, photos: list[bytes]) -> list[str]:
    """For each photo what is to be seen in it, most certain first; empty if the model knows no attributes."""
    lines = []
    if FLAGS.server:  # it does not say their names
        return lines
    for probabilities in embedder.predict_attributes(photos) if embedder.attribute_names else ():
        likely = [row for row in zip(embedder.attribute_names, probabilities) if row[1] >= 0.5]
        shown = sorted(likely, key=lambda row: -row[1])[:8]
        lines.append("  attributes: " + (", ".join(f"{name} {100 * share:.0f} %" for name, share in shown) or "none"))
    return lines


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
    from eet_tf.client import ServingError

    try:
        index, where, queries = _checked()
        beside = {name: os.path.join(FLAGS.index_dir, path) for name, path in index.metadata.items()}
        with serving_flags.embedder(beside.get("saved_model", "")) as embedder:
            fingerprint = embedder.fingerprint
            neighbors = index.search(_embed(embedder, queries), FLAGS.k, where, FLAGS.group_by_sku, fingerprint)
            attributes = _attribute_lines(embedder, queries) or [None] * len(queries)
    except (ValueError, ServingError) as error:
        sys.exit(f"error: {error}")
    found = zip(FLAGS.query, attributes, neighbors.photos, neighbors.skus, neighbors.scores)
    for query, line, photos, skus, scores in found:
        print("\n".join(filter(None, [query, line, "  rank  score  sku  (photo)"])))
        for rank, (photo, sku, score) in enumerate(zip(photos, skus, scores), start=1):
            print(f"  {rank:4d}  {score:5.3f}  {sku}  ({photo})")
    if FLAGS.report:
        _write_report(neighbors, FLAGS.photo_root or beside.get("photo_root", ""))
        print(f"The page is {FLAGS.report}.")


if __name__ == "__main__":
    commands.run(main)
