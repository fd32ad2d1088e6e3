"""Attributes and conditions that were written as text."""

import pytest

from eet_tf.index import CatalogIndexError, read_where, typed_columns

KINDS = {"colour": "string", "price": "number", "in_stock": "bool", "a b": "string"}


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["1", "-2.5", "1e3", ""], [1.0, -2.5, 1000.0, None]),
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
    texts = {"colour": ["7"], "price": ["007"], "in_stock": ["TRUE"]}
    assert typed_columns(texts, KINDS) == {"colour": ["7"], "price": [7.0], "in_stock": [True]}
    for name, text in {"price": "cheap", "in_stock": "yes"}.items():
        with pytest.raises(CatalogIndexError, match=rf"`attributes\['{name}'\]` must hold .* Received: '{text}'"):
            typed_columns({name: [text]}, KINDS)


@pytest.mark.parametrize(
    "conditions, expected",
    [
        ([], None),
        (["colour=red"], {"colour": ["red"]}),
        (["colour=red", "colour= a=b "], {"colour": ["red", "a=b"]}),
        (["colour="], {"colour": [""]}),
        (["a b = c d"], {"a b": ["c d"]}),
        (["price>=10", "price <= 50.5", "in_stock=true"], {"price": {"min": 10, "max": 50.5}, "in_stock": [True]}),
        (["price=3"], {"price": [3.0]}),
    ],
    ids=str,
)
def test_conditions(conditions, expected):
    assert read_where(conditions, KINDS) == expected


@pytest.mark.parametrize(
    "conditions, message",
    [
        (["colour:red"], "must be like colour=red"),
        (["=red"], "must be like colour=red"),
        (["size=XL"], "must name attributes of the index. Received: 'size=XL'; it has 'colour', 'price'"),
        (["price>=10", "price>=20"], "one range or one choice for 'price'"),
        (["price>=10", "price=20"], "one range or one choice for 'price'"),
        (["price>=cheap"], "must hold numbers. Received: 'cheap'"),
    ],
    ids=str,
)
def test_conditions_that_are_refused(conditions, message):
    with pytest.raises(CatalogIndexError, match=message):
        read_where(conditions, KINDS)
