"""What the conditions of `where` mean: every kind of index reads them here, so that all answer alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from eet_tf.index.checks import CatalogIndexError, plain, shown
from eet_tf.numerals import as_float, largest_float, least_float

_BOUNDS = {"min": ">=", "max": "<=", ">=": ">=", "<=": "<=", ">": ">", "<": "<"}
_CHOICES = {"in": "in", "!=": "not in"}
_SIGNS = ", ".join([*_CHOICES, "contains", *_BOUNDS])
_LISTS = (list, tuple, set, frozenset, np.ndarray)
TEXTS = ("string", "strings")  # kinds of attributes whose values are texts
KINDS = (*TEXTS, "number", "bool")  # of attributes


class Comparison(NamedTuple):
    """One comparison, after it was checked: its values are such as an index keeps.

    Args:
        sign: `"in"`: the photo has one of the values; `"not in"`: it has none of them; `"contains"`: it has all of
            them, in a text or among its values; `">"`, `">="`, `"<"`, `"<="`: its number compares with the one value.
        values: strings, float64 numbers or truths. None are left of numbers that no float64 is.
    """

    sign: str
    values: tuple


# For each attribute alternatives, of which one must be met, each by all its comparisons.
Conditions = dict[str, list[list[Comparison]]]


def read_conditions(where, kinds: Mapping[str, str]) -> Conditions:
    """Reads a `where`, or refuses all that is wrong with it at once; `CatalogIndex.search` says what it may be.

    Args:
        where: `{attribute: condition}`.
        kinds: `index.attributes`.

    Raises:
        CatalogIndexError: if an attribute is unknown or a condition does not fit its kind.

    Example:

    >>> read_conditions({"price": {">=": 10, "<": 50}}, {"price": "number"})
    {'price': [[Comparison(sign='>=', values=(10.0,)), Comparison(sign='<', values=(50.0,))]]}
    """
    if not isinstance(where, Mapping) or not where:
        raise CatalogIndexError(
            f"`where` must be a dict from attributes to conditions. Received: where={shown(where)}. "
            'For example where={"category": "shoes"}; leave it out to search all photos.'
        )
    found: Conditions = {}
    problems = []
    for name, condition in where.items():
        try:
            found[name] = _Attribute(name, _kind(name, kinds)).alternatives(condition)
        except CatalogIndexError as error:
            problems.append(str(error))
    if problems:
        raise CatalogIndexError("\n".join(problems))
    return found


def _kind(name, kinds: Mapping[str, str]) -> str:
    if name not in kinds:
        known = ", ".join(f"'{known}'" for known in kinds) or "none"
        raise CatalogIndexError(
            f"`where` must name attributes of the index. Received: {shown(name)}; it has {known}. "
            "Build the index with that attribute, or name one of these."
        )
    return kinds[name]


class _Attribute:
    """Reads the conditions of one attribute."""

    def __init__(self, name: str, kind: str):
        self._name, self._kind = name, kind

    def alternatives(self, condition) -> list[list[Comparison]]:
        condition = plain(condition)
        if not isinstance(condition, _LISTS):
            return [self._tests(condition)]
        ranges = [one for one in condition if isinstance(one, Mapping)]
        values = [one for one in condition if not isinstance(one, Mapping)]
        found = [[self._choice("in", values, condition)]] if values or not ranges else []
        return found + [self._tests(one) for one in ranges]

    def _tests(self, condition) -> list[Comparison]:
        if not isinstance(condition, Mapping):
            return [self._choice("in", [condition], condition)]
        unknown = [sign for sign in condition if sign not in (*_CHOICES, *_BOUNDS, "contains")]
        if unknown or not condition:
            sign = shown(unknown[0]) if unknown else "nothing"
            raise self._refusal(condition, f"one of {_SIGNS}", f", which compares by {sign}")
        return [self._test(sign, value, condition) for sign, value in condition.items()]

    def _test(self, sign: str, value, condition) -> Comparison:
        value = plain(value)
        if sign in _BOUNDS:
            return self._bound(_BOUNDS[sign], value, condition)
        values = list(value) if isinstance(value, _LISTS) else [value]
        if sign in _CHOICES:
            return self._choice(_CHOICES[sign], values, condition)
        if self._kind not in TEXTS:
            raise self._refusal(condition, "a text to contain anything", f", which looks into {self._kind}s for a part")
        if "" in values:
            raise self._refusal(condition, None, ", which looks for an empty text, which every text contains")
        return Comparison(sign, self._choice("in", values, condition).values)

    def _bound(self, sign: str, value, condition) -> Comparison:
        if self._kind != "number":
            raise self._refusal(condition, "a number to be compared by order", f", which is a range of {self._kind}s")
        number = self._number(value, condition)
        exact = as_float(number)
        if exact is not None:
            return Comparison(sign, (exact,))
        # no row holds the number itself, so that the nearest one beyond it will do
        return Comparison(f"{sign[0]}=", (least_float(number) if sign[0] == ">" else largest_float(number),))

    def _choice(self, sign: str, values: list, condition) -> Comparison:
        if not values:
            raise self._refusal(condition, None, ", which is an empty choice")
        values = [self._value(value, condition) for value in values]
        return Comparison(sign, tuple(value for value in values if value is not None))

    def _value(self, value, condition):
        """As an index keeps it; None for a number that no float64 is exactly, and so no photo has."""
        value = plain(value)
        if self._kind == "number":
            return as_float(self._number(value, condition))
        if not isinstance(value, str if self._kind in TEXTS else bool):
            kind = "string" if self._kind in TEXTS else self._kind
            raise self._refusal(condition, None, _holding(condition, value, f"a {kind}"))
        return value

    def _number(self, value, condition):
        if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
            raise self._refusal(condition, None, _holding(condition, value, "a number"))
        return value

    def _refusal(self, condition, what: str | None, problem: str) -> CatalogIndexError:
        kind = "string" if self._kind in TEXTS else self._kind
        several = "several strings per photo" if self._kind == "strings" else f"{self._kind}s"
        return CatalogIndexError(
            f"`where['{self._name}']` must be {what or f'a {kind}, a list of such, or comparisons with such'}. "
            f"Received: {shown(condition)}{problem}. The column '{self._name}' holds {several}."
        )


def _holding(condition, value, kind: str) -> str:
    """What is wrong with one value of a condition; nothing more where the condition is that value."""
    return "" if condition is value else f", which holds {shown(value)}, which is not {kind}"
