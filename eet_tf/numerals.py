"""What texts are numbers or truths, and how numbers are compared as float64, so that none is taken for another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Set

_WITH_EXPONENT = re.compile(r"-?[0-9]{1,300}(?:\.[0-9]{1,300})?[eE][-+]?[0-9]{1,4}")
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,300})(?:\.[0-9]{1,300})?")
_TRUTHS = {"true": True, "false": False}
_DIGITS_OF_FLOAT64 = 15  # a decimal of so many digits comes back from float64 as it was


def kind_of(texts: Iterable[str]) -> str:
    """Tells what a column of texts holds: `"bool"`, `"number"` or `"string"`.

    It holds bools if each text is `true` or `false`. It holds numbers if each text is a number or empty, and all are
    written in one way, such as prices with two decimals: then no two texts are one number. All others stay strings:
    `007`, `12E3`, `nan`, ids above 2**53, the versions `1.1` and `1.10`.

    Args:
        texts: of the column; blanks around them do not count.

    Example:

    >>> kind_of(["5", "", "7.5"]), kind_of(["true", "False"]), kind_of(["0042", "7"])
    ('number', 'bool', 'string')
    """
    distinct = {text.strip() for text in texts}
    if distinct and all(text.lower() in _TRUTHS for text in distinct):
        return "bool"
    return "number" if are_numbers(distinct - {""}) else "string"


def read_truth(text: str) -> bool | None:
    """The truth that a text writes, `true` or `false` in any case; None for any other text.

    Example:

    >>> read_truth("True"), read_truth("false"), read_truth("yes")
    (True, False, None)
    """
    return _TRUTHS.get(text.strip().lower())


def read_number(text: str) -> float | int | None:
    """The number that a text writes plainly; None for any other text.

    Plain are `12`, `-0.5` and `19.90`. `007`, `+5`, `1e3`, `0x10`, `1_000`, `nan` and `inf` are not: codes look so.

    Returns:
        A float, or an int where no float is exactly that number.

    Example:

    >>> read_number("19.90"), read_number("12E3"), read_number("9007199254740993")
    (19.9, None, 9007199254740993)
    """
    if not _PLAIN.fullmatch(text):
        return None
    if "." in text:
        return float(text)
    number = int(text)
    exact = as_float(number)
    return number if exact is None else exact


def read_bound(text: str) -> float | int | None:
    """The number that an end of a range writes: as `read_number`, and with an exponent, as forms of browsers send it.

    Example:

    >>> read_bound("1e3"), read_bound("nan"), read_bound("1_000")
    (1000.0, None, None)
    """
    number = read_number(text)
    if number is None and _WITH_EXPONENT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return number


def are_numbers(texts: Set[str]) -> bool:
    """Whether a column's different texts are numbers written in one way, so that no two of them are one number.

    One way is: all with the same number of decimals, whole numbers aside (`5`, `19.90`), or none with a zero at its
    end but `.0` (`5`, `2.5`, `12.25`, or `5.0`, `12.25`). `1.1` and `1.10` are versions; so may be `1.2` and `1.10`.

    Example:

    >>> are_numbers({"19.90", "5.00"}), are_numbers({"1.10", "1.2"}), are_numbers({"5", "5.0"})
    (True, False, False)
    """
    if not texts or not all(map(_is_kept_exactly, texts)):
        return False
    fractions = {text.partition(".")[2] for text in texts} - {""}
    has_one_length = len({len(fraction) for fraction in fractions}) <= 1
    is_shortest = all(fraction == "0" or not fraction.endswith("0") for fraction in fractions)
    return (has_one_length or is_shortest) and len({float(text) for text in texts}) == len(texts)


def _is_kept_exactly(text: str) -> bool:
    number = read_number(text)
    if not isinstance(number, float) or (number == 0 and text.startswith("-")):
        return False
    return "." not in text or sum(map(str.isdigit, text)) <= _DIGITS_OF_FLOAT64 or repr(number) == text


def as_float(number: float | int) -> float | None:
    """The float64 that is exactly that number; None if there is none.

    Example:

    >>> as_float(2**53), as_float(2**53 + 1)
    (9007199254740992.0, None)
    """
    nearest = _nearest(number)
    return nearest if nearest == number else None


def least_float(number: float | int) -> float:
    """The smallest float64 that is at least that number."""
    nearest = _nearest(number)
    return math.nextafter(nearest, math.inf) if nearest < number else nearest


def largest_float(number: float | int) -> float:
    """The largest float64 that is at most that number."""
    nearest = _nearest(number)
    return math.nextafter(nearest, -math.inf) if nearest > number else nearest


def _nearest(number: float | int) -> float:
    try:
        return float(number)
    except OverflowError:  # an int of more than 308 digits
        return math.inf if number > 0 else -math.inf
