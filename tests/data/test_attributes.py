"""Attribute columns as numbers, against a plain reading cell by cell; what cannot be learnt is refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eet_tf.data.attributes import AttributeTable, answer_columns, encode_attributes
from eet_tf.data.catalog import Catalog, CatalogError

WORDS = ["red", "blue", "deep sea", "yes", "no", "\u00e9cru"]
CELLS = st.lists(st.sampled_from(WORDS), max_size=3, unique=True).map(", ".join)


def catalog_of(categories=None, **attributes):
    """Photos 0.jpg, 1.jpg, ... with the given columns."""
    num_photos = len(next(iter(attributes.values())))
    paths = [f"{number}.jpg" for number in range(num_photos)]
    return Catalog(paths, ["a"] * num_photos, categories, attributes, source="list.csv")


def as_dict(table):
    """What a table says: {attribute: values}."""
    assert isinstance(table, AttributeTable)
    assert table.values.dtype == np.int8
    assert table.values.shape[1] == len(table.names) == len(set(table.names))
    return dict(zip(table.names, table.values.T.tolist()))


def words_of(cell):
    return {word.strip() for word in cell.split(",")} - {""}


def plain_value(cell, column, name):
    """One cell's value of one attribute, straight from the rules."""
    if name == column:
        return {"yes": 1, "no": 0}.get(cell, -1)
    words = words_of(cell)
    return -1 if not words else int(name.removeprefix(f"{column}=") in words)


# What a column means


def test_a_column_of_yes_and_no_is_one_attribute():
    table = encode_attributes(catalog_of(wet=["yes", "", "no", "yes"]), ["wet"])
    assert as_dict(table) == {"wet": [1, -1, 0, 1]}


def test_a_column_of_single_words_is_one_hot():
    table = encode_attributes(catalog_of(colour=["red", "blue", "", "red"]), ["colour"])
    assert as_dict(table) == {"colour=blue": [0, 1, -1, 0], "colour=red": [1, 0, -1, 1]}


def test_a_cell_may_hold_several_words_and_blanks_around_them():
    table = encode_attributes(catalog_of(made_of=["wool, silk", " silk ", "deep sea  wool,silk,", ","]), ["made_of"])
    assert as_dict(table) == {"made_of=deep sea  wool": [0, 0, 1, -1], "made_of=wool": [1, 0, 0, -1]}


def test_yes_and_no_among_other_words_are_words():
    table = encode_attributes(catalog_of(wet=["yes", "no", "partly"]), ["wet"])
    assert as_dict(table) == {"wet=no": [0, 1, 0], "wet=partly": [0, 0, 1], "wet=yes": [1, 0, 0]}


def test_blanks_around_yes_and_no_are_dropped():
    table = encode_attributes(catalog_of(wet=[" yes", "no ", " ", "no"]), ["wet"])
    assert as_dict(table) == {"wet": [1, 0, -1, 0]}


def test_columns_keep_their_order_and_words_are_sorted():
    catalog = catalog_of(size=["s", "m"], wet=["yes", "no"], colour=["red", "blue"])
    table = encode_attributes(catalog, ["wet", "size", "colour", "wet"])
    assert table.names == ("wet", "size=m", "size=s", "colour=blue", "colour=red")


def test_all_is_every_attribute_column_but_not_the_categories():
    catalog = catalog_of(["kitchen", "table"], wet=["yes", "no"], colour=["red", "blue"])
    assert encode_attributes(catalog, "all").names == ("wet", "colour=blue", "colour=red")


def test_category_is_a_column():
    catalog = catalog_of(["kitchen", "table", "table"], wet=["yes", "no", ""])
    table = encode_attributes(catalog, ["category", "wet"])
    assert as_dict(table) == {
        "category=kitchen": [1, 0, 0],
        "category=table": [0, 1, 1],
        "wet": [1, 0, -1],
    }


def test_attributes_that_teach_nothing_are_left_out():
    """Known to be yes or no everywhere, or known nowhere: nothing can be learnt from it."""
    catalog = catalog_of(
        always=["yes", "yes", ""],
        never=["no", "", "no"],
        unknown=["", "", ""],
        colour=["red", "red", "red, blue"],
        kept=["no", "", "yes"],
    )
    assert as_dict(encode_attributes(catalog, "all")) == {"colour=blue": [0, 0, 1], "kept": [0, -1, 1]}


@given(
    st.lists(st.tuples(CELLS, st.sampled_from(["yes", "no", ""]), st.sampled_from(["s", "m", ""])), min_size=1),
)
def test_against_a_plain_reading(rows):
    columns = dict(zip(("colour", "wet", "size"), map(list, zip(*rows))))
    expected = {}
    for column, cells in columns.items():
        is_answer = set(cells) <= {"yes", "no", ""}
        words = sorted(set().union(*map(words_of, cells)))
        for name in [column] if is_answer else [f"{column}={word}" for word in words]:
            values = [plain_value(cell, column, name) for cell in cells]
            if {0, 1} <= set(values):
                expected[name] = values
    catalog = catalog_of(**columns)
    if expected:
        assert as_dict(encode_attributes(catalog, "all")) == expected
        assert list(encode_attributes(catalog, "all").names) == list(expected)
    else:
        with pytest.raises(CatalogError, match="No attribute is left"):
            encode_attributes(catalog, "all")


# A vocabulary learnt from another split


TRAIN = {"colour": ["red", "blue", "red, green"], "wet": ["yes", "no", ""], "mood": ["yes", "no", "maybe"]}
TEST = {
    "colour": ["teal", "green, teal", "", "blue"],
    "wet": ["no", "", "maybe", "yes"],
    "mood": ["no", "yes", "", "?"],
}


def test_names_of_the_training_split_encode_the_test_split():
    """Teal is no colour of the training split, and its photo has none of the known ones; "maybe" is neither."""
    names = encode_attributes(catalog_of(**TRAIN), "all").names
    assert names == ("colour=blue", "colour=green", "colour=red", "wet", "mood=maybe", "mood=no", "mood=yes")
    table = encode_attributes(catalog_of(**TEST), "all", names)
    assert table.names == names
    assert as_dict(table) == {
        "colour=blue": [0, 0, -1, 1],
        "colour=green": [0, 1, -1, 0],
        "colour=red": [0, 0, -1, 0],
        "wet": [0, -1, -1, 1],
        "mood=maybe": [0, 0, -1, 0],
        "mood=no": [1, 0, -1, 0],
        "mood=yes": [0, 1, -1, 0],
    }


def test_a_column_of_words_stays_one_where_the_other_split_has_only_answers():
    table = encode_attributes(catalog_of(mood=["yes", "no", ""]), ["mood"], ["mood=maybe", "mood=yes"])
    assert as_dict(table) == {"mood=maybe": [0, 0, -1], "mood=yes": [1, 0, -1]}


@given(st.permutations(["colour=blue", "wet", "colour=red", "mood=no", "mood"]))
def test_names_are_given_in_their_order(names):
    table = encode_attributes(catalog_of(**TEST), ["wet", "colour", "mood"], names)
    columns = [name.partition("=")[0] for name in names]
    expected = [[plain_value(cell, column, name) for cell in TEST[column]] for column, name in zip(columns, names)]
    assert table.names == tuple(names)
    assert table.values.T.tolist() == expected


def test_names_teach_nothing_here_and_are_kept():
    table = encode_attributes(catalog_of(wet=["yes", "yes"]), ["wet"], ["wet"])
    assert as_dict(table) == {"wet": [1, 1]}


def test_a_name_belongs_to_the_longest_column_that_fits():
    catalog = catalog_of(**{"a": ["b=c", "x"], "a=b": ["x", "c"]})
    table = encode_attributes(catalog, "all", ["a=x", "a=b=c"])
    assert as_dict(table) == {"a=x": [0, 1], "a=b=c": [0, 1]}


def test_a_name_of_no_column_is_refused():
    with pytest.raises(CatalogError, match=r"attributes of the columns wet, mood\. Received: 'colour=red'"):
        encode_attributes(catalog_of(**TRAIN), ["wet", "mood"], ["wet", "colour=red"])


# Refusals


def test_an_unknown_column_lists_the_known_ones():
    with pytest.raises(CatalogError, match=r"list\.csv has no column 'size'\. Its columns are: \['mood', 'wet'\]"):
        encode_attributes(catalog_of(wet=["yes", "no"], mood=["a", "b"]), ["wet", "size"])


def test_a_single_column_is_a_list_too():
    with pytest.raises(CatalogError, match=r"`columns` must be 'all' or a list of columns. Received: columns='wet'"):
        encode_attributes(catalog_of(wet=["yes", "no"]), "wet")


@pytest.mark.parametrize("columns", [[], (), "all"])
def test_no_columns(columns):
    with pytest.raises(CatalogError, match=r"`columns` must name a column.*list\.csv has the attributes none"):
        encode_attributes(Catalog(["a.jpg"], ["a"], source="list.csv"), columns)


def test_a_column_of_too_many_words_is_named():
    """1,000 words are learnt, 1,001 are a text; a comma makes two words of a cell."""
    cells = [f"{number},{number + 1}" for number in range(0, 1000, 2)]
    assert len(encode_attributes(catalog_of(title=cells), ["title"]).names) == 1000
    with pytest.raises(CatalogError, match=r"Column 'title' has 1,001 different words.*Leave it out of `columns`"):
        encode_attributes(catalog_of(title=[*cells, "one more"]), ["title"])


def test_many_other_words_do_not_matter_once_the_names_are_known():
    cells = [f"{number}" for number in range(2000)]
    assert as_dict(encode_attributes(catalog_of(title=cells), ["title"], ["title=7"]))["title=7"] == [
        int(cell == "7") for cell in cells
    ]


def test_nothing_left():
    with pytest.raises(CatalogError, match=r"No attribute is left of wet, colour: .* 2 photos of list\.csv"):
        encode_attributes(catalog_of(wet=["yes", ""], colour=["red", "red"]), ["wet", "colour"])


# The way back


def test_answer_columns_are_what_encoding_reads():
    rng = np.random.default_rng(0)
    values = rng.integers(-1, 2, size=(50, 7)).astype(np.int8)
    columns = answer_columns([f"attribute {number}" for number in range(7)], values)
    assert {cell for column in columns.values() for cell in column.tolist()} == {"yes", "no", ""}
    table = encode_attributes(catalog_of(**columns), "all")
    assert table.names == tuple(columns)
    assert np.array_equal(table.values, values)
