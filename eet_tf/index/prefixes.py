"""Searching with the first dimensions of vectors: what stands for a vector, and how candidates are put into order."""

from __future__ import annotations

import numpy as np

from eet_tf.index.storage import Vectors


def leading(rows: np.ndarray, length: int) -> np.ndarray:
    """The first dimensions of rows, brought to length 1: `[N, length]` float32. Zeros stay as they are.

    Example:

    >>> leading(np.float32([[0.6, 0.0, 0.8]]), 2)
    array([[1., 0.]], dtype=float32)
    """
    cut = np.ascontiguousarray(rows[:, :length], np.float32)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)


def reordered(
    vectors: Vectors, queries: np.ndarray, rows: np.ndarray, is_found: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best of some candidates by their cosine with all dimensions, the smaller row first on ties.

    Args:
        vectors: `[N, D]`.
        queries: `[Q, D]` float32 unit vectors.
        rows: `[Q, C]` candidates.
        is_found: `[Q, C]` bool, false for what stands for no candidate.
        k: at most C.

    Returns:
        Row numbers and float32 scores, `[Q, k]`, best first; a score is NaN where fewer than `k` were found.
    """
    order = np.argsort(rows, axis=1, kind="stable")
    rows, is_found = (np.take_along_axis(each, order, axis=1) for each in (rows, is_found))
    scores, fetched = np.empty(rows.shape, np.float32), np.empty([rows.shape[1], vectors.dim], np.float32)
    for place, (query, candidates) in enumerate(zip(queries, rows)):
        # into the same memory each time: fresh memory would take twice as long
        if vectors.storage == "float32":
            np.take(vectors.values, candidates, axis=0, out=fetched, mode="clip")
        else:
            fetched[:] = vectors.rows(candidates)
        # not by BLAS, by which copies of a photo would score differently
        np.einsum("kd,d->k", fetched, query, out=scores[place])
    best = np.argsort(np.where(is_found, -scores, np.inf), axis=1, kind="stable")[:, :k]
    scores = np.where(is_found, scores, np.nan)
    return np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
