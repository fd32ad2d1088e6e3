"""Columns keep their kind: numbers stay numbers, bools bools, codes texts, and nothing that was written is lost."""

import datetime
import decimal
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eet_tf.data.attributes import encode_attributes
from eet_tf.data.catalog import Catalog
from eet_tf.data.kinds import as_column, as_texts, name_of, of_kind, split_cells, typed_texts, typed_values
from eet_tf.index import ExactIndex, typed_columns

CELLS = st.sampled_from(["", "7", "7.5", "19.90", "5.00", "true", "False", "0042", "1.10", "red", "2012", "-3"])


def same(found, expected):
    """Equal arrays of one type, NaN being equal to itself."""
    expected = np.asarray(expected)
    return found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")


# Texts of lists


@pytest.mark.parametrize(
    "texts, values",
    [
        (["12", "-3"], np.array([12, -3])),
        (["12", ""], np.array([12.0, math.nan])),
        (["19.90", "5"], np.array([19.9, 5.0])),
        (["12.5", " 7.5 "], np.array([12.5, 7.5])),
        (["true", "False", "TRUE"], np.array([True, False, True])),
        (["18446744073709551616"], np.array([2.0**64])),
        (["4006381333931"], np.array([4006381333931])),
    ],
)
def test_texts_that_are_numbers_or_truths(texts, values):
    assert same(typed_texts(texts).values, values)


@pytest.mark.parametrize(
    "texts",
    [["0042", "7"], ["1.10", "1.1"], ["12E3"], ["nan"], ["true", ""], ["yes", "no"], ["", ""], ["9007199254740993"]],
)
def test_texts_that_stay_texts(texts):
    assert typed_texts(texts).values.tolist() == texts


@given(st.lists(CELLS, min_size=1, max_size=6))
def test_what_a_list_writes_comes_back_as_it_was(texts):
    """But for truths that one column writes in several ways, of which the first is kept."""
    column = typed_texts(texts)
    written = as_texts(column.values, column.spellings).tolist()
    assert written == texts
    assert as_texts(column.values[::-1], column.spellings).tolist() == texts[::-1]


@given(st.lists(CELLS, min_size=1, max_size=6))
def test_the_index_tells_kinds_by_the_same_rule(texts):
    column = typed_texts(texts).values
    found = typed_columns({"x": texts})["x"]
    assert [None if value != value else value for value in column.tolist()] == found
    again = typed_columns({"x": column})["x"]
    assert [None if value != value else value for value in again] == found


# Python's values


@pytest.mark.parametrize(
    "given_values, values",
    [
        ([1.5, 2.0], np.array([1.5, 2.0])),
        ([1, 2], np.array([1, 2])),
        (range(3), np.array([0, 1, 2])),
        ([1, 2.5, None], np.array([1.0, 2.5, math.nan])),
        ([1, None], np.array([1.0, math.nan])),
        ([np.float32(1.5), np.int16(2)], np.array([1.5, 2.0])),
        ([decimal.Decimal("19.90"), None], np.array([19.9, math.nan])),
        ([True, np.False_], np.array([True, False])),
        (np.array([1.5, 2.0], np.float32), np.array([1.5, 2.0], np.float32)),
        (np.array([1, 2], np.uint8), np.array([1, 2], np.uint8)),
        (np.array([True, False]), np.array([True, False])),
    ],
)
def test_numbers_and_truths_stay_such(given_values, values):
    catalog = Catalog([str(row) for row in range(len(values))], ["a"] * len(values), attributes={"x": given_values})
    assert same(catalog.attributes["x"], values)
    assert same(catalog.take(np.arange(len(values))[::-1]).attributes["x"], values[::-1])


@pytest.mark.parametrize(
    "given_values, texts",
    [
        (["1.5", "2"], ["1.5", "2"]),
        ([1, "XL"], ["1", "XL"]),
        ([True, None], ["True", ""]),
        ([True, 2], ["True", "2"]),
        ([None, None], ["", ""]),
        ([2**53 + 1, None], ["9007199254740993", ""]),
        ([2**64 + 1], ["18446744073709551617"]),
        ([datetime.date(2026, 1, 2), None], ["2026-01-02", ""]),
    ],
)
def test_what_is_of_no_one_kind_is_text(given_values, texts):
    assert typed_values(as_column(given_values)).values.tolist() == texts


@pytest.mark.parametrize(
    "given_values",
    [[2012, None], [1.5, 2, 3.0], [5.0, 7.25], [decimal.Decimal("19.90")], [True, False], np.array([0.1], np.float32)],
)
def test_python_values_are_written_as_python_writes_them(given_values):
    column = typed_values(as_column(given_values))
    expected = ["" if value is None else str(value) for value in given_values]
    assert as_texts(column.values, column.spellings).tolist() == expected


# Several values


@pytest.mark.parametrize(
    "cells, tuples",
    [
        ([["red", "blue"], ["red"]], [("red", "blue"), ("red",)]),
        ([("a", "b"), ("c", "d")], [("a", "b"), ("c", "d")]),
        ([["red", "red", " blue", ""], None, "x"], [("red", "blue"), (), ("x",)]),
        ([{"b", "a"}, np.array(["c"]), [1, None]], [("a", "b"), ("c",), ("1",)]),
    ],
)
def test_lists_in_cells_are_tuples(cells, tuples):
    catalog = Catalog([str(row) for row in range(len(cells))], ["a"] * len(cells), attributes={"x": cells})
    assert catalog.attributes["x"].tolist() == tuples
    assert catalog.take([1]).attributes["x"].tolist() == [tuples[1]]
    assert catalog.columns()["x"].tolist() == tuples
    assert catalog.column_texts("x").tolist() == [", ".join(cell) for cell in tuples]


def test_a_separator_makes_tuples_of_the_columns_that_have_it():
    assert split_cells(["red|blue", "red", " | ", "a| a"], "|").values.tolist() == [
        ("red", "blue"),
        ("red",),
        (),
        ("a",),
    ]
    assert split_cells(["red", "blue"], "|") is None


def test_each_of_several_values_is_an_attribute_that_is_learnt():
    columns = {"colour": [["red", "deep, dark"], ["red"], [], ["blue"]]}
    table = encode_attributes(Catalog(list("1234"), list("aabb"), attributes=columns), "all")
    assert dict(zip(table.names, table.values.T.tolist())) == {
        "colour=blue": [0, 0, -1, 1],
        "colour=deep, dark": [1, 0, -1, 0],
        "colour=red": [1, 1, -1, 0],
    }


# Catalogues


@given(st.lists(st.tuples(CELLS, CELLS), min_size=2, max_size=5))
def test_what_is_learnt_is_named_as_the_list_writes_it(rows):
    """Typed columns against the texts themselves."""
    first, second = map(list, zip(*rows))
    names = [str(row) for row in range(len(rows))]
    texts = Catalog(names, names, attributes={"a": first, "b": second})
    columns = {"a": typed_texts(first), "b": typed_texts(second)}
    typed = Catalog(
        names,
        names,
        attributes={name: column.values for name, column in columns.items()},
        spellings={name: column.spellings for name, column in columns.items()},
    )
    try:
        expected = encode_attributes(texts, "all")
    except ValueError as error:
        with pytest.raises(ValueError, match="No attribute is left") as caught:
            encode_attributes(typed, "all")
        assert str(caught.value) == str(error)
        return
    found = encode_attributes(typed.take(range(len(rows))), "all")
    assert found.names == expected.names
    assert np.array_equal(found.values, expected.values)


def test_columns_have_the_category_and_their_kinds():
    attributes = {"price": [1.5, None], "new": [True, False], "colour": ["red", None]}
    catalog = Catalog(["1", "2"], ["a", "b"], ["10", "9"], attributes=attributes)
    columns = catalog.columns()
    assert list(columns) == ["category", "price", "new", "colour"]
    assert [name_of(column) for column in columns.values()] == ["number", "number", "bool", "string"]
    assert columns["category"].tolist() == [10, 9]
    assert catalog.categories.tolist() == ["10", "9"]


def test_an_index_keeps_numbers_and_bools():
    attributes = {"price": [1.5, 2.0], "new": [True, False], "colour": ["red", "blue"]}
    catalog = Catalog(["1", "2"], ["a", "b"], ["x", "y"], attributes=attributes)
    unit = np.eye(2, dtype=np.float32)
    built = ExactIndex.build(unit, catalog.skus, catalog.paths, attributes=catalog.columns())
    assert built.attributes == {"category": "string", "price": "number", "new": "bool", "colour": "string"}
    assert built.search(unit[0], 2, where={"price": {"min": 1.8}}).skus.tolist() == [["b"]]
    without = ExactIndex.build(unit, catalog.skus, catalog.paths, attributes=catalog.attributes)
    assert without.attributes == {"price": "number", "new": "bool", "colour": "string"}


@pytest.mark.parametrize(
    "texts, kind, values",
    [
        (["19.90", "5.00"], "string", ["19.90", "5.00"]),
        (["2012", ""], "string", ["2012", ""]),
        (["1.10", "1.2", ""], "number", [1.1, 1.2, None]),
        (["", ""], "number", [None, None]),
        (["7", "cheap"], "number", [7.0, "cheap"]),
        (["true", "x", ""], "bool", [True, "x", None]),
        (["true", "false"], "bool", [True, False]),
    ],
)
def test_columns_of_the_kinds_that_an_index_has(texts, kind, values):
    column = typed_texts(texts)
    found = of_kind(column.values, as_texts(column.values, column.spellings), kind)
    assert [None if value != value else value for value in found.tolist()] == values


def test_a_category_goes_before_an_attribute_of_that_name():
    catalog = Catalog(["1", "2"], ["a", "b"], ["x", "y"], attributes={"category": ["p", "q"]})
    assert catalog.columns()["category"].tolist() == catalog.column("category").tolist() == ["x", "y"]


def test_a_number_may_be_the_category():
    catalog = Catalog(["1", "2"], ["a", "b"], attributes={"season": [2012, None]})
    assert catalog.categorized_by("season").categories.tolist() == ["2012", ""]
