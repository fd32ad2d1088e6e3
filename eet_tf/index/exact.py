"""The index that compares a query with every row: the oracle of the others, and quick enough for most catalogues."""

from __future__ import annotations

from eet_tf.index.local import LocalIndex
from eet_tf.index.snapshot import checked_snapshot


class ExactIndex(LocalIndex):
    """Compares with every row, so that answers are exact. `search` documents the query; this is `build`.

    * Order is by cosine, then by row: of photos with the same score, the one built first comes first.
    * An answer depends on its query and the rows only, not on what else is in the batch.
    * A loaded index maps `vectors.npy` into memory instead of reading it.

    Args (of `ExactIndex.build`):
        embeddings: `[N, D]` unit vectors, floating point, one row per photo; copied.
        skus: `[N]` strings or integers, the product that each photo shows.
        photos: optional `[N]` unique strings, the id of each photo. Defaults to "0", "1", ... "N-1".
        attributes: optional `{name: [N] values}`, what `where` filters by: strings, numbers, True and False, or for
            several strings per photo a tuple of them. A value is kept as what it is: `"7"` is a string, 7 a number. A
            missing string is `""` or None, a missing number NaN or None, and no strings are `()` or None.
        fingerprint: optional string that names the embedder. A query with another one is refused.
        metadata: optional dict that JSON can hold, kept with the index, e.g. where the SavedModel is.
        storage: how vectors are kept: `"float32"`; `"bfloat16"`, half the memory, cosines off by about 0.001; or
            `"int8"`, a quarter, off by about 0.003.

    Raises:
        CatalogIndexError: if a row is not a finite unit vector, lengths differ, or a photo is repeated.

    Example:

    >>> import numpy as np
    >>> from eet_tf.index import ExactIndex
    >>> index = ExactIndex.build(np.eye(3), skus=["mug", "cup", "jug"], attributes={"colour": ["red", "blue", "blue"]})
    >>> neighbors = index.search([1.0, 0.0, 0.0], k=2, where={"colour": "blue"})
    >>> neighbors.skus.tolist(), neighbors.scores.tolist(), neighbors.photos.tolist()
    ([['cup', 'jug']], [[0.0, 0.0]], [['1', '2']])
    """

    kind = "exact"

    @classmethod
    def build(
        cls, embeddings, skus, photos=None, attributes=None, fingerprint=None, metadata=None, storage="float32"
    ) -> ExactIndex:
        """Builds the index; see the class."""
        return cls(checked_snapshot(embeddings, skus, photos, attributes, fingerprint, metadata, storage))

    @property
    def is_exact(self) -> bool:
        """Whether the vectors are kept whole; if so, always."""
        return self.storage == "float32"
