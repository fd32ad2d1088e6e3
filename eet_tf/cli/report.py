"""`eet report`: the page of a training run, with its curves, its figures before and after, and what searches find."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli import indexes
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import counted

_HELP = """\
Writes the page of a training: its curves, its figures before and after, and what searches find. The queries are photos
of the index itself, each searched among all the others. The page needs nothing but itself, so it can be mailed.

Examples:
  eet report --model_dir=runs/mine --index_dir=runs/mine/index
  eet report --model_dir=runs/mine --index_dir=runs/mine/index --output=report.html --num_queries=100"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string("model_dir", None, "Folder that training wrote.", required=True)
indexes.define_index(define)
define.string("output", None, "File of the page. By default report.html in --model_dir.")
define.integer("num_queries", 40, "Number of photos that are searched, spread evenly over the index.", lower_bound=1)
define.integer("k", 8, "Number of neighbours of each that are shown.", lower_bound=1)


def _results(index, photo_root: str):
    """Searches photos of the index among all the others."""
    import numpy as np

    from eet_tf.data.remote import joined
    from eet_tf.index import splits_of
    from eet_tf.pages.report import Neighbor, SearchResult

    rows = np.unique(np.linspace(0, index.size - 1, FLAGS.num_queries).astype(int))
    photos, skus = index.photos[rows], index.skus[rows]
    splits = splits_of(index)
    found = index.search(index.embeddings[rows], FLAGS.k + 1)
    splits = splits[rows].tolist() if splits is not None else [""] * len(rows)
    for photo, sku, split, names, answers, scores in zip(photos, skus, splits, found.photos, found.skus, found.scores):
        neighbors = [
            Neighbor(joined(photo_root, name), str(answer), float(score))
            for name, answer, score in zip(names, answers, scores)
            if name != photo
        ]
        yield SearchResult(joined(photo_root, photo), str(sku), neighbors[: FLAGS.k], split)


def _facts(settings: dict, metrics: dict, index) -> dict[str, str]:
    """What a reader of the page asks first."""
    return {
        "Data set": settings.get("dataset", ""),
        "Photos in the index": f"{index.size:,}",
        "Products in the index": f"{len(set(index.skus.tolist())):,}",
        "Loss": settings.get("loss", ""),
        "Backbone": f"{settings.get('backbone')}, {settings.get('image_size')} px, {settings.get('embedding_dim')}-d",
        "Best epoch": f"{metrics.get('best_epoch', '-')} of {settings.get('epochs')}{_chosen_on(metrics)}",
        "Embedder": index.fingerprint or "unknown",
    }


def _chosen_on(metrics: dict) -> str:
    chosen_on = metrics.get("chosen_on")  # a run of an older version does not say
    return f", chosen on {counted(chosen_on['num_photos'], 'photo')} kept aside" if chosen_on else ""


def _read_run(folder: str):
    from eet_tf.training.run import RunError, read_run

    try:
        return read_run(folder)
    except RunError as error:
        raise ValueError(str(error)) from error


def _read_index(folder: str):
    from eet_tf.index import load_index

    index = load_index(folder, read_only=True)
    if index.kind == "milvus":
        raise ValueError("--index_dir must be of kind scann or exact. Received: milvus, which lists no rows.")
    return index


def _output() -> str:
    return os.path.join(FLAGS.model_dir, "report.html") if FLAGS.output is None else FLAGS.output


def _main(_) -> None:
    """Gathers what training and indexing left, and writes the page."""
    from eet_tf.evaluation.measures import headlines, meanings
    from eet_tf.pages.report import write_report

    complaints = Complaints()
    complaints.file("output", _output())
    run = complaints.given("model_dir", FLAGS.model_dir, _read_run)
    index = complaints.given("index_dir", FLAGS.index_dir, _read_index)
    complaints.end()
    photo_root = indexes.beside(index, FLAGS.index_dir).get("photo_root", FLAGS.index_dir)
    before, after = run.metrics.get("before"), run.metrics.get("after")
    write_report(
        _output(),
        "Visual product search",
        results=list(_results(index, photo_root)),
        history=run.history,
        before=before,
        after=after,
        facts=_facts(run.settings, run.metrics, index),
        whole_catalogue=run.metrics.get("whole_catalogue"),
        before_model=run.metrics.get("before_model"),  # a run of an older version does not say
        meanings=meanings([*(before or ()), *(after or ())]),
        attributes=run.metrics.get("attributes"),
        prefixes=run.metrics.get("prefixes"),
    )
    # a run of an older version did not look for copies
    unseen = "unseen " if run.metrics.get("copies_of_training_photos") == 0 else ""
    for name in [name for name in before or () if name.startswith("recall@") and name in (after or ())][:1]:
        print("\n".join(headlines(run.metrics, int(name.partition("@")[2]), f"{unseen}products")))
    print(f"The page is {_output()}.")


COMMAND = Command(_main, FLAGS, _HELP)
