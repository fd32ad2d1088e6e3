"""What a catalogue is: photos, the product each one shows, and how a bad list is refused."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ROLES = ("query", "gallery", "")


class CatalogError(ValueError):
    """A catalogue that cannot be used; the message names the file, the line and the mend."""


@dataclasses.dataclass(frozen=True, eq=False)
class Catalog:
    """Photos with the product (sku) each one shows, checked once when it is made.

    Args:
        paths: `[N]` photo files, relative to `root` or absolute. A path is also the photo's id.
        skus: `[N]` product identifiers, any strings. Photos of one product share one.
        categories: optional `[N]` strings, one category per photo.
        attributes: optional `{name: [N] strings}`, e.g. `{"colour": [...]}`.
        splits: optional `[N]` strings, e.g. `"train"` or `"test"`.
        roles: optional `[N]` strings, what evaluation uses a photo for: `"query"`, `"gallery"`, or `""` for both
            (each photo is searched among all the others). Without roles every photo serves as both.
        root: folder that relative paths start from.
        source: where the rows come from (a list file), for error messages.
        lines: optional `[N]` line numbers in `source`, for error messages.

    Attributes:
        labels: `[N]` int64, the skus numbered densely from 0 in sorted order.
        label_skus: `[C]` strings, the sku of each label.

    Raises:
        CatalogError: if it is empty, a column's length differs, a sku is empty, a role is none of the three or a
            photo is listed twice.

    Example:

    >>> catalog = Catalog(paths=["a.jpg", "b.jpg", "c.jpg"], skus=["mug", "cup", "mug"])
    >>> catalog.labels.tolist(), catalog.label_skus.tolist()
    ([1, 0, 1], ['cup', 'mug'])
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
        ): ...

    def __post_init__(self):
        for name in ("paths", "skus", "categories", "splits", "roles"):
            if getattr(self, name) is not None:
                self._set(name, np.asarray(getattr(self, name), dtype=np.str_))
        if self.lines is not None:
            self._set("lines", np.asarray(self.lines, dtype=np.int64))
        self._set("attributes", {name: np.asarray(column, dtype=np.str_) for name, column in self.attributes.items()})
        self._check_lengths()
        self._check_rows()
        label_skus, labels = np.unique(self.skus, return_inverse=True)
        self._set("label_skus", label_skus)
        self._set("labels", labels.reshape(-1).astype(np.int64))

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def _columns(self) -> dict[str, np.ndarray]:
        columns = {name: getattr(self, name) for name in ("skus", "categories", "splits", "roles", "lines")}
        columns.update({f"attributes[{name!r}]": column for name, column in self.attributes.items()})
        return {name: column for name, column in columns.items() if column is not None}

    def _check_lengths(self) -> None:
        if len(self.paths) == 0:
            raise CatalogError(f"{self.source} lists no photos. Give at least two photos of at least two products.")
        for name, column in self._columns().items():
            if column.shape != self.paths.shape:
                raise CatalogError(
                    f"`{name}` must have one value per photo. "
                    f"Received: shape {column.shape} for {len(self.paths)} photos."
                )

    def _check_rows(self) -> None:
        empty = np.flatnonzero((self.skus == "") | (self.paths == ""))
        if empty.size:
            raise CatalogError(f"{self.where(empty[0])}: a row has no path or no sku. Fill it in or delete the row.")
        self._check_roles()
        order = np.argsort(self.paths, kind="stable")
        repeats = np.flatnonzero(self.paths[order][1:] == self.paths[order][:-1])
        if repeats.size:
            first, second = order[repeats[0]], order[repeats[0] + 1]
            raise CatalogError(
                f"{self.where(second)}: photo {str(self.paths[second])!r} is listed a second time "
                f"(first at {self.where(first)}). List every photo once."
            )

    def _check_roles(self) -> None:
        if self.roles is None:
            return
        wrong = np.flatnonzero(~np.isin(self.roles, _ROLES))
        if wrong.size:
            raise CatalogError(
                f"{self.where(wrong[0])}: the role of a photo must be 'query', 'gallery' or '' (both). "
                f"Received: {str(self.roles[wrong[0]])!r}."
            )

    def where(self, row: int) -> str:
        """The place a row came from, as `file:line`."""
        return self.source if self.lines is None else f"{self.source}:{self.lines[row]}"

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_classes(self) -> int:
        """How many products it holds."""
        return len(self.label_skus)

    @property
    def files(self) -> np.ndarray:
        """`[N]` photo files, joined to `root`."""
        return np.array([os.path.join(self.root, path) for path in self.paths], dtype=np.str_)

    def columns(self) -> dict[str, np.ndarray]:
        """What photos can be filtered by, `{name: [N] strings}`: the attributes, and the category if there is one."""
        category = {} if self.categories is None else {"category": self.categories}
        return {**category, **self.attributes}

    def column(self, name: str) -> np.ndarray:
        """`[N]` strings, the attribute column `name`; `"category"` is the categories, where there are any.

        Raises:
            CatalogError: if there is none of that name; lists the known ones.
        """
        known = dict(self.attributes) if self.categories is None else {**self.attributes, "category": self.categories}
        if name not in known:
            raise CatalogError(f"{self.source} has no column {name!r}. Its columns are: {sorted(known) or 'none'}.")
        return known[name]

    def categorized_by(self, name: str) -> Catalog:
        """The same catalogue with the attribute column `name` for categories.

        Args:
            name: an attribute, or `"category"`: then they stay as they are.

        Raises:
            CatalogError: if there is no such column; lists the known ones.

        Example:

        >>> catalog = Catalog(["a.jpg", "b.jpg"], ["mug", "cup"], attributes={"colour": ["red", "blue"]})
        >>> catalog.categorized_by("colour").categories.tolist()
        ['red', 'blue']
        """
        return dataclasses.replace(self, categories=self.column(name))

    def take(self, rows: Sequence[int] | np.ndarray) -> Catalog:
        """The catalogue of some rows (indices or a boolean mask); labels are numbered anew."""
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
        )

    def split(self, name: str) -> Catalog:
        """The rows of one split; `"all"` means every row.

        Raises:
            CatalogError: if there are no splits or none of that name.
        """
        if name == "all":
            return self
        known = [] if self.splits is None else sorted(set(self.splits.tolist()))
        if name not in known:
            raise CatalogError(
                f"`split` must be 'all' or a split of {self.source}: {known or 'it has none'}. "
                f"Received: split={name!r}."
            )
        return self.take(np.asarray(self.splits == name))

    def hold_out(self, share: float, seed: int = 0) -> tuple[Catalog, Catalog]:
        """Cuts it in two with no product in both: (the rest, about `share` of the products).

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
                f"Holding out {num_held} of {self.num_classes} products of {self.source} leaves too few to learn from "
                f"({len(findable)} have two photos or more). Give more products or hold out none."
            )
        held = np.random.default_rng(seed).permutation(findable)[:num_held]
        mask = np.isin(self.labels, held)
        return self.take(~mask), self.take(mask)

    def check_files(self) -> Catalog:
        """Raises `CatalogError` for the first listed photo that is missing or empty; returns itself."""
        for row, file in enumerate(self.files.tolist()):
            where = self.where(row)
            if not os.path.isfile(file):
                raise CatalogError(f"{where}: photo file {file!r} does not exist. Mend the path or delete the row.")
            if os.path.getsize(file) == 0:
                raise CatalogError(f"{where}: photo file {file!r} is empty. Replace it or delete the row.")
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
            row, sku = int(np.flatnonzero(self.labels == single[0])[0]), str(self.label_skus[single[0]])
            raise CatalogError(
                f"{self.where(row)}: product {sku!r} has one photo, so it has no positive pair "
                f"({single.size} of {self.num_classes} products are like that). Add photos, or leave such products out "
                "with `catalog.without_singles()` (--drop_singles)."
            )
        return self

    def without_singles(self) -> Catalog:
        """The catalogue without the products that have only one photo."""
        return self.take(np.bincount(self.labels)[self.labels] >= 2)
