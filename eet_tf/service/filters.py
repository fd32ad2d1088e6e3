"""What a person can filter by: the attributes of an index as fields of a form, and the form as a condition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from eet_tf.index import attribute_values, count_values
from eet_tf.index.conditions import TEXTS
from eet_tf.numerals import read_bound

_MOST_CHOICES = 1000  # more are no help to a person; the page lists up to 50, and takes one of more as text


@dataclasses.dataclass(frozen=True)
class Filter:
    """One attribute as fields of a form.

    A string has one field, `is:NAME`, and so have several strings, of which one is chosen; a number two, `min:NAME` and
    `max:NAME`; a truth one, `is:NAME`, true or absent.

    Args:
        name: of the attribute.
        kind: how it is filled in: `"string"`, `"number"` or `"bool"`.
        choices: of a string, each value and how many photos have it, by name.
        low: of numbers, the least.
        high: of numbers, the largest.
    """

    name: str
    kind: str
    choices: tuple[tuple[str, int], ...] = ()
    low: float = math.nan
    high: float = math.nan


def filters_of(index) -> list[Filter]:
    """The attributes that can be filtered by: strings of 2 to 1,000 values, numbers of which there are two, truths.

    Example:

    >>> from eet_tf.index import ExactIndex
    >>> filters_of(ExactIndex.build(np.eye(2, dtype="float32"), ["mug", "cup"], attributes={"price": [5, 7]}))
    [Filter(name='price', kind='number', choices=(), low=5.0, high=7.0)]
    """
    made = (_filter(index, name, kind) for name, kind in index.attributes.items())
    return [each for each in made if each is not None]


def _filter(index, name: str, kind: str) -> Filter | None:
    if kind == "bool":
        return Filter(name, kind)
    if kind in TEXTS:
        counts = {value: count for value, count in count_values(index, name).items() if value}
        return Filter(name, "string", tuple(counts.items())) if 2 <= len(counts) <= _MOST_CHOICES else None
    known = attribute_values(index, name)
    known = known[~np.isnan(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    return Filter(name, kind, low=low, high=high) if low < high else None


def read_form(fields: Mapping[str, str], kinds: Mapping[str, str]) -> dict | None:
    """The `where` of a search from the fields of a form; empty fields and others than those of filters do not count.

    Args:
        fields: by their names.
        kinds: `index.attributes`.

    Raises:
        ValueError: if a field names no attribute, or is no number where one is needed; in words for who filled it in.

    Example:

    >>> read_form({"is:colour": "red", "max:price": "50", "k": "12"}, {"colour": "string", "price": "number"})
    {'colour': 'red', 'price': {'max': 50.0}}
    """
    where: dict = {}
    for field, text in fields.items():
        part, _, name = field.partition(":")
        if part not in ("is", "min", "max") or not text.strip():
            continue
        if (kinds.get(name) == "number") != (part != "is") or name not in kinds:
            raise ValueError(f"The catalogue can no longer be filtered by {name!r}. Reload the page.")
        if part == "is":
            where[name] = text if kinds[name] in TEXTS else text == "true"
        else:
            where.setdefault(name, {})[part] = _number(name, text)
    return where or None


def _number(name: str, text: str) -> float | int:
    value = read_bound(text.strip())
    if value is None:
        raise ValueError(f"{name} must be a number such as 12 or 19.90. Received: {text!r:.40}.")
    return value
