"""All that a search in this process needs, at one moment; and how an update of it is written to the log."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from eet_tf.index.checks import (
    CatalogIndexError,
    check_fingerprint,
    check_metadata,
    check_photos,
    check_strings,
    check_unit_vectors,
)
from eet_tf.index.columns import Column, check_attributes, to_json
from eet_tf.index.folder import Manifest
from eet_tf.index.rows import Part, Rows
from eet_tf.index.search import Engine
from eet_tf.index.storage import STORAGES, Vectors


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """All that a search needs, at one moment."""

    rows: Rows
    engine: Engine | None
    settings: dict  # what the kind was built with, as JSON
    fingerprint: str | None
    metadata: dict
    manifest: Manifest | None = None  # of the folder, as it was read or written
    log_end: int = 0  # how much of the folder's log is in `rows`


def checked_snapshot(embeddings, skus, photos, attributes, fingerprint, metadata, storage, settings=None) -> Snapshot:
    """Checks everything that `build` was given and copies it, so that a caller's later edits cannot reach the index."""
    if storage not in STORAGES:
        raise CatalogIndexError(f"`storage` must be one of {', '.join(STORAGES)}. Received: storage={storage!r}.")
    vectors = check_unit_vectors("embeddings", embeddings)
    if len(vectors) == 0:
        raise CatalogIndexError(
            f"`embeddings` must be at least one row. Received: shape {vectors.shape}. "
            "Embed a catalogue of at least one photo first."
        )
    skus = check_strings("skus", skus, len(vectors))
    photos = check_photos(np.arange(len(vectors)) if photos is None else photos, len(vectors))
    attributes = check_attributes(attributes, None, len(vectors))
    columns = {name: Column.like(name, values) for name, values in attributes.items()}
    kept = {name: column.encode(attributes[name]) for name, column in columns.items()}
    fingerprint, metadata = check_fingerprint(fingerprint), check_metadata(metadata)
    vectors = Vectors.of(np.array(vectors, order="C") if storage == "float32" else vectors, storage)
    sku_column = Column("sku", "string")
    rows = Rows.of(sku_column, columns, Part(vectors, sku_column.encode(skus), photos, kept))
    return Snapshot(rows, None, settings or {}, fingerprint, metadata)


def payload_of(rows: Rows, dead: np.ndarray, added: Part) -> bytes:
    """One update as the log keeps it: a line of JSON, then the float32 vectors."""
    facts = {
        "dead_rows": dead.tolist(),
        "photos": added.photos.tolist(),
        "skus": rows.sku_column.decode(added.skus).tolist(),
        "attributes": {name: to_json(rows.columns[name], kept) for name, kept in added.attributes.items()},
    }
    vectors = np.ascontiguousarray(added.vectors.values, "<f4")
    return json.dumps(facts).encode() + b"\n" + vectors.tobytes()


def parsed(rows: Rows, payload: bytes) -> tuple[np.ndarray, Part]:
    """The rows that an update deletes, and those that it adds."""
    line, _, vectors = payload.partition(b"\n")
    facts = json.loads(line)
    dim = rows.base.vectors.dim
    kept = {name: column.encode(facts["attributes"][name]) for name, column in rows.columns.items()}
    added = Part(
        Vectors(np.frombuffer(vectors, "<f4").reshape(-1, dim).astype(np.float32)),
        rows.sku_column.encode(facts["skus"]),
        np.asarray(facts["photos"], np.str_),
        kept,
    )
    return np.asarray(facts["dead_rows"], np.intp), added
