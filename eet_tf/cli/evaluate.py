"""`eet evaluate`: measures an embedder on a part of a catalogue, as it is or postprocessed."""

from __future__ import annotations

import json
import os

from absl import flags

from eet_tf.cli import catalogs, indexes
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import counted

_HELP = """\
Measures an embedder on a part of a catalogue: R@K, mAP@R and R-precision, each photo searched among all the others of
the part, and in the whole catalogue, as a shop does it. With --gallery, photos of --data are searched in another
catalogue, e.g. photos of customers among those of the studio; products are told by their skus. It prints the figures
and writes them, and those of each category, to evaluation.json in --model_dir. With --saved_model an export is
measured, also one of a backbone that was never trained; evaluation.json then stands beside the folder of its versions.

Examples:
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv
  eet evaluate --saved_model=runs/pretrained/serving --data=photos/catalog.csv --split=all
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv --split=all --rerank
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv --query_expansion=3
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv --by=view,season
  eet evaluate --model_dir=runs/mine --data=customers/photos.csv --split=all --gallery=photos/catalog.csv
  eet evaluate --model_dir=runs/mine --data=photos/catalog.csv --fit_whitening=runs/mine/whitening.npz

`eet export --whitening=runs/mine/whitening.npz` exports an embedder that whitens; that one needs no --whitening."""

_PHOTOS_AT_ONCE = 64  # that an export embeds
FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string("model_dir", None, "Folder that training wrote.")
define.string("saved_model", None, "Export to measure instead: the folder of its versions, or one of them.")
flags.mark_flags_as_mutual_exclusive(["model_dir", "saved_model"], required=True, flag_values=FLAGS)
catalogs.define_catalog(define, split="test")
catalogs.define_unreadable(define)
define.string(
    "gallery",
    None,
    "Catalogue to search in, with the columns of --data. By default the photos of --data, each among all the others.",
)
define.list("by", [], "Attribute columns, separated by commas, to whose values figures are given too.")
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
define.string(
    "output", None, "File of the measures. By default evaluation.json in --model_dir, or beside --saved_model."
)


def _embedder(complaints: Complaints):
    """What is measured: a Keras model, or an export."""
    import eet_tf
    from eet_tf.serving import ServedEmbedder

    if FLAGS.saved_model is not None:
        return complaints.given("saved_model", FLAGS.saved_model, ServedEmbedder)
    return complaints.given("model_dir", FLAGS.model_dir, eet_tf.load_embedder)


def _embeddings(embedder, catalog):
    if FLAGS.saved_model is not None:
        return indexes.embedded(embedder, catalog, _PHOTOS_AT_ONCE)
    from eet_tf import data
    from eet_tf.embedder import photo_fit
    from eet_tf.evaluation.callback import embed
    from eet_tf.training.lines import verbosity

    print(f"Embedding {counted(len(catalog), 'photo')}.", flush=True)
    with data.naming_unreadable(catalog):
        photos = data.gallery_dataset(catalog, embedder.input_shape[1], fit=photo_fit(embedder))
        return embed(embedder, photos, verbose=verbosity())


def _dimensions(embedder) -> int:
    """Of an embedding."""
    from eet_tf.serving.graph import output_sizes

    return embedder.embedding_dim if FLAGS.saved_model is not None else output_sizes(embedder)["embedding"]


def _read_whitening(path: str, dimensions: int):
    """A whitening of embeddings of so many dimensions."""
    from eet_tf.evaluation.postprocessing import Whitening

    whitening = Whitening.read(path)
    if len(whitening.mean) != dimensions:
        raise ValueError(
            f"it must be of embeddings of {dimensions} dimensions, which this model has. "
            f"Received: one of {len(whitening.mean)}."
        )
    return whitening


def _whitening(embedder, catalog):
    """What embeddings go through, or None."""
    from eet_tf.evaluation.postprocessing import fit_whitening

    if FLAGS.whitening is not None:
        return _read_whitening(FLAGS.whitening, _dimensions(embedder))
    if FLAGS.fit_whitening is None:
        return None
    whitening = fit_whitening(_embeddings(embedder, catalog.split("train")), FLAGS.whitening_dim)
    whitening.write(FLAGS.fit_whitening)
    return whitening


def _output() -> str:
    if FLAGS.output is not None:
        return FLAGS.output
    folder = indexes.beside_versions(FLAGS.saved_model) if FLAGS.model_dir is None else FLAGS.model_dir
    return os.path.join(folder, "evaluation.json")


def _catalog(max_pixels: int | None):
    catalog = catalogs.load(FLAGS)
    if not FLAGS.skip_unreadable:
        return catalog
    return catalogs.readable_part(catalog, FLAGS, os.path.dirname(_output()), max_pixels)


def _measured(catalog):
    from eet_tf.data.answers import check_answers

    measured = catalog.split(FLAGS.split)
    for name in FLAGS.by:
        if not name:
            raise ValueError(f"--by must be columns, separated by commas. Received: --by={','.join(FLAGS.by)}.")
        measured.column(name)
    return measured if FLAGS.gallery is not None else check_answers(measured, f"the split {FLAGS.split!r}")


def _gallery(path):
    from eet_tf import data

    if not path:
        raise ValueError(f"--gallery must be a catalogue, as --data is. Received: --gallery={path!r}.")
    layout = data.detect_layout(path)
    is_table = layout in ("csv", "parquet", "xlsx")  # whose columns are named as those of --data
    columns = data.read_columns(FLAGS.columns) if FLAGS.columns and is_table else None
    separator = FLAGS.separator if layout == "csv" else None
    return data.load_dataset(layout, path, columns, separator, photo_cache=FLAGS.photo_cache or "")


def _check_gallery(measured, gallery) -> None:
    """Refuses a gallery that shows none of the products that are asked for."""
    import numpy as np

    if not np.isin(measured.skus, gallery.skus).any():
        raise ValueError(
            f"--gallery must show products of --data, with the same skus. Received: {measured.skus[0]!r}, ... in "
            f"--data, {gallery.skus[0]!r}, ... in --gallery."
        )


def _checked() -> tuple:
    """The embedder, the catalogue, what is asked for, another gallery and the K; refuses in one go what cannot work."""
    complaints = Complaints()
    ks = complaints.whole_numbers("ks", FLAGS.ks)
    complaints.file("output", _output())
    complaints.file("fit_whitening", FLAGS.fit_whitening)
    if FLAGS.whitening_dim is not None and FLAGS.fit_whitening is None:
        complaints.add("--whitening_dim needs --fit_whitening: a file of a whitening has its dimensions.")
    if FLAGS.gallery is not None and (FLAGS.query_expansion or FLAGS.rerank):
        complaints.add("--gallery cannot be given with --query_expansion or --rerank.")
    if FLAGS.query_expansion and FLAGS.rerank:
        complaints.add("--query_expansion must be 0 with --rerank, which searches with the queries as they are.")
    embedder = _embedder(complaints)
    if embedder is not None:
        dimensions = _dimensions(embedder)
        complaints.number("whitening_dim", FLAGS.whitening_dim, 1, dimensions)
        if FLAGS.whitening is not None:
            complaints.given("whitening", FLAGS.whitening, _read_whitening, dimensions)
    catalogs.complain(complaints, FLAGS)
    catalog = complaints.check(_catalog, getattr(embedder, "max_pixels", None))  # of an export
    measured = None if catalog is None else complaints.check(_measured, catalog)
    gallery = None if FLAGS.gallery is None else complaints.given("gallery", FLAGS.gallery, _gallery)
    if measured is not None and gallery is not None:
        complaints.check(_check_gallery, measured, gallery)
    if catalog is not None and FLAGS.fit_whitening is not None:
        complaints.check(catalog.split, "train")
    complaints.end()
    catalogs.tell_notes(catalog)
    return embedder, catalog, measured, gallery, ks


def _figures() -> dict:
    """All that is written."""
    from eet_tf.evaluation.callback import is_query, rank_catalog
    from eet_tf.evaluation.metrics import rank_queries

    embedder, catalog, measured, gallery, ks = _checked()
    whitening = _whitening(embedder, catalog)

    def embedded(photos):
        embeddings = _embeddings(embedder, photos)
        return whitening.apply(embeddings) if whitening else embeddings

    embeddings = embedded(measured)
    lengths = () if whitening else _prefixes()
    how = {"query_expansion": FLAGS.query_expansion, "alpha": FLAGS.alpha, "rerank": FLAGS.rerank}
    besides = None if gallery is not None or FLAGS.query_expansion or FLAGS.rerank else _besides(catalog)
    searched = None if gallery is None else embedded(gallery)

    def ranked(cut):
        if gallery is not None:
            return rank_queries(cut(embeddings), measured.skus, cut(searched), gallery.skus)
        return rank_catalog(cut(embeddings), measured.labels, measured.roles, **how)

    asked_for = is_query(len(measured), None if gallery is not None else measured.roles)
    result = ranked(lambda vectors: vectors)
    figures = {
        "model_dir": FLAGS.model_dir,
        **({} if FLAGS.saved_model is None else {"saved_model": embedder.folder, "fingerprint": embedder.fingerprint}),
        "measured_on": FLAGS.split,
        "gallery": FLAGS.gallery,
        **how,
        "whitening": FLAGS.whitening or FLAGS.fit_whitening,
        "result": _by_photos_and_products(result, ks),
    }
    if lengths:
        figures["prefixes"] = {f"{each}": ranked(_cut_to(each)).summary(ks) for each in lengths}
    if besides is not None:
        others = embedded(besides)

        def among_all(cut):
            how = {"other_embeddings": cut(others), "other_labels": besides.skus}
            return rank_catalog(cut(embeddings), measured.skus, measured.roles, **how)

        whole = among_all(lambda vectors: vectors)
        figures["whole_catalogue"] = {"num_photos": len(catalog), "result": _by_photos_and_products(whole, ks)}
        if lengths:
            of_lengths = {f"{each}": among_all(_cut_to(each)).summary(ks) for each in lengths}
            figures["whole_catalogue"]["prefixes"] = of_lengths
        _add_groups(figures["whole_catalogue"], whole, measured, asked_for, ks)
    _add_groups(figures, result, measured, asked_for, ks)
    return figures


def _add_groups(figures: dict, result, measured, asked_for, ks) -> None:
    """Adds the figures of each category, and of each value of the columns that are asked for."""
    if measured.categories is not None:
        figures["by_category"] = result.by_group(measured.categories[asked_for], ks)
    if FLAGS.by:
        figures["by"] = {name: result.by_group(measured.column_texts(name)[asked_for], ks) for name in FLAGS.by}


def _by_photos_and_products(result, ks) -> dict:
    return {**result.summary(ks), **result.of_products(ks)}


def _prefixes() -> list[int]:
    """The prefixes of the embedding that the run was trained to be searched with."""
    from eet_tf.training.run import RunError, read_run

    if FLAGS.model_dir is None:
        return []
    try:
        text = read_run(FLAGS.model_dir).settings.get("prefixes", "")
    except RunError:
        return []  # a model from elsewhere
    return [int(length) for length in text.split(",") if length]


def _cut_to(length: int):
    from eet_tf.evaluation.prefixes import prefix_vectors

    return lambda vectors: prefix_vectors(vectors, length)


def _besides(catalog):
    """The photos of the other splits, or None if there are none."""
    if FLAGS.split == "all" or catalog.splits is None:
        return None
    from eet_tf.data.values import read_split

    is_other = catalog.splits != read_split(FLAGS.split)
    return catalog.take(is_other) if is_other.any() else None


def _line(figures: dict) -> str:
    shares = {name: value for name, value in figures.items() if not name.startswith("num_")}
    return ", ".join(f"{name} {100 * value:.2f} %" for name, value in shares.items())


def _main(_) -> None:
    """Measures, writes, prints."""
    import tensorflow as tf

    from eet_tf.evaluation.measures import prefix_lines
    from eet_tf.files import replaced

    tf.get_logger().setLevel("ERROR")
    figures = _figures()
    output = _output()
    with replaced(output) as aside, open(aside, "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=2)
        file.write("\n")
    whole = figures.get("whole_catalogue")
    for column, groups in (whole or figures).get("by", {}).items():
        for value, of_group in groups.items():
            where = ", in the whole catalogue" if whole else ""
            print(f"{column}={value}: {_line(of_group)}, over {counted(of_group['num_queries'], 'query')}{where}.")
    if whole:
        print(f"In the whole catalogue of {counted(whole['num_photos'], 'photo')}: {_line(whole['result'])}.")
    print("".join(f"{line}\n" for line in prefix_lines(figures, int(FLAGS.ks[0]))), end="")
    of_all = figures["result"]
    if of_all["num_without_answer"]:
        print(f"{counted(of_all['num_without_answer'], 'query')} left out, whose product the gallery does not show.")
    print(f"{_line(of_all)}, over {counted(of_all['num_queries'], 'query')}. All figures are in {output}.")


COMMAND = Command(
    _main, FLAGS, _HELP, ("model_dir", "saved_model", "data", "dataset", "split", "gallery", "by", "ks", "output")
)
