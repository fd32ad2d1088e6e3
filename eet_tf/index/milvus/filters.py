"""Milvus's filter expressions: how a condition of `where` is written so that no value can be read as anything else.

Filter templates would do without quoting, but milvus-lite does not read them, and one way for both is tested for both.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from eet_tf.index.conditions import Comparison, Conditions

# All that cannot stand for itself between double quotes, in milvus-lite and in the grammar of the cluster.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LARGEST = sys.float_info.max
MISSING = -_LARGEST  # what stands for a missing number: Milvus knows null from 2.5 on, and not every version takes NaN
_LEAST = math.nextafter(MISSING, 0.0)
_ABOVE_OR_BELOW = (">", ">=", "<", "<=")
_NOTHING = 'photo in [""]'  # ids are not empty


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


def expression(conditions: Conditions, fields: Mapping[str, str], kinds: Mapping[str, str]) -> str:
    """All conditions, in which no text is looked for in another (`Collection.condition` looks itself).

    A missing number meets `"not in"` alone. It is kept as `MISSING`; indexes of earlier versions keep null, which meets
    nothing.

    Args:
        conditions: as `read_conditions` gives them.
        fields: the Milvus field of each attribute; attributes may have names that Milvus refuses.
        kinds: of the attributes.

    Example:

    >>> conditions = {"price": [[Comparison(">=", (2.0,)), Comparison("<", (5.0,))]]}
    >>> expression(conditions, {"price": "attribute_0"}, {"price": "number"})
    '(attribute_0 >= 2.0 and attribute_0 < 5.0)'
    """
    return " and ".join(
        f"({_any_of(fields[name], alternatives, kinds[name] == 'strings')})"
        for name, alternatives in conditions.items()
    )


def _any_of(field: str, alternatives: list[list[Comparison]], has_several: bool) -> str:
    written = [_all_of(field, comparisons, has_several) for comparisons in alternatives]
    return " or ".join(f"({one})" for one in written) if len(written) > 1 else written[0]


def _all_of(field: str, comparisons: list[Comparison], has_several: bool) -> str:
    signs = {comparison.sign[0] for comparison in comparisons}
    known = [f"{field} >= {literal(_LEAST)}"] if "<" in signs and ">" not in signs else []  # no missing number
    return " and ".join([*known, *(_comparison(field, one, has_several) for one in comparisons)])


def _comparison(field: str, comparison: Comparison, has_several: bool) -> str:
    sign, values = comparison
    if sign in _ABOVE_OR_BELOW:
        return f"{field} {sign} {literal(values[0])}"
    if has_several:
        function = "array_contains_all" if sign == "contains" else "array_contains_any"
        written = f"{function}({field}, [{', '.join(map(literal, values))}])"
        return f"not {written}" if sign == "not in" else written
    written = is_one_of(field, values) if values else _NOTHING
    return f"not ({written})" if sign == "not in" else written
