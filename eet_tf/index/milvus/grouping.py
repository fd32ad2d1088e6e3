"""How the nearest products are found, each by its best photo, in a server that groups too few photos."""

from __future__ import annotations

import numpy as np

from eet_tf.index.milvus.collection import BYTES_PER_REQUEST, MOST_NEIGHBORS, Collection, both
from eet_tf.index.milvus.filters import blocks_of_names, is_one_of
from eet_tf.index.milvus.records import Hit, best_of_products

_FETCHED_PER_PRODUCT = 4


def products_nearest(
    collection: Collection, queries: np.ndarray, k: int, condition: str, with_attributes: bool = False
) -> list[list[Hit]]:
    """The best photo of each of the `k` nearest products, for each query.

    Milvus's own grouping looks at a few photos more than `k` only. So after the first round each next one leaves out
    the products found, and looks at more, until there are enough or no other is left.
    """
    fetch = min(_FETCHED_PER_PRODUCT * k, MOST_NEIGHBORS)
    found = []
    for query, hits in zip(queries, collection.search(queries, fetch, condition, with_attributes)):
        products, asked = best_of_products({}, hits), fetch
        while len(products) < k and len(hits) == asked:
            names = list(products)
            if len(next(blocks_of_names(names, BYTES_PER_REQUEST))) < len(names):  # too long for one expression
                products = best_of_products({}, collection.compared(query[np.newaxis], k, condition, by_sku=True)[0])
                break
            asked = min(_FETCHED_PER_PRODUCT * asked, MOST_NEIGHBORS)
            others = both(condition, f"not ({is_one_of('sku', names)})")
            hits = collection.search(query[np.newaxis], asked, others, with_attributes)[0]
            products = best_of_products(products, hits)
        found.append(sorted(products.values(), key=lambda hit: -hit.score)[:k])
    return found
