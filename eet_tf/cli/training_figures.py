"""The figures of a training: measured before and after, and everything that is written about them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from eet_tf.cli.training_checks import is_pretrained
from eet_tf.cli.training_flags import FLAGS, ks
from eet_tf.wording import counted


class Rankings(NamedTuple):
    """The photos to measure on, searched in two galleries.

    Attributes:
        own: that of the protocol: all the other photos to measure on, or those whose role it is.
        whole: that gallery and the photos of the products that were trained on, which is what a shop searches.
        prefixes: both again, as a pair, by the length of each prefix of the embeddings that was trained.
    """

    own: Any
    whole: Any
    prefixes: Any

    def summaries(self, all_ks) -> tuple[dict, dict]:
        """The figures of both, by photos and by products."""
        own, whole = ({**each.summary(all_ks), **each.of_products(all_ks)} for each in (self.own, self.whole))
        return own, whole


def rank(embedder, task) -> Rankings:
    """Embeds the whole catalogue, and searches for the photos to measure on."""
    import numpy as np

    from eet_tf.evaluation.callback import rank_catalog
    from eet_tf.evaluation.prefixes import prefix_vectors

    photos, others = task.measured_on, task.searched_besides
    embeddings = _embeddings(embedder, photos)
    other_embeddings = np.concatenate([_embeddings(embedder, catalog) for catalog in others])
    other_skus = np.concatenate([catalog.skus for catalog in others])

    def both(embeddings, besides):
        own = rank_catalog(embeddings, photos.labels, photos.roles)
        whole = rank_catalog(embeddings, photos.skus, photos.roles, other_embeddings=besides, other_labels=other_skus)
        return own, whole

    prefixes = {
        length: both(prefix_vectors(embeddings, int(length)), prefix_vectors(other_embeddings, int(length)))
        for length in FLAGS.prefixes
    }
    own, whole = both(embeddings, other_embeddings)
    return Rankings(own, whole, prefixes)


def _embeddings(embedder, catalog):
    from eet_tf import data
    from eet_tf.evaluation.callback import embed
    from eet_tf.training.lines import verbosity

    return embed(embedder, data.gallery_dataset(catalog, FLAGS.image_size, fit=FLAGS.fit), verbose=verbosity())


def count_copies(task) -> int:
    """How many of the photos that figures come from are copies of photos that are learned from; prints a warning."""
    from eet_tf.data.splits import copies

    found = copies(task.train, task.measured_on)
    if found:
        learned, measured = found[0]
        print(
            f"{len(found):,} of the {len(task.measured_on):,} photos to measure on are copies of photos to learn from, "
            f"e.g. {task.measured_on.paths[measured]} of {task.train.paths[learned]}. Figures will be too good. "
            "`eet audit` names all of them.",
            flush=True,
        )
    return len(found)


def measure_before(run, embedder, task) -> None:
    """Measures, once for a run, the pretrained features without the projection, which is random; or all, if all is."""
    from eet_tf.embedder import features
    from eet_tf.evaluation.measures import PRETRAINED

    if task.measured_on and run.read_json("before.json") is None:
        what = PRETRAINED if is_pretrained() else "untrained embedder"
        print(f"Measuring the {what} on {counted(len(task.measured_on), 'photo')}.", flush=True)
        measured = features.backbone_features(embedder) if is_pretrained() else embedder
        own, whole = rank(measured, task).summaries(ks(task.layout))
        run.write_json("before_model.json", {"before_model": what})
        run.write_json("before_in_whole_catalogue.json", whole)
        run.write_json("before.json", own)


def write_figures(run, task, best_epoch: int, seconds: float, num_copies: int, teacher=None) -> None:
    """Measures the best embedder and writes `metrics.json`, `curves.png` and the figures of each product, two files."""
    from eet_tf.evaluation.measures import headlines, prefix_lines, teacher_line
    from eet_tf.pages.report import plot_curves

    figures: dict[str, Any] = {"best_epoch": best_epoch, "epochs": FLAGS.epochs, "seconds": seconds}
    if task.validation:
        figures["chosen_on"] = _chosen_on(task)
    if task.measured_on:
        figures |= _measured(run, task, teacher)
        figures["copies_of_training_photos"] = num_copies
    run.write_json("metrics.json", figures)
    plot_curves(run.read_history(), run.path("curves.png"))
    if task.validation:
        print(
            f"Epoch {best_epoch} of {FLAGS.epochs} is the best by mAP@R over {_in_words(figures['chosen_on'])}.",
            flush=True,
        )
    if task.measured_on:
        products = f"{'' if num_copies else 'unseen '}{figures['measured_on']} products"
        print("\n".join(headlines(figures, ks(task.layout)[0], products)))
        print("".join(f"{line}\n" for line in prefix_lines(figures, ks(task.layout)[0])), end="")
        if teacher is not None:
            print(teacher_line(figures["teacher"], figures["after"], ks(task.layout)[0]))
        _tell_attributes(figures.get("attributes"))
    print(f"The embedder is {run.path('model.keras')}.", flush=True)


def _chosen_on(task) -> dict[str, int]:
    """What the choice of the best epoch rests on."""
    photos = task.validation
    return {
        "num_photos": len(photos),
        "num_products": photos.num_classes,
        "num_searched": len(photos) + len(task.train),
    }


def _in_words(chosen_on: dict[str, int]) -> str:
    photos, products = counted(chosen_on["num_photos"], "photo"), counted(chosen_on["num_products"], "product")
    return f"{photos} of {products} that were kept aside, among {counted(chosen_on['num_searched'], 'photo')}"


def _tell_attributes(figures: dict | None) -> None:
    if figures:
        accuracy, majority = (sum(each[name] for each in figures.values()) for name in ("accuracy", "majority"))
        count = len(figures)
        print(
            f"Attributes: {100 * accuracy / count:.1f} % right on average over {count:,}; "
            f"always saying the more frequent answer is {100 * majority / count:.1f} % right."
        )


def _attribute_figures(embedder, task) -> dict:
    """How often the attribute head is right, on the photos that figures come from; empty if none is known there."""
    import eet_tf
    from eet_tf import data
    from eet_tf.evaluation.callback import embed

    photos, names = task.measured_on, task.attributes.names
    columns = list(dict.fromkeys(name.partition("=")[0] for name in names))
    truth = data.encode_attributes(photos, columns, names).values
    logits = embed(embedder, data.gallery_dataset(photos, FLAGS.image_size, fit=FLAGS.fit), output="attributes")
    return eet_tf.attribute_accuracy(logits, truth, names)


def _in_teachers_gallery(embedder, task, teacher) -> dict:
    """The figures of queries that the embedder embeds, in a gallery that its teacher has embedded."""
    from eet_tf.evaluation.asymmetric import rank_asymmetric

    photos = task.measured_on
    ranking = rank_asymmetric(_embeddings(embedder, photos), teacher.read(photos.paths), photos.labels, photos.roles)
    return ranking.summary(ks(task.layout))


def _measured(run, task, teacher) -> dict:
    """The figures of the best embedder, before and after training."""
    import eet_tf
    from eet_tf.evaluation.callback import is_query
    from eet_tf.evaluation.comparison import CLASSES, CLASSES_IN_WHOLE_CATALOGUE, ClassResults

    photos, all_ks = task.measured_on, ks(task.layout)
    ranking = rank(eet_tf.load_embedder(run.folder), task)
    own, whole = ranking.summaries(all_ks)
    # the labels of the whole catalogue are skus, and ClassResults takes numbers
    for name, ranked in {CLASSES: ranking.own, CLASSES_IN_WHOLE_CATALOGUE: ranking.whole}.items():
        ClassResults.of(dataclasses.replace(ranked, labels=ranking.own.labels), all_ks, photos.label_skus).write(
            run.path(name)
        )
    figures = {
        "measured_on": "test" if task.test else "validation",
        # of a run that an older version began, whose features went through the projection
        **(run.read_json("before_model.json") or {"before_model": "untrained embedder"}),
        "before": run.read_json("before.json"),
        "after": own,
        "whole_catalogue": {
            "num_photos": sum(map(len, task.catalogs)),
            "before": run.read_json("before_in_whole_catalogue.json"),
            "after": whole,
        },
    }
    if FLAGS.prefixes:
        figures["prefixes"] = {length: own.summary(all_ks) for length, (own, _) in ranking.prefixes.items()}
        of_whole = {length: whole.summary(all_ks) for length, (_, whole) in ranking.prefixes.items()}
        figures["whole_catalogue"]["prefixes"] = of_whole
    if teacher is not None:
        figures["teacher"] = _in_teachers_gallery(eet_tf.load_embedder(run.folder), task, teacher)
    if task.attributes is not None:
        figures["attributes"] = _attribute_figures(eet_tf.load_embedder(run.folder), task)
    if photos.categories is not None:
        asked_for = is_query(len(photos), photos.roles)
        categories = photos.categories[asked_for]
        figures["by_category"] = ranking.own.by_group(categories, all_ks)
        figures["whole_catalogue"]["by_category"] = ranking.whole.by_group(categories, all_ks)
    return figures
