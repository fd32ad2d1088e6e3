"""What can be done to embeddings after training so that search finds more: each has a price, and none is on by default.

Query expansion costs one more search of each query, whitening one small product for each photo, re-ranking neighbours
of every photo of the catalogue. What each gained where it was measured stands in docs/methods.md. NumPy only.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Iterator

import numpy as np

from eet_tf import files
from eet_tf.wording import said_by

_SCORES_AT_ONCE = 2**24  # 64 MB of float32
_MAX_ROWS = 256  # of a block


def expand_queries(queries, gallery=None, num_neighbors: int = 10, alpha: float = 3.0) -> np.ndarray:
    """Adds to each query its nearest neighbours, weighted by `max(cosine, 0) ** alpha`: alpha-QE.

    Search the gallery with the result in place of the queries. Where there is no gallery and every photo is searched
    among all the others, rank with `rank_queries(expanded, labels, embeddings, labels, leave_out_self=True)`.

    Args:
        queries: `[Q, D]` vectors of any length but zero.
        gallery: `[N, D]`, or None: each query's neighbours are found among all other queries.
        num_neighbors: how many are added; all there are if fewer.
        alpha: the larger, the more the nearest weighs; 0: all alike.

    Returns:
        `[Q, D]` float32 of unit length.

    Raises:
        ValueError: if shapes do not fit, a vector is zero or not finite, or a number is out of range.

    Example:

    >>> print(expand_queries([[1.0, 0.0]], [[0.8, 0.6], [0.0, 1.0]], num_neighbors=1, alpha=0).round(2))
    [[0.95 0.32]]

    Reference: Radenovic, Tolias, Chum, TPAMI 2018, arXiv 1711.02512, section 3.5.
    """
    _check_count("num_neighbors", num_neighbors)
    if not alpha >= 0:
        raise ValueError(f"`alpha` must be 0 or more. Received: alpha={alpha}.")
    unit, unit_gallery = _unit_pair(queries, gallery)
    expanded = np.empty_like(unit)
    for rows, columns, scores in _nearest(unit, unit_gallery, num_neighbors, leave_out_self=gallery is None):
        weights = np.maximum(scores, 0) ** np.float32(alpha)
        expanded[rows] = unit[rows] + np.einsum("qk,qkd->qd", weights, unit_gallery[columns])
    return _unit(expanded, "queries")


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening:
    """A projection after which all directions vary alike; `fit_whitening` finds it.

    Args:
        mean: `[D]`, subtracted first.
        projection: `[D, dim]`, multiplied with then. What comes out is brought to unit length.

    Raises:
        ValueError: if shapes do not fit or a number is not finite.
    """

    mean: np.ndarray
    projection: np.ndarray

    def __post_init__(self):
        for name in ("mean", "projection"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        if self.mean.ndim != 1 or self.projection.ndim != 2 or len(self.mean) != len(self.projection):
            raise ValueError(
                "`mean` must be [D] and `projection` [D, dim]. "
                f"Received: shapes {self.mean.shape} and {self.projection.shape}."
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.projection).all()):
            raise ValueError("`mean` and `projection` must be finite. Received: numbers that are not.")

    @property
    def dim(self) -> int:
        """Length of the vectors that come out."""
        return self.projection.shape[1]

    def apply(self, embeddings) -> np.ndarray:
        """Whitens `[N, D]` unit vectors, as they come from an embedder, to `[N, dim]` float32 of unit length."""
        embeddings = np.asarray(embeddings, np.float32)
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.mean):
            raise ValueError(f"`embeddings` must be [N, {len(self.mean)}]. Received: shape {embeddings.shape}.")
        whitened = (embeddings - self.mean) @ self.projection
        return whitened / np.maximum(np.linalg.norm(whitened, axis=1, keepdims=True), 1e-6)

    def write(self, file: str | os.PathLike) -> None:
        """Writes it as `.npz`; what was there stays until the new file is complete."""
        with files.replaced(file) as aside, open(aside, "wb") as opened:
            np.savez(opened, mean=self.mean, projection=self.projection)

    @classmethod
    def read(cls, file: str | os.PathLike) -> Whitening:
        """Reads what `write` wrote.

        Raises:
            ValueError: if it is no such file.
        """
        try:
            with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                return cls(arrays["mean"], arrays["projection"])
        except (OSError, EOFError, LookupError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            why = said_by(error) if isinstance(error, OSError) else "it is not a NumPy file of mean and projection"
            raise ValueError(
                f"{os.fspath(file)!r} is no whitening: {why}. Make one with `eet evaluate --fit_whitening`."
            ) from error


def fit_whitening(embeddings, dim: int | None = None) -> Whitening:
    """PCA whitening: the directions in which embeddings vary most, each divided by how much they do.

    Fit it on photos that are trained on, never on those that figures come from.

    Args:
        embeddings: `[N, D]` unit vectors.
        dim: how many directions to keep; by default all in which they vary at all.

    Raises:
        ValueError: if they are not `[N, D]` and finite, or vary in fewer than `dim` directions.

    Example:

    >>> embeddings = np.random.default_rng(0).normal(size=[100, 4]) * [5.0, 1.0, 1.0, 0.1]
    >>> fit_whitening(embeddings, dim=2).apply(embeddings).shape
    (100, 2)

    Reference: Jegou and Chum, ECCV 2012, section 3.
    """
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise ValueError(f"`embeddings` must be [N, D] and finite. Received: shape {embeddings.shape}.")
    mean = embeddings.mean(axis=0, dtype=np.float64)
    covariance = np.zeros([len(mean), len(mean)])
    for start in range(0, len(embeddings), 4096):
        centred = embeddings[start : start + 4096] - mean
        covariance += centred.T @ centred / len(embeddings)
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1], directions[:, ::-1]
    num_directions = int(np.sum(variances > 1e-6 * variances[0])) if variances[0] > 1e-12 else 0
    dim = num_directions if dim is None else dim
    if not isinstance(dim, (int, np.integer)) or not 1 <= dim <= num_directions:
        raise ValueError(
            f"`dim` must be from 1 to {num_directions}, in so many directions the embeddings vary. Received: dim={dim}."
        )
    return Whitening(mean, directions[:, :dim] / np.sqrt(variances[:dim]))


def rerank(
    queries, gallery=None, num_candidates: int = 100, k1: int = 20, k2: int = 6, original_weight: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Puts the nearest of each query into another order, by how many neighbours they share: k-reciprocal re-ranking.

    Memory grows with the number of photos, not with its square. Distances are `1 - cosine`, where the paper divides
    squared ones by the largest of each photo, which needs all of them.

    Args:
        queries: `[Q, D]` vectors of any length but zero.
        gallery: `[N, D]`, or None: each query is searched among all other queries.
        num_candidates: C, how many of each query's nearest are put into order; all there are if fewer.
        k1: neighbours within which two photos must find each other.
        k2: neighbours over which a photo's shares are averaged; 1: itself alone.
        original_weight: weight of the distance itself, beside that of shared neighbours.

    Returns:
        `(rows, distances)`, both `[Q, C]`: rows of the gallery, best first, and float64 distances, which mean
        something among candidates of one query only.

    Raises:
        ValueError: if shapes do not fit, a vector is zero or not finite, or a number is out of range.

    Reference: Zhong, Zheng, Cao, Li, CVPR 2017, arXiv 1701.08398, equations 5 to 12.
    """
    for name, value in (("num_candidates", num_candidates), ("k1", k1), ("k2", k2)):
        _check_count(name, value)
    if not 0 <= original_weight <= 1:
        raise ValueError(f"`original_weight` must be from 0 to 1. Received: original_weight={original_weight}.")
    unit, unit_gallery = _unit_pair(queries, gallery)
    photos = unit if gallery is None else np.concatenate([unit, unit_gallery])
    first = len(photos) - len(unit_gallery)  # of the gallery among the photos
    shares = _Shares(photos, k1, k2)
    num_candidates = min(num_candidates, len(unit_gallery) - (gallery is None))
    found, distances = np.empty([len(unit), num_candidates], np.intp), np.empty([len(unit), num_candidates])
    for rows, columns, scores in _nearest(unit, unit_gallery, num_candidates, leave_out_self=gallery is None):
        for row, candidates, cosines in zip(range(rows.start, rows.stop), columns, scores.astype(np.float64)):
            shared = 1 - shares.jaccard(row, first + candidates)
            mixed = original_weight * (1 - cosines) + (1 - original_weight) * shared
            order = np.argsort(mixed, kind="stable")
            found[row], distances[row] = candidates[order], mixed[order]
    return found, distances


class _Shares:
    """For each photo the share that each of its mutual neighbours has in it, few enough to be kept as they are."""

    def __init__(self, photos: np.ndarray, k1: int, k2: int):
        neighbors = np.concatenate([found for _, found in _with_itself_first(photos, max(k1 + 1, k2))])
        own = [
            self._weighed(photos, row, members)
            for row, members in enumerate(_mutual_neighbors(neighbors[:, : k1 + 1], k1))
        ]
        averaged = [self._mean([own[neighbor] for neighbor in near]) for near in neighbors[:, :k2]]
        self._starts = np.cumsum([0, *[len(members) for members, _ in averaged]])
        self._members = np.concatenate([members for members, _ in averaged])
        self._weights = np.concatenate([weights for _, weights in averaged])
        self._scratch = np.zeros(len(photos))

    @staticmethod
    def _weighed(photos, row: int, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = np.exp(photos[members] @ photos[row] - 1).astype(np.float64)
        return members, weights / weights.sum()

    @staticmethod
    def _mean(parts) -> tuple[np.ndarray, np.ndarray]:
        members, places = np.unique(np.concatenate([part for part, _ in parts]), return_inverse=True)
        return members, np.bincount(places, np.concatenate([weights for _, weights in parts])) / len(parts)

    def jaccard(self, row: int, others: np.ndarray) -> np.ndarray:
        """How much of its shares a photo has in common with each of some others, in [0, 1]."""
        own = slice(self._starts[row], self._starts[row + 1])
        self._scratch[self._members[own]] = self._weights[own]
        sizes = self._starts[others + 1] - self._starts[others]
        places = np.repeat(np.arange(len(others)), sizes)
        entries = np.arange(len(places)) + (self._starts[others] - np.cumsum(sizes) + sizes)[places]
        smaller = np.minimum(self._scratch[self._members[entries]], self._weights[entries])
        self._scratch[self._members[own]] = 0
        common = np.bincount(places, smaller, len(others))
        return common / (2 - common)


def _mutual_neighbors(neighbors: np.ndarray, k1: int) -> Iterator[np.ndarray]:
    """Yields, for each photo, its mutual neighbours, and those of half as many where most are shared.

    Two photos are mutual neighbours if each is among the nearest of the other.

    Args:
        neighbors: `[N, k1 + 1]` the nearest of each photo, itself first.
        k1: as in `rerank`.
    """
    half = neighbors[:, : round(k1 / 2) + 1]
    mutual, close = ([set(near[both].tolist()) for near, both in _mutual(each)] for each in (neighbors, half))
    for own in mutual:
        members = set(own)
        for neighbor in own:
            if 3 * len(close[neighbor] & own) > 2 * len(close[neighbor]):
                members |= close[neighbor]
        yield np.array(sorted(members))


def _mutual(neighbors: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`(neighbours, is mutual)` of each photo."""
    for start in range(0, len(neighbors), _MAX_ROWS):
        block = neighbors[start : start + _MAX_ROWS]
        rows = np.arange(start, start + len(block))
        yield from zip(block, (neighbors[block] == rows[:, np.newaxis, np.newaxis]).any(axis=2))


def _with_itself_first(photos: np.ndarray, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of a block, and each one's nearest photos with itself before them, though another may be its copy."""
    for rows, columns, _ in _nearest(photos, photos, size - 1, leave_out_self=True):
        yield rows, np.concatenate([np.arange(rows.start, rows.stop)[:, np.newaxis], columns], axis=1)


def _nearest(queries: np.ndarray, gallery: np.ndarray, k: int, leave_out_self: bool):
    """Yields `(rows, columns [B, k], scores [B, k])` of blocks of unit vectors, best first."""
    size = len(gallery)
    k = min(k, size - leave_out_self)
    step = int(np.clip(_SCORES_AT_ONCE // size, 1, _MAX_ROWS))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        scores = queries[rows] @ gallery.T
        if leave_out_self:
            scores[np.arange(len(scores)), np.arange(rows.start, rows.stop)] = -np.inf
        columns = np.argpartition(scores, size - max(k, 1), axis=1)[:, size - k :]
        columns.sort(axis=1)  # so that the first of those that tie comes first
        found = np.take_along_axis(scores, columns, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        yield rows, np.take_along_axis(columns, order, axis=1), np.take_along_axis(found, order, axis=1)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be 1 or more. Received: {name}={value!r}. Give a whole number.")


def _unit_pair(queries, gallery) -> tuple[np.ndarray, np.ndarray]:
    """Both of unit length; the queries twice if there is no gallery."""
    unit = _unit(queries, "queries")
    if gallery is None:
        return unit, unit
    unit_gallery = _unit(gallery, "gallery")
    if unit_gallery.shape[1] != unit.shape[1]:
        raise ValueError(
            "`queries` and `gallery` must have the same dimension. "
            f"Received: {unit.shape[1]} and {unit_gallery.shape[1]}."
        )
    return unit, unit_gallery


def _unit(vectors, name: str) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"`{name}` must be [N, D], N 1 or more. Received: shape {vectors.shape}.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if wrong.size:
        raise ValueError(f"`{name}` must be finite and not zero. Received: row {wrong[0]} is not.")
    return vectors / lengths
