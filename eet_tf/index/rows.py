"""The rows of an index at one moment: what it was built from, what was added since, and what was deleted."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from eet_tf.index.columns import Column, described, dtype_of
from eet_tf.index.conditions import TEXTS
from eet_tf.index.storage import Vectors


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Rows that lie together, one for each photo.

    Args:
        vectors: `[N, D]`.
        skus: `[N]` int32, what the sku column keeps.
        photos: `[N]` strings, unique.
        attributes: `[N]` of each column, what it keeps.
    """

    vectors: Vectors
    skus: np.ndarray
    photos: np.ndarray
    attributes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.photos)

    def arrays(self) -> dict[str, np.ndarray]:
        """All but the vectors, by the names they have on disk; attributes by their places, as names may hold a `/`."""
        kept = {f"attribute-{place}": array for place, array in enumerate(self.attributes.values())}
        return {"photos": self.photos, "skus": self.skus, **kept}


class _Growing:
    """An array that rows are added to; what was given out before keeps its values."""

    def __init__(self, start: np.ndarray):
        self._buffer = start
        self._length = len(start)

    def add(self, rows: np.ndarray) -> np.ndarray:
        """Returns all rows, the new ones last."""
        end = self._length + len(rows)
        dtype = np.promote_types(self._buffer.dtype, rows.dtype)  # of strings the wider
        if end > len(self._buffer) or dtype != self._buffer.dtype:
            grown = np.empty((max(end, 2 * self._length), *rows.shape[1:]), dtype)
            grown[: self._length] = self._buffer[: self._length]
            self._buffer = grown
        self._buffer[self._length : end] = rows
        self._length = end
        return self._buffer[:end]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """All rows at one moment. It never changes: an update makes the next one, so that a search sees one state through.

    A row's number is its place, those of `base` first. It stays until the index is built anew.

    Args:
        sku_column: knows the skus.
        columns: the attributes, in their order.
        base: what the index was built from.
        recent: what was added since; its vectors are float32.
        is_dead: `[base + recent]` bool, deleted or replaced; None if none is.
    """

    sku_column: Column
    columns: dict[str, Column]
    base: Part
    recent: Part
    is_dead: np.ndarray | None = None
    _growing: dict[str, _Growing] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, sku_column: Column, columns: dict[str, Column], base: Part) -> Rows:
        """The rows of an index that has just been built."""
        recent = Part(
            Vectors(np.zeros((0, base.vectors.dim), np.float32)),
            np.zeros(0, np.int32),
            np.zeros(0, base.photos.dtype),
            {name: np.zeros(0, dtype_of(column.kind)) for name, column in columns.items()},
        )
        return cls(sku_column, columns, base, recent)

    def __len__(self) -> int:
        """All rows, dead ones too."""
        return len(self.base) + len(self.recent)

    @functools.cached_property
    def size(self) -> int:
        """Rows that are alive."""
        return len(self) - (0 if self.is_dead is None else int(np.count_nonzero(self.is_dead)))

    @property
    def kinds(self) -> dict[str, str]:
        """Returns the kind of each attribute, by name."""
        return {name: column.kind for name, column in self.columns.items()}

    @functools.cached_property
    def alive(self) -> np.ndarray:
        """The numbers of the rows that are alive, ascending."""
        return np.arange(len(self)) if self.is_dead is None else np.flatnonzero(~self.is_dead)

    @functools.cached_property
    def num_skus(self) -> int:
        """Products that have a row that is alive."""
        return self.count_skus(self.alive)

    def count_skus(self, rows: np.ndarray) -> int:
        """How many products these rows show."""
        return int(np.count_nonzero(np.bincount(self.sku_numbers(rows), minlength=1)))

    def sku_numbers(self, rows: np.ndarray) -> np.ndarray:
        """The product on each of these rows, as the sku column's number; `rows` of any shape."""
        return self._taken(self.base.skus, self.recent.skus, rows)

    def skus(self, rows: np.ndarray) -> np.ndarray:
        """The product on each of these rows; `rows` of any shape."""
        return self.sku_column.decode(self.sku_numbers(rows))

    def photos(self, rows: np.ndarray) -> np.ndarray:
        """The id of each of these rows; `rows` of any shape."""
        return self._taken(self.base.photos, self.recent.photos, rows)

    def attribute(self, name: str, rows: np.ndarray) -> np.ndarray:
        """What is kept of that attribute for these rows; `rows` of any shape."""
        return self._taken(self.base.attributes[name], self.recent.attributes[name], rows)

    def attributes(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The values of all attributes for these rows; `rows` of any shape."""
        return {name: column.decode(self.attribute(name, rows)) for name, column in self.columns.items()}

    def vectors_in_order(self, rows: np.ndarray) -> np.ndarray:
        """`[n, D]` float32 vectors of these `[n]` rows, in any order, one perhaps twice."""
        ascending, places = np.unique(rows, return_inverse=True)
        return self.vectors(ascending)[places.reshape(-1)]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """`[n, D]` float32 vectors of these `[n]` rows, ascending."""
        split = int(np.searchsorted(rows, len(self.base)))
        if split == len(rows):
            return self.base.vectors.rows(rows)
        recent = self.recent.vectors.rows(rows[split:] - len(self.base))
        return np.concatenate([self.base.vectors.rows(rows[:split]), recent]) if split else recent

    def _taken(self, base: np.ndarray, recent: np.ndarray, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows)
        if not len(recent):
            return base[rows]
        is_recent = rows >= len(base)
        taken = np.empty(rows.shape, np.promote_types(base.dtype, recent.dtype))
        taken[~is_recent], taken[is_recent] = base[rows[~is_recent]], recent[rows[is_recent] - len(base)]
        return taken

    def updated(self, dead: np.ndarray, added: Part) -> Rows:
        """The rows after one update: `dead` row numbers gone, `added` (float32) behind the others."""
        recent = self.recent
        if len(added):
            vectors = Vectors(self._grown("vectors", recent.vectors.values, added.vectors.values))
            kept = [
                self._grown(name, array, new)
                for (name, array), new in zip(recent.arrays().items(), added.arrays().values())
            ]
            recent = Part(vectors, kept[1], kept[0], dict(zip(recent.attributes, kept[2:])))
        is_dead = np.zeros(len(self.base) + len(recent), bool)
        if self.is_dead is not None:
            is_dead[: len(self)] = self.is_dead
        is_dead[dead] = True
        return dataclasses.replace(self, recent=recent, is_dead=is_dead if is_dead.any() else None)

    def _grown(self, name: str, array: np.ndarray, new: np.ndarray) -> np.ndarray:
        return self._growing.setdefault(name, _Growing(array)).add(new)

    def compacted(self) -> Rows:
        """The rows that are alive, as those of a new index: same order, same storage."""
        names = {name: self.columns[name].decode(self.attribute(name, self.alive)) for name in self.columns}
        columns = {name: Column(name, column.kind) for name, column in self.columns.items()}
        skus = Column("sku", "string")
        base = Part(
            Vectors.of(self.vectors(self.alive), self.base.vectors.storage),
            skus.encode(self.skus(self.alive)),
            self.photos(self.alive),
            {name: column.encode(names[name]) for name, column in columns.items()},
        )
        return Rows.of(skus, columns, base)

    def write(self, contents: Path) -> None:
        """Writes the base into the folder `contents`, as NumPy files that hold no pickles; names as JSON."""
        _save(contents / "vectors.npy", self.base.vectors.values)
        if self.base.vectors.scales is not None:
            _save(contents / "scales.npy", self.base.vectors.scales)
        for name, array in self.base.arrays().items():
            _save(contents / f"{name}.npy", array)
        _save_names(contents / "sku-names.json", self.sku_column.names)
        for place, column in enumerate(self.columns.values()):
            if column.kind in TEXTS:
                _save_names(contents / f"attribute-{place}-names.json", column.names)

    def described_columns(self) -> list[dict]:
        """For the manifest."""
        return described(list(self.columns.values()))

    @classmethod
    def read(cls, contents: Path, described_columns: list[dict]) -> Rows:
        """Reads what `write` wrote; the large arrays are mapped, not read."""
        columns, kept = {}, {}
        for place, column in enumerate(described_columns):
            names = []
            if column["kind"] in TEXTS:
                names = _load_names(contents / f"attribute-{place}-names.json")
            columns[column["name"]] = Column(column["name"], column["kind"], names)
            kept[column["name"]] = _load(contents / f"attribute-{place}.npy")
        scales = contents / "scales.npy"
        vectors = Vectors(_load(contents / "vectors.npy"), _load(scales) if scales.exists() else None)
        base = Part(vectors, _load(contents / "skus.npy"), _load(contents / "photos.npy"), kept)
        return cls.of(Column("sku", "string", _load_names(contents / "sku-names.json")), columns, base)


def _save(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=False)


def _save_names(path: Path, names: list) -> None:
    path.write_text(json.dumps(names), encoding="utf-8")  # one long name takes no room in the others


def _load_names(path: Path) -> list:
    if not path.exists():  # format version 2
        return _load(path.with_suffix(".npy")).tolist()
    return json.loads(path.read_text(encoding="utf-8"))


def _load(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r" if path.stat().st_size else None, allow_pickle=False)
