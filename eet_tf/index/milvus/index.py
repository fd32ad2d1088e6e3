"""The index whose rows are in Milvus: a cluster of many machines, or milvus-lite over a folder of this one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from eet_tf.index.checks import (
    CatalogIndexError,
    Facts,
    KeptPhotos,
    Neighbors,
    check_asked,
    check_k,
    check_queries,
    check_same_embedder,
    checked_deletion,
    refuse_unknown,
)
from eet_tf.index.columns import Column, checked_facts, checked_update
from eet_tf.index.conditions import read_conditions
from eet_tf.index.folder import Manifest, is_same, locked, read_manifest
from eet_tf.index.milvus.collection import MOST_NEIGHBORS
from eet_tf.index.milvus.grouping import products_nearest
from eet_tf.index.milvus.local import check_packages
from eet_tf.index.milvus.place import (
    KIND,
    State,
    built_locally,
    built_remotely,
    checked_place,
    copied,
    read,
    try_cluster,
)
from eet_tf.index.milvus.records import Records, Row, checked_records, columns_of, neighbors_of
from eet_tf.index.milvus.verification import check_rows
from eet_tf.index.snapshot import checked_snapshot
from eet_tf.index.stored import StoredIndex
from eet_tf.wording import said_by


class MilvusIndex(StoredIndex):
    """Searches with Milvus: a cluster for more photos than one machine holds, or milvus-lite to try the same at home.

    Without `uri`, milvus-lite in this process, which compares with all rows:

    * The folder holds the database as it was built, and a log of what was added and deleted since. An update is in the
      log, on the disk, before it is acknowledged. Loading copies the database to the temporary folder, replays the log
      into the copy and searches that. So any number of processes read while one writes, the folder may be read-only,
      and nothing rests on what milvus-lite itself promises: it lets one process in, and does not wait for the disk.
    * `compact` builds the database anew. Do so when many photos were added or deleted: loading replays them all.
    * A search beside an update in another thread may see a part of it.

    With `uri`, a cluster:

    * `build` makes a new collection, `<collection>_<random>`, searched by SCANN, and returns when that index is built.
      Up to 20,000 rows, or where the server has no SCANN, all rows are compared. The folder holds the server and the
      name only. The token is the environment variable MILVUS_TOKEN and is written nowhere.
    * A search sees all that this process has written, and what others have written a moment later (a fifth of a second
      as measured). With `consistency="strong"` it sees all that anybody was told is written, and takes that fifth of a
      second. What was acknowledged is as safe as the cluster keeps it.
    * An update of more than 16 MB goes in several requests, and a search meanwhile may see a part of it. It is in the
      folder's log first: if the writer is killed, or the cluster is out of reach, the next load or update finishes it.
      An index that was not saved yet has no such log.
    * Nothing of the cluster is ever dropped, since other processes may be searching it: drop a collection that was
      replaced with Milvus's own tools.

    Order is by cosine, in any order on ties. `k` is at most 16,384, Milvus's own limit. Where `where` asks for
    strings that contain a text, that attribute of all rows is read first, since not every Milvus finds parts of texts.

    Args (of `MilvusIndex.build`):
        embeddings, skus, photos, attributes, fingerprint, metadata: as for `ExactIndex`; strings of at most 65,535
            bytes of UTF-8, and of several strings at most 4,096 per photo.
        uri: optional address of a cluster, `http://...` or `https://...`. Defaults to milvus-lite.
        collection: optional name that the cluster's collections begin with; defaults to "eet_tf".
        consistency: of the cluster's searches, "session" or "strong"; defaults to "session".
        timeout: seconds in which the cluster must answer a call; defaults to 10. To load a collection and to build its
            index it may take any time, as long as it goes on.

    Raises:
        CatalogIndexError: as `ExactIndex`; if a string is too long, or there are more than 61 attributes; if the
            packages are not installed; or if Milvus is older than 2.3.5, refuses, or does not answer in time.

    Example:

    >>> import numpy as np
    >>> from eet_tf.index import MilvusIndex
    >>> index = MilvusIndex.build(np.eye(3), skus=["mug", "cup", "jug"], attributes={"colour": ["red", "blue", "red"]})
    >>> index.is_exact, index.search([0.0, 0.6, 0.8], k=1, where={"colour": "red"}).skus.tolist()
    (True, [['jug']])
    """

    kind = KIND

    def __init__(self, state: State):
        super().__init__()
        self._state = state

    @staticmethod
    def check_place(
        uri: str | None = None,
        collection: str | None = None,
        consistency: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Refuses what `build` would refuse of these, before the long work of embedding a catalogue.

        In a cluster a collection of two photos is made, filled, searched and dropped again, so that a right which is
        missing is found now; it takes about ten seconds.

        Raises:
            CatalogIndexError: if they are no address and no name, a package is missing, or the cluster does not answer,
                is too old, or does not let us.
        """
        place = checked_place(uri, collection, consistency, timeout)
        if place is None:
            check_packages()
        else:
            try_cluster(place)

    @classmethod
    def check_catalog(cls, skus, photos=None, attributes=None) -> None:  # noqa: D102
        unit_vectors = np.ones((len(skus), 1), np.float32)
        rows = checked_snapshot(unit_vectors, skus, photos, attributes, None, None, "float32").rows
        skus = rows.sku_column.decode(rows.base.skus)
        checked_records(rows.base.photos, skus, rows.columns, rows.base.attributes, unit_vectors)

    @classmethod
    def build(
        cls,
        embeddings,
        skus,
        photos=None,
        attributes=None,
        fingerprint=None,
        metadata=None,
        uri: str | None = None,
        collection: str | None = None,
        consistency: str | None = None,
        timeout: float | None = None,
    ) -> MilvusIndex:
        """Builds the index; see the class."""
        place = checked_place(uri, collection, consistency, timeout)
        snapshot = checked_snapshot(embeddings, skus, photos, attributes, fingerprint, metadata, "float32")
        base, columns = snapshot.rows.base, snapshot.rows.columns
        skus = snapshot.rows.sku_column.decode(base.skus)
        records = checked_records(base.photos, skus, columns, base.attributes, base.vectors.values)
        columns = {name: Column(name, column.kind) for name, column in columns.items()}
        facts = (columns, base.vectors.dim, snapshot.fingerprint, snapshot.metadata)
        if place is None:
            return cls(built_locally([records], *facts))
        return cls(built_remotely(place, [records], len(base), *facts))

    # --- searching

    def search(  # noqa: D102
        self, queries, k=10, where=None, group_by_sku=False, fingerprint=None, with_attributes=False
    ) -> Neighbors:
        state, k = self._state, check_k(k)
        check_same_embedder(fingerprint, state.fingerprint)
        queries = check_queries(queries, state.dim)
        conditions = None if where is None else read_conditions(where, state.collection.kinds)
        if k > MOST_NEIGHBORS:
            if state.collection.count() > MOST_NEIGHBORS:
                raise CatalogIndexError(
                    f"`k` must be at most {MOST_NEIGHBORS} with Milvus. Received: k={k}. Ask for fewer neighbours, or "
                    "use ScannIndex."
                )
            k = MOST_NEIGHBORS
        condition = state.collection.condition(conditions)
        kinds = state.collection.kinds if with_attributes else None
        if not len(queries):
            return neighbors_of([], min(k, state.collection.count(condition)), kinds)
        if group_by_sku:
            found = products_nearest(state.collection, queries, k, condition, with_attributes)
        else:
            found = state.collection.search(queries, k, condition, with_attributes)
        return neighbors_of(found, max(map(len, found)), kinds)

    def count(self, where=None) -> int:  # noqa: D102
        collection = self._state.collection
        conditions = None if where is None else read_conditions(where, collection.kinds)
        return collection.count(collection.condition(conditions))

    def lookup(self, photos) -> KeptPhotos:  # noqa: D102
        photos, state = check_asked(photos), self._state
        rows = _rows(state, photos)
        skus = np.asarray([row.sku for row in rows], np.str_)
        return KeptPhotos(skus, _embeddings(rows, state.dim), columns_of(rows, state.collection.kinds))

    def facts(self) -> Iterator[Facts]:  # noqa: D102
        return self._state.collection.facts()

    # --- updating

    def upsert(self, embeddings, skus, photos, attributes=None, fingerprint=None) -> None:  # noqa: D102
        check_same_embedder(fingerprint, self.fingerprint)
        columns, kinds = self._state.columns, self.attributes
        vectors, skus, photos, attributes = checked_update(embeddings, skus, photos, attributes, columns, self.dim)
        records = _records(skus, photos, attributes, columns, vectors)
        with self._finished() as state:
            self._refuse_replaced(vectors.shape[1], kinds, fingerprint)
            self._state = state.upserted(records)

    def rewrite(self, skus, photos, attributes=None) -> None:  # noqa: D102
        dim, kinds, fingerprint, columns = self.dim, self.attributes, self.fingerprint, self._state.columns
        skus, photos, attributes = checked_facts(skus, photos, attributes, columns)
        with self._finished() as state:
            self._refuse_replaced(dim, kinds, fingerprint)
            vectors = _embeddings(_rows(state, photos.tolist()), state.dim)
            self._state = state.upserted(_records(skus, photos, attributes, columns, vectors))

    def delete(self, photos=None, skus=None) -> int:  # noqa: D102
        photos, skus = checked_deletion(photos, skus)
        argument, field, names = ("photos", "photo", photos or []) if skus is None else ("skus", "sku", skus)
        with self._finished() as state:
            found = state.collection.photos_where(field, names)
            known = {row[0 if skus is None else 1] for row in found}
            refuse_unknown(argument, [name for name in names if name not in known])
            self._state = state.deleted([photo for photo, _ in found])
        return len(found)

    @contextlib.contextmanager
    def _finished(self) -> Iterator[State]:
        """Begins an update; in a folder, after one that a killed writer began was ended."""
        with self._writing():
            if self._folder is not None:
                self._state.finish()
            yield self._state

    def compact(self) -> None:
        """Builds milvus-lite's database anew from its photos, which empties the log. A cluster does that by itself.

        Raises:
            CatalogIndexError: if no photo is left, or the rows are in a cluster.
        """
        with self._finished() as state:
            if not state.is_local:
                raise CatalogIndexError(
                    f"`compact` must find a database in its folder. Received: the cluster {state.settings['uri']}, "
                    "which compacts by itself."
                )
            if not state.collection.count():
                raise CatalogIndexError("`compact` must find at least one photo. Received: an index of none.")
            built = state.rebuilt()
            self._state = built if self._folder is None else built.saved(self._folder).settled(built)

    # --- on disk

    def save(self, folder) -> None:  # noqa: D102
        folder = Path(folder)
        with self._lock:
            is_other = self._folder is not None and not is_same(folder, self._folder)
            if is_other and not self._read_only and self._state.is_pending:
                with self._finished():  # what is copied is no half of an update
                    pass
            with self._saving(folder) as is_own:
                if is_own:
                    self._state.finish()
                    self._save_as_own(folder)
                else:
                    self._save_copy(folder)

    def _save_as_own(self, folder: Path) -> None:
        try:
            self._state = self._state.saved(folder).settled(self._state)
        except OSError as error:
            if self._folder is not None or self._state.is_local:
                raise
            raise CatalogIndexError(
                f"the index could not be written to '{folder}': {said_by(error)}. Its photos are in the collection "
                f"'{self.collection}' at {self.uri}: save it to another folder, or drop that with Milvus's own tools."
            ) from error
        self._folder = folder.absolute()

    def _save_copy(self, folder: Path) -> None:
        copy = copied(self._state)
        try:
            copy.saved(folder)
        except BaseException as error:
            if copy is not self._state:
                copy.collection.dropped_after(error)
            raise

    @classmethod
    def _read(cls, folder: Path, manifest: Manifest) -> MilvusIndex:
        return cls(read(folder, manifest))

    def _took_up(self, folder: Path) -> None:
        self._state = self._state.replayed()
        if not self._read_only and self._state.is_pending:
            with locked(folder):
                self._state.finish()

    def refresh(self) -> bool:
        """Takes up what other processes have written to the index's folder since; an index without one is as it is.

        Returns:
            Whether anything has changed. Of a cluster only that it was replaced: its rows are always the latest.

        Raises:
            CatalogIndexError: as `load_index`. The index then stays as it was.
        """
        with self._lock:
            if self._folder is None:
                return False
            if read_manifest(self._folder).contents != self._state.manifest.contents:
                fresh = type(self).load(self._folder, read_only=True)
                self._state = fresh._state  # type: ignore[attr-defined]  # of our own kind
                return True
            before, self._state = self._state.log_end, self._state.replayed()
            return self._state.log_end > before

    def check_rows(self) -> dict:
        """Reads all rows, waits until the cluster's index holds those that it has to, and asks for some of them.

        Returns:
            `"photos"` and `"skus"`, how many there are; `"torn_bytes"` at the end of the log; and `"recall"`, the share
            of the true 10 nearest that it finds for about 200 of its rows, each among the others; None if it is exact.

        Raises:
            CatalogIndexError: if a vector is not of length 1, fewer rows are read than the cluster counts, or its index
                is not built.
        """
        return check_rows(self._state)

    # --- facts

    @property
    def size(self) -> int:  # noqa: D102
        return self._state.collection.count()

    @property
    def dim(self) -> int:  # noqa: D102
        return self._state.dim

    @property
    def is_exact(self) -> bool:
        """Whether all rows are compared: by milvus-lite, or a cluster without SCANN."""
        return self._state.collection.num_leaves == 0

    @property
    def attributes(self) -> dict[str, str]:  # noqa: D102
        return {name: column.kind for name, column in self._state.columns.items()}

    @property
    def fingerprint(self) -> str | None:  # noqa: D102
        return self._state.fingerprint

    @property
    def metadata(self) -> dict:  # noqa: D102
        return copy.deepcopy(self._state.metadata)

    @property
    def uri(self) -> str | None:
        """The address of the cluster; None for milvus-lite."""
        return self._state.settings["uri"]

    @property
    def collection(self) -> str:
        """The collection that holds the rows."""
        return self._state.collection.name

    @property
    def rows_indexed(self) -> tuple[int, int] | None:
        """How many rows the cluster's SCANN holds, and how many it has to hold; None where all rows are compared.

        Those of the last minutes are in neither: they are compared with one by one until the cluster indexes them.
        """
        collection = self._state.collection
        return collection.indexed() if collection.num_leaves else None


def _rows(state: State, photos: list[str]) -> list[Row]:
    """Those of these photos, in their order; refuses one that is not there."""
    found = state.collection.rows_of(photos, state.dim)
    refuse_unknown("photos", [photo for photo in photos if photo not in found])
    return [found[photo] for photo in photos]


def _embeddings(rows: list[Row], dim: int) -> np.ndarray:
    return np.asarray([row.embedding for row in rows], np.float32).reshape(len(rows), dim)


def _records(skus, photos, attributes: dict, columns: Mapping[str, Column], vectors: np.ndarray) -> Records:
    """Rows that have been checked, as Milvus takes them."""
    encoders = {name: Column(name, column.kind) for name, column in columns.items()}
    kept = {name: column.encode(attributes[name]) for name, column in encoders.items()}
    return checked_records(photos, skus, encoders, kept, vectors)
