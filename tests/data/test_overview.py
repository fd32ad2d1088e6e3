"""What print(catalog) shows: where it is from, how much there is, and what each column holds."""

import numpy as np

from eet_tf.data.catalog import Catalog


def test_a_full_catalogue_in_five_lines():
    catalog = Catalog(
        ["1.jpg", "2.jpg", "3.jpg", "4.jpg"],
        ["mug", "mug", "mug", "cup"],
        ["kitchen", "kitchen", "", "table"],
        {
            "colour": ["red", "blue", "red", None],
            "tags": [["a", "b"], ["b"], [], []],
            "price": [19.9, None, 5, 1200],
            "new": [True, False, True, True],
            "lost": np.full(4, np.nan),
        },
        ["test", "train", "", "train"],
        source="photos/catalog.csv",
    )
    assert (
        repr(catalog)
        == str(catalog)
        == (
            "Catalog of photos/catalog.csv\n"
            "  photos:     4 of 2 products, 1 to 3 each\n"
            "  splits:     train 2, test 1, in none 1\n"
            "  categories: 2 (kitchen, table)\n"
            "  attributes: colour (string, 2 values), tags (strings, 2 values), price (number, 5 to 1200), "
            "new (bool, 3 true), lost (number, none known)"
        )
    )


def test_of_many_columns_the_first_are_named():
    attributes = {f"a{number}": ["x"] for number in range(14)}
    shown = repr(Catalog(["1.jpg"], ["mug"], attributes=attributes)).splitlines()
    assert len(shown) == 5
    assert shown[1] == "  photos:     1 of 1 product, 1 each"
    assert "a11 (string, 1 value), and 2 more" in shown[4] and "a12" not in shown[4]


def test_long_lists_of_categories_are_counted():
    names = [str(row) for row in range(1000)]
    assert "  categories: 1,000\n" in repr(Catalog(names, names, names))
