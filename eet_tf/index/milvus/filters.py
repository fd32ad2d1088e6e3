"""Milvus's filter expressions: how a condition of `where` is written so that no value can be read as anything else.

Filter templates would do without quoting, but milvus-lite does not read them, and one way for both is tested for both.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from eet_tf.index.checks import plain
from eet_tf.numerals import as_float, largest_float, least_float

# All that cannot stand for itself between double quotes, in milvus-lite and in the grammar of the cluster.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LARGEST = sys.float_info.max
MISSING = -_LARGEST  # what stands for a missing number: Milvus knows null from 2.5 on, and not every version takes NaN
_LEAST = math.nextafter(MISSING, 0.0)
_LISTS = (list, tuple, set, frozenset, np.ndarray)


def literal(value) -> str:
    """A string, number or truth as it stands in an expression.

    Example:

    >>> print(literal('a "b"'), literal(3), literal(True))
    "a \\"b\\"" 3.0 true
    """
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    return repr(finite(value))


def finite(value: float) -> float:
    """The number that is kept for one: not every Milvus takes infinity, so that the largest number stands for it."""
    return min(max(float(value), _LEAST), _LARGEST)


def kept_number(value: float | None) -> float:
    """What Milvus keeps of a number, or of None, a missing one.

    Example:

    >>> kept_number(2), kept_number(None) == MISSING
    (2.0, True)
    """
    return MISSING if value is None else finite(value)


def read_number(kept: float | None) -> float | None:
    """The number again; indexes of earlier versions keep null for a missing one."""
    return None if kept is None or kept == MISSING else kept


def blocks_of_names(names: list[str], most_bytes: int) -> Iterator[list[str]]:
    """Yields the names in order, so many at a time that an expression of them has about so many bytes.

    Example:

    >>> list(blocks_of_names(["a", "bb", "c"], 12))
    [['a', 'bb'], ['c']]
    """
    block: list[str] = []
    size = 0
    for name in names:
        own = len(literal(name).encode()) + 2
        if block and size + own > most_bytes:
            yield block
            block, size = [], 0
        block.append(name)
        size += own
    if block:
        yield block


def is_one_of(field: str, values: Iterable) -> str:
    """That the field holds one of the values, at least one.

    Example:

    >>> is_one_of("sku", ["4711", "4712"])
    'sku in ["4711", "4712"]'
    """
    return f"{field} in [{', '.join(map(literal, values))}]"


def expression(where: Mapping, fields: Mapping[str, str]) -> str:
    """All conditions of `where`, which has been checked (`columns.allowed_rows`).

    A missing number meets no condition: it is kept as `MISSING`, or as null by indexes of earlier versions.

    Args:
        where: `{attribute: condition}`.
        fields: the Milvus field of each attribute; attributes may have names that Milvus refuses.

    Example:

    >>> expression({"price": {"min": 2, "max": 5}, "colour": "red"}, {"price": "attribute_0", "colour": "attribute_1"})
    '(attribute_0 >= 2.0 and attribute_0 <= 5.0) and (attribute_1 in ["red"])'
    """
    return " and ".join(f"({_condition(fields[name], condition)})" for name, condition in where.items())


def _condition(field: str, condition) -> str:
    if isinstance(condition, Mapping):
        ends = {"min": (">=", least_float), "max": ("<=", largest_float)}
        parts = [f"{field} {ends[end][0]} {literal(ends[end][1](plain(value)))}" for end, value in condition.items()]
        return " and ".join(parts if "min" in condition else [f"{field} >= {literal(_LEAST)}", *parts])
    condition = plain(condition)
    if not isinstance(condition, _LISTS):
        return _is_any_of(field, [condition])
    if any(isinstance(one, (Mapping, *_LISTS)) for one in condition):
        return " or ".join(f"({_condition(field, one)})" for one in condition)
    return _is_any_of(field, condition)


def _is_any_of(field: str, values: Iterable) -> str:
    """Numbers that no float64 is exactly are kept nowhere; of those alone, the condition is one that nothing meets."""
    values = [plain(value) for value in values]
    kept = [value for value in values if isinstance(value, (str, bool)) or as_float(value) is not None]
    return is_one_of(field, kept) if kept else f"{field} > 0.0 and {field} < 0.0"
