"""The public names of the index room, and the class of each saved kind. ScaNN and Milvus: imported when used."""

from __future__ import annotations

import os

from eet_tf.index.base import CatalogIndex
from eet_tf.index.checks import CatalogIndexError, KeptPhotos, Neighbors
from eet_tf.index.exact import ExactIndex
from eet_tf.index.folder import check_replaceable, read_manifest
from eet_tf.index.lookup import attribute_values, count_values, lookup_photos, splits_of
from eet_tf.index.milvus import MilvusIndex
from eet_tf.index.scann import ScannConfiguration, ScannIndex
from eet_tf.index.texts import typed_columns
from eet_tf.index.updates import UpdatePlan, plan_update
from eet_tf.index.verify import bytes_on_disk, verify_index
from eet_tf.index.where import read_where

__all__ = [
    "CatalogIndexError",
    "ExactIndex",
    "KeptPhotos",
    "MilvusIndex",
    "Neighbors",
    "ScannConfiguration",
    "ScannIndex",
    "UpdatePlan",
    "attribute_values",
    "bytes_on_disk",
    "check_replaceable",
    "count_values",
    "load_index",
    "lookup_photos",
    "plan_update",
    "read_where",
    "splits_of",
    "typed_columns",
    "verify_index",
]


def load_index(folder: str | os.PathLike, read_only: bool = False) -> CatalogIndex:
    """Loads an index of any kind that `index.save(folder)` wrote, with all updates since. Nothing is written by loading
    and searching, so the folder may lie on read-only media.

    Every file is compared with the size that the manifest lists, and up to 64 MiB with its SHA-256 too (larger files
    would make a server wait; `verify_index` compares all). If the folder is saved again while it is being read, the new
    index is read instead.

    Args:
        folder: the folder given to `save`, or a copy of it anywhere.
        read_only: whether to refuse `upsert` and `delete`.

    Returns:
        An `ExactIndex`, a `ScannIndex` or a `MilvusIndex`, whichever was saved.

    Raises:
        CatalogIndexError: if a file is missing, truncated or changed, or the format is newer than this code.

    Example:

    >>> import os, tempfile
    >>> import numpy as np
    >>> folder = os.path.join(tempfile.mkdtemp(), "index")
    >>> ExactIndex.build(np.eye(2, dtype="float32"), skus=["mug", "cup"]).save(folder)
    >>> load_index(folder).search([0.0, 1.0], k=1).skus.tolist()
    [['cup']]
    """
    kinds = {kind.kind: kind for kind in (ExactIndex, ScannIndex, MilvusIndex)}
    manifest = read_manifest(folder)
    if manifest.kind not in kinds:
        raise CatalogIndexError(
            f"`folder` must hold an index of kind {' or '.join(kinds)}. Received: folder='{folder}', kind="
            f"'{manifest.kind}' in its manifest.json. Use the eet_tf that wrote it, or run `eet index build` again."
        )
    return kinds[manifest.kind].load(folder, read_only)
