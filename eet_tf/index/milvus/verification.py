"""Whether the rows of a `MilvusIndex` are whole and are found: what `verify_index` asks of Milvus."""

from __future__ import annotations

import numpy as np

from eet_tf.index.checks import UNIT_LENGTH_TOLERANCE, CatalogIndexError
from eet_tf.index.milvus.collection import Collection
from eet_tf.index.milvus.place import State
from eet_tf.index.milvus.records import Records
from eet_tf.index.milvus.server import wait

_K, _NUM_QUERIES = 10, 200
_BUILDING_STANDSTILL = 60.0  # seconds that an index is waited for which does not grow


def check_rows(state: State) -> dict:
    """What `MilvusIndex.check_rows` returns or raises."""
    skus, num_photos = set(), 0
    names: list[str] = []
    vectors, rng = np.zeros([0, state.dim], np.float32), np.random.default_rng(0)
    before = state.collection.count()
    for records in state.collection.scan(state.dim):
        wrong = ~(np.abs(np.linalg.norm(records.embeddings, axis=1) - 1) <= UNIT_LENGTH_TOLERANCE)  # NaN too
        if wrong.any():
            photo = records.photos[int(np.flatnonzero(wrong)[0])]
            raise CatalogIndexError(
                f"the collection '{state.collection.name}' must hold vectors of length 1. Received: another for "
                f"'{photo}'. Add that photo again."
            )
        skus.update(records.skus)
        num_photos += len(records.photos)
        names, vectors = _sampled(names, vectors, records, num_photos, rng)
    after = state.collection.count()
    if not min(before, after) <= num_photos <= max(before, after):
        raise CatalogIndexError(
            f"the collection '{state.collection.name}' must give all the photos it counts. Received: {num_photos} "
            f"of {after}. Is somebody writing to it? Then try again; else build the index again."
        )
    _check_indexed(state.collection)
    recall = None if not state.collection.num_leaves or num_photos <= _K else _recall(state.collection, names, vectors)
    return {"photos": num_photos, "skus": len(skus), "torn_bytes": state.torn_bytes(), "recall": recall}


def _recall(collection: Collection, photos: list[str], queries: np.ndarray) -> float:
    """Returns the recall of the `_K` nearest of some rows, each searched among the others."""
    found, true = collection.search(queries, _K + 1, ""), collection.compared(queries, _K + 1, "")
    hits = []
    for photo, ours, theirs in zip(photos, found, true):
        others = [hit[0] for hit in theirs if hit[0] != photo][:_K]
        hits.append(len({hit[0] for hit in ours} & set(others)))
    return float(np.mean(hits) / _K)


def _check_indexed(collection: Collection) -> None:
    if not collection.num_leaves:
        return
    try:
        wait(collection.indexed, lambda counts: counts[0] == counts[1], "build the index", _BUILDING_STANDSTILL)
    except CatalogIndexError as error:
        indexed, total = collection.indexed()
        raise CatalogIndexError(
            f"the index of the collection '{collection.name}' must be built. Received: {indexed} of {total} rows, "
            "and it does not grow, so searches are slow and find less. Build the index "
            "again with `eet index build`; if that does not help, look into the server's log."
        ) from error


def _sampled(
    photos: list[str], vectors: np.ndarray, records: Records, num_seen: int, rng: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """About `_NUM_QUERIES` of the rows seen so far, of which there are `num_seen` with these, all equally likely."""
    number = len(records.photos)
    kept = np.flatnonzero(rng.random(len(photos)) < 1 - number / num_seen)
    added = np.flatnonzero(rng.random(number) < min(1.0, _NUM_QUERIES / num_seen))
    names = [photos[row] for row in kept] + [records.photos[row] for row in added]
    return names, np.concatenate([vectors[kept], records.embeddings[added]])
