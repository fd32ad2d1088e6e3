"""What each figure of a training or an evaluation means, in a sentence: for reports, pages and the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable

_VALIDATION = "val_"
_RECALL = "Share of photos with a photo of the same product among the {k} nearest."
_MEANINGS = {
    "recall@1": "Share of photos whose nearest neighbour shows the same product.",
    "map@r": "Mean average precision at R: a photo with R right answers is worth 1 if they are its R nearest, less the "
    "later they come.",
    "r_precision": "Share of right answers among the R nearest of a photo that has R of them.",
    "num_queries": "Photos that were searched for and have a right answer.",
    "num_without_answer": "Photos left out because no other photo shows the same product.",
    "loss": "What training lowers: the mean over photos of all terms of the loss.",
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
    place = re.fullmatch(r"recall@([1-9][0-9]*)", own)
    meaning = _MEANINGS.get(own, _RECALL.format(k=place[1]) if place else "")
    return f"{meaning} Of photos not trained on." if meaning and own != name else meaning
