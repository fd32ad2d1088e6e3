"""How good a ranking is: R@K, mAP@R and R-precision from embeddings, exact, in blocks. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCK_ROWS = 256


def evaluate_retrieval(
    embeddings, labels, ks: Sequence[int] = (1, 10, 100, 1000), gallery_embeddings=None, gallery_labels=None
) -> dict[str, float]:
    """Ranks the gallery for every query by cosine, and says how soon right answers come.

    Without a gallery every embedding is searched among all the others, itself left out by position, so that an exact
    duplicate counts as what it is. Ties count against us: a wrong answer with the score of a right one stands before
    it. A query with no right answer in the gallery is left out of all means and counted.

    Args:
        embeddings: `[Q, D]` query vectors of any non-zero length.
        labels: `[Q]` their class numbers or names.
        ks: the K of each R@K.
        gallery_embeddings: `[N, D]`, or None.
        gallery_labels: `[N]`, given exactly if `gallery_embeddings` is.

    Returns:
        `"recall@K"` for each K: the share of queries with a right answer among the first K; `"map@r"`: mean over
        queries with R right answers of `1/R * sum over the first R places of precision there, where right`;
        `"r_precision"`: share of right answers among the first R. All in [0, 1]. Also `"num_queries"` and
        `"num_without_answer"`.

    Raises:
        ValueError: if shapes do not fit, an embedding is zero or not finite, or no query has a right answer.

    Example:

    >>> result = evaluate_retrieval([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], ["a", "a", "b"], ks=[1])
    >>> result["recall@1"], result["num_without_answer"]
    (1.0, 1)

    Reference: Musgrave, Belongie, Lim, arXiv 2003.08505, for mAP@R.
    """
    queries, labels = _checked(embeddings, labels, "embeddings", "labels")
    if (gallery_embeddings is None) != (gallery_labels is None):
        raise ValueError("`gallery_embeddings` and `gallery_labels` must be given together.")
    leave_out_self = gallery_embeddings is None
    if leave_out_self:
        gallery, gallery_labels = queries, labels
    else:
        gallery, gallery_labels = _checked(gallery_embeddings, gallery_labels, "gallery_embeddings", "gallery_labels")
        if gallery.shape[1] != queries.shape[1]:
            raise ValueError(
                "`embeddings` and `gallery_embeddings` must have the same dimension. "
                f"Received: {queries.shape[1]} and {gallery.shape[1]}."
            )
    ranks = [
        ranks_of_block
        for start in range(0, len(queries), _BLOCK_ROWS)
        for ranks_of_block in _ranks_of_right(queries, labels, gallery, gallery_labels, start, leave_out_self)
    ]
    answered = [found for found in ranks if len(found)]
    if not answered:
        raise ValueError("`labels` must repeat: no query has a right answer in the gallery.")
    return _summary(answered, ks, len(ranks) - len(answered))


def _checked(embeddings, labels, embeddings_name: str, labels_name: str):
    embeddings, labels = np.asarray(embeddings, np.float32), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"`{embeddings_name}` must be [N, D] and `{labels_name}` [N]. "
            f"Received: shapes {embeddings.shape} and {labels.shape}."
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if wrong.size:
        raise ValueError(f"`{embeddings_name}` must be finite and not zero. Received: row {wrong[0]} is not.")
    return embeddings / lengths[:, np.newaxis], labels


def _ranks_of_right(queries, labels, gallery, gallery_labels, start: int, leave_out_self: bool) -> list[np.ndarray]:
    """For each query of a block the places, from 1, of its right answers, ascending."""
    rows = np.arange(start, min(start + _BLOCK_ROWS, len(queries)))
    scores = queries[rows] @ gallery.T
    is_right = labels[rows][:, np.newaxis] == gallery_labels[np.newaxis, :]
    if leave_out_self:
        scores[np.arange(len(rows)), rows] = -np.inf
        is_right[np.arange(len(rows)), rows] = False
    return [_places(scores[i][is_right[i]], scores[i], is_right[i]) for i in range(len(rows))]


def _places(right_scores: np.ndarray, scores: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """Place of each right answer: right ones before it, plus wrong ones that score as much or more, plus 1."""
    if not len(right_scores):
        return np.empty(0, np.int64)
    right_scores = np.sort(right_scores)[::-1]
    wrong_scores = scores[~is_right & (scores >= right_scores[-1])]
    wrong_before = len(wrong_scores) - np.searchsorted(np.sort(wrong_scores), right_scores, side="left")
    return np.arange(1, len(right_scores) + 1) + wrong_before


def _summary(places: list[np.ndarray], ks: Sequence[int], num_without_answer: int) -> dict[str, float]:
    first = np.array([place[0] for place in places])
    result = {f"recall@{k}": float(np.mean(first <= k)) for k in ks}
    within = [place[place <= len(place)] for place in places]
    precisions = [np.sum(np.arange(1, len(near) + 1) / near) / len(all_) for near, all_ in zip(within, places)]
    result["map@r"] = float(np.mean(precisions))
    result["r_precision"] = float(np.mean([len(near) / len(all_) for near, all_ in zip(within, places)]))
    return {**result, "num_queries": len(places), "num_without_answer": num_without_answer}
