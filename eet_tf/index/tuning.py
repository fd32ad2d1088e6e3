"""How much an approximate index must look at to keep a promise: measured against the exact answers, not believed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from eet_tf.index.checks import CatalogIndexError
from eet_tf.index.search import exact_top_k
from eet_tf.index.storage import Vectors

K = 10
NUM_QUERIES = 2_000
FEWEST_QUERIES = 100
_CANDIDATES = (20, 40, 80, 160, 320, 640, 1280)
_CANDIDATES_OF_PREFIX = (2560, 5120)  # a prefix tells neighbours less well
_STEP = 1.25  # between numbers of leaves


def _as_share(target) -> str:
    """What to write for a percentage."""
    is_percentage = isinstance(target, int | float) and 1 < target <= 100
    return f"Write {target / 100:g} for {target:g} %. " if is_percentage else ""


def check_target(target_recall) -> None:
    """Refuses what is no share of neighbours."""
    if isinstance(target_recall, bool) or not isinstance(target_recall, (int, float)) or not 0 < target_recall <= 1:
        raise CatalogIndexError(
            f"`target_recall` must be a share above 0 and up to 1. Received: target_recall={target_recall!r}. "
            f"{_as_share(target_recall)}0.95 finds 95 % of the true 10 nearest."
        )


def tuned(engine, vectors: Vectors, target: float, queries: np.ndarray | None):
    """Returns the engine with the fastest configuration that reaches `target`, and what was measured.

    It is chosen by one half of the queries, and its recall measured by the other.

    Args:
        engine: a `ScannEngine`; its tree and codes stay as they are.
        vectors: its rows.
        target: the share of the true 10 nearest to find.
        queries: `[Q, D]`, or None: rows drawn from `vectors`, each searched among the others.

    Returns:
        The engine, and `{"target", "recall", "k", "num_queries", "queries", "curve"}`, where the curve lists `leaves`,
        `candidates`, `recall` and `queries_per_second` of what was tried.

    Raises:
        CatalogIndexError: if the target is not reached even where all is looked at.
    """
    choosing, checking = _halves(vectors, queries)
    k = min(K, len(vectors) - (queries is None))
    if engine.configuration.num_candidates == 0 and engine.configuration.num_leaves == 0:
        if k == 0:
            return engine, None
        measured = checking.recall(engine)
        _refuse_if_missed(measured, target, engine)
        return engine, _report(target, measured, checking, queries, [])
    curve = []
    for candidates in _numbers_of_candidates(engine.configuration, len(vectors)):
        curve += list(_fewest_leaves(engine, candidates, choosing, target))
    reached = sorted((row for row in curve if row["recall"] >= target), key=lambda row: -row["queries_per_second"])
    best = max(curve, key=lambda row: row["recall"])
    for row in [*reached, best]:
        chosen = engine.with_configuration(_configuration(engine, row["candidates"], row["leaves"]))
        measured = checking.recall(chosen)
        if measured >= target:
            break
    _refuse_if_missed(measured, target, chosen)
    curve.sort(key=lambda row: (row["candidates"], row["leaves"]))
    return chosen, _report(target, measured, checking, queries, curve)


class _Judge:
    """Queries with their true neighbours."""

    def __init__(self, vectors: Vectors, queries: np.ndarray, own_rows: np.ndarray | None):
        self._queries, self._own_rows = queries, own_rows
        extra = own_rows is not None
        self.k = min(K, len(vectors) - extra)
        found, _ = exact_top_k(vectors, queries, self.k + extra)
        self._true = self._without_own(found)
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._queries)

    def recall(self, engine) -> float:
        """The share of the true neighbours that it finds; `seconds` says how long all queries took."""
        start = time.perf_counter()
        found, _ = engine.search(self._queries, self.k + (self._own_rows is not None))
        self.seconds = time.perf_counter() - start
        found = self._without_own(found)
        hits = (found[:, :, np.newaxis] == self._true[:, np.newaxis, :]).any(axis=1)
        return float(hits.mean())

    def _without_own(self, found: np.ndarray) -> np.ndarray:
        """`[Q, k]`: a query that is a row of the index does not count as its own neighbour."""
        if self._own_rows is None:
            return found
        is_other = found != self._own_rows[:, np.newaxis]
        is_other[is_other.all(axis=1), -1] = False
        return found[is_other].reshape(len(found), -1)


def _halves(vectors: Vectors, queries: np.ndarray | None) -> tuple[_Judge, _Judge]:
    own_rows = None
    if queries is None:
        count = min(NUM_QUERIES, len(vectors))
        own_rows = np.random.default_rng(0).choice(len(vectors), count, replace=False)
        queries = vectors.rows(own_rows)
    elif len(queries) < FEWEST_QUERIES:
        raise CatalogIndexError(
            f"`tuning_queries` must be at least {FEWEST_QUERIES}. Received: {len(queries)}. "
            "Fewer say too little about a recall; leave them out to use rows of the catalogue."
        )
    halves = (slice(0, None, 2), slice(1, None, 2)) if len(queries) > 1 else (slice(None), slice(None))
    first, second = (_Judge(vectors, queries[half], None if own_rows is None else own_rows[half]) for half in halves)
    return first, second


def _numbers_of_candidates(configuration, num_rows: int) -> list[int]:
    if configuration.num_candidates == 0:
        return [0]
    numbers = _CANDIDATES + (_CANDIDATES_OF_PREFIX if configuration.search_prefix else ())
    return sorted({min(number, num_rows) for number in numbers})


def _fewest_leaves(engine, candidates: int, judge: _Judge, target: float) -> Iterator[dict]:
    """Tries numbers of leaves by halving the range; yields what each gave."""
    most = engine.configuration.num_leaves
    steps = [0]
    if most:
        steps = sorted({min(most, round(_STEP**power)) for power in range(200)})
    low, high = 0, len(steps) - 1
    while low <= high:
        # all leaves first: if that is not enough, no number is
        middle = high if high == len(steps) - 1 and low == 0 else (low + high) // 2
        chosen = engine.with_configuration(_configuration(engine, candidates, steps[middle]))
        recall = judge.recall(chosen)
        yield {
            "leaves": steps[middle],
            "candidates": candidates,
            "recall": recall,
            "queries_per_second": round(len(judge) / judge.seconds, 1),
        }
        if recall >= target:
            high = middle - 1
        else:
            low = middle + 1


def _configuration(engine, candidates: int, leaves: int):
    return dataclasses.replace(engine.configuration, num_candidates=candidates, num_leaves_to_search=leaves)


def _refuse_if_missed(recall: float, target: float, engine) -> None:
    if recall < target:
        raise CatalogIndexError(
            f"`target_recall` must be within reach. Received: target_recall={target}; the most that was measured is "
            f"{recall:.4f}, with {engine.configuration}. Ask for less, keep vectors as float32, or use ExactIndex."
        )


def _report(target: float, recall: float, judge: _Judge, queries, curve: list[dict]) -> dict:
    return {
        "target": target,
        "recall": recall,
        "k": judge.k,
        "num_queries": len(judge),
        "queries": "rows of the index" if queries is None else "given",
        "curve": curve,
    }
