"""Kinds of attribute columns: numbers, booleans, text, or several strings for each photo."""

from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eet_tf.data.values import as_objects, is_missing, read_cells, shared
from eet_tf.numerals import as_float, kind_of, read_number, read_truth

_NUMBERS = (int, float, np.integer, np.floating, decimal.Decimal)
_SEVERAL = (list, tuple, set, frozenset, np.ndarray)
_INT64 = 2**63


class TypedColumn(NamedTuple):
    """A column of one kind.

    Attributes:
        values: `[N]` bools, integers, floats (NaN where one is missing), or objects: all strings (`""` where one is
            missing), or all tuples of strings (`()` where there is none).
        spellings: value -> text, of the numbers and truths that were not written as Python writes them.
    """

    values: np.ndarray
    spellings: Mapping[float | bool, str] = {}


def as_column(values) -> np.ndarray:
    """Anything with a value for each photo as an array; a list in a cell stays one."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values
    if isinstance(values, (list, tuple)) and any(isinstance(cell, _SEVERAL) for cell in values):
        return np.fromiter(values, dtype=object, count=len(values))
    return as_objects(values)


def typed_texts(texts: Sequence[str]) -> TypedColumn:
    """Turns the texts of a list into what they hold, as `numerals.kind_of` tells it.

    Example:

    >>> typed_texts(["19.90", "5", ""])
    TypedColumn(values=array([19.9,  5. ,  nan]), spellings={19.9: '19.90', 5.0: '5'})
    >>> typed_texts(["2012", "2013"]).values, typed_texts(["0042", "7"]).values.tolist()
    (array([2012, 2013]), ['0042', '7'])
    """
    kind = kind_of(texts)
    if kind == "string":
        return TypedColumn(as_objects(texts))
    stripped = [text.strip() for text in texts]
    if kind == "bool":
        truths = {text: read_truth(text) for text in stripped}
        return TypedColumn(np.array([truths[text] for text in stripped], dtype=np.bool_), _spelt(truths))
    numbers = {text: np.nan if not text else float(read_number(text) or 0) for text in stripped}
    if all(text and "." not in text and abs(number) < _INT64 for text, number in numbers.items()):
        return TypedColumn(np.array([int(text) for text in stripped], dtype=np.int64))
    return TypedColumn(np.array([numbers[text] for text in stripped], dtype=np.float64), _spelt(numbers))


def _spelt(values: Mapping[str, object]) -> dict:
    """The texts that Python would not write so; of several for one value the first."""
    spellings: dict = {}
    for text, value in values.items():
        if text and text != str(value):
            spellings.setdefault(value, text)
    return spellings


def typed_values(column: np.ndarray) -> TypedColumn:
    """Gives a column of Python's values one kind; texts stay texts, whatever they spell.

    Args:
        column: `[N]`, as `as_column` makes it.

    Example:

    >>> typed_values(as_column([1.5, None, 2])).values, typed_values(as_column([True, False])).values
    (array([1.5, nan, 2. ]), array([ True, False]))
    >>> typed_values(as_column([["red", "blue"], [], "red"])).values.tolist()
    [('red', 'blue'), (), ('red',)]
    """
    if column.dtype.kind != "O":
        return TypedColumn(column)
    rows = column.tolist()
    types = set(map(type, rows))
    if any(issubclass(kind, _SEVERAL) for kind in types):
        return TypedColumn(_of_tuples(list(map(_several, rows))))
    is_number = any(issubclass(kind, _NUMBERS) for kind in types - {bool})
    if types <= {str} or not (is_number or types <= {bool, np.bool_}):
        return TypedColumn(read_cells(column))
    if not is_number:
        return TypedColumn(np.array(rows, dtype=np.bool_))
    return _numbers(rows) or TypedColumn(read_cells(column))


def _numbers(rows: list) -> TypedColumn | None:
    """Numbers, some perhaps missing; None if there is anything else, or one that float64 does not hold."""
    known = [value for value in rows if not is_missing(value)]
    if any(isinstance(value, bool) or not isinstance(value, _NUMBERS) for value in known):
        return None
    is_whole = all(isinstance(value, (int, np.integer)) for value in known)
    if is_whole and len(known) == len(rows) and all(-_INT64 <= value < _INT64 for value in known):
        return TypedColumn(np.array(rows, dtype=np.int64))
    if any(isinstance(value, (int, np.integer)) and as_float(int(value)) is None for value in known):
        return None
    values = [np.nan if is_missing(value) else float(value) for value in rows]
    spellings = {float(value): str(value) for value in known if str(value) != str(float(value))}
    return TypedColumn(np.array(values, dtype=np.float64), spellings)


def _several(cell) -> tuple[str, ...]:
    """The values of one cell, each once, in their order."""
    if isinstance(cell, str) or is_missing(cell):
        cell = [cell]
    elif isinstance(cell, (set, frozenset)):
        cell = sorted(map(str, cell))
    elif not isinstance(cell, _SEVERAL):
        cell = [cell]
    texts = ["" if is_missing(value) else str(value).strip() for value in cell]
    return tuple(dict.fromkeys(text for text in texts if text))


def _of_tuples(tuples: list[tuple[str, ...]]) -> np.ndarray:
    return np.fromiter(tuples, dtype=object, count=len(tuples))


def is_of_tuples(column: np.ndarray) -> bool:
    """Whether the photos of a column have several values each."""
    return column.dtype.kind == "O" and len(column) > 0 and isinstance(column[0], tuple)


def split_cells(texts: Sequence[str], separator: str) -> TypedColumn | None:
    """The column of several values a cell, if a separator stands in any; else None.

    Example:

    >>> split_cells(["red|blue", " red ", ""], "|").values.tolist()
    [('red', 'blue'), ('red',), ()]
    """
    if not any(separator in text for text in texts):
        return None
    known = {text: _several(text.split(separator)) for text in set(texts)}
    return TypedColumn(_of_tuples([known[text] for text in texts]))


def as_texts(column: np.ndarray, spellings: Mapping[float | bool, str]) -> np.ndarray:
    """A column as texts, `[N]` -> `[N]`; a missing value is `""`, and several values have a comma and a blank between.

    Example:

    >>> as_texts(np.array([19.9, np.nan]), {19.9: "19.90"}).tolist()
    ['19.90', '']
    """
    if is_of_tuples(column):
        return as_objects(shared([", ".join(cell) for cell in column]))
    if column.dtype.kind == "O":
        return column
    distinct, codes = np.unique(column, return_inverse=True)
    texts = ["" if value != value else spellings.get(value.item(), str(value)) for value in distinct]
    return as_objects(texts)[codes.reshape(-1)]


def of_kind(column: np.ndarray, texts: np.ndarray, kind: str) -> np.ndarray:
    """A column as another one of that name has it.

    Args:
        column: `[N]` values.
        texts: `[N]`, the same as texts.
        kind: `"string"`, `"number"` or `"bool"`.

    Returns:
        `[N]` values, None where a number or bool is missing. Texts that are no such values stay texts.

    Example:

    >>> of_kind(as_column(["7", ""]), as_column(["7", ""]), "number").tolist()
    [7.0, None]
    """
    if is_of_tuples(column) or (kind != "string" and column.dtype.kind != "O"):
        return column
    if kind == "string":
        return texts
    read = read_number if kind == "number" else read_truth
    known = {text: read(text.strip()) for text in set(texts.tolist())}
    return as_objects([text if known[text] is None and text.strip() else known[text] for text in texts.tolist()])


def name_of(column: np.ndarray) -> str:
    """The kind of a column in a word: `"string"`, `"number"`, `"bool"`, or `"strings"` for several a photo."""
    if is_of_tuples(column):
        return "strings"
    return {"b": "bool", "O": "string"}.get(column.dtype.kind, "number")
