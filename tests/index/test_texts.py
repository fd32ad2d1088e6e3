"""Attributes that were written as text."""

import re

import numpy as np
import pytest

from eet_tf.index import CatalogIndexError, typed_columns

KINDS = {"colour": "string", "price": "number", "in_stock": "bool"}
CODES = ["007", "12E3", "1_000", "nan", "inf", "0x10", "+5", "\u0663"]  # float() reads all but one


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["1", "-2.5", "1000", ""], [1.0, -2.5, 1000.0, None]),
        (["19.90", "5.00"], [19.9, 5.0]),
        (["19.90", "5"], [19.9, 5.0]),
        (["5.0", "12.25"], [5.0, 12.25]),
        (["0.30000000000000004"], [0.30000000000000004]),
        (["9007199254740992"], [2.0**53]),
        (["4006381333931", "4006381333932"], [4006381333931.0, 4006381333932.0]),
        (["9007199254740992", "9007199254740993"], ["9007199254740992", "9007199254740993"]),
        (["18446744073709551616"], [2.0**64]),
        (["0.12345678901234567891"], ["0.12345678901234567891"]),
        (["1.10", "1.1"], ["1.10", "1.1"]),
        (["1.10", "1.2"], ["1.10", "1.2"]),
        (["2", "2.0"], ["2", "2.0"]),
        (["0", "-0"], ["0", "-0"]),
        (["-0"], ["-0"]),
        (["12E3", "12000"], ["12E3", "12000"]),
        (["1e3"], ["1e3"]),
        (["+5"], ["+5"]),
        (["0x10"], ["0x10"]),
        (["1_000"], ["1_000"]),
        ([".5"], [".5"]),
        (["5."], ["5."]),
        (["inf"], ["inf"]),
        (["\u0663"], ["\u0663"]),
        (["9" * 400], ["9" * 400]),
        (["0", "0.5"], [0.0, 0.5]),
        (["1", "two"], ["1", "two"]),
        (["01", "2"], ["01", "2"]),
        (["1,5"], ["1,5"]),
        (["nan", "1"], ["nan", "1"]),
        (["1e999"], ["1e999"]),
        (["", ""], ["", ""]),
        (["true", "False"], [True, False]),
        (["true", ""], ["true", ""]),
        (["yes", "no"], ["yes", "no"]),
        ([], []),
    ],
    ids=str,
)
def test_a_column_is_what_all_its_texts_are(texts, expected):
    found = typed_columns({"column": texts})["column"]
    assert found == expected and [type(value) for value in found] == [type(value) for value in expected]


def test_texts_for_an_index_are_of_its_kinds():
    texts = {"colour": ["7"], "price": ["7"], "in_stock": ["TRUE"]}
    assert typed_columns(texts, KINDS) == {"colour": ["7"], "price": [7.0], "in_stock": [True]}
    for name, text in [("price", "cheap"), ("in_stock", "yes"), *(("price", text) for text in CODES)]:
        with pytest.raises(
            CatalogIndexError, match=rf"`attributes\['{name}'\]` must hold .* Received: '{re.escape(text)}'"
        ):
            typed_columns({name: [text]}, KINDS)


def test_columns_that_hold_values_already_stay_as_they_are():
    columns = {"price": np.array([1.5, 2.0]), "new": [True, False], "tags": [("a", "b"), ()], "colour": ["red", "7"]}
    found = typed_columns(columns)
    assert found == {"price": [1.5, 2.0], "new": [True, False], "tags": [("a", "b"), ()], "colour": ["red", "7"]}
    assert typed_columns({"price": np.array([5, 7])}, KINDS) == {"price": [5, 7]}


def test_numbers_become_the_strings_of_an_index_that_keeps_strings():
    assert typed_columns({"colour": np.array([7.0, 7.5, np.nan])}, KINDS) == {"colour": ["7", "7.5", ""]}
