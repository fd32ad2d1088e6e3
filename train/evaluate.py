"""Measures a trained embedder on a part of a catalogue, as it is or with what can be done to its embeddings.

    python train/evaluate.py --model_dir=runs/mine --dataset=csv --data_dir=photos/catalog.csv
    python train/evaluate.py --model_dir=runs/mine --dataset=csv --data_dir=photos/catalog.csv --rerank
    python train/evaluate.py --model_dir=runs/mine --dataset=csv --data_dir=photos/catalog.csv --query_expansion=3
    python train/evaluate.py --model_dir=runs/mine --dataset=csv --data_dir=photos/catalog.csv \
        --fit_whitening=runs/mine/whitening.npz

It prints the figures and writes them, and those of each category, to `evaluation.json` in the model's folder.
`export/main.py --whitening=runs/mine/whitening.npz` exports an embedder that whitens.
"""

import json
import os
import sys

from absl import app, flags

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
_DATASETS = ["synthetic", "csv", "folder", "sop", "inshop", "consumer_to_shop", "cub", "cars196"]
flags.DEFINE_string("model_dir", None, "The folder that training wrote.", required=True)
flags.DEFINE_enum("dataset", None, _DATASETS, "Layout of the photos.", required=True)
flags.DEFINE_string("data_dir", None, "Where the photos are.")
flags.DEFINE_string("split", "test", "Which part of the catalogue; all: all of it.")
flags.DEFINE_list("ks", ["1", "10", "100"], "The K of each R@K.")
flags.DEFINE_integer("query_expansion", 0, "How many neighbours are added to each query; 0: none.", lower_bound=0)
flags.DEFINE_float("alpha", 3.0, "Query expansion: the larger, the more the nearest weigh.", lower_bound=0.0)
flags.DEFINE_bool("rerank", False, "Put the nearest of each query into order by the neighbours they share.")
flags.DEFINE_string("whitening", None, "Whiten embeddings with this file.")
flags.DEFINE_string("fit_whitening", None, "Fit a whitening to the train split, write it to this file and use it.")
flags.DEFINE_integer("whitening_dim", None, "How many dimensions a fitted whitening keeps; all by default.")
flags.mark_flags_as_mutual_exclusive(["whitening", "fit_whitening"])
flags.DEFINE_string("output", None, "Where figures are written; by default evaluation.json in --model_dir.")


def _embeddings(embedder, catalog):
    import tensorflow as tf

    from eet_tf import data
    from eet_tf.evaluation import embed

    print(f"Embedding {len(catalog):,} photos.", flush=True)
    try:
        return embed(embedder, data.gallery_dataset(catalog, embedder.input_shape[1]), verbose=1)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        data.check_photos([catalog])  # says which cannot be read, and why
        raise


def _whitening(embedder, catalog):
    """What embeddings go through, or None."""
    from eet_tf.postprocessing import Whitening, fit_whitening

    if FLAGS.whitening is not None:
        return Whitening.read(FLAGS.whitening)
    if FLAGS.fit_whitening is None:
        return None
    whitening = fit_whitening(_embeddings(embedder, catalog.split("train")), FLAGS.whitening_dim)
    whitening.write(FLAGS.fit_whitening)
    return whitening


def _output() -> str:
    return os.path.join(FLAGS.model_dir, "evaluation.json") if FLAGS.output is None else FLAGS.output


def _measured(catalog):
    from eet_tf.data.answers import check_answers

    return check_answers(catalog.split(FLAGS.split), f"the split {FLAGS.split!r}")


def _checked() -> tuple:
    """The embedder, the catalogue, what is measured of it and the K; refuses in one go what cannot work."""
    import eet_tf
    from eet_tf import data
    from eet_tf.data.folders import note_of_dataset
    from eet_tf.postprocessing import Whitening

    complaints = commands.Complaints()
    ks = complaints.whole_numbers("ks", FLAGS.ks)
    complaints.file("output", _output())
    complaints.file("fit_whitening", FLAGS.fit_whitening)
    complaints.number("whitening_dim", FLAGS.whitening_dim, 1)
    if FLAGS.query_expansion and FLAGS.rerank:
        complaints.add("--query_expansion must be 0 with --rerank, which searches with the queries as they are.")
    if FLAGS.whitening is not None:
        complaints.given("whitening", FLAGS.whitening, Whitening.read)
    embedder = complaints.given("model_dir", FLAGS.model_dir, eet_tf.load_embedder)
    catalog = complaints.check(data.load_dataset, FLAGS.dataset, FLAGS.data_dir)
    measured = None if catalog is None else complaints.check(_measured, catalog)
    if catalog is not None and FLAGS.fit_whitening is not None:
        complaints.check(catalog.split, "train")
    complaints.end()
    note = note_of_dataset(FLAGS.dataset, FLAGS.data_dir)
    if note:
        print(note, flush=True)
    return embedder, catalog, measured, ks


def _figures() -> dict:
    """All that is written."""
    from eet_tf.evaluation import is_query, rank_catalog

    embedder, catalog, measured, ks = _checked()
    whitening = _whitening(embedder, catalog)
    embeddings = _embeddings(embedder, measured)
    if whitening:
        embeddings = whitening.apply(embeddings)
    how = {"query_expansion": FLAGS.query_expansion, "alpha": FLAGS.alpha, "rerank": FLAGS.rerank}
    result = rank_catalog(embeddings, measured.labels, measured.roles, **how)
    figures = {
        "measured_on": FLAGS.split,
        **how,
        "whitening": FLAGS.whitening or FLAGS.fit_whitening,
        "result": result.summary(ks),
    }
    if measured.categories is not None:
        asked_for = is_query(len(measured), measured.roles)
        figures["by_category"] = result.by_group(measured.categories[asked_for], ks)
    return figures


def main(argv):
    """Measures, prints, writes; says in one line what is wrong."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    import tensorflow as tf

    from eet_tf.files import replaced

    tf.get_logger().setLevel("ERROR")
    try:
        figures = _figures()
        output = _output()
        with replaced(output) as aside, open(aside, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
            file.write("\n")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    shares = {name: value for name, value in figures["result"].items() if not name.startswith("num_")}
    print(", ".join(f"{name} {100 * value:.2f} %" for name, value in shares.items()), end="")
    print(f", over {figures['result']['num_queries']:,} queries. All figures are in {output}.")


if __name__ == "__main__":
    commands.run(main)
