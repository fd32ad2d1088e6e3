"""How a server finds the nearest products by itself: exactly, in blocks, with operations that every server has."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from eet_tf.serving.catalog import ServedCatalog

_ROWS_PER_BLOCK = 2**13  # compared at a time; a batch of B takes about B * 8192 * 40 bytes
_NOTHING = tf.int64.min  # the key of no row
_LAST_ROW = 2**31 - 1


class CatalogSearch(tf.Module):
    """Finds the `k` nearest different products of each query by comparing with every photo.

    * A product's score is that of its best photo.
    * Order is by score, then by row of that best photo; of a product's photos with the same score, the first counts.
    * There are always `k`, as the catalogue has as many products.
    * Products are summed in float64 and rounded to float32, as `ExactIndex` does, so that an answer depends on nothing
      but its query and the catalogue.

    The catalogue is kept in variables, which a SavedModel writes beside its graph: a graph may not exceed 2 GB.

    Args:
        catalog: what is searched.
        k: products per query.
    """

    def __init__(self, catalog: ServedCatalog, k: int):
        super().__init__()
        self._k, self._size = k, len(catalog.vectors)
        values = catalog.vectors.values
        if catalog.vectors.storage == "bfloat16":
            values = values.view(tf.bfloat16.as_numpy_dtype)
        self._values = _kept(values)
        self._scales = None if catalog.vectors.scales is None else _kept(catalog.vectors.scales)
        self._rows, self._products = _kept(catalog.rows), _kept(catalog.products)
        products = np.empty_like(catalog.products)
        products[catalog.rows] = catalog.products
        self._product_of_row = _kept(products)
        self._skus = _kept(np.asarray([sku.encode() for sku in catalog.skus.tolist()], object), tf.string)

    def __call__(self, queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Searches.

        Args:
            queries: `[B, D]` float32 unit vectors.

        Returns:
            The products' skus, `[B, k]` string, and their scores, `[B, k]` float32; best first.
        """
        return self.answer(self.best_keys(queries))

    def answer(self, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The skus and scores of keys, of the same shape."""
        scores, rows = _unpacked(keys)
        return tf.gather(self._skus, tf.gather(self._product_of_row, rows)), scores

    def best_of(self, queries: tf.Tensor, places: tf.Tensor, is_found: tf.Tensor) -> tf.Tensor:
        """The keys of the `k` best products among some photos.

        Args:
            queries: `[B, D]` float32.
            places: `[B, n]` int32, which photos, by their places in the catalogue.
            is_found: `[B, n]` bool, false for what is no photo.

        Returns:
            `[B, k]` int64, best first, `is_nothing` where there are fewer products.
        """
        vectors = self.vectors(places)
        scores = tf.reduce_sum(vectors * tf.cast(queries, tf.float64)[:, tf.newaxis], axis=2)
        keys = tf.where(is_found, _packed(scores, tf.gather(self._rows, places)), _NOTHING)
        # those of a product side by side, the best first
        order = tf.argsort(keys, axis=1, direction="DESCENDING")
        keys, places = (tf.gather(each, order, batch_dims=1) for each in (keys, places))
        products = tf.gather(self._products, places)
        order = tf.argsort(products, axis=1, stable=True)
        keys, products = (tf.gather(each, order, batch_dims=1) for each in (keys, products))
        is_first = tf.not_equal(products[:, 1:], products[:, :-1])
        is_first = tf.concat([tf.ones_like(products[:, :1], tf.bool), is_first], axis=1)
        keys = tf.where(is_first, keys, _NOTHING)
        return tf.math.top_k(tf.pad(keys, [[0, 0], [0, self._k]], constant_values=_NOTHING), self._k)[0]

    @staticmethod
    def is_nothing(keys: tf.Tensor) -> tf.Tensor:
        """Which keys stand for no photo."""
        return tf.equal(keys, _NOTHING)

    def best_keys(self, queries: tf.Tensor) -> tf.Tensor:
        """The keys of the `k` nearest products, `[B, k]` int64, best first."""
        queries = tf.cast(queries, tf.float64)
        num_queries = tf.shape(queries)[0]

        def body(start, best, last):
            """`best` are the products that end before this block, `last` is the one that may go on in it."""
            some = slice(start, tf.minimum(start + _ROWS_PER_BLOCK, self._size))
            keys = _packed(tf.matmul(self.vectors(some), queries, transpose_b=True), self._rows[some][:, tf.newaxis])
            first = self._products[tf.maximum(start - 1, 0)]
            groups = tf.concat([[0], self._products[some] - first], axis=0)
            products = tf.math.segment_max(tf.concat([last[tf.newaxis], keys], axis=0), groups)
            best = tf.concat([best, tf.transpose(products[:-1])], axis=1)
            return start + _ROWS_PER_BLOCK, tf.math.top_k(best, self._k)[0], products[-1]

        nothing = tf.fill([num_queries, self._k], tf.constant(_NOTHING, tf.int64))
        _, best, last = tf.while_loop(
            lambda start, best, last: start < self._size,
            body,
            (0, nothing, nothing[:, 0]),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, self._k]), tf.TensorShape([None])),
            parallel_iterations=1,
        )
        return tf.math.top_k(tf.concat([best, last[:, tf.newaxis]], axis=1), self._k)[0]

    def vectors(self, some: slice | tf.Tensor) -> tf.Tensor:
        """Rows as `[..., D]` float64, each number what `Vectors.rows` makes of it; `some` a slice or places."""

        def take(kept):
            return kept[some] if isinstance(some, slice) else tf.gather(kept, some)

        values = tf.cast(take(self._values), tf.float32)
        if self._scales is not None:
            values = values * take(self._scales)[..., tf.newaxis]
        return tf.cast(values, tf.float64)


def _kept(values: np.ndarray, dtype=None) -> tf.Variable:
    return tf.Variable(values, trainable=False, dtype=dtype)


def _packed(scores: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """One int64 for each score and its row: the larger, the earlier in the answer."""
    scores = tf.cast(scores, tf.float32)
    scores = tf.where(tf.equal(scores, 0.0), 0.0, scores)  # -0.0 is as good as 0.0
    high = _in_order(tf.bitcast(scores, tf.int32))
    low = _LAST_ROW - tf.cast(rows, tf.int64)
    return tf.cast(high, tf.int64) * 2**32 + low


def _unpacked(keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The scores and the rows again."""
    high, low = keys // 2**32, keys % 2**32
    return tf.bitcast(_in_order(tf.cast(high, tf.int32)), tf.float32), tf.cast(_LAST_ROW - low, tf.int32)


def _in_order(bits: tf.Tensor) -> tf.Tensor:
    """The bits of float32 numbers as int32 that are ordered like them; and back."""
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, 2**31 - 1), bits)
