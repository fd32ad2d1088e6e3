"""What a catalogue is: photos, the product each one shows, and how a bad list is refused."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eet_tf.data import remote, values
from eet_tf.data.kinds import as_column, as_texts, of_kind, typed_texts, typed_values
from eet_tf.data.overview import overview
from eet_tf.wording import counted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ROLES = ("query", "gallery", "")
_MOST_COMPLAINTS = 1000  # lines of one message


class CatalogError(ValueError):
    """Tells that a catalogue cannot be used; the message names file, line and repair of all that is wrong."""


class MissingPhotosError(CatalogError):
    """Nothing is wrong with a catalogue but that photos are missing or empty.

    Attributes:
        catalog: the catalogue as it is listed, which `eet_tf.data.readable` leaves those photos out of.
    """

    def __init__(self, message: str, catalog: Catalog):
        super().__init__(message)
        self.catalog = catalog


def one_after_another(complaints: Sequence[str]) -> str:
    """Complaints as the lines of one message; of very many the first, and how many more there are."""
    if len(complaints) <= _MOST_COMPLAINTS:
        return "\n".join(complaints)
    return "\n".join(
        [*complaints[:_MOST_COMPLAINTS], f"... and {len(complaints) - _MOST_COMPLAINTS:,} more like these."]
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Catalog:
    """Lists photos with the product (sku) that each shows; checked when it is made.

    Args:
        paths: `[N]` photo files, relative to `root` or absolute, or URLs such as `https://...` and `s3://...`. A path
            is also the photo's id.
        skus: `[N]` product identifiers, strings or whole numbers, which become strings. Photos of one product share
            one. A value that is missing (None, NaN, NA, a blank, or their names as text) is refused, and so is a float.
        categories: optional `[N]` strings or whole numbers, one category per photo; `""` where it has none.
        attributes: optional `{name: [N] values}`, e.g. `{"colour": [...]}`. A column whose values are all numbers, or
            missing, holds numbers (NaN where one is missing); one whose values are all True or False holds bools; one
            with a list of strings for a photo has a tuple of strings for each. Any other holds strings, where a missing
            value becomes `""`, unknown. Strings stay strings, whatever they spell.
        splits: optional `[N]` strings: `"train"`, `"validation"` or `"test"`, in any case, or one of their other
            spellings `training`, `val`, `valid`, `testing`; `""` for a photo in none. Anything else is refused. If
            all are `""`, there are no splits.
        roles: optional `[N]` strings, what evaluation uses a photo for: `"query"`, `"gallery"`, or `""` for both
            (each photo is searched among all the others). Without roles every photo serves as both.
        root: folder, or a URL, that relative paths start from.
        source: where the rows come from (a list file), for error messages.
        lines: optional `[N]` line numbers in `source`, or strings `"file:line"` where there are several files, for
            error messages.
        notes: what a user must know of how the rows were read, a sentence each: which files were passed over, or that
            a list was taken for Windows-1252. Commands print them.
        spellings: optional `{attribute: {value: text}}`, how a list writes numbers and bools where Python writes them
            otherwise, e.g. `{"price": {19.9: "19.90"}}`. Readers of lists give it; `column_texts` uses it.
        photo_cache: folder in which photos at URLs are kept once they have been fetched; `""` for none: then they are
            fetched whenever they are read.

    Strings are kept as `[N]` arrays of Python strings, so that one long text takes no room in the other rows.

    Attributes:
        labels: `[N]` int64, the skus numbered densely from 0 in sorted order.
        label_skus: `[C]` strings, the sku of each label.

    Raises:
        CatalogError: if it is empty, a column's length differs, a sku or path is missing, a split or role is not one of
            those above, or a photo is listed twice. It names all rows that are wrong.

    Example:

    >>> catalog = Catalog(paths=["a.jpg", "b.jpg", "c.jpg"], skus=["mug", "cup", "mug"])
    >>> catalog.labels.tolist(), catalog.label_skus.tolist()
    ([1, 0, 1], ['cup', 'mug'])
    >>> print(catalog)
    Catalog of the catalogue
      photos:     3 of 2 products, 1 to 2 each
      splits:     none
      categories: none
      attributes: none
    """

    paths: np.ndarray
    skus: np.ndarray
    categories: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    splits: np.ndarray | None = None
    roles: np.ndarray | None = None
    root: str = ""
    source: str = "the catalogue"
    lines: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    spellings: Mapping[str, Mapping[float | bool, str]] = dataclasses.field(default_factory=dict)
    photo_cache: str = ""
    labels: np.ndarray = dataclasses.field(init=False)
    label_skus: np.ndarray = dataclasses.field(init=False)

    if TYPE_CHECKING:  # `dataclass` makes this very constructor; what is given may be lists, what is kept are arrays

        def __init__(
            self,
            paths: ArrayLike,
            skus: ArrayLike,
            categories: ArrayLike | None = None,
            attributes: Mapping[str, ArrayLike] = ...,
            splits: ArrayLike | None = None,
            roles: ArrayLike | None = None,
            root: str = "",
            source: str = "the catalogue",
            lines: ArrayLike | None = None,
            notes: Sequence[str] = (),
            spellings: Mapping[str, Mapping[float | bool, str]] = ...,
            photo_cache: str = "",
        ): ...

    def __post_init__(self):
        self._set("attributes", dict(self.attributes))
        self._set("notes", tuple(self.notes))
        self._check_lengths()
        if self.lines is not None:
            is_place = any(isinstance(line, str) for line in self.lines[:1])
            self._set("lines", self.lines if is_place else self.lines.astype(np.int64))
        self._refuse([*self._read_columns(), *self._wrong_roles(), *self._repeated_photos()])
        label_skus = sorted(set(self.skus.tolist()))
        labels = {sku: label for label, sku in enumerate(label_skus)}
        self._set("label_skus", values.as_objects(label_skus))
        self._set("labels", np.fromiter(map(labels.__getitem__, self.skus.tolist()), np.int64, len(self)))

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def _refuse(self, complaints: Sequence[str]) -> None:
        if complaints:
            raise CatalogError(one_after_another(complaints))

    def _check_lengths(self) -> None:
        """Makes arrays of all columns; refuses those that do not belong together."""
        given = {name: getattr(self, name) for name in ("paths", "skus", "categories", "splits", "roles", "lines")}
        columns = {name: values.as_objects(column) for name, column in given.items() if column is not None}
        attributes = {name: as_column(column) for name, column in self.attributes.items()}
        for name, column in columns.items():
            self._set(name, column)
        self._set("attributes", attributes)
        if self.paths.shape == (0,):
            raise CatalogError(f"{self.source} lists no photos. Give at least two photos of at least two products.")
        if self.paths.ndim != 1:
            raise CatalogError(f"`paths` must be a list of photo files. Received: shape {self.paths.shape}.")
        named = {**columns, **{f"attributes[{name!r}]": column for name, column in attributes.items()}}
        self._refuse(
            [
                f"`{name}` must have one value per photo. Received: shape {column.shape} for "
                f"{counted(len(self.paths), 'photo')}."
                for name, column in named.items()
                if column.shape != self.paths.shape
            ]
        )

    def _read_columns(self) -> Iterable[str]:
        """Makes strings of all columns; yields what is no string and no number, and what is missing."""
        refused_rows: set[int] = set()
        for name, what in (("paths", "path"), ("skus", "sku"), ("categories", "category"), ("splits", "split")):
            if getattr(self, name) is None:
                continue
            texts, refused = values.read_names(getattr(self, name))
            self._set(name, texts)
            refused_rows.update(refused)
            for row, reason in refused.items():
                yield f"{self._place(row)}: the {what}{reason}."
        if self.roles is not None:
            self._set("roles", values.read_cells(self.roles))
        typed = {name: typed_values(column) for name, column in self.attributes.items()}
        self._set("attributes", {name: column.values for name, column in typed.items()})
        spellings = {name: column.spellings for name, column in typed.items() if column.spellings}
        self._set("spellings", {**self.spellings, **spellings})
        yield from self._missing_names(refused_rows)
        if self.splits is not None:
            yield from self._read_splits()

    def _missing_names(self, refused_rows: set[int]) -> Iterable[str]:
        for row, (path, sku) in enumerate(zip(self.paths.tolist(), self.skus.tolist())):
            if row not in refused_rows and (not path.strip() or not sku.strip()):
                yield f"{self._place(row)}: a row has no path or no sku. Fill it in or delete the row."
            elif sku in values.MISSING_TEXTS:
                yield (
                    f"{self._place(row)}: the sku is {sku!r}, which programs write where a value is missing. Fill it "
                    "in or delete the row; if a product has that name, give it another."
                )

    def _read_splits(self) -> Iterable[str]:
        splits, unknown = values.read_splits(np.asarray(self.splits).tolist())
        for text, rows in unknown.items():
            others = len(rows) - 1
            times = f", and in {counted(others, 'other row')}" if others else ""
            yield (
                f"{self._place(rows[0])}: a split must be one of {values.allowed_splits()}, or empty. "
                f"Received: {text!r}{times}."
            )
        self._set("splits", splits if (splits != "").any() else None)

    def _wrong_roles(self) -> Iterable[str]:
        for row, role in enumerate(() if self.roles is None else self.roles.tolist()):
            if role not in _ROLES:
                yield (
                    f"{self._place(row)}: the role of a photo must be 'query', 'gallery' or '' (both). "
                    f"Received: {role!r}."
                )

    def _repeated_photos(self) -> Iterable[str]:
        first: dict[str, int] = {}
        for row, path in enumerate(self.paths.tolist()):
            known = first.setdefault(path, row)
            if known != row and path:
                yield (
                    f"{self._place(row)}: photo {path!r} is listed a second time (first at {self._place(known)}). "
                    "List every photo once."
                )

    def _place(self, row: int) -> str:
        """As `where`; with the number of the row where no line is known."""
        return f"{self.source}, row {row}" if self.lines is None else self.where(row)

    def where(self, row: int) -> str:
        """Returns the place that a row came from, as `file:line`."""
        if self.lines is None:
            return self.source
        line = self.lines[row]
        return line if isinstance(line, str) else f"{self.source}:{line}"

    def __repr__(self) -> str:
        return overview(self.source, self.labels, self.splits, self.categories, self.attributes)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_classes(self) -> int:
        """The number of products."""
        return len(self.label_skus)

    @property
    def files(self) -> np.ndarray:
        """`[N]` photo files, joined to `root`, and URLs."""
        return values.as_objects([remote.joined(self.root, path) for path in self.paths.tolist()])

    def columns(self, kinds: Mapping[str, str] | None = None) -> dict[str, np.ndarray]:
        """Returns the columns that photos can be filtered by, `{name: [N] values}`: the category and all attributes.

        This is what an index keeps of each photo: `attributes=catalog.columns()`. `catalog.attributes` lacks the
        category. Numbers and bools are such; categories that are numbers are too.

        Args:
            kinds: `index.attributes` of an index that photos are added to: columns then are of its kinds.

        Example:

        >>> catalog = Catalog(["a.jpg", "b.jpg"], ["mug", "cup"], ["x", "y"], attributes={"price": [1.5, 2]})
        >>> {name: column.tolist() for name, column in catalog.columns().items()}
        {'category': ['x', 'y'], 'price': [1.5, 2.0]}
        >>> catalog.columns({"price": "string"})["price"].tolist()
        ['1.5', '2']
        """
        found = {name: self.column(name) for name in self._column_names()}
        if self.categories is not None:
            found["category"] = typed_texts(self.categories.tolist()).values
        wanted = {name: kind for name, kind in (kinds or {}).items() if name in found}
        as_wanted = {name: of_kind(found[name], self.column_texts(name), kind) for name, kind in wanted.items()}
        return {**found, **as_wanted}

    def _column_names(self) -> list[str]:
        return list(dict.fromkeys([*(() if self.categories is None else ("category",)), *self.attributes]))

    def column(self, name: str) -> np.ndarray:
        """`[N]` values of the attribute column `name`; `"category"` is the categories, where there are any.

        Raises:
            CatalogError: if there is none of that name; lists the known ones.
        """
        known = self._column_names()
        if name not in known:
            raise CatalogError(f"{self.source} has no column {name!r}. Its columns are: {sorted(known) or 'none'}.")
        return self.categories if name == "category" and self.categories is not None else self.attributes[name]

    def column_texts(self, name: str) -> np.ndarray:
        """`[N]` strings, the column `name` as a list writes it; see `column`. Several values have commas between."""
        return as_texts(self.column(name), self.spellings.get(name, {}))

    def categorized_by(self, name: str) -> Catalog:
        """Returns the catalogue with the attribute `name` as its category.

        Args:
            name: an attribute, or `"category"`: then they stay as they are.

        Raises:
            CatalogError: if there is no such column; lists the known ones.

        Example:

        >>> catalog = Catalog(["a.jpg", "b.jpg"], ["mug", "cup"], attributes={"colour": ["red", "blue"]})
        >>> catalog.categorized_by("colour").categories.tolist()
        ['red', 'blue']
        """
        return dataclasses.replace(self, categories=self.column_texts(name))

    def take(self, rows: Sequence[int] | np.ndarray) -> Catalog:
        """Returns the catalogue of some rows (indices or a boolean mask), with labels numbered again."""
        rows = np.asarray(rows)

        def pick(column):
            return None if column is None else column[rows]

        return Catalog(
            paths=self.paths[rows],
            skus=self.skus[rows],
            categories=pick(self.categories),
            attributes={name: column[rows] for name, column in self.attributes.items()},
            splits=pick(self.splits),
            roles=pick(self.roles),
            root=self.root,
            source=self.source,
            lines=pick(self.lines),
            notes=self.notes,
            spellings=self.spellings,
            photo_cache=self.photo_cache,
        )

    def split(self, name: str) -> Catalog:
        """Returns the rows of one split; `"all"` means every row.

        Args:
            name: the split, in any spelling that the splits of a catalogue may have.

        Raises:
            CatalogError: if there are no splits or none of that name.
        """
        if name == "all":
            return self
        known = [] if self.splits is None else sorted(set(self.splits.tolist()) - {""})
        split = values.read_split(name)
        if split not in known:
            raise CatalogError(
                f"`split` must be 'all' or a split of {self.source}: {known or 'it has none'}. "
                f"Received: split={name!r}."
            )
        return self.take(np.asarray(self.splits == split, bool))

    def hold_out(self, share: float, seed: int = 0) -> tuple[Catalog, Catalog]:
        """Splits the catalogue into (the rest, about `share` of the products); no product is in both.

        The second part is for choosing a model. Only products with two photos or more are held out, at
        least two of them, since a product with one photo has nothing to be found.

        Raises:
            CatalogError: if `share` is not in (0, 1) or too few products are left on either side.
        """
        if not 0 < share < 1:
            raise CatalogError(f"`share` must be between 0 and 1. Received: share={share}.")
        findable = np.flatnonzero(np.bincount(self.labels) >= 2)
        num_held = max(2, round(share * self.num_classes))
        if num_held > len(findable) or self.num_classes - num_held < 2:
            raise CatalogError(
                f"Holding out {num_held} of {counted(self.num_classes, 'product')} of {self.source} leaves too few to "
                f"learn from ({len(findable):,} with two photos or more). Give more products or hold out none."
            )
        held = np.random.default_rng(seed).permutation(findable)[:num_held]
        mask = np.isin(self.labels, held)
        return self.take(~mask), self.take(mask)

    def check_files(self) -> Catalog:
        """Raises `MissingPhotosError` for the listed photos that are missing or empty, all of them; returns itself.

        Of photos at URLs it refuses those whose protocol nothing here reads. Which are there, only reading them tells.
        """
        places = map(self.where, range(len(self)))
        if missing := missing_photos(self.root, self.paths.tolist(), places):
            raise MissingPhotosError(one_after_another(missing), self)
        return self

    def check_trainable(self) -> Catalog:
        """Raises `CatalogError` unless it has two products or more, each with two photos or more; returns itself."""
        if self.num_classes < 2:
            raise CatalogError(
                f"{self.source} has only one product, {str(self.label_skus[0])!r}. "
                "Learning needs photos of at least two products to tell apart."
            )
        counts = np.bincount(self.labels)
        single = np.flatnonzero(counts < 2)
        if single.size:
            _, first = np.unique(self.labels, return_index=True)
            named = [f"{self.where(row)}: product {self.skus[row]!r} has one photo" for row in sorted(first[single])]
            named[0] += (
                f", so it has no positive pair ({single.size:,} of {counted(self.num_classes, 'product')} "
                f"{'is' if single.size == 1 else 'are'} like that). Add "
                "photos, or leave such products out with `catalog.without_singles()` (--drop_singles)."
            )
            raise CatalogError(one_after_another(named))
        return self

    def without_singles(self) -> Catalog:
        """Returns the catalogue without products that have one photo.

        Raises:
            CatalogError: if none is left.
        """
        has_pair = np.bincount(self.labels)[self.labels] >= 2
        if not has_pair.any():
            raise CatalogError(f"{self.source}: no product has two photos, so none is left. Add photos.")
        return self.take(has_pair)


def missing_photos(root: str, paths: Iterable[str], places: Iterable[str]) -> list[str]:
    """What is to be said of listed photos that are not there or empty, and of URLs that nothing here reads.

    Args:
        root: folder, or a URL, that relative paths start from.
        paths: of the photos; `""` is passed over.
        places: where each is listed.
    """
    complaints, names_in = [], functools.lru_cache(64)(_names_in)
    why_no_reader = functools.lru_cache(64)(remote.why_no_reader)
    for path, place in zip(paths, places):
        if not path:
            continue
        file = remote.joined(root, path)
        if remote.is_url(file):
            if why := why_no_reader(remote.protocol_of(file)):
                complaints.append(f"{place}: photo {file!r} cannot be read: {why}.")
            continue
        size = _size(file)
        if size is None:
            hint = _hint(file, names_in)
            complaints.append(f"{place}: photo file {file!r} does not exist. Mend the path or delete the row.{hint}")
        elif size == 0:
            complaints.append(f"{place}: photo file {file!r} is empty. Replace it or delete the row.")
    return complaints


def _size(file: str) -> int | None:
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # the latter for a path that no file can have
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _names_in(folder: str) -> dict[str, str]:
    try:
        return {values.look(name): name for name in os.listdir(folder or ".")}
    except (OSError, ValueError):
        return {}


def _hint(file: str, names_in: Callable[[str], dict[str, str]]) -> str:
    """Names the file beside a missing one whose name looks the same, as those of another Unicode form or case do."""
    folder, name = os.path.split(file)
    alike = names_in(folder).get(values.look(name))
    return f" Its folder has {ascii(alike)}, whose name only looks the same as {ascii(name)}." if alike else ""
