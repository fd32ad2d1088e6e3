"""At which places right answers stand: exact, and without sorting the gallery or keeping N x N scores.

NumPy only, unless TensorFlow has been imported already and sees a GPU. There all scores are float64, made and counted
by `ranking_on_gpu`, with the same result. On a CPU that would take twice as long as what follows.

A float32 product depends, in its last digits, on where BLAS finds a row: two copies of one photo score differently.
So the product of a block of queries with the whole gallery only says which wrong answers come near a right one. These
few are scored again in float64, and every place rests on float64 scores alone. Where they are not few, because a class
has thousands of photos or an embedder maps all photos to nearly one point, all scores of the query are float64.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from eet_tf.evaluation import ranking_on_gpu

_SCORES_AT_ONCE = 2**24  # 64 MB of float32
_ROWS = (32, 1024)  # of a block at least, however large the gallery, and at most
_CHUNK = 64  # scores of which the largest stands for all
_CROWD = 1024  # more wrong answers to score again than this take longer than the whole row in float64
_PAIRS_AT_ONCE = 128  # fit the cache
_COLUMNS_AT_ONCE = 2**12
_TIE = 1e-9  # above the rounding of float64 by far, below what float32 embeddings can tell apart


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings with their lengths.

    Args:
        embeddings: `[N, D]` float32, not zero.
        lengths: `[N]` float64.
    """

    embeddings: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, embeddings) -> Vectors:
        """Measures them; `[N, D]` of anything that float32 can hold."""
        embeddings = np.asarray(embeddings, np.float32)
        return cls(embeddings, np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64)))

    def unit32(self) -> np.ndarray:
        """`[N, D]` float32 of unit length, each number rounded once."""
        unit = np.empty_like(self.embeddings)
        return np.divide(self.embeddings, self.lengths[:, np.newaxis], out=unit, casting="same_kind")

    def unit64(self, rows) -> np.ndarray:
        """`[len(rows), D]` float64 of unit length."""
        return self.embeddings[rows] / self.lengths[rows, np.newaxis]


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """Which rows of the gallery are right for each query.

    Args:
        classes: `[N]` the class of each row of the gallery, as a number from 0.
        rows: `[N]` the rows of the gallery, class by class.
        starts: `[Q]` where the class of a query begins in `rows`.
        stops: `[Q]` where it ends.
        leave_out_self: the gallery begins with the photos of the queries, in their order, and none answers itself.
    """

    classes: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    leave_out_self: bool

    @classmethod
    def of(cls, labels: np.ndarray, gallery_labels: np.ndarray, leave_out_self: bool) -> Answers:
        """Sorts the labels of the gallery."""
        _, both = np.unique(np.concatenate([labels, gallery_labels]), return_inverse=True)
        classes, gallery_classes = both[: len(labels)], both[len(labels) :]
        rows = np.argsort(gallery_classes, kind="stable")
        in_order = gallery_classes[rows]
        starts, stops = (np.searchsorted(in_order, classes, side=side) for side in ("left", "right"))
        _, gallery_classes = np.unique(gallery_classes, return_inverse=True)
        return cls(gallery_classes, rows, starts, stops, leave_out_self)

    @property
    def num_classes(self) -> int:
        """How many classes the gallery has."""
        return int(self.classes.max(initial=-1)) + 1

    @property
    def counts(self) -> np.ndarray:
        """`[Q]` the right answers of each query: R."""
        return self.stops - self.starts - self.leave_out_self

    def of_class(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(places, rows)` of all pairs of one of some queries, by its place among them, and a row of its class."""
        sizes = self.stops[queries] - self.starts[queries]
        places = np.repeat(np.arange(len(queries)), sizes)
        firsts = np.cumsum(sizes) - sizes
        return places, self.rows[np.arange(len(places)) + (self.starts[queries] - firsts)[places]]

    def of_class_as_table(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(rows, is_in_class)`, `[B, C]` each: the rows of each query's class, and behind them some that are not."""
        sizes = self.stops[queries] - self.starts[queries]
        nth = np.arange(sizes.max())
        is_in_class = nth < sizes[:, np.newaxis]
        return self.rows[np.where(is_in_class, self.starts[queries, np.newaxis] + nth, 0)], is_in_class


def rank(queries: Vectors, gallery: Vectors, answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the places of right answers by cosine, as far as figures need them.

    A wrong answer with the score of a right one, to 1e-9, stands before it.

    Args:
        queries: `[Q, D]`.
        gallery: `[N, D]`.
        answers: what is right.

    Returns:
        `first_places [Q]` int64 from 1, 0 where there is no right answer; `product_places [Q]` int64, the place of the
        query's product where each product stands at its best photo; `precisions [2, Q]`, the average precision @R and
        the R-precision of each query, NaN where there is no right answer.
    """
    first_places, product_places = np.zeros([2, len(queries.lengths)], np.int64)
    precisions = np.full([2, len(first_places)], np.nan)
    for rows, first, product, figures in _ranked(queries, gallery, answers):
        first_places[rows], product_places[rows], precisions[:, rows] = first, product, figures
    return first_places, product_places, precisions


def _ranked(queries: Vectors, gallery: Vectors, answers: Answers):
    """Yields `(rows, first places, product places, precisions)` until all queries with an answer have been ranked."""
    if _is_gpu_there():
        from eet_tf.evaluation import ranking_on_gpu

        try:
            on_gpu = ranking_on_gpu.Gallery(gallery.unit64(slice(None)), answers.classes)
            yield from _rank_on_gpu(queries, on_gpu, answers)
            return
        except ranking_on_gpu.GpuError as error:  # no reason to end a training; what has been ranked is ranked again
            warnings.warn(f"Ranking takes longer, on the CPU: {error}", stacklevel=2)
    yield from _rank_on_cpu(queries, gallery, answers)


def _is_gpu_there() -> bool:
    """Whether TensorFlow sees one; where nobody has imported TensorFlow, looking is not worth the seconds it takes."""
    if sys.modules.get("tensorflow") is None:
        return False
    from eet_tf import plans

    return plans.has_gpu()


def _rank_on_cpu(queries: Vectors, gallery: Vectors, answers: Answers):
    counts = answers.counts
    is_few = (counts > 0) & (counts <= len(gallery.lengths) // _CHUNK // 4)
    left = [np.flatnonzero((counts > 0) & ~is_few)]
    for *ranked, is_crowded in _rank_few(queries, gallery, answers, np.flatnonzero(is_few)):
        yield ranked
        rows = ranked[0]
        left.append(rows[is_crowded])
    yield from _rank_all(queries, gallery, answers, np.concatenate(left))


def _blocks(rows: np.ndarray, num_scores: int, gallery_size: int) -> Iterator[np.ndarray]:
    size = int(np.clip(num_scores // gallery_size, *_ROWS))
    return (rows[start : start + size] for start in range(0, len(rows), size))


# Queries with few right answers


def _rank_few(queries: Vectors, gallery: Vectors, answers: Answers, todo: np.ndarray):
    """Yields what `_ranked` does of blocks, and `is_crowded`: what is, has to be ranked otherwise."""
    if not len(todo):
        return
    unit = gallery.unit32()
    unit_queries = unit if queries is gallery else queries.unit32()
    num_chunks = -(-len(unit) // _CHUNK)
    buffer = None
    for rows in _blocks(todo, _SCORES_AT_ONCE, len(unit)):
        if buffer is None:
            buffer = np.full([len(rows), num_chunks * _CHUNK], -np.inf, np.float32)
        scores = buffer[: len(rows), : len(unit)]
        np.matmul(unit_queries[rows], unit.T, out=scores)
        places, columns = answers.of_class(rows)
        scores[places, columns] = -np.inf  # what remains are wrong answers
        if answers.leave_out_self:
            is_other = rows[places] != columns
            places, columns = places[is_other], columns[is_other]
        right = _cosines(queries, gallery, rows[places], columns)
        right = right[np.lexsort([-right, places])]
        # Of a row's chunks as many as it has right answers reach `reached`: at least R wrong answers score as much.
        largest = buffer[: len(rows)].reshape(len(rows), _CHUNK, num_chunks).max(axis=1)
        largest.sort(axis=1)
        counts = answers.counts[rows]
        reached = largest[np.arange(len(rows)), num_chunks - counts].astype(np.float64)
        best = right[np.cumsum(counts) - counts]
        stands_before = np.zeros([len(rows), answers.num_classes], bool)
        columns, num_above, is_crowded = _near(scores, best, reached, unit.shape[1], answers.classes, stands_before)
        sizes = [len(found) for found in columns]
        wrong_places, columns = np.repeat(np.arange(len(rows)), sizes), np.concatenate(columns)
        wrong = _cosines(queries, gallery, rows[wrong_places], columns)
        is_before = wrong >= best[wrong_places] - _TIE
        stands_before[wrong_places[is_before], answers.classes[columns[is_before]]] = True
        first, figures = _figures(right, counts, wrong, wrong_places, num_above)
        yield rows, first, 1 + stands_before.sum(axis=1), figures, is_crowded


def _near(scores, best, reached, dim: int, classes, stands_before):
    """Which wrong answers have to be scored again.

    Args:
        scores: `[B, N]` float32 of wrong answers; -inf in place of right ones.
        best: `[B]` float64 score of the best right answer.
        reached: `[B]` what the float32 scores of R wrong answers reach.
        dim: length of the vectors.
        classes: `[N]` of the gallery.
        stands_before: `[B, C]` bool; the classes of those that are sure to stand before the best right answer are set.

    Returns:
        `columns`, a list of `[B]` arrays; `num_above [B]`, how many others are sure to stand before the best right
        answer; `is_crowded [B]`, whether they are too many, and left out.
    """
    # A float32 product of unit vectors is off by dim * eps / 2 at most (Higham 2002, eq. 3.5); rounding the vectors
    # and the bounds below adds less than 4 * eps.
    slack = (dim / 2 + 4) * np.finfo(np.float32).eps
    # A right answer below `reached` by more than that has R wrong ones before it. If the best has, its place is all
    # that is to be found, and all that is to be scored again is what comes near it.
    is_deep = best < reached - slack
    low = (np.where(is_deep, best, reached - slack) - slack - _TIE).astype(np.float32)
    high = (best + slack).astype(np.float32)
    columns, num_above = [], np.zeros(len(best), np.int64)
    for row in range(len(best)):
        found = np.flatnonzero(scores[row] >= low[row])
        if is_deep[row]:
            is_above = scores[row, found] > high[row]
            num_above[row] = np.count_nonzero(is_above)
            stands_before[row, classes[found[is_above]]] = True
            found = found[~is_above]
        columns.append(found)
    is_crowded = np.array([len(found) > _CROWD for found in columns])
    return [found[: 0 if crowded else None] for found, crowded in zip(columns, is_crowded)], num_above, is_crowded


def _cosines(queries: Vectors, gallery: Vectors, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Float64 scores of pairs."""
    products = np.empty(len(rows))
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        first, second = queries.embeddings[rows[part]], gallery.embeddings[columns[part]]
        products[part] = np.einsum("pd,pd->p", first, second, dtype=np.float64)
    return products / (queries.lengths[rows] * gallery.lengths[columns])


def _figures(right, counts, wrong, wrong_places, num_above) -> tuple[np.ndarray, np.ndarray]:
    """First places `[B]` and precisions `[2, B]` of a block.

    Args:
        right: scores of right answers, row by row, falling within each.
        counts: `[B]` how many each row has, R.
        wrong: scores of wrong answers.
        wrong_places: the row of each.
        num_above: `[B]` wrong answers besides that stand before all right ones.
    """
    places = np.repeat(np.arange(len(counts)), counts)
    firsts = np.cumsum(counts) - counts
    nth = np.arange(1, len(places) + 1) - firsts[places]
    # Scores lie in [-1, 1], so these numbers ascend row by row, and within a row from its best answer down.
    in_order = np.sort(4 * wrong_places - wrong)
    num_before = np.searchsorted(in_order, 4 * places - right + _TIE, side="right")
    num_before -= np.searchsorted(in_order, 4 * places - 2)
    place = nth + num_before + num_above[places]
    is_within = place <= counts[places]
    sums = [np.bincount(places, weights, len(counts)) for weights in (is_within * nth / place, is_within)]
    return place[firsts], np.stack(sums) / counts


# Queries with many, or among crowds


def _rank_all(queries: Vectors, gallery: Vectors, answers: Answers, todo: np.ndarray):
    """Yields what `_ranked` does of each, all its scores in float64."""
    size = len(gallery.lengths)
    for rows in _blocks(todo, _SCORES_AT_ONCE // 2, size):
        unit, scores = queries.unit64(rows), np.empty([len(rows), size])
        for start in range(0, size, _COLUMNS_AT_ONCE):
            part = slice(start, start + _COLUMNS_AT_ONCE)
            np.matmul(unit, gallery.unit64(part).T, out=scores[:, part])
        for row, of_row in zip(rows, scores):
            yield row, *_figures_of_row(of_row, row, answers)


def _figures_of_row(scores: np.ndarray, row: int, answers: Answers) -> tuple[int, int, np.ndarray]:
    of_class = answers.rows[answers.starts[row] : answers.stops[row]]
    if answers.leave_out_self:
        scores[row] = -np.inf
    right = np.sort(scores[of_class])[::-1][: answers.counts[row]]  # the query itself, if there, has come last
    scores[of_class] = -np.inf
    num_right = len(right)
    before = np.sort(np.partition(scores, -num_right)[-num_right:])  # no more than R can matter
    nth = np.arange(1, num_right + 1)
    place = nth + num_right - np.searchsorted(before, right - _TIE)
    is_within = place <= num_right
    is_before = scores >= right[0] - _TIE
    stands_before = np.zeros(answers.num_classes, bool)
    stands_before[answers.classes[is_before]] = True
    first, product = (1 + int(np.count_nonzero(each)) for each in (is_before, stands_before))
    # added up from the best answer on, as everywhere here, so that the last digit is the same
    return first, product, np.array([np.cumsum(is_within * nth / place)[-1], np.sum(is_within)]) / num_right


# On a GPU


def _rank_on_gpu(queries: Vectors, gallery: ranking_on_gpu.Gallery, answers: Answers):
    """Yields what `_ranked` does of blocks, whether right answers are few or many."""
    counts = answers.counts
    in_order = np.argsort(counts, kind="stable")  # a block is as wide as its largest class
    for rows in _blocks(in_order[counts[in_order] > 0], _SCORES_AT_ONCE, len(answers.rows)):
        columns, is_in_class = answers.of_class_as_table(rows)
        is_right = is_in_class & (columns != rows[:, np.newaxis]) if answers.leave_out_self else is_in_class
        num_wrong, num_classes = gallery.num_wrong_before(queries.unit64(rows), columns, is_in_class, is_right, _TIE)
        nth = np.arange(1, num_wrong.shape[1] + 1)
        place = nth + np.cumsum(num_wrong, axis=1)
        is_within = place <= counts[rows, np.newaxis]
        sums = np.cumsum(is_within * nth / place, axis=1)[:, -1], np.sum(is_within, axis=1)
        yield rows, place[:, 0], 1 + num_classes, np.stack(sums) / counts[rows]


def reordered(classes, own, distances, counts, first_places, product_places) -> tuple:
    """`rank` once the nearest of each query stand in another order; what lies beyond them stays.

    Args:
        classes: `[Q, C]` the class of each of the nearest.
        own: `[Q]` the class of each query.
        distances: `[Q, C]` by which they stand, smaller first.
        counts: `[Q]` how many right answers each query has, R, C at most.
        first_places: `[Q]` as `rank` found them.
        product_places: `[Q]` as `rank` found them.
    """
    first_places, product_places = first_places.copy(), product_places.copy()
    precisions = np.full([2, len(counts)], np.nan)
    for query in np.flatnonzero(counts > 0):
        is_right = classes[query] == own[query]
        right, wrong = (np.sort(distances[query, chosen]) for chosen in (is_right, ~is_right))
        nth = np.arange(1, len(right) + 1)
        place = nth + np.searchsorted(wrong, right + _TIE, side="right")
        if len(right):
            first_places[query] = place[0]
            is_before = ~is_right & (distances[query] <= right[0] + _TIE)
            product_places[query] = 1 + len(np.unique(classes[query, is_before]))
        is_within = place <= counts[query]
        precisions[:, query] = np.sum(is_within * nth / place) / counts[query], np.sum(is_within) / counts[query]
    return first_places, product_places, precisions
