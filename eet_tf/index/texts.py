"""Attributes and conditions as CSV files and command lines write them: all text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from eet_tf.index.checks import CatalogIndexError

_TRUTHS = {"true": True, "false": False}
_CONDITION = re.compile(r"\s*(?P<name>.+?)\s*(?P<sign><=|>=|=)\s*(?P<value>.*?)\s*", re.S)


def typed_columns(texts: Mapping[str, Sequence[str]], kinds: Mapping[str, str] | None = None) -> dict[str, list]:
    """Turns columns of text into what they hold.

    A column in which each text is `true` or `false` holds bools; one in which each is a number or empty, and at least
    one is a number, holds numbers. A text like `007` is no number: it would not come back as it was. All others stay.

    Args:
        texts: `{name: [N] texts}`.
        kinds: of the columns of the index that is added to, `index.attributes`; None where it is being built.

    Raises:
        CatalogIndexError: if a text is not of the kind of its column.

    Example:

    >>> typed_columns({"price": ["5", "", "7.5"], "new": ["true", "false", "true"], "size": ["XL", "7", "007"]})
    {'price': [5.0, None, 7.5], 'new': [True, False, True], 'size': ['XL', '7', '007']}
    """
    if kinds is None:
        kinds = {name: _kind_of(column) for name, column in texts.items()}
    return {
        name: [_value(name, str(text), kinds.get(name, "string")) for text in column] for name, column in texts.items()
    }


def _kind_of(texts: Sequence[str]) -> str:
    texts = {str(text).strip() for text in texts}
    if texts and all(text.lower() in _TRUTHS for text in texts):
        return "bool"
    numbers = [text for text in texts if text]
    return "number" if numbers and all(_is_number(text) for text in numbers) else "string"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", text) is not None and math.isfinite(float(text))


def _value(name: str, text: str, kind: str):
    if kind == "string":
        return text
    text = text.strip()
    if kind == "number" and not text:
        return None
    try:
        return _TRUTHS[text.lower()] if kind == "bool" else float(text)
    except (KeyError, ValueError) as error:
        raise CatalogIndexError(
            f"`attributes['{name}']` must hold {'true or false' if kind == 'bool' else 'numbers'}. Received: '{text}'. "
            f"The index keeps '{name}' as {kind}s."
        ) from error


def read_where(conditions: Sequence[str], kinds: Mapping[str, str]) -> dict | None:
    """Reads `where` from texts such as `colour=red`, `price>=10`, `price<=50`, `in_stock=true`.

    Args:
        conditions: the texts. Several with `=` on one attribute are a choice between their values; those with `>=` and
            `<=` are the ends of a range.
        kinds: `index.attributes`.

    Returns:
        The `where` of `search`, or None if there are no conditions.

    Raises:
        CatalogIndexError: if a text is none of these, or names an attribute that is not there.

    Example:

    >>> read_where(["colour=red", "colour=blue", "price<=50"], {"colour": "string", "price": "number"})
    {'colour': ['red', 'blue'], 'price': {'max': 50.0}}
    """
    where: dict = {}
    for text in conditions:
        condition = _CONDITION.fullmatch(text)
        if not condition:
            raise CatalogIndexError(
                f"`where` must be like colour=red, price>=10 or price<=50. Received: where='{text}'."
            )
        name, sign, value = condition["name"], condition["sign"], condition["value"]
        if name not in kinds:
            known = ", ".join(f"'{known}'" for known in kinds) or "none"
            raise CatalogIndexError(f"`where` must name attributes of the index. Received: '{text}'; it has {known}.")
        end = {"=": None, ">=": "min", "<=": "max"}[sign]
        known = where.setdefault(name, {} if end else [])
        if (end is None) != isinstance(known, list) or (end in known):
            raise CatalogIndexError(f"`where` must be one range or one choice for '{name}'. Received: '{text}' too.")
        if end is None:
            known.append(_value(name, value, kinds[name]))
        else:
            known[end] = _value(name, value, kinds[name])
    return where or None
