"""The interface every index shares: checks, row numbers to skus and photos, saving. Kinds only search and store."""

from __future__ import annotations

import abc
import copy
import os
from pathlib import Path

import numpy as np

from eet_tf.index.checks import CatalogIndexError, Content, Neighbors, check_k, check_queries, check_same_embedder
from eet_tf.index.folder import Manifest, check_files, save_contents


class CatalogIndex(abc.ABC):
    """Finds the catalogue photos nearest to a query by cosine similarity. Made by a kind's `build`, or by `load_index`.

    A kind implements `build`, `is_exact` and `_search`; one that keeps more than the rows also `_settings`, `_write`
    and `_restore`. Queries reach it checked, and it answers with row numbers.

    Args:
        content: the checked rows.
    """

    kind = ""  # the word in manifest.json

    def __init__(self, content: Content):
        self._content = content

    @classmethod
    @abc.abstractmethod
    def build(cls, embeddings, skus, photos=None, fingerprint=None, metadata=None) -> CatalogIndex:
        """Builds an index over a catalogue, one row per photo; the kind's own docstring lists the arguments."""

    def search(self, queries, k: int = 10, fingerprint: str | None = None) -> Neighbors:
        """Finds the `k` nearest photos of each query, best first.

        Args:
            queries: `[num_queries, dim]` or `[dim]` unit vectors, floating point.
            k: neighbours per query, at least 1. More than the index holds gives all that it holds.
            fingerprint: of the embedder that embedded the queries; compared with the index's if both are known.

        Returns:
            `Neighbors` of `[num_queries, min(k, size)]`; a single query gives one row.

        Raises:
            CatalogIndexError: if a query is not a finite unit vector of the index's dimension, `k` is not positive, or
                the queries were embedded by another model.
        """
        k = min(check_k(k), self.size)
        check_same_embedder(fingerprint, self.fingerprint)
        queries = check_queries(queries, self.dim)
        rows, scores = np.zeros((0, k), np.intp), np.zeros((0, k), np.float32)
        if len(queries):
            rows, scores = self._search(queries, k)
        return Neighbors(self._content.skus[rows], scores, self._content.photos[rows])

    def save(self, folder: str | os.PathLike) -> None:
        """Saves the index as `folder`; a crash at any moment leaves what was there before, or the whole new index.

        Args:
            folder: absent, empty, or a saved index, which is replaced. `load_index` reads it, also after it was moved.

        Raises:
            CatalogIndexError: if `folder` holds anything else. Nothing of it is touched.
        """
        description = {
            "kind": self.kind,
            "dim": self.dim,
            "size": self.size,
            "fingerprint": self.fingerprint,
            "metadata": self._content.metadata,
            "settings": self._settings(),
        }
        save_contents(folder, description, self._write_all)

    def _write_all(self, contents: Path) -> None:
        for name in ("vectors", "skus", "photos"):
            np.save(contents / f"{name}.npy", getattr(self._content, name), allow_pickle=False)
        self._write(contents)

    @classmethod
    def _load(cls, folder: str | os.PathLike, manifest: Manifest) -> CatalogIndex:
        contents = check_files(folder, manifest)
        try:
            content = Content(
                vectors=np.load(contents / "vectors.npy", mmap_mode="r", allow_pickle=False),
                skus=np.load(contents / "skus.npy", allow_pickle=False),
                photos=np.load(contents / "photos.npy", allow_pickle=False),
                fingerprint=manifest.fingerprint,
                metadata=manifest.metadata,
            )
        except (OSError, ValueError) as error:
            raise CatalogIndexError(
                f"`folder` must be a whole saved index. Received: folder='{os.fspath(folder)}', where "
                f"{manifest.contents} cannot be read: {error}. Copy the folder again, or run build_index again."
            ) from error
        return cls._restore(content, contents, manifest.settings)

    @abc.abstractmethod
    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows and float32 scores, both `[num_queries, k]`, best first; 1 <= k <= size, at least one query."""

    def _settings(self) -> dict:
        """JSON-able facts of this kind that `_restore` needs."""
        return {}

    def _write(self, contents: Path) -> None:
        """Writes what this kind keeps besides the rows."""
        del contents  # a kind may have nothing to add

    @classmethod
    def _restore(cls, content: Content, contents: Path, settings: dict) -> CatalogIndex:
        """Makes the index again from its rows and what `_settings` and `_write` kept."""
        return cls(content)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, dim={self.dim}, fingerprint={self.fingerprint!r})"

    @property
    def size(self) -> int:
        """Number of rows, that is of photos."""
        return self._content.vectors.shape[0]

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._content.vectors.shape[1]

    @property
    @abc.abstractmethod
    def is_exact(self) -> bool:
        """Whether every answer is the true one; if not, report the recall beside any number measured through it."""

    @property
    def embeddings(self) -> np.ndarray:
        """`[size, dim]` unit vectors, one row per photo; not to be written to."""
        return self._content.vectors

    @property
    def skus(self) -> np.ndarray:
        """`[size]` the product on each photo."""
        return self._content.skus

    @property
    def photos(self) -> np.ndarray:
        """`[size]` the photos' unique ids."""
        return self._content.photos

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the embedder that embedded the rows, if it was given."""
        return self._content.fingerprint

    @property
    def metadata(self) -> dict:
        """A copy of the dict that was given to `build`, as JSON reads it."""
        return copy.deepcopy(self._content.metadata)
