"""The attributes of an index's photos: how a column is kept, and which rows a condition allows."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eet_tf.index.checks import (
    CatalogIndexError,
    check_asked,
    check_photos,
    check_strings,
    check_unit_vectors,
    describe,
    plain,
    shown,
)
from eet_tf.index.conditions import TEXTS, Comparison, Conditions
from eet_tf.numerals import as_float

_WIDE = 64  # characters
_MOST_FILLING = 8  # times its texts that an array of NumPy's strings may take
_KINDS = {"string": np.int32, "strings": np.int32, "number": np.float64, "bool": np.bool_}
_SEVERAL = (tuple, list)


class Column:
    """One attribute. Strings are kept as the numbers of their names, numbers as float64, truths as bool.

    Where a photo has several strings, all of them together are one name, a tuple.

    A missing string is `""`, a missing number NaN, and no strings are `()`; a missing truth is refused, and so is an
    integer that float64 does not hold exactly (above 2**53): it is a name, and names are strings.

    Args:
        name: of the attribute, for messages.
        kind: `"string"`, `"strings"` (a tuple for each photo), `"number"` or `"bool"`.
        names: the strings or tuples met so far. New ones are added behind them, so that what was encoded stays right.

    Example:

    >>> column = Column("colour", "string")
    >>> kept = column.encode(["red", "blue", "red"])
    >>> kept.tolist(), column.decode(kept).tolist(), column.meets(kept, Comparison("in", ("red",))).tolist()
    ([1, 0, 1], ['red', 'blue', 'red'], [True, False, True])
    """

    def __init__(self, name: str, kind: str, names: Sequence = ()):
        self.name = name
        self.kind = kind
        self._names = list(names) if kind != "strings" else list(map(tuple, names))
        self._numbers: dict[Any, int] | None = None  # of the names; made when first needed: most readers never do
        self._making_numbers = threading.Lock()
        self._name_array = np.zeros(0, np.str_)

    @classmethod
    def like(cls, name: str, values) -> Column:
        """A column whose kind is that of the values: all bool, all numbers, strings, or tuples of strings (or None)."""
        kinds = {"b": "bool", "i": "number", "u": "number", "f": "number"}
        if isinstance(values, np.ndarray) and values.dtype.kind != "O":
            return cls(name, kinds.get(values.dtype.kind, "string"))
        known = [plain(value) for value in values if value is not None]
        if known and all(isinstance(value, bool) for value in known):
            return cls(name, "bool")
        if any(isinstance(value, _SEVERAL) for value in known):
            return cls(name, "strings")
        # what is mixed is refused later: the values of the kind that fewer have
        num_numbers = sum(map(_is_number, known))
        return cls(name, "number" if num_numbers > len(known) / 2 else "string")

    @property
    def names(self) -> list:
        """The strings met so far, by their numbers; of several strings the tuples."""
        return self._names

    def number_of(self, name: str) -> int:
        """The number of a string; -1 if it was never met."""
        return self._known_numbers().get(name, -1)

    def _known_numbers(self) -> dict[Any, int]:
        with self._making_numbers:  # a search must not undo what a writer has added meanwhile
            if self._numbers is None:
                self._numbers = {known: number for number, known in enumerate(self._names)}
        return self._numbers

    def encode(self, values) -> np.ndarray:
        """What is kept for these `[N]` values.

        Raises:
            CatalogIndexError: if they are not of this column's kind.
        """
        array = _as_column(values)
        if array.ndim != 1:
            raise self._refusal("be one value per photo", describe(array))
        if self.kind == "string":
            return self._encode_strings(array)
        if self.kind == "strings":
            return self._encode_names([self._several(value, row) for row, value in enumerate(array.tolist())])
        values = [plain(value) for value in array.tolist()]
        if self.kind == "bool":
            self._refuse_others(values, lambda value: isinstance(value, bool), "hold True or False")
            return np.asarray(values, np.bool_)
        self._refuse_others(values, lambda value: value is None or _is_number(value), "hold numbers")
        for row, value in enumerate(values):
            if isinstance(value, int) and as_float(value) is None:
                raise CatalogIndexError(
                    f"`attributes['{self.name}']` must hold numbers that float64 holds exactly. Received: {value} in "
                    f"row {row}. Give numbers that are names, such as ids, as strings: all of the column's."
                )
        return np.asarray(values, np.float64)

    def _refuse_others(self, values: list, fits, what: str) -> None:
        for row, value in enumerate(values):
            if not fits(value):
                raise self._refusal(f"{what}, as its other values do", f"{shown(value)} in row {row}")

    def _encode_strings(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "U":
            self._refuse_others(array.tolist(), lambda value: value is None or isinstance(value, str), "hold strings")
        return self._encode_names(["" if value is None else str(value) for value in array.tolist()])

    def _several(self, value, row: int) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, _SEVERAL) or not all(isinstance(one, str) and one for one in value):
            raise self._refusal(
                "hold tuples of strings, none empty, as its other values do", f"{shown(value)} in row {row}"
            )
        return tuple(map(str, value))

    def _encode_names(self, texts: list) -> np.ndarray:
        known = self._known_numbers()
        for name in sorted(set(texts) - known.keys()):
            self._names.append(name)
            known[name] = len(self._names) - 1
        return np.fromiter(map(known.__getitem__, texts), np.int32, len(texts))

    def decode(self, kept: np.ndarray) -> np.ndarray:
        """The values again."""
        if self.kind not in TEXTS:
            return kept
        names = self._name_array
        if len(names) < len(self._names):
            known: list[Any] = self._names[:]  # a copy: writers add to it meanwhile
            names = np.fromiter(known, object, len(known)) if self.kind == "strings" else as_array(known)
            self._name_array = names
        return names[kept]

    def meets(self, kept: np.ndarray, comparison: Comparison) -> np.ndarray:
        """`[N]` bool: which rows meet one comparison of `read_conditions`.

        A missing number meets `"not in"` alone. A missing string is `""`, and meets what that meets.
        """
        sign, values = comparison
        if sign == "not in":
            return ~self.meets(kept, Comparison("in", values))
        if self.kind == "string" and sign == "in":
            return self._is_one_of(values)[kept]
        if self.kind in TEXTS:
            names, is_met = self._names[:], _MEETS[self.kind, sign]  # a copy: writers add to it meanwhile
            return np.fromiter((is_met(name, values) for name in names), np.bool_, len(names))[kept]
        return np.isin(kept, values) if sign == "in" else _COMPARES[sign](kept, values[0])

    def _is_one_of(self, values: Sequence[str]) -> np.ndarray:
        """Marks the numbers of the names in `values`; the last place, -1, is for a name that no photo has."""
        numbers = list(map(self.number_of, values))
        is_chosen = np.zeros(len(self._names) + 1, np.bool_)
        is_chosen[numbers] = True
        return is_chosen

    def _refusal(self, what: str, received: str) -> CatalogIndexError:
        return CatalogIndexError(
            f"`attributes['{self.name}']` must {what}. Received: {received}. Give each photo a value of one kind."
        )


_COMPARES = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}  # nothing with NaN
_MEETS = {
    ("string", "contains"): lambda text, parts: all(part in text for part in parts),
    ("strings", "contains"): lambda texts, values: set(values) <= set(texts),
    ("strings", "in"): lambda texts, values: not set(values).isdisjoint(texts),
}


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def allowed_rows(columns: Mapping[str, Column], kept: Mapping[str, np.ndarray], conditions: Conditions) -> np.ndarray:
    """`[N]` bool: the rows that meet every condition.

    Args:
        columns: the attributes, by name.
        kept: what is kept of each, `[N]`.
        conditions: as `read_conditions` gives them.

    Example:

    >>> from eet_tf.index.conditions import read_conditions
    >>> price = Column("price", "number")
    >>> conditions = read_conditions({"price": {"max": 12}}, {"price": "number"})
    >>> allowed_rows({"price": price}, {"price": price.encode([5, 12, 30])}, conditions).tolist()
    [True, True, False]
    """
    return np.logical_and.reduce(
        [_meets_any(columns[name], kept[name], alternatives) for name, alternatives in conditions.items()]
    )


def _meets_any(column: Column, kept: np.ndarray, alternatives: list[list[Comparison]]) -> np.ndarray:
    met = [np.logical_and.reduce([column.meets(kept, one) for one in comparisons]) for comparisons in alternatives]
    return np.logical_or.reduce(met)


def check_attributes(attributes, columns: Mapping[str, Column] | None, num_rows: int) -> dict:
    """Returns `attributes` as `{name: values}`, or refuses a missing, unknown or odd one.

    Args:
        attributes: what `build` or `upsert` was given.
        columns: those of the index that is added to; None where it is being built.
        num_rows: the number of photos.
    """
    attributes = {} if attributes is None else attributes
    if not isinstance(attributes, Mapping):
        raise CatalogIndexError(
            "`attributes` must be a dict from names to one value per photo. "
            f'Received: attributes={shown(attributes)}. For example {{"category": ["shoes", ...]}}.'
        )
    if not all(isinstance(name, str) and name for name in attributes):
        raise CatalogIndexError(
            f"`attributes` must have a name each, a string. Received: the names {shown(list(attributes))}. "
            "Name the column that has none, or delete it."
        )
    if columns is not None and set(attributes) != set(columns):
        raise CatalogIndexError(
            f"`attributes` must be those of the index, {sorted(columns)}. Received: {sorted(attributes)}. "
            "Give a value of each for every photo; to change the list, build the index again."
        )
    for name, values in attributes.items():
        shape = _as_column(values).shape
        if shape != (num_rows,):
            raise CatalogIndexError(
                f"`attributes['{name}']` must be one value per embedding, {num_rows}. "
                f"Received: shape {shape}. Keep all in the catalogue's order."
            )
    return dict(attributes)


def _as_column(values) -> np.ndarray:
    """As an array, in which the texts of a list stay as long as each is, and a tuple is one value."""
    if isinstance(values, (list, tuple)):
        return np.fromiter(values, object, len(values))
    return values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)


def checked_update(embeddings, skus, photos, attributes, columns: dict[str, Column], dim: int):
    """Checks all that `upsert` was given, before anything changes.

    Returns:
        A copy of the vectors, the skus, the photos, and the attributes of the index.
    """
    vectors = np.array(check_unit_vectors("embeddings", embeddings))
    if vectors.shape[1] != dim:
        raise CatalogIndexError(
            f"`embeddings` must be of the index's {dim} dimensions. Received: {vectors.shape[1]} dimensions. "
            "Embed them with the embedder of the index."
        )
    return vectors, *checked_facts(skus, photos, attributes, columns, len(vectors))


def checked_facts(skus, photos, attributes, columns: Mapping[str, Column], num_rows: int | None = None):
    """Checks what is kept of photos besides their vectors, before anything changes.

    Returns:
        The skus, the photos, and the attributes of the index.
    """
    num_rows = len(check_asked(photos)) if num_rows is None else num_rows
    skus, photos = check_strings("skus", skus, num_rows), check_photos(photos, num_rows)
    attributes = check_attributes(attributes, columns, num_rows)
    for name, column in columns.items():
        Column(name, column.kind).encode(attributes[name])
    return skus, photos, attributes


def to_json(column: Column, kept: np.ndarray) -> list:
    """The values of a column as JSON holds them; a missing number is null, several strings are a list."""
    values = column.decode(kept).tolist()
    if column.kind == "strings":
        return list(map(list, values))
    return [None if value != value else value for value in values] if column.kind == "number" else values


def dtype_of(kind: str) -> type:
    """Returns the NumPy type in which values of a kind are kept."""
    return _KINDS[kind]


def described(columns: Sequence[Column]) -> list[dict]:
    """The manifest's list of columns."""
    return json.loads(json.dumps([{"name": column.name, "kind": column.kind} for column in columns]))


def as_array(texts: Sequence[str]) -> np.ndarray:
    """`[N]` texts: NumPy's strings, or Python's (`object`) where one long text would make all the others wide."""
    widest = max(map(len, texts), default=0)
    if widest > _WIDE and widest * len(texts) > _MOST_FILLING * sum(map(len, texts)):
        return np.asarray(texts, dtype=object)
    return np.asarray(texts, np.str_)
