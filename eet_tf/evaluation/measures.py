"""What each figure of a training or an evaluation means, in a sentence: for reports, pages and the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from eet_tf.wording import counted

_VALIDATION = "val_"
PRETRAINED = "pretrained features"  # what metrics.json calls the model whose figures those before training are
_RECALL = "Share of photos with a photo of the same product among the {k} nearest."
_PRODUCT_RECALL = "Share of photos whose product is among the first {k} products; each product counts once."
_MEANINGS = {
    "recall@1": "Share of photos whose nearest neighbour shows the same product.",
    "map@r": "Mean average precision at R: a photo with R right answers is worth 1 if they are its R nearest, less the "
    "later they come.",
    "r_precision": "Share of right answers among the R nearest of a photo that has R of them.",
    "num_queries": "Photos that were searched for and have a right answer.",
    "num_products": "Products of these photos.",
    "num_without_answer": "Photos left out because no other photo shows the same product.",
    "loss": "What training lowers: the mean over photos of all terms of the loss.",
    "arcface": "ArcFace: cross-entropy of a photo's product among the trained ones, after the margin; 0 is the aim.",
    "normalized_softmax": "Normalised softmax: cross-entropy of a photo's product among trained ones; 0 is the aim.",
    "proxy_anchor": "Proxy-Anchor: how far photos are from the vector of their product and near those of others.",
    "margin": "EET and triplets: how far positives are from being nearer than negatives by the margin; 0 is the aim.",
    "symmetric": "EET: as margin, seen from the positive.",
    "equidistant": "EET: how unequally far the nearest negative is from a photo and from its positive; 0 is the aim.",
    "max_min": "EET: how near the classes of a batch are to each other; smaller is farther apart.",
    "equal_minima": "EET: how unequally far apart neighbouring classes are; 0 is even.",
    "positive_pairs": "How unlike photos of one product are; 0 is the aim.",
    "negative_pairs": "How alike photos of different products are; 0 is the aim.",
    "contrastive": "Cross-entropy of photos of the same product among all photos of a batch; smaller is better.",
    "average_precision": "Smooth-AP and ROADMAP: 1 less the average precision within a batch, smoothly; 0 is the aim.",
    "recall": "Recall surrogate: 1 less the recall at several k within a batch, smoothly; smaller is better.",
    "distillation": "Distillation: 1 less the cosine of an embedding and its teacher's; 0 is the aim.",
    "attributes": "Cross-entropy of the attribute head over the known attributes.",
    "accuracy": "Share of photos of which the attribute head is right, where the truth is known.",
    "majority": "Share of the more frequent answer, which a head that has learnt nothing reaches.",
    "num_known": "Photos of which the attribute is known.",
}


def meanings(names: Iterable[str]) -> dict[str, str]:
    """Returns what figures mean, a sentence for each name that is one of this package.

    Args:
        names: names of figures, as in `metrics.json`, `history.csv` and the logs of `fit`; with `"val_"` before them
            they mean the same of photos that are not trained on.

    Returns:
        `{name: sentence}` in the order of `names`. Names of somebody else's metrics are not in it.

    Example:

    >>> for name, meaning in meanings(["recall@1", "val_recall@10", "my_metric"]).items():
    ...     print(f"{name}: {meaning}")
    recall@1: Share of photos whose nearest neighbour shows the same product.
    val_recall@10: Share of photos with a photo of the same product among the 10 nearest. Of photos not trained on.
    """
    found = {name: _meaning(name) for name in names}
    return {name: meaning for name, meaning in found.items() if meaning}


def _meaning(name: str) -> str:
    own = name.removeprefix(_VALIDATION)
    place = re.fullmatch(r"(product_|)recall@([1-9][0-9]*)", own)
    recall = (_PRODUCT_RECALL if place[1] else _RECALL).format(k=place[2]) if place else ""
    meaning = _MEANINGS.get(own, recall)
    return f"{meaning} Of photos not trained on." if meaning and own != name else meaning


def headlines(figures: Mapping, k: int, products: str) -> list[str]:
    """A line for each gallery that photos were searched in, the whole catalogue first.

    Args:
        figures: what `metrics.json` holds; `"before_model"` in it says of which features those before training are.
        k: which R@K is told.
        products: what is asked for, such as `"unseen test products"`.

    Example:

    >>> whole = {"num_photos": 1200, "before": {"recall@1": 0.21}, "after": {"recall@1": 0.3}}
    >>> figures = {"before": {"recall@1": 0.25}, "after": {"recall@1": 0.37}, "measured_on": "test"}
    >>> print("\\n".join(headlines({**figures, "whole_catalogue": whole}, 1, "unseen products")))
    R@1 on unseen products, in the whole catalogue of 1,200 photos: 21.0 % before, 30.0 % after.
    R@1 on unseen products, among the test photos alone: 25.0 % before, 37.0 % after.
    """
    galleries = {}
    if whole := figures.get("whole_catalogue"):  # a run of an older version has none
        galleries[f", in the whole catalogue of {counted(whole['num_photos'], 'photo')}"] = whole
    galleries[f", among the {figures['measured_on']} photos alone" if whole else ""] = figures
    lines = []
    for gallery, both in galleries.items():
        whens = {"before": "before" + (f" ({PRETRAINED})" if figures.get("before_model") == PRETRAINED else "")}
        shares = [
            f"{100 * both[when][f'recall@{k}']:.1f} % {whens.get(when, when)}"
            for when in ("before", "after")
            if both.get(when)
        ]
        lines.append(f"R@{k} on {products}{gallery}: {', '.join(shares)}.")
    return lines


def prefix_lines(figures: Mapping, k: int) -> list[str]:
    """A line for each prefix of the embeddings that was trained to be searched with; none without such.

    Args:
        figures: what `metrics.json` or `evaluation.json` holds.
        k: which R@K is told.

    Example:

    >>> figures = {"prefixes": {"32": {"recall@1": 0.3}}}
    >>> prefix_lines({**figures, "whole_catalogue": {"num_photos": 9, "prefixes": {"32": {"recall@1": 0.2}}}}, 1)
    ['R@1 of the first 32 dimensions: 20.0 % in the whole catalogue, 30.0 % among the measured photos alone.']
    """
    whole, lines = (figures.get("whole_catalogue") or {}).get("prefixes", {}), []
    for length, own in figures.get("prefixes", {}).items():
        shares = [(whole[length], " in the whole catalogue"), (own, " among the measured photos alone")]
        shares = shares if length in whole else [(own, "")]
        told = ", ".join(f"{100 * each[f'recall@{k}']:.1f} %{where}" for each, where in shares)
        lines.append(f"R@{k} of the first {length} dimensions: {told}.")
    return lines


def teacher_line(figures: Mapping, own: Mapping, k: int) -> str:
    """The line that compares queries in a teacher's gallery with queries in the gallery of the embedder itself.

    Example:

    >>> teacher_line({"recall@1": 0.41}, {"recall@1": 0.37}, 1)
    "R@1 of these queries in the teacher's gallery: 41.0 %; in the embedder's own: 37.0 %."
    """
    shares = [f"{100 * each[f'recall@{k}']:.1f} %" for each in (figures, own)]
    return f"R@{k} of these queries in the teacher's gallery: {shares[0]}; in the embedder's own: {shares[1]}."
