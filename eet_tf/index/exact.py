"""The index that compares a query with every row: the oracle of the others, and quick enough for most catalogues."""

from __future__ import annotations

import numpy as np

from eet_tf.index.base import CatalogIndex
from eet_tf.index.checks import check_content

_SCORES_PER_BLOCK = 2**24  # 64 MB of float32 scores at a time; a single query against more rows takes 4 bytes a row
_ROWS_PER_BLOCK = 2**12  # candidates scored in float64 at a time


class ExactIndex(CatalogIndex):
    """Searches every row, so that answers are exact. `search` documents the query; this is `build`.

    * Order is by cosine, then by row: of photos with the same score, the one built first comes first.
    * An answer depends on its query and the rows only, not on what else is in the batch.
    * A loaded index maps `vectors.npy` into memory instead of reading it.

    Args (of `ExactIndex.build`):
        embeddings: `[N, D]` unit vectors, floating point, one row per photo; copied.
        skus: `[N]` strings or integers, the product that each photo shows.
        photos: optional `[N]` unique strings, the id of each photo. Defaults to "0", "1", ... "N-1".
        fingerprint: optional string that names the embedder. A query with another one is refused.
        metadata: optional dict that JSON can hold, kept with the index, e.g. where the SavedModel is.

    Raises:
        CatalogIndexError: if a row is not a finite unit vector, lengths differ, or a photo is repeated.

    Example:

    >>> import numpy as np
    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(3, dtype="float32"), skus=["mug", "cup", "jug"])
    >>> neighbors = index.search([0.0, 1.0, 0.0], k=2)
    >>> neighbors.skus.tolist(), neighbors.scores.tolist(), neighbors.photos.tolist()
    ([['cup', 'mug']], [[1.0, 0.0]], [['1', '0']])
    """

    kind = "exact"

    @classmethod
    def build(cls, embeddings, skus, photos=None, fingerprint=None, metadata=None) -> ExactIndex:
        """Builds the index; see the class."""
        return cls(check_content(embeddings, skus, photos, fingerprint, metadata))

    @property
    def is_exact(self) -> bool:
        """Always."""
        return True

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return exact_top_k(self._content.vectors, queries, k)


def exact_top_k(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the `k` largest dot products of unit vectors, and those products, smaller row first on ties.

    A float32 product depends, in its last digits, on where BLAS finds the row: two copies of one photo score
    differently, and differently again in another batch. So BLAS only chooses candidates, and these are scored again in
    float64, where each row is summed alone.

    Args:
        vectors: `[N, D]` float32.
        queries: `[Q, D]` float32.
        k: 1 <= k <= N.

    Returns:
        `rows [Q, k]` integers and `scores [Q, k]` float32, best first.
    """
    num_rows, dim = vectors.shape
    rows, scores = np.empty((len(queries), k), np.intp), np.empty((len(queries), k), np.float32)
    # A float32 dot product of unit vectors is off by at most dim * eps / 2 (Higham 2002, eq. 3.5), and so is the
    # threshold: a true neighbour is at most dim * eps below it. Twice that leaves room for lengths not quite 1.
    slack = 2 * dim * np.finfo(np.float32).eps
    block = max(1, _SCORES_PER_BLOCK // num_rows)
    for start in range(0, len(queries), block):
        approximate = queries[start : start + block] @ vectors.T
        thresholds = np.partition(approximate, num_rows - k, axis=1)[:, num_rows - k] - slack
        for offset, threshold in enumerate(thresholds):
            candidates = np.flatnonzero(approximate[offset] >= threshold)
            exact = _dot_products(vectors, candidates, queries[start + offset])
            order = np.argsort(-exact, kind="stable")[:k]  # candidates ascend, so a tie goes to the smaller row
            rows[start + offset], scores[start + offset] = candidates[order], exact[order]
    return rows, scores


def _dot_products(vectors: np.ndarray, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    products = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        block = vectors[rows[start : start + _ROWS_PER_BLOCK]].astype(np.float64)
        products[start : start + len(block)] = (block * query.astype(np.float64)).sum(axis=1)
    return products
