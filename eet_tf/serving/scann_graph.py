"""How a server with ScaNN's operations finds the nearest products: what ScaNN proposes is compared again."""

from __future__ import annotations

import dataclasses
import math
import types

import numpy as np
import tensorflow as tf

from eet_tf.index import ScannConfiguration, ScannIndex
from eet_tf.index.scann import build_searcher, search_options
from eet_tf.serving.catalog import ServedCatalog
from eet_tf.serving.search_graph import CatalogSearch

SCANN_OPS = ("Scann>ScannSearchBatched", "Scann>TensorsToScann")  # what a stock server lacks
_SPARE = 2  # how much more is fetched than would do if all products had as many photos


class ScannSearch(tf.Module):
    """Finds the `k` nearest different products of each query among the photos that ScaNN proposes.

    * Scores, order and the choice of a product's photo are as in `CatalogSearch`; what is approximate is whether a
      product is found.
    * There are always `k`: a query for which ScaNN proposes too few products is compared with every photo.

    Args:
        catalog: what is searched; a `ScannIndex` says how, any other index leaves it to the number of its photos.
        k: products per query.

    Raises:
        ImportError: if the package `scann` has no operations for the installed TensorFlow.
    """

    def __init__(self, catalog: ServedCatalog, k: int):
        super().__init__()
        self._ops, self._exact, self._k = _import_ops(), CatalogSearch(catalog, k), k
        index, num_rows = catalog.index, len(catalog.vectors)
        configuration = ScannConfiguration.for_size(num_rows)
        if isinstance(index, ScannIndex):
            # in the graph nothing but ScaNN puts candidates into order, so that it sees all dimensions
            configuration = dataclasses.replace(index.configuration, search_prefix=0)
        # so many are sure to show k products
        most = np.sort(np.bincount(catalog.products))[::-1][: k - 1].sum() + 1
        self._fetch = int(min(most, _SPARE * k * math.ceil(num_rows / len(catalog.skus))))
        self._options = search_options(configuration, self._fetch, num_rows)
        # with TensorFlow it cannot keep bfloat16; what it proposes is compared again anyway
        kept = "int8" if catalog.vectors.storage == "bfloat16" else catalog.vectors.storage
        searcher = build_searcher(catalog.vectors, configuration, self._ops.builder, kept)
        self._serialized = searcher.serialize_to_module()

    def __call__(self, queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Searches; see `CatalogSearch`."""
        # ScaNN takes no batch of no rows
        keys = tf.cond(
            tf.shape(queries)[0] > 0,
            lambda: self._completed(queries, self._found(queries)),
            lambda: tf.zeros([0, self._k], tf.int64),
        )
        return self._exact.answer(keys)

    def _found(self, queries: tf.Tensor) -> tf.Tensor:
        """The keys of the products that ScaNN finds."""
        searcher = self._ops.searcher_from_module(self._serialized)
        places, scores = searcher.search_batched_parallel(queries, final_num_neighbors=self._fetch, **self._options)
        return self._exact.best_of(queries, places, is_found=~tf.math.is_nan(scores))

    def _completed(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        short = tf.where(tf.reduce_any(self._exact.is_nothing(keys), axis=1))

        def compared():
            return tf.tensor_scatter_nd_update(keys, short, self._exact.best_keys(tf.gather_nd(queries, short)))

        return tf.cond(tf.size(short) > 0, compared, lambda: keys)


def _import_ops() -> types.ModuleType:
    """ScaNN's operations, which only fit the TensorFlow that they were built with."""
    try:
        from scann.scann_ops.py import scann_ops
    except (ImportError, tf.errors.NotFoundError) as error:
        raise ImportError(
            f"The operations of the package scann cannot be loaded: {error}. Install the scann that belongs to "
            "TensorFlow's version (`pip install scann[tf]`)."
        ) from error
    return scann_ops
