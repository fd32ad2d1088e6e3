"""Conditions as command lines write them: how a text such as `price>=10` becomes a part of `where`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from eet_tf.index.checks import CatalogIndexError
from eet_tf.index.conditions import TEXTS
from eet_tf.numerals import read_bound, read_number

_BOUNDS = (">", ">=", "<", "<=")
_SIGN_AND_VALUE = r"(?:\s*(?P<sign>!=|<=|>=|=|<|>)\s*|\s+(?P<word>in|contains)\s+)(?P<value>.*?)\s*"
_CONDITION = re.compile(rf"\s*(?P<name>.+?){_SIGN_AND_VALUE}", re.S)
_ITEM = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^",][^,]*?|))\s*(?P<comma>,|\Z)', re.S)
_TRUTHS = {"true": True, "false": False}


def read_where(conditions: Sequence[str], kinds: Mapping[str, str]) -> dict | None:
    """Reads `where` from texts: `colour=red`, `brand!=x`, `price>=10`, `colour in red,blue`, `name contains ear`.

    Every condition must be met, but for `=` and `in`: those on one attribute are a choice between all their values. A
    value of `in` that holds a comma, and any value that begins with a quote or a sign, is written in quotes, and a
    quote within them twice: `colour in "red, dark",blue`.

    Args:
        conditions: the texts; a value may be compared by `=`, `!=`, `>`, `>=`, `<`, `<=`, `in` and `contains`.
        kinds: `index.attributes`.

    Returns:
        The `where` of `search`, or None if there are no conditions.

    Raises:
        CatalogIndexError: if a text is none of these, or names an attribute that is not there; all are told at once.

    Example:

    >>> read_where(["colour=red", "colour=blue", "price<=50"], {"colour": "string", "price": "number"})
    {'colour': ['red', 'blue'], 'price': {'<=': 50.0}}
    """
    where: dict[str, dict] = {}
    problems = []
    for text in conditions:
        try:
            _add(where, text, kinds)
        except CatalogIndexError as error:
            problems.append(str(error))
    if problems:
        raise CatalogIndexError("\n".join(problems))
    return {name: one["in"] if set(one) == {"in"} else one for name, one in where.items()} or None


def _add(where: dict[str, dict], text: str, kinds: Mapping[str, str]) -> None:
    """Adds one condition to those of its attribute."""
    name, sign, values = _parsed(text, kinds)
    found = [_value(name, value, kinds[name], sign in _BOUNDS) for value in values]
    known = where.setdefault(name, {})
    if sign not in _BOUNDS:
        known.setdefault("in" if sign == "=" else sign, []).extend(found)
    elif sign in known:
        raise CatalogIndexError(f"`where` must have one {sign} for '{name}'. Received: '{text}' too. Leave one out.")
    else:
        known[sign] = found[0]


def _parsed(text: str, kinds: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """The attribute, the sign and the values of a condition."""
    # known names first, the longest before the others: a name may hold a sign itself
    names = [name for name in sorted(kinds, key=len, reverse=True) if text.strip().startswith(name)]
    patterns = [rf"\s*(?P<name>{re.escape(name)}){_SIGN_AND_VALUE}" for name in names]
    matches = (re.fullmatch(pattern, text, re.S) for pattern in patterns)
    condition = next(filter(None, matches), None) or _CONDITION.fullmatch(text)
    if not condition:
        raise CatalogIndexError(
            "`where` must be like colour=red, colour!=red, price>=10, 'colour in red,blue' or 'name contains ear'. "
            f"Received: where='{text}'."
        )
    name, sign = condition["name"], condition["sign"] or condition["word"]
    if name not in kinds:
        known = ", ".join(f"'{known}'" for known in kinds) or "none"
        raise CatalogIndexError(f"`where` must name attributes of the index. Received: '{text}'; it has {known}.")
    return name, sign, _values(text, sign, condition["value"])


def _values(text: str, sign: str, value: str) -> list[str]:
    """The value behind a sign, or the values behind `in`."""
    if value.startswith(("=", "<", ">", "!")):
        raise CatalogIndexError(
            f"`where` must have one sign between attribute and value. Received: where='{text}'. Write a value that "
            f'begins with a sign in quotes, "{value}".'
        )
    items = _items(value) if sign == "in" or value.startswith('"') else [value]
    if items is None or (len(items) > 1 and sign != "in"):
        raise CatalogIndexError(
            "`where` must have whole values in quotes, a quote within them twice, and several values behind `in` "
            f"alone. Received: where='{text}'."
        )
    return items


def _items(value: str) -> list[str] | None:
    """The values between commas; None if their quotes do not fit."""
    items: list[str] = []
    place = 0
    while item := _ITEM.match(value, place):
        items.append(item["plain"] if item["quoted"] is None else item["quoted"].replace('""', '"'))
        if not item["comma"]:
            return items
        place = item.end()
    return None


def _value(name: str, text: str, kind: str, is_bound: bool):
    if kind in TEXTS:
        return text
    value = _TRUTHS.get(text.lower()) if kind == "bool" else (read_bound if is_bound else read_number)(text)
    if value is None:
        what = "true or false" if kind == "bool" else "numbers such as 12 or 19.90"
        raise CatalogIndexError(
            f"`where` must hold {what}. Received: '{text}'. The index keeps '{name}' as {kind}s; where they are names, "
            "build it anew with all of them."
        )
    return value
