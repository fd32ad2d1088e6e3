"""How k neighbours are found whatever is filtered, grouped, added or deleted: enough is fetched, or all is compared."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from eet_tf.index.rows import Rows
from eet_tf.index.storage import Vectors

NARROW = 10_000  # so few allowed rows are compared one by one; that takes about as long as a search that over-fetches
_COMPARED_PER_FETCHED = 20  # rows that are compared one by one in the time that fetching one more takes ScaNN
_SPARE = 1.2  # how much more is fetched than would do if what is allowed were spread evenly
_SCORES_PER_BLOCK = 2**24  # 64 MB of float32 scores at a time; a single query against more rows takes 4 bytes a row
_ROWS_PER_BLOCK = 2**12  # candidates scored in float64 at a time
_DECODED_PER_BLOCK = 2**22  # numbers of vectors turned into float32 at a time


class Engine(Protocol):
    """What finds rows of the base approximately."""

    def search(self, queries: np.ndarray, k: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows and float32 scores, `[Q, k]`, best first; `share` of the rows is allowed, the rest is dropped"""


def nearest(
    rows: Rows, engine: Engine | None, queries: np.ndarray, k: int, allowed: np.ndarray | None, by_sku: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest allowed rows of each query, or the best row of each of the nearest products.

    Args:
        rows: all rows.
        engine: finds rows of the base; None to compare with all.
        queries: `[Q, D]` float32 unit vectors, at least one.
        k: neighbours per query.
        allowed: the numbers of the rows that may be found, ascending; None if all may, none being dead.
        by_sku: whether the rows of an answer must show different products.

    Returns:
        Row numbers and float32 scores, both `[Q, w]`, best first. `w` is `k`, or the number of allowed rows (products)
        if there are fewer.
    """
    num_allowed = len(rows) if allowed is None else len(allowed)
    width = min(k, num_allowed)
    fetch = width
    if by_sku:
        num_skus = rows.num_skus if allowed is None else rows.count_skus(allowed)
        width = min(k, num_skus)
        fetch = math.ceil(_SPARE * width * num_allowed / max(num_skus, 1))
    is_plain = allowed is None and not by_sku and not len(rows.recent)
    if is_plain and engine is not None and width and len(queries):
        return engine.search(queries, width, 1.0)
    found, scores = np.zeros((len(queries), width), np.intp), np.zeros((len(queries), width), np.float32)
    pending = np.arange(len(queries)) if width else np.zeros(0, np.intp)
    growth = 1  # of what is fetched, for queries near which less is allowed than elsewhere
    while len(pending):
        fetch = min(fetch, num_allowed)
        block, left = max(1, _SCORES_PER_BLOCK // fetch), []
        for some in (pending[start : start + block] for start in range(0, len(pending), block)):
            candidates, their_scores = _candidates(rows, engine, queries[some], fetch, allowed, growth)
            # where less is allowed than elsewhere, what was found may be what happened to lie in the leaves searched
            is_sure = np.isfinite(their_scores).sum(axis=1) >= (growth > 1) * fetch / 2
            if by_sku:
                their_scores[~_is_first(rows.sku_numbers(candidates), their_scores)] = -np.inf
                candidates, their_scores = _sorted(candidates, their_scores)
            candidates, their_scores = candidates[:, :width], their_scores[:, :width]
            is_full = is_sure & np.isfinite(their_scores).all(axis=1) & (their_scores.shape[1] == width)
            found[some[is_full]], scores[some[is_full]] = candidates[is_full], their_scores[is_full]
            left.append(some[~is_full])
        pending = np.concatenate(left)
        if fetch == num_allowed:
            engine = None  # nothing is left but to compare with all
        fetch, growth = 4 * fetch, 4 * growth
    return found, scores


def _candidates(rows, engine, queries, fetch: int, allowed, growth: int):
    """The nearest `fetch` allowed rows, `[Q, fetch]`, best first; scores of -inf where fewer are sure to be them."""
    num_allowed = len(rows) if allowed is None else len(allowed)
    share = num_allowed / len(rows)
    num_base = len(rows.base)
    over = fetch if allowed is None else min(math.ceil(_SPARE * fetch / share) + 2, num_base)
    is_narrow = num_allowed <= min(max(NARROW, _COMPARED_PER_FETCHED * over), num_base // 2)
    # above a fifth of the base ScaNN is no faster than comparing
    if engine is None or is_narrow or over > max(num_base // 5, NARROW):
        return compared(rows, queries, fetch, allowed)
    found, scores = engine.search(queries, min(over, num_base), share / growth)
    if allowed is None and not len(rows.recent):
        return found, scores
    worst = scores[:, -1:].copy()  # rows of the base below it are not known
    if allowed is not None:
        is_allowed = np.zeros(len(rows), bool)
        is_allowed[allowed] = True
        scores[~is_allowed[found]] = -np.inf
    recent = np.arange(num_base, len(rows)) if allowed is None else allowed[np.searchsorted(allowed, num_base) :]
    if len(recent):
        extra, extra_scores = compared(rows, queries, min(fetch, len(recent)), recent)
        if over < num_base:
            extra_scores[extra_scores < worst] = -np.inf
        found, scores = np.concatenate([found, extra], axis=1), np.concatenate([scores, extra_scores], axis=1)
    found, scores = _sorted(found, scores)
    return found[:, :fetch], scores[:, :fetch]


def _sorted(found: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _is_first(skus: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`[Q, n]` bool: no earlier row of this query shows that product, and this one was found."""
    skus = np.where(np.isfinite(scores), skus, -1)
    order = np.argsort(skus, axis=1, kind="stable")
    ordered = np.take_along_axis(skus, order, axis=1)
    is_new = np.ones(skus.shape, bool)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty(skus.shape, bool)
    np.put_along_axis(first, order, is_new, axis=1)
    return first & (skus >= 0)


def compared(rows: Rows, queries: np.ndarray, k: int, allowed: np.ndarray | None = None):
    """The `k` nearest of the allowed rows, by comparing with each: exact, smaller row first on ties.

    Args:
        rows: all rows.
        queries: `[Q, D]` float32.
        k: 1 <= k <= number of allowed rows.
        allowed: the numbers of the rows that may be found, ascending; None for all.

    Returns:
        Row numbers and float32 scores, both `[Q, k]`, best first.
    """
    num_base = len(rows.base)
    if allowed is None:
        parts = [(rows.base.vectors, None, 0), (rows.recent.vectors, None, num_base)]
    else:
        split = np.searchsorted(allowed, num_base)
        parts = [(rows.base.vectors, allowed[:split], 0), (rows.recent.vectors, allowed[split:] - num_base, num_base)]
    answers = []
    for vectors, which, offset in parts:
        count = len(vectors) if which is None else len(which)
        if count:
            found, scores = exact_top_k(vectors, queries, min(k, count), which)
            answers.append((found + offset, scores))
    if len(answers) == 1:
        return answers[0]
    found, scores = _sorted(*(np.concatenate(both, axis=1) for both in zip(*answers)))
    return found[:, :k], scores[:, :k]


def exact_top_k(vectors: Vectors, queries: np.ndarray, k: int, which: np.ndarray | None = None):
    """Returns the rows of the `k` largest dot products of unit vectors, and those products, smaller row first on ties.

    A float32 product depends, in its last digits, on where BLAS finds the row: two copies of one photo score
    differently, and differently again in another batch. So BLAS only chooses candidates, and these are scored again in
    float64, where each row is summed alone.

    Args:
        vectors: `[N, D]`.
        queries: `[Q, D]` float32.
        k: 1 <= k <= N.
        which: the rows to compare with, ascending; None for all.

    Returns:
        `rows [Q, k]` integers and `scores [Q, k]` float32, best first.
    """
    num_rows, dim = len(vectors) if which is None else len(which), vectors.dim
    rows, scores = np.empty((len(queries), k), np.intp), np.empty((len(queries), k), np.float32)
    # A float32 dot product of unit vectors is off by at most dim * eps / 2 (Higham 2002, eq. 3.5), and so is the
    # threshold: a true neighbour is at most dim * eps below it. Twice that leaves room for lengths not quite 1.
    slack = 2 * dim * np.finfo(np.float32).eps
    block = max(1, _SCORES_PER_BLOCK // num_rows)
    for start in range(0, len(queries), block):
        approximate = _products(vectors, queries[start : start + block], which)
        thresholds = np.partition(approximate, num_rows - k, axis=1)[:, num_rows - k] - slack
        for offset, threshold in enumerate(thresholds):
            candidates = np.flatnonzero(approximate[offset] >= threshold)
            candidates = candidates if which is None else which[candidates]
            exact = _exact_products(vectors, candidates, queries[start + offset])
            order = np.argsort(-exact, kind="stable")[:k]  # candidates ascend, so a tie goes to the smaller row
            rows[start + offset], scores[start + offset] = candidates[order], exact[order]
    return rows, scores


def _products(vectors: Vectors, queries: np.ndarray, which: np.ndarray | None) -> np.ndarray:
    """`[Q, N]` float32 products; what is not kept as float32 is turned into it in blocks."""
    if which is None and vectors.storage == "float32":
        return queries @ vectors.values.T
    num_rows = len(vectors) if which is None else len(which)
    products, block = np.empty((len(queries), num_rows), np.float32), max(1, _DECODED_PER_BLOCK // vectors.dim)
    for start in range(0, num_rows, block):
        some = slice(start, start + block) if which is None else which[start : start + block]
        np.matmul(queries, vectors.rows(some).T, out=products[:, start : start + block])
    return products


def _exact_products(vectors: Vectors, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    products = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        block = vectors.rows(rows[start : start + _ROWS_PER_BLOCK]).astype(np.float64)
        products[start : start + len(block)] = (block * query.astype(np.float64)).sum(axis=1)
    return products
