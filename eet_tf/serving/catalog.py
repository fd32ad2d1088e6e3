"""Which catalogue a server searches by itself: its rows in the order of their products, and what is refused."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from eet_tf.index import CatalogIndexError, ExactIndex, ScannIndex, load_index
from eet_tf.index.storage import STORAGES, Vectors


@dataclasses.dataclass(frozen=True, eq=False)
class ServedCatalog:
    """The photos of an index, those of a product side by side.

    Args:
        vectors: `[N, D]`.
        rows: `[N]` int32, the row that each has in the index: of equal scores the smaller comes first.
        products: `[N]` int32, ascending, the product on each.
        skus: `[P]` strings, the name of each product.
        fingerprint: of the embedder.
        index: what it is of.
    """

    vectors: Vectors
    rows: np.ndarray
    products: np.ndarray
    skus: np.ndarray
    fingerprint: str
    index: ExactIndex | ScannIndex

    def facts(self) -> dict:
        """For the manifest."""
        return {
            "size": len(self.vectors),
            "num_products": len(self.skus),
            "storage": self.vectors.storage,
            "fingerprint": self.fingerprint,
        }


def served_catalog(index, k: int, storage: str | None, fingerprints: Sequence[str], dim: int) -> ServedCatalog:
    """Takes an index's photos as they are now, or refuses an index that the embedder does not fit.

    Args:
        index: an index, or its folder.
        k: products that a search will find.
        storage: how vectors are kept; None: as the index does.
        fingerprints: of the embedder, and then of those whose indexes it can search.
        dim: length of its embeddings.

    Raises:
        CatalogIndexError: if the index cannot be read, is of another embedder or of vectors of another length, or has
            fewer than `k` products; or if `storage` is none.
    """
    if isinstance(index, str | os.PathLike):
        index = load_index(index, read_only=True)
    if not isinstance(index, ExactIndex | ScannIndex):  # the rows of others are not in this process
        raise CatalogIndexError(
            f"`catalog_index` must be an ExactIndex, a ScannIndex or the folder of one. Received: {index!r}."
        )
    if index.dim != dim:
        raise CatalogIndexError(
            f"`catalog_index` must be of the embedder's {dim} dimensions. Received: one of {index.dim}. "
            "Build it with `eet index build` from a SavedModel of this embedder."
        )
    fingerprint = index.fingerprint
    if fingerprint is None or fingerprint not in fingerprints:
        raise CatalogIndexError(
            f"`catalog_index` must be of this embedder, whose fingerprint is {fingerprints[0]!r}. Received: one with "
            f"fingerprint {index.fingerprint!r}. Its vectors are another embedder's (or its whitening differs), so no "
            "score would mean anything: build it with `eet index build` from a SavedModel of this embedder."
        )
    storage = index.storage if storage is None else storage
    if storage not in STORAGES:
        raise CatalogIndexError(
            f"`catalog_storage` must be one of {', '.join(STORAGES)}. Received: catalog_storage={storage!r}."
        )
    skus, products = np.unique(index.skus, return_inverse=True)
    if not (isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= len(skus)):
        raise CatalogIndexError(
            f"`k` must be an integer from 1 to the catalogue's {len(skus)} products. Received: k={k!r}."
        )
    order = np.argsort(products, kind="stable")
    vectors = Vectors.of(np.ascontiguousarray(index.embeddings[order]), storage)
    return ServedCatalog(vectors, order.astype(np.int32), products[order].astype(np.int32), skus, fingerprint, index)
