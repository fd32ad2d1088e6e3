"""`eet search`: finds the products of a catalogue that look like a photo."""

from __future__ import annotations

import csv
import json
import math
import sys

from absl import flags

from eet_tf.cli import indexes, queries
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions

_HELP = """\
Finds the photos of an index that look most like a photo, with their products, scores (cosine similarities, larger is
closer) and attributes. Several photos are searched at once, which loads the model once.

Examples:
  eet search photo.jpg --index_dir=runs/mine/index
  eet search *.jpg --index_dir=runs/mine/index --k=5 --json > found.json
  eet search photo.jpg --index_dir=runs/mine/index --where="category=shoes" --where="price<50" --group_by_sku
  eet search photo.jpg --index_dir=runs/mine/index --server=localhost:8500
  eet search photo.jpg --index_dir=runs/mine/index --report=found.html

Conditions of --where: colour=red, colour!=red, price>=10, price<50, "colour in red,blue", "name contains wool". All of
them must be met; several = of one attribute are a choice."""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
indexes.define_index(define)
define.multi_string("query", [], "Path of a photo; the same as naming it without the flag.")
define.integer("k", 10, "Number of photos found for each query.", lower_bound=1)
define.multi_string("where", [], "Condition that a photo must meet, such as price<50; may be given several times.")
define.bool("group_by_sku", False, "Find k different products, each by its best photo.")
define.bool("json", False, "Print what was found as JSON: one object for each query.")
define.bool("csv", False, "Print what was found as CSV: one row for each photo found.")
flags.mark_bool_flags_as_mutual_exclusive(["json", "csv"], flag_values=FLAGS)
define.string("report", None, "File of an HTML page with what was found.")
define.string("photo_root", None, "Folder of the catalogue's photos, for the page; by default as indexed.")
queries.define_embedder(define, FLAGS)


def _read(file: str) -> bytes:
    from eet_tf.data import reasons

    why = reasons.of_missing(file)
    if why:
        raise ValueError(f"a query must be a photo. Received: --query={file}: {why}.")
    with open(file, "rb") as photo:
        return photo.read()


def _embed(embedder, files: list[str], photos: list[bytes]):
    from eet_tf.data import reasons

    embeddings, is_image = embedder.embed(photos)
    complaints = Complaints()
    for file, photo, fine in zip(files, photos, is_image):
        if not fine:
            why = reasons.without_command(reasons.of_bytes(photo, embedder.max_pixels))
            complaints.add(f"a query must be a JPEG, PNG, WebP, BMP or GIF. Received: --query={file}: {why}.")
    complaints.end()
    return embeddings


def _checked(files: list[str]) -> tuple:
    """The index, the conditions and the photos; refuses in one go what cannot work."""
    from eet_tf.index import read_where

    complaints = Complaints()
    complaints.file("report", FLAGS.report)
    complaints.existing("photo_root", FLAGS.photo_root)
    queries.check(complaints, FLAGS)
    index = indexes.load_index(complaints, FLAGS.index_dir)
    where = None if index is None else complaints.check(read_where, FLAGS.where, index.attributes)
    if not files:
        complaints.add("name at least one photo to search with: eet search photo.jpg. Received: none.")
    photos = [complaints.check(_read, file) for file in files]
    complaints.end()
    return index, where, photos


def _seen(embedder, photos: list[bytes]) -> list[dict[str, float]]:
    """For each photo the attributes to be seen in it with their probabilities, most certain first; the likely ones."""
    if not embedder.attribute_names:
        return [{} for _ in photos]
    rows = embedder.predict_attributes(photos)
    likely = [[pair for pair in zip(embedder.attribute_names, map(float, row)) if pair[1] >= 0.5] for row in rows]
    return [dict(sorted(pairs, key=lambda pair: -pair[1])[:8]) for pairs in likely]


def _fingerprint_for(index, embedder) -> str:
    """The embedder's fingerprint, or the index's where the embedder says that it can search it: its teacher's."""
    return index.fingerprint if index.fingerprint in embedder.compatible_with else embedder.fingerprint


def _main(files: list[str]) -> None:
    """Loads the index and its embedder, searches, prints."""
    from eet_tf.client import ServingError

    files = [*FLAGS.query, *files]
    index, where, photos = _checked(files)
    beside = indexes.beside(index, FLAGS.index_dir)
    try:
        with queries.embedder(FLAGS, beside.get("saved_model", "")) as embedder:
            fingerprint = _fingerprint_for(index, embedder)
            embeddings = _embed(embedder, files, photos)
            neighbors = index.search(embeddings, FLAGS.k, where, FLAGS.group_by_sku, fingerprint, with_attributes=True)
            seen = _seen(embedder, photos)
    except ServingError as error:
        raise ValueError(str(error)) from error
    found = _found(files, seen, neighbors)
    if FLAGS.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif FLAGS.csv:
        _print_csv(found, list(index.attributes))
    else:
        _print_table(found)
    if FLAGS.where and not any(each["found"] for each in found):
        print(index.why_none(where) or "Nothing was found.", file=sys.stderr)
    if FLAGS.report:
        _write_report(found, FLAGS.photo_root or beside.get("photo_root", ""))
        print(f"The page is {FLAGS.report}.", file=sys.stderr if FLAGS.json or FLAGS.csv else sys.stdout)


def _found(files: list[str], seen: list[dict], neighbors) -> list[dict]:
    """For each query what was found, best first, as values that JSON has."""
    return [
        {
            "query": file,
            **({"attributes": attributes} if attributes else {}),
            "found": [_neighbor(neighbors, row, place) for place, photo in enumerate(neighbors.photos[row]) if photo],
        }
        for row, (file, attributes) in enumerate(zip(files, seen))
    ]


def _neighbor(neighbors, row: int, place: int) -> dict:
    """One photo that was found, with what the index keeps of it."""
    kept = {name: _plain(values.tolist()[row][place]) for name, values in neighbors.attributes.items()}
    return {
        "photo": str(neighbors.photos[row, place]),
        "sku": str(neighbors.skus[row, place]),
        "score": round(float(neighbors.scores[row, place]), 6),
        **({"attributes": kept} if kept else {}),
    }


def _plain(value):
    """A value as JSON has it; a missing number is None, several strings are a list."""
    if isinstance(value, tuple):
        return [str(each) for each in value]
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        return value
    return None if math.isnan(value) else int(value) if float(value).is_integer() else value


def _print_table(found: list[dict]) -> None:
    for each in found:
        print(each["query"])
        if "attributes" in each:
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in each["attributes"].items())
            print(f"  seen in it: {shares}")
        print("  rank  score  sku  (photo)")
        for rank, row in enumerate(each["found"], start=1):
            more = ", ".join(f"{name}={_shown(value)}" for name, value in row.get("attributes", {}).items() if value)
            print(f"  {rank:4d}  {row['score']:5.3f}  {row['sku']}  ({row['photo']})  {more}".rstrip())


def _shown(value) -> str:
    """A value in a table; several strings with commas between."""
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _print_csv(found: list[dict], attributes: list[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["query", "rank", "score", "sku", "photo", *attributes])
    for each in found:
        for rank, row in enumerate(each["found"], start=1):
            kept = [_shown(row.get("attributes", {}).get(name)) for name in attributes]
            writer.writerow([each["query"], rank, f"{row['score']:.6f}", row["sku"], row["photo"], *kept])


def _write_report(found: list[dict], photo_root: str) -> None:
    from eet_tf.data.remote import joined
    from eet_tf.pages.report import Neighbor, SearchResult, write_report

    results = [
        SearchResult(
            each["query"],
            None,
            [Neighbor(joined(photo_root, row["photo"]), row["sku"], row["score"]) for row in each["found"]],
        )
        for each in found
    ]
    write_report(FLAGS.report, "What was found", results=results)


COMMAND = Command(
    _main,
    FLAGS,
    _HELP,
    ("index_dir", "k", "where", "group_by_sku", "json", "csv", "report", "saved_model", "server"),
    takes="PHOTO...",
)
