"""Writes the page of a training run: its curves, its figures before and after, and what searches find.

    python export/make_report.py --model_dir=runs/mine --index_dir=runs/mine/index --output=runs/mine/report.html

The queries are photos of the index itself, each searched among all the others.
"""

import os
import sys

from absl import app, flags

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("model_dir", None, "The folder that training wrote.", required=True)
flags.DEFINE_string("index_dir", None, "An index that build_index.py wrote.", required=True)
flags.DEFINE_string("output", None, "The page to write.", required=True)
flags.DEFINE_integer("num_queries", 40, "How many photos are searched, spread evenly over the index.", lower_bound=1)
flags.DEFINE_integer("k", 8, "How many neighbours of each are shown.", lower_bound=1)


def _results(index, photo_root: str):
    """Searches photos of the index among all the others."""
    import numpy as np

    from eet_tf.report import Neighbor, SearchResult

    rows = np.unique(np.linspace(0, index.size - 1, FLAGS.num_queries).astype(int))
    photos, skus = index.photos[rows], index.skus[rows]
    found = index.search(index.embeddings[rows], FLAGS.k + 1)
    for photo, sku, names, answers, scores in zip(photos, skus, found.photos, found.skus, found.scores):
        neighbors = [
            Neighbor(os.path.join(photo_root, name), str(answer), float(score))
            for name, answer, score in zip(names, answers, scores)
            if name != photo
        ]
        yield SearchResult(os.path.join(photo_root, photo), str(sku), neighbors[: FLAGS.k])


def _facts(settings: dict, metrics: dict, index) -> dict[str, str]:
    """What a reader of the page asks first."""
    return {
        "Data set": settings.get("dataset", ""),
        "Photos in the index": f"{index.size:,}",
        "Products in the index": f"{len(set(index.skus.tolist())):,}",
        "Loss": settings.get("loss", ""),
        "Backbone": f"{settings.get('backbone')}, {settings.get('image_size')} px, {settings.get('embedding_dim')}-d",
        "Best epoch": f"{metrics.get('best_epoch', '-')} of {settings.get('epochs')}",
        "Embedder": index.fingerprint or "unknown",
    }


def _read_run(folder: str):
    from eet_tf.run import RunError, read_run

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


def _checked() -> tuple:
    """The run and the index; refuses in one go what cannot work."""
    complaints = commands.Complaints()
    complaints.file("output", FLAGS.output)
    run = complaints.given("model_dir", FLAGS.model_dir, _read_run)
    index = complaints.given("index_dir", FLAGS.index_dir, _read_index)
    complaints.end()
    return run, index


def main(argv):
    """Gathers what training and indexing left, and writes the page."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    from eet_tf.report import write_report

    try:
        run, index = _checked()
    except ValueError as error:
        sys.exit(f"error: {error}")
    photo_root = os.path.join(FLAGS.index_dir, index.metadata.get("photo_root", ""))
    before, after = run.metrics.get("before"), run.metrics.get("after")
    write_report(
        FLAGS.output,
        "Visual product search",
        results=list(_results(index, photo_root)),
        history=run.history,
        before=before,
        after=after,
        facts=_facts(run.settings, run.metrics, index),
    )
    # a run of an older version did not look for copies
    unseen = "unseen " if run.metrics.get("copies_of_training_photos") == 0 else ""
    for name in [name for name in before or () if name.startswith("recall@") and name in (after or ())][:1]:
        shares, k = (100 * before[name], 100 * after[name]), name.partition("@")[2]
        print(f"R@{k} on {unseen}products: {shares[0]:.1f} % before training, {shares[1]:.1f} % after.")
    print(f"The page is {FLAGS.output}.")


if __name__ == "__main__":
    commands.run(main)
