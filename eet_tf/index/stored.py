"""What all indexes that belong to a folder share: who may write to it when, and how it is opened beside writers."""

from __future__ import annotations

import abc
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from eet_tf.index.base import CatalogIndex
from eet_tf.index.checks import CatalogIndexError, check_same_embedder
from eet_tf.index.folder import Manifest, check_replaceable, is_same, locked, read_manifest


class StoredIndex(CatalogIndex):
    """An index that `save` or `load_index` gives a folder of its own, which others may read and write too.

    A kind implements `_read`, `_took_up` and `refresh`.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._read_only = False
        self._lock = threading.RLock()

    @classmethod
    def load(cls, folder: str | os.PathLike, read_only: bool = False) -> StoredIndex:
        """Loads an index of this kind; see `load_index`."""
        manifest = read_manifest(folder)
        while True:
            try:
                index = cls._read(Path(folder).absolute(), manifest)
                break
            except CatalogIndexError:
                current = read_manifest(folder)
                if current == manifest:
                    raise
                manifest = current  # somebody saved between our two reads
        index._folder, index._read_only = Path(folder).absolute(), read_only
        index._took_up(index._folder)
        return index

    @classmethod
    @abc.abstractmethod
    def _read(cls, folder: Path, manifest: Manifest) -> StoredIndex:
        """What the manifest says, without its log."""

    @abc.abstractmethod
    def _took_up(self, folder: Path) -> None:
        """Takes up the log of `folder`, which has just become the index's own."""

    @abc.abstractmethod
    def refresh(self) -> bool:
        """Takes up what other processes have written to the index's folder since; an index without one is as it is."""

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Begins an update: in a folder, after what others have written, who now wait."""
        with self._lock:
            if self._read_only:
                raise CatalogIndexError(
                    f"the index in '{self._folder}' must not be changed: it was loaded with read_only=True. "
                    "Load it without."
                )
            if self._folder is None:
                yield
                return
            with locked(self._folder):
                self.refresh()
                yield

    @contextlib.contextmanager
    def _saving(self, folder: Path) -> Iterator[bool]:
        """Begins to write all of the index: whether `folder` is its own, or becomes that; others wait.

        What others have written to its own folder is taken up first.
        """
        is_own = self._folder is None or is_same(folder, self._folder)
        if is_own and self._read_only:
            raise CatalogIndexError(
                f"`folder` must not be the index's own. Received: folder='{folder}', and the index was loaded with "
                "read_only=True."
            )
        check_replaceable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if is_own:
                self.refresh()
            yield is_own

    def _refuse_replaced(self, dim: int, kinds: Mapping[str, str], fingerprint: str | None) -> None:
        """Refuses an update that was checked by an index which others have replaced since."""
        if (self.dim, self.attributes) != (dim, kinds):
            raise CatalogIndexError(
                f"the index in '{self._folder}' was replaced by one of another embedder or of other attributes. "
                "Embed the photos with that one, and give its attributes."
            )
        check_same_embedder(fingerprint, self.fingerprint)
