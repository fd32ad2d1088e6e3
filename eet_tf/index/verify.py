"""Whether a saved index is whole, looked at all through: what loading leaves out because a server would wait."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from eet_tf.index.checks import UNIT_LENGTH_TOLERANCE
from eet_tf.index.conditions import TEXTS
from eet_tf.index.folder import check_files, read_manifest, refusal
from eet_tf.index.local import LOG, LocalIndex
from eet_tf.index.milvus.index import MilvusIndex
from eet_tf.index.search import exact_top_k

_ROWS_PER_BLOCK = 2**16
_NUM_QUERIES = 200
_K = 10


def verify_index(index: LocalIndex | MilvusIndex, folder: str | os.PathLike) -> dict:
    """Checks every byte of a saved index against its checksums, every row against the others, and its answers.

    Args:
        index: as `load_index(folder)` gave it.
        folder: where it lies.

    Returns:
        `"files"`: how many were compared; `"photos"` and `"skus"`; `"torn_bytes"`: at the end of the log, of an update
        that was never acknowledged and that the next one cuts off; and `"recall"`: the share of the true 10 nearest
        that it finds for rows of its own, each among the others; None if it is exact or has too few rows.

    Raises:
        CatalogIndexError: at the first thing that is wrong.
    """
    manifest = read_manifest(folder)
    contents = check_files(folder, manifest, largest_hashed=None)
    if isinstance(index, MilvusIndex):
        return {"files": len(manifest.files), **index.check_rows()}
    rows = index._snapshot.rows
    _check_rows(folder, manifest.contents, rows)
    log = contents / LOG
    size = log.stat().st_size if log.exists() else 0
    return {
        "files": len(manifest.files),
        "photos": rows.size,
        "skus": rows.num_skus,
        "torn_bytes": size - index._snapshot.log_end,
        "recall": None if index.is_exact or len(rows.base) <= _K else _recall(index),
    }


def _check_rows(folder, contents: str, rows) -> None:
    base = rows.base
    lengths = {name: len(array) for name, array in {"vectors": base.vectors, **base.arrays()}.items()}
    if len(set(lengths.values())) != 1:
        raise refusal(folder, f"has rows of different numbers: {lengths}", name=contents)
    for column, kept in [(rows.sku_column, base.skus), *((rows.columns[n], base.attributes[n]) for n in rows.columns)]:
        if column.kind in TEXTS and not (kept.min() >= 0 and kept.max() < len(column.names)):
            raise refusal(folder, f"holds a '{column.name}' without a name", name=contents)
    photos = rows.photos(rows.alive)
    if len(np.unique(photos)) != len(photos):
        raise refusal(folder, "holds a photo twice", name=contents)
    slack = {"float32": UNIT_LENGTH_TOLERANCE, "bfloat16": 5e-3, "int8": UNIT_LENGTH_TOLERANCE}[base.vectors.storage]
    for start in range(0, len(base), _ROWS_PER_BLOCK):
        lengths_of_block = np.linalg.norm(base.vectors.rows(slice(start, start + _ROWS_PER_BLOCK)), axis=1)
        wrong = ~(np.abs(lengths_of_block - 1) <= slack)  # NaN is wrong too
        if wrong.any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise refusal(folder, f"holds a vector that is not of length 1, row {row}", name=contents)


def _recall(index: LocalIndex) -> float:
    """What its engine finds, of its base, of which some may be dead."""
    base, engine = index._snapshot.rows.base, index._snapshot.engine
    picked = np.linspace(0, len(base) - 1, min(_NUM_QUERIES, len(base))).astype(np.intp)
    queries = base.vectors.rows(picked)
    true, _ = exact_top_k(base.vectors, queries, _K + 1)
    found, _ = engine.search(queries, _K + 1, 1.0) if engine else (true, None)
    hits = [len((set(ours) & set(theirs)) - {own}) for own, ours, theirs in zip(picked, found.tolist(), true.tolist())]
    return float(np.mean(np.minimum(hits, _K)) / _K)


def bytes_on_disk(folder: str | os.PathLike) -> int:
    """The size of all files of the index."""
    contents = Path(folder) / read_manifest(folder).contents
    return sum(path.stat().st_size for path in contents.rglob("*") if path.is_file())
