"""What the indexes that live in a folder share: one snapshot that searches see, and a log that updates go to first."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
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
from eet_tf.index.columns import allowed_rows, checked_facts, checked_update, to_json
from eet_tf.index.conditions import Conditions, read_conditions
from eet_tf.index.folder import (
    Manifest,
    check_files,
    read_manifest,
    refusal,
    save_contents,
)
from eet_tf.index.log import DamagedLogError, append_record, read_records
from eet_tf.index.rows import Part, Rows
from eet_tf.index.search import Engine, nearest
from eet_tf.index.snapshot import Snapshot, checked_snapshot, parsed, payload_of
from eet_tf.index.storage import Vectors
from eet_tf.index.stored import StoredIndex
from eet_tf.wording import said_by

LOG = "updates.log"


class LocalIndex(StoredIndex):
    """An index in this process's memory, and after `save` or `load_index` in a folder of its own.

    * Updates go to the folder's log before they are acknowledged; loading replays it. A process killed at any moment
      loses nothing that was acknowledged.
    * Photos added since the index was built are compared one by one until `compact`, so that they are found exactly.
    * Any number of processes may read a folder while one writes; `refresh` takes up what others have written. Writers
      take turns.
    * Searches may run in any number of threads beside an update; each sees the rows before it or after it.

    A kind implements `build`, `is_exact`, and what it keeps besides the rows: `_make_engine`, `_write_engine`,
    `_read_engine`.
    """

    def __init__(self, snapshot: Snapshot):
        super().__init__()
        self._snapshot = snapshot
        self._row_of: dict[str, int] | None = None  # of each photo; made at the first update

    @classmethod
    def check_catalog(cls, skus, photos=None, attributes=None) -> None:  # noqa: D102
        unit_vectors = np.ones((len(skus), 1), np.float32)
        checked_snapshot(unit_vectors, skus, photos, attributes, None, None, "float32")

    # --- searching

    def search(  # noqa: D102
        self, queries, k=10, where=None, group_by_sku=False, fingerprint=None, with_attributes=False
    ) -> Neighbors:
        snapshot, k = self._snapshot, check_k(k)
        check_same_embedder(fingerprint, snapshot.fingerprint)
        queries = check_queries(queries, snapshot.rows.base.vectors.dim)
        rows = snapshot.rows
        allowed = None if rows.is_dead is None else rows.alive
        if where is not None:
            allowed = _allowed(rows, read_conditions(where, rows.kinds))
        found, scores = nearest(rows, snapshot.engine, queries, k, allowed, bool(group_by_sku))
        attributes = rows.attributes(found) if with_attributes else None
        return Neighbors(rows.skus(found), scores, rows.photos(found), attributes)

    def count(self, where=None) -> int:  # noqa: D102
        rows = self._snapshot.rows
        return rows.size if where is None else len(_allowed(rows, read_conditions(where, rows.kinds)))

    def lookup(self, photos) -> KeptPhotos:  # noqa: D102
        photos = check_asked(photos)
        with self._lock:  # an update changes both
            rows, numbers = self._snapshot.rows, self._numbers(photos)
        return KeptPhotos(rows.skus(numbers), rows.vectors_in_order(numbers), rows.attributes(numbers))

    def facts(self) -> Iterator[Facts]:  # noqa: D102
        rows = self._snapshot.rows
        kept = {name: to_json(column, rows.attribute(name, rows.alive)) for name, column in rows.columns.items()}
        yield Facts(rows.photos(rows.alive).tolist(), rows.skus(rows.alive).tolist(), kept)

    def _numbers(self, photos: list[str]) -> np.ndarray:
        """The rows of photos; refuses one that is not there."""
        row_of = self._rows_of_photos()
        refuse_unknown("photos", [photo for photo in photos if photo not in row_of])
        return np.asarray([row_of[photo] for photo in photos], np.intp)

    # --- updating

    def upsert(self, embeddings, skus, photos, attributes=None, fingerprint=None) -> None:  # noqa: D102
        check_same_embedder(fingerprint, self.fingerprint)
        columns, kinds = self._snapshot.rows.columns, self.attributes
        vectors, skus, photos, attributes = checked_update(embeddings, skus, photos, attributes, columns, self.dim)
        with self._writing():
            self._refuse_replaced(vectors.shape[1], kinds, fingerprint)
            row_of = self._rows_of_photos()
            dead = [row_of[photo] for photo in photos.tolist() if photo in row_of]
            self._update(np.asarray(dead, np.intp), skus, photos, vectors, attributes)

    def rewrite(self, skus, photos, attributes=None) -> None:  # noqa: D102
        dim, kinds, fingerprint = self.dim, self.attributes, self.fingerprint
        skus, photos, attributes = checked_facts(skus, photos, attributes, self._snapshot.rows.columns)
        with self._writing():
            self._refuse_replaced(dim, kinds, fingerprint)
            dead = self._numbers(photos.tolist())
            self._update(dead, skus, photos, self._snapshot.rows.vectors_in_order(dead), attributes)

    def delete(self, photos=None, skus=None) -> int:  # noqa: D102
        photos, skus = checked_deletion(photos, skus)
        with self._writing():
            dead = _rows_of_skus(self._snapshot.rows, skus or []) if photos is None else self._numbers(photos)
            nothing = {name: np.zeros(0, "O") for name in self.attributes}
            self._update(dead, np.zeros(0, "U1"), np.zeros(0, "U1"), np.zeros((0, self.dim), np.float32), nothing)
        return len(dead)

    def compact(self) -> None:
        """Builds the index anew from its photos: as fast again as after `build`, and deleted ones take no space.

        Other processes keep reading meanwhile, and writers wait. Nothing is lost if it is killed.

        Raises:
            CatalogIndexError: if no photo is left.
        """
        with self._writing():
            snapshot = self._snapshot
            if not snapshot.rows.size:
                raise CatalogIndexError("`compact` must find at least one photo. Received: an index of none.")
            rows = snapshot.rows.compacted()
            engine, settings = self._make_engine(rows, snapshot.settings)
            self._snapshot = dataclasses.replace(snapshot, rows=rows, engine=engine, settings=settings)
            self._row_of = None
            if self._folder is not None:
                try:
                    self._write_to(self._folder)
                except BaseException:
                    self._snapshot = snapshot
                    raise

    def _update(self, dead, skus, photos, vectors, attributes) -> None:
        """Writes the update to the log, and then makes it."""
        rows, end = self._snapshot.rows, self._snapshot.log_end
        kept = {name: column.encode(attributes[name]) for name, column in rows.columns.items()}
        added = Part(Vectors(vectors), rows.sku_column.encode(skus), photos, kept)
        if self._folder is not None:
            payload = payload_of(rows, dead, added)
            try:
                end = append_record(self._folder / self._snapshot.manifest.contents / LOG, payload, end)
            except OSError as error:
                raise CatalogIndexError(
                    f"the update could not be written to '{self._folder}': {said_by(error)}. Nothing has changed."
                ) from error
        self._take(dead, added, end)

    def _take(self, dead: np.ndarray, added: Part, log_end: int) -> None:
        rows = self._snapshot.rows
        if self._row_of is not None:
            for photo in rows.photos(dead).tolist():
                del self._row_of[photo]
            self._row_of.update(zip(added.photos.tolist(), range(len(rows), len(rows) + len(added))))
        self._snapshot = dataclasses.replace(self._snapshot, rows=rows.updated(dead, added), log_end=log_end)

    def _rows_of_photos(self) -> dict[str, int]:
        if self._row_of is None:
            rows = self._snapshot.rows
            self._row_of = dict(zip(rows.photos(rows.alive).tolist(), rows.alive.tolist()))
        return self._row_of

    # --- on disk

    def save(self, folder) -> None:  # noqa: D102
        folder = Path(folder)
        with self._lock, self._saving(folder) as is_own:
            if is_own:
                self._write_to(folder)
            else:
                _write(self, self._snapshot, folder)

    def _write_to(self, folder: Path) -> None:
        manifest, log_end = _write(self, self._snapshot, folder)
        self._folder = folder.absolute()
        self._snapshot = dataclasses.replace(self._snapshot, manifest=manifest, log_end=log_end)

    @classmethod
    def _read(cls, folder: Path, manifest: Manifest) -> LocalIndex:
        if manifest.kind != cls.kind:
            raise refusal(folder, f"is now one of kind '{manifest.kind}', not '{cls.kind}'", mend="Load it again.")
        contents = check_files(folder, manifest)
        try:
            rows = Rows.read(contents, manifest.attributes)
        except (OSError, ValueError) as error:
            why = said_by(error) if isinstance(error, OSError) else "a file of it is not a NumPy file"
            raise refusal(folder, f"cannot be read: {why}", name=manifest.contents) from error
        engine = cls._read_engine(contents, rows, manifest.settings)
        return cls(Snapshot(rows, engine, manifest.settings, manifest.fingerprint, manifest.metadata, manifest))

    def _took_up(self, folder: Path) -> None:
        self._replay()

    def refresh(self) -> bool:
        """Takes up what other processes have written to the index's folder since; an index without one is as it is.

        Returns:
            Whether anything has changed.

        Raises:
            CatalogIndexError: as `load_index`. The index then stays as it was.
        """
        with self._lock:
            if self._folder is None:
                return False
            if read_manifest(self._folder).contents != self._snapshot.manifest.contents:
                fresh = type(self).load(self._folder)
                self._snapshot, self._row_of = fresh._snapshot, None  # type: ignore[attr-defined]  # of our own kind
                return True
            return self._replay()

    def _replay(self) -> bool:
        start = self._snapshot.log_end
        path = self._folder / self._snapshot.manifest.contents / LOG
        try:
            for record in read_records(path, start):
                self._take(*parsed(self._snapshot.rows, record.payload), record.end)
        except DamagedLogError as error:
            mend = "Copy the folder again; to give up that update and all after it, cut the file there."
            raise refusal(self._folder, f"{error}", name=self._snapshot.manifest.contents, mend=mend) from error
        return self._snapshot.log_end > start

    # --- what a kind adds

    @classmethod
    def _make_engine(cls, rows: Rows, settings: dict) -> tuple[Engine | None, dict]:
        """Returns what searches these rows, and the settings of the new index."""
        return None, settings

    @classmethod
    def _write_engine(cls, engine: Engine | None, contents: Path) -> None:
        """Writes it into the index's contents."""

    @classmethod
    def _read_engine(cls, contents: Path, rows: Rows, settings: dict) -> Engine | None:
        """Reads what `_write_engine` wrote."""
        return None

    # --- facts

    @property
    def size(self) -> int:  # noqa: D102
        return self._snapshot.rows.size

    @property
    def dim(self) -> int:  # noqa: D102
        return self._snapshot.rows.base.vectors.dim

    @property
    def attributes(self) -> dict[str, str]:  # noqa: D102
        return self._snapshot.rows.kinds

    @property
    def fingerprint(self) -> str | None:  # noqa: D102
        return self._snapshot.fingerprint

    @property
    def metadata(self) -> dict:  # noqa: D102
        return copy.deepcopy(self._snapshot.metadata)

    @property
    def storage(self) -> str:
        """How the vectors are kept: `"float32"`, `"bfloat16"` or `"int8"`."""
        return self._snapshot.rows.base.vectors.storage

    @property
    def num_skus(self) -> int:
        """Number of products."""
        return self._snapshot.rows.num_skus

    @property
    def num_recent(self) -> int:
        """Photos added or replaced since the index was built: each search compares with all of them."""
        return len(self._snapshot.rows.recent)

    @property
    def num_deleted(self) -> int:
        """Photos deleted or replaced since the index was built, whose space is not freed yet."""
        return len(self._snapshot.rows) - self.size

    @property
    def embeddings(self) -> np.ndarray:
        """`[size, dim]` float32 unit vectors, one row per photo, in the order of `photos`; not to be written to."""
        rows = self._snapshot.rows
        if len(rows) == rows.size and not len(rows.recent):
            return rows.base.vectors.rows(slice(None))
        return rows.vectors(rows.alive)

    @property
    def skus(self) -> np.ndarray:
        """`[size]` the product on each photo."""
        return self._snapshot.rows.skus(self._snapshot.rows.alive)

    @property
    def photos(self) -> np.ndarray:
        """`[size]` the photos' unique ids."""
        return self._snapshot.rows.photos(self._snapshot.rows.alive)


def _allowed(rows: Rows, conditions: Conditions) -> np.ndarray:
    """The numbers of the rows that are alive and meet the conditions, ascending."""
    parts = [part for part in (rows.base, rows.recent) if len(part)]
    is_allowed = np.concatenate([allowed_rows(rows.columns, part.attributes, conditions) for part in parts])
    return np.flatnonzero(is_allowed if rows.is_dead is None else is_allowed & ~rows.is_dead)


def _rows_of_skus(rows: Rows, skus: list[str]) -> np.ndarray:
    numbers = [rows.sku_column.number_of(sku) for sku in skus]
    of_alive = rows.sku_numbers(rows.alive)
    present = set(np.unique(of_alive).tolist())
    refuse_unknown("skus", [sku for sku, number in zip(skus, numbers) if number not in present])
    return rows.alive[np.isin(of_alive, numbers)]


def _write(index: LocalIndex, snapshot: Snapshot, folder: Path) -> tuple[Manifest, int]:
    """Writes a snapshot as `folder`; what was added or deleted since the build becomes the one record of its log."""
    rows, log_end = snapshot.rows, 0

    def write(contents: Path) -> None:
        nonlocal log_end
        rows.write(contents)
        index._write_engine(snapshot.engine, contents)
        if rows.is_dead is not None or len(rows.recent):
            dead = np.zeros(0, np.intp) if rows.is_dead is None else np.flatnonzero(rows.is_dead)
            log_end = append_record(contents / LOG, payload_of(rows, dead, rows.recent), 0)

    description = {
        "kind": index.kind,
        "dim": rows.base.vectors.dim,
        "size": rows.size,
        "fingerprint": snapshot.fingerprint,
        "metadata": snapshot.metadata,
        "settings": snapshot.settings,
        "storage": rows.base.vectors.storage,
        "attributes": rows.described_columns(),
    }
    manifest = save_contents(folder, description, write, log=LOG)
    return manifest, log_end
