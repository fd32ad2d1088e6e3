"""What the values of a table mean: texts, numbers, what is missing, splits, and texts that only look the same."""

import datetime
import math
import unicodedata

import numpy as np
import pytest

from eet_tf.data import values


class NAType:
    """As pandas' NA: comparing it says nothing, and asking that for a truth value is an error."""

    def __ne__(self, other):
        return self

    def __eq__(self, other):
        return self

    def __hash__(self):
        return 7

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


class NaTType:
    """As pandas' NaT."""


MISSING = [None, math.nan, np.float32("nan"), NAType(), NaTType(), np.datetime64("NaT")]


@pytest.mark.parametrize("value", MISSING, ids=lambda value: type(value).__name__)
def test_what_is_missing(value):
    assert values.is_missing(value)
    names, refused = values.read_names(values.as_objects(["a", value, "b"]))
    assert names.tolist() == ["a", "", "b"]
    assert list(refused) == [1]
    assert "missing" in refused[1]
    assert values.read_cells(values.as_objects(["a", value])).tolist() == ["a", ""]


@pytest.mark.parametrize("value", ["nan", "", 0, False, 0.0, -1, "None", np.str_("NA"), np.int64(0)])
def test_what_is_not_missing(value):
    assert not values.is_missing(value)


@pytest.mark.parametrize(
    "value, text",
    [
        (4711, "4711"),
        (np.int64(-3), "-3"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.str_("m\u00fcg"), "m\u00fcg"),
    ],
)
def test_names_are_texts_and_whole_numbers(value, text):
    names, refused = values.read_names(values.as_objects([value, "a"]))
    assert names.tolist() == [text, "a"]
    assert all(type(name) is str for name in names)
    assert not refused


@pytest.mark.parametrize("column", [np.array([4711.0, 4712.0]), [4711.0], np.array([1.5], np.float32)])
def test_a_float_is_no_name_and_pandas_is_why(column):
    _, refused = values.read_names(values.as_objects(column))
    assert sorted(refused) == list(range(len(column)))
    assert "pandas makes floats of whole numbers" in refused[0]


@pytest.mark.parametrize("value", [True, b"mug", ["mug"], datetime.date(2026, 1, 2), {"sku": 1}])
def test_anything_else_is_no_name(value):
    column = np.empty(1, object)
    column[0] = value
    _, refused = values.read_names(column)
    assert refused[0] == f" must be text or a whole number. Received: a {type(value).__name__}"


def test_cells_may_be_anything():
    column = values.as_objects(["red", 19.9, 3, None, datetime.date(2026, 1, 2)])
    assert values.read_cells(column).tolist() == ["red", "19.9", "3", "", "2026-01-02"]


def test_equal_texts_are_one_object():
    """So that a million rows of ten colours take the room of ten texts."""
    column = values.as_objects(np.array(["a long name of a colour"] * 3 + ["another one"]))
    assert column[0] is column[1] is column[2]


def test_too_many_different_texts_are_not_looked_up(monkeypatch):
    monkeypatch.setattr(values, "_MOST_SHARED", 2)
    known = {}
    assert values.shared(["a", "b", "c"], known) == ["a", "b", "c"]
    assert values.shared(["d", "a"], known) == ["d", "a"]
    assert list(known) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text, name",
    [
        ("train", "train"),
        ("Train", "train"),
        (" TRAINING\u00a0", "train"),
        ("val", "validation"),
        ("VALID", "validation"),
        ("Validation", "validation"),
        ("test", "test"),
        ("Testing\t", "test"),
        ("", ""),
        ("  ", ""),
        ("trian", None),
        ("query", None),
        ("train,test", None),
        ("0", None),
        ("all", None),
        ("nan", None),
    ],
)
def test_the_spellings_of_a_split(text, name):
    assert values.read_split(text) == name


def test_a_column_of_splits_tells_the_rows_of_what_it_does_not_know():
    splits, unknown = values.read_splits(["TRAIN", "x", "", "val", "x", "Test"])
    assert splits.tolist() == ["train", "", "", "validation", "", "test"]
    assert unknown == {"x": [1, 4]}


ALIKE = [
    ("Mug", "mug"),
    ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
    ("mug red", "mug\u00a0red"),
    ("mug", "mu\u200bg"),
    ("mug", "\ufeffmug"),
    ("mug", "mug "),
    ("a  b", "a b"),
    ("stra\u00dfe", "STRASSE"),
    ("\uff11", "1"),
]


@pytest.mark.parametrize("first, second", ALIKE)
def test_texts_that_look_the_same(first, second):
    assert values.look(first) == values.look(second)
    assert values.look_alike(["cup", first, second, first, "jar"]) == [[1, 2]]


@pytest.mark.parametrize(
    "first, second", [("mug1", "mug2"), ("a-b", "ab"), ("1.10", "1.1"), ("007", "7"), ("e", "\u00e9")]
)
def test_texts_that_do_not(first, second):
    assert values.look_alike([first, second, first]) == []
