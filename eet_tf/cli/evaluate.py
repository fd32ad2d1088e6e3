"""`eet evaluate`: measures a trained embedder on a part of a catalogue, as it is or postprocessed."""

from __future__ import annotations

import json
import os

from absl import flags

from eet_tf.cli import catalogs
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import counted

_HELP = """\
Measures a trained embedder on a part of a catalogue: R@K, mAP@R and R-precision, each photo searched among all the
others. It prints the figures and writes them, and those of each category, to evaluation.json in --model_dir.

Examples:
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv --split=all --rerank
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv --query_expansion=3
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv --fit_whitening=runs/mine/whitening.npz

`eet export --whitening=runs/mine/whitening.npz` exports an embedder that whitens."""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string("model_dir", None, "Folder that training wrote.", required=True)
catalogs.define_catalog(define, split="test")
catalogs.define_unreadable(define)
define.list("ks", ["1", "10", "100"], "K of each R@K, separated by commas.")
define.integer("query_expansion", 0, "Number of neighbours added to each query; 0 for none.", lower_bound=0)
define.float(
    "alpha", 3.0, "Exponent of query expansion: larger values give near neighbours more weight.", lower_bound=0.0
)
define.bool(
    "rerank", False, "Re-rank the neighbours of each query by the neighbours that they share with it (k-reciprocal)."
)
define.string("whitening", None, "File of a whitening to apply to the embeddings.")
define.string("fit_whitening", None, "File of a whitening to fit to the train split, write and use.")
define.integer("whitening_dim", None, "Number of dimensions that a fitted whitening keeps. By default all.")
flags.mark_flags_as_mutual_exclusive(["whitening", "fit_whitening"], flag_values=FLAGS)
define.string("output", None, "File of the measures. By default evaluation.json in --model_dir.")


def _embeddings(embedder, catalog):
    from eet_tf import data
    from eet_tf.evaluation.callback import embed
    from eet_tf.training.lines import verbosity

    print(f"Embedding {counted(len(catalog), 'photo')}.", flush=True)
    with data.naming_unreadable(catalog):
        return embed(embedder, data.gallery_dataset(catalog, embedder.input_shape[1]), verbose=verbosity())


def _whitening(embedder, catalog):
    """What embeddings go through, or None."""
    from eet_tf.evaluation.postprocessing import Whitening, fit_whitening

    if FLAGS.whitening is not None:
        return Whitening.read(FLAGS.whitening)
    if FLAGS.fit_whitening is None:
        return None
    whitening = fit_whitening(_embeddings(embedder, catalog.split("train")), FLAGS.whitening_dim)
    whitening.write(FLAGS.fit_whitening)
    return whitening


def _output() -> str:
    return os.path.join(FLAGS.model_dir, "evaluation.json") if FLAGS.output is None else FLAGS.output


def _catalog():
    catalog = catalogs.load(FLAGS)
    return catalogs.readable_part(catalog, FLAGS, os.path.dirname(_output())) if FLAGS.skip_unreadable else catalog


def _measured(catalog):
    from eet_tf.data.answers import check_answers

    return check_answers(catalog.split(FLAGS.split), f"the split {FLAGS.split!r}")


def _checked() -> tuple:
    """The embedder, the catalogue, what is measured of it and the K; refuses in one go what cannot work."""
    import eet_tf
    from eet_tf.evaluation.postprocessing import Whitening

    complaints = Complaints()
    ks = complaints.whole_numbers("ks", FLAGS.ks)
    complaints.file("output", _output())
    complaints.file("fit_whitening", FLAGS.fit_whitening)
    complaints.number("whitening_dim", FLAGS.whitening_dim, 1)
    if FLAGS.query_expansion and FLAGS.rerank:
        complaints.add("--query_expansion must be 0 with --rerank, which searches with the queries as they are.")
    if FLAGS.whitening is not None:
        complaints.given("whitening", FLAGS.whitening, Whitening.read)
    embedder = complaints.given("model_dir", FLAGS.model_dir, eet_tf.load_embedder)
    catalogs.complain(complaints, FLAGS)
    catalog = complaints.check(_catalog)
    measured = None if catalog is None else complaints.check(_measured, catalog)
    if catalog is not None and FLAGS.fit_whitening is not None:
        complaints.check(catalog.split, "train")
    complaints.end()
    catalogs.tell_notes(catalog)
    return embedder, catalog, measured, ks


def _figures() -> dict:
    """All that is written."""
    from eet_tf.evaluation.callback import is_query, rank_catalog

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


def _main(_) -> None:
    """Measures, writes, prints."""
    import tensorflow as tf

    from eet_tf.files import replaced

    tf.get_logger().setLevel("ERROR")
    figures = _figures()
    output = _output()
    with replaced(output) as aside, open(aside, "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=2)
        file.write("\n")
    shares = {name: value for name, value in figures["result"].items() if not name.startswith("num_")}
    print(", ".join(f"{name} {100 * value:.2f} %" for name, value in shares.items()), end="")
    print(f", over {figures['result']['num_queries']:,} queries. All figures are in {output}.")


COMMAND = Command(_main, FLAGS, _HELP, ("model_dir", "data", "dataset", "split", "ks", "rerank", "output"))
