"""Conditions that were written as text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eet_tf.index import CatalogIndexError, read_where

KINDS = {"colour": "string", "price": "number", "in_stock": "bool", "tags": "strings", "a b": "string"}
KINDS |= {"made in": "string", "made": "string", "x>=y": "number"}
CODES = ["007", "12E3", "1_000", "nan", "inf", "0x10", "+5", "\u0663"]  # float() reads all but one


@pytest.mark.parametrize(
    "conditions, expected",
    [
        ([], None),
        (["colour=red"], {"colour": ["red"]}),
        (["colour=red", "colour= a=b "], {"colour": ["red", "a=b"]}),
        (["colour="], {"colour": [""]}),
        (["a b = c d"], {"a b": ["c d"]}),
        (["price>=10", "price <= 50.5", "in_stock=true"], {"price": {">=": 10, "<=": 50.5}, "in_stock": [True]}),
        (["price=3"], {"price": [3.0]}),
        (["price>=1e3", "price<=-2.5E+2"], {"price": {">=": 1000.0, "<=": -250.0}}),
        (["price>1", "price<2", "price!=1.5"], {"price": {">": 1.0, "<": 2.0, "!=": [1.5]}}),
        (["price=3", "price>=2", "price in 4, 5"], {"price": {"in": [3.0, 4.0, 5.0], ">=": 2.0}}),
        (["colour!=red", "colour != blue"], {"colour": {"!=": ["red", "blue"]}}),
        (["in_stock!=True"], {"in_stock": {"!=": [True]}}),
        (["colour in red, dark blue ,grün"], {"colour": ["red", "dark blue", "grün"]}),
        (['colour in "red, dark", " x ",""'], {"colour": ["red, dark", " x ", ""]}),
        (["colour in red,,"], {"colour": ["red", "", ""]}),
        (['a b in 13" wide,14"'], {"a b": ['13" wide', '14"']}),
        (['colour="a ""b"""', 'colour="=x"'], {"colour": ['a "b"', "=x"]}),
        (['colour=a "b"', "colour=red, dark"], {"colour": ['a "b"', "red, dark"]}),
        (["tags contains sale", "tags contains new"], {"tags": {"contains": ["sale", "new"]}}),
        (["tags=sale", "tags!=new"], {"tags": {"in": ["sale"], "!=": ["new"]}}),
        (["colour contains a=b"], {"colour": {"contains": ["a=b"]}}),
        (["colour=made in red"], {"colour": ["made in red"]}),
        (
            ["made in=Japan", "made=by hand", "made in in Peru,Chile"],
            {"made in": ["Japan", "Peru", "Chile"], "made": ["by hand"]},
        ),
        (["x>=y<5"], {"x>=y": {"<": 5.0}}),
    ],
    ids=str,
)
def test_conditions(conditions, expected):
    assert read_where(conditions, KINDS) == expected


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text('",= <>!', max_size=6)


@settings(max_examples=200, deadline=None, database=None)
@given(values=st.lists(texts, min_size=1, max_size=4), sign=st.sampled_from(["=", "!=", " contains ", " in "]))
def test_any_value_can_be_written_in_quotes(values, sign):
    quoted = ['"' + value.replace('"', '""') + '"' for value in values]
    written = [f"colour{sign}{','.join(quoted)}"] if sign == " in " else [f"colour {sign} {one}" for one in quoted]
    found = read_where(written, KINDS)["colour"]
    assert (found if sign in ("=", " in ") else found[sign.strip()]) == values


@pytest.mark.parametrize(
    "conditions, message",
    [
        (["colour:red"], "must be like colour=red"),
        (["=red"], "must be like colour=red"),
        (["colour in"], "must be like colour=red"),
        (["size=XL"], "must name attributes of the index. Received: 'size=XL'; it has 'colour', 'price'"),
        (["price>=10", "price>=20"], "one >= for 'price'. Received: 'price>=20' too"),
        (["price>=cheap"], "`where` must hold numbers .* Received: 'cheap'"),
        (["price<=nan"], "`where` must hold numbers .* Received: 'nan'"),
        (["price<=1e999"], "`where` must hold numbers"),
        (["price="], "`where` must hold numbers .* Received: ''"),
        (["price in 5,"], "`where` must hold numbers .* Received: ''"),
        (["in_stock=yes"], "`where` must hold true or false. Received: 'yes'"),
        (["colour==red"], 'one sign between.* in quotes, "=red"'),
        (["price=>5"], "one sign between"),
        (["price<>5"], "one sign between"),
        (['colour in "a"b,c'], "whole values in quotes"),
        (['colour="red'], "whole values in quotes"),
        (['colour="red" shirt'], "whole values in quotes"),
        (['colour!="red","blue"'], "several values behind `in` alone"),
        (["size=XL", "price=x", "colour=red"], "(?s)Received: 'size=XL'.*\n.*Received: 'x'"),
        *(([f"price={text}"], f"`where` must hold numbers .* Received: '{re.escape(text)}'") for text in CODES),
    ],
    ids=str,
)
def test_conditions_that_are_refused(conditions, message):
    with pytest.raises(CatalogIndexError, match=message):
        read_where(conditions, KINDS)
