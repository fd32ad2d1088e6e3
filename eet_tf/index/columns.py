"""The attributes of an index's photos: how a column is kept, and which rows a condition allows."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from eet_tf.index.checks import (
    CatalogIndexError,
    check_photos,
    check_strings,
    check_unit_vectors,
    describe,
    plain,
    shown,
)
from eet_tf.numerals import as_float, largest_float, least_float

_WIDE = 64  # characters
_MOST_FILLING = 8  # times its texts that an array of NumPy's strings may take
_KINDS = {"string": np.int32, "number": np.float64, "bool": np.bool_}


class Column:
    """One attribute. Strings are kept as the numbers of their names, numbers as float64, truths as bool.

    A missing string is `""`, a missing number NaN; a missing truth is refused, and so is an integer that float64 does
    not hold exactly (above 2**53): it is a name, and names are strings.

    Args:
        name: of the attribute, for messages.
        kind: `"string"`, `"number"` or `"bool"`.
        names: the strings met so far. New ones are added behind them, so that what was encoded stays right.

    Example:

    >>> column = Column("colour", "string")
    >>> kept = column.encode(["red", "blue", "red"])
    >>> kept.tolist(), column.decode(kept).tolist(), column.allows(kept, "red").tolist()
    ([1, 0, 1], ['red', 'blue', 'red'], [True, False, True])
    """

    def __init__(self, name: str, kind: str, names: Sequence[str] = ()):
        self.name = name
        self.kind = kind
        self._names = list(names)
        self._numbers: dict[str, int] | None = None  # of the names; made when first needed: most readers never do
        self._making_numbers = threading.Lock()
        self._name_array = np.zeros(0, np.str_)

    @classmethod
    def like(cls, name: str, values) -> Column:
        """A column whose kind is that of the values: all bool, all numbers (or None), or strings (or None)."""
        kinds = {"b": "bool", "i": "number", "u": "number", "f": "number"}
        if isinstance(values, np.ndarray) and values.dtype.kind != "O":
            return cls(name, kinds.get(values.dtype.kind, "string"))
        known = [plain(value) for value in values if value is not None]
        if known and all(isinstance(value, bool) for value in known):
            return cls(name, "bool")
        # what is mixed is refused, value by value, as no string
        return cls(name, "number" if known and all(map(_is_number, known)) else "string")

    @property
    def names(self) -> list[str]:
        """The strings met so far, by their numbers."""
        return self._names

    def number_of(self, name: str) -> int:
        """The number of a string; -1 if it was never met."""
        return self._known_numbers().get(name, -1)

    def _known_numbers(self) -> dict[str, int]:
        with self._making_numbers:  # a search must not undo what a writer has added meanwhile
            if self._numbers is None:
                self._numbers = {known: number for number, known in enumerate(self._names)}
        return self._numbers

    def encode(self, values) -> np.ndarray:
        """What is kept for these `[N]` values.

        Raises:
            CatalogIndexError: if they are not of this column's kind.
        """
        array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
        if array.ndim != 1:
            raise self._refusal("be one value per photo", describe(array))
        if self.kind == "string":
            return self._encode_strings(array)
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
        texts = ["" if value is None else str(value) for value in array.tolist()]
        known = self._known_numbers()
        for name in sorted(set(texts) - known.keys()):
            self._names.append(name)
            known[name] = len(self._names) - 1
        return np.fromiter(map(known.__getitem__, texts), np.int32, len(texts))

    def decode(self, kept: np.ndarray) -> np.ndarray:
        """The values again."""
        if self.kind != "string":
            return kept
        names = self._name_array
        if len(names) < len(self._names):
            names = self._name_array = as_array(self._names[:])  # a copy: writers add to it meanwhile
        return names[kept]

    def allows(self, kept: np.ndarray, condition) -> np.ndarray:
        """`[N]` bool: which rows meet a condition of `where`; see `allowed_rows`."""
        if isinstance(condition, Mapping):
            return self._within(kept, condition)
        condition = plain(condition)
        if isinstance(condition, (list, tuple, set, frozenset, np.ndarray)):
            if not len(condition):
                raise self._condition_refusal(condition, "is an empty choice")
            if any(isinstance(one, Mapping) for one in condition):
                return np.logical_or.reduce([self.allows(kept, one) for one in condition])
            chosen = [self._value(one, one) for one in condition]
            if self.kind != "string":
                return np.isin(kept, chosen)
            is_chosen = np.zeros(len(self._names) + 1, np.bool_)
            is_chosen[chosen] = True  # a name that no photo has is -1, the place after the last
            return is_chosen[kept]
        return kept == self._value(condition, condition)

    def _within(self, kept: np.ndarray, condition: Mapping) -> np.ndarray:
        if self.kind != "number" or not condition or not set(condition) <= {"min", "max"}:
            raise self._condition_refusal(condition, 'is no range; a number takes {"min": ..., "max": ...}, or one')
        low, high = (self._number(condition.get(end, default), condition) for end, default in _UNBOUNDED)
        return (kept >= least_float(low)) & (kept <= largest_float(high))  # never NaN

    def _value(self, value, condition):
        """What is kept of a value that is asked for; -1 or NaN, which no row has, for one that no row can have."""
        value = plain(value)
        if self.kind == "number":
            exact = as_float(self._number(value, condition))
            return np.nan if exact is None else exact
        if not isinstance(value, str if self.kind == "string" else bool):
            raise self._condition_refusal(condition, f"holds {shown(value)}, which is not a {self.kind}")
        return self.number_of(value) if isinstance(value, str) else value

    def _number(self, value, condition):
        value = plain(value)
        if not _is_number(value) or value != value:
            raise self._condition_refusal(condition, f"holds {shown(value)}, which is not a number")
        return value

    def _refusal(self, what: str, received: str) -> CatalogIndexError:
        return CatalogIndexError(
            f"`attributes['{self.name}']` must {what}. Received: {received}. Give each photo a value of one kind."
        )

    def _condition_refusal(self, condition, problem: str) -> CatalogIndexError:
        return CatalogIndexError(
            f"`where['{self.name}']` must be a {self.kind} or a list of such. Received: {shown(condition)}, which "
            f"{problem}. The column '{self.name}' holds {self.kind}s."
        )


_UNBOUNDED = (("min", -np.inf), ("max", np.inf))


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def allowed_rows(columns: Mapping[str, Column], kept: Mapping[str, np.ndarray], where: Mapping) -> np.ndarray:
    """`[N]` bool: the rows that meet every condition of `where`.

    Args:
        columns: the attributes, by name.
        kept: what is kept of each, `[N]`.
        where: `{attribute: condition}`. A condition is a value; a list of values, of which one must be met; or for
            numbers `{"min": low, "max": high}`, either end or both, inclusive. A missing value meets no range.

    Raises:
        CatalogIndexError: if an attribute is unknown or a condition does not fit its column.

    Example:

    >>> price = Column("price", "number")
    >>> allowed_rows({"price": price}, {"price": price.encode([5, 12, 30])}, {"price": {"max": 12}}).tolist()
    [True, True, False]
    """
    if not isinstance(where, Mapping) or not where:
        raise CatalogIndexError(
            f"`where` must be a dict from attributes to conditions. Received: where={shown(where)}. "
            'For example where={"category": "shoes"}; leave it out to search all photos.'
        )
    unknown = [name for name in where if name not in columns]
    if unknown:
        known = ", ".join(f"'{name}'" for name in columns) or "none"
        raise CatalogIndexError(
            f"`where` must name attributes of the index. Received: '{unknown[0]}'; it has {known}. "
            "Build the index with that attribute, or name one of these."
        )
    return np.logical_and.reduce([columns[name].allows(kept[name], condition) for name, condition in where.items()])


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
        shape = _shape(values)
        if shape != (num_rows,):
            raise CatalogIndexError(
                f"`attributes['{name}']` must be one value per embedding, {num_rows}. "
                f"Received: shape {shape}. Keep all in the catalogue's order."
            )
    return dict(attributes)


def _shape(values) -> tuple[int, ...]:
    """Of anything; the texts of a list stay as long as each is."""
    return (values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)).shape


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
    skus = check_strings("skus", skus, len(vectors))
    photos = check_photos(photos, len(vectors))
    attributes = check_attributes(attributes, columns, len(vectors))
    for name, column in columns.items():
        Column(name, column.kind).encode(attributes[name])
    return vectors, skus, photos, attributes


def to_json(column: Column, kept: np.ndarray) -> list:
    """The values of a column as JSON holds them; a missing number is null."""
    values = column.decode(kept).tolist()
    return [None if value != value else value for value in values] if column.kind == "number" else values


def dtype_of(kind: str) -> type:
    """Of what is kept."""
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
