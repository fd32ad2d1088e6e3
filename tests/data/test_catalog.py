"""A catalogue: dense labels, cuts that share no product, and every bad list refused with its place and its mend."""

import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eet_tf.data.catalog import Catalog, CatalogError

SKUS = st.lists(st.sampled_from(["mug", "cup", "10", "9", "\u00e9toile", "a b", "zz"]), min_size=1, max_size=30)


def catalog_of(skus, **columns):
    """Photos 0.jpg, 1.jpg, ... of the given products, listed from line 2 of list.csv on."""
    paths = [f"{number}.jpg" for number in range(len(skus))]
    lines = range(2, len(skus) + 2)
    return Catalog(paths, skus, root="photos", source="list.csv", lines=list(lines), **columns)


@pytest.fixture
def full():
    """Five photos of three products with every column; no two columns group the photos alike."""
    return catalog_of(
        ["mug", "cup", "mug", "jar", "cup"],
        categories=["a", "b", "a", "c", "b"],
        attributes={"colour": ["red", "blue", "green", "red", "red"]},
        splits=["train", "test", "train", "train", "test"],
        roles=["", "query", "gallery", "", "gallery"],
    )


@given(SKUS)
def test_labels_are_dense_and_name_their_sku(skus):
    catalog = catalog_of(skus)
    assert catalog.labels.dtype == np.int64
    assert sorted(set(catalog.labels.tolist())) == list(range(catalog.num_classes))
    assert catalog.label_skus[catalog.labels].tolist() == skus
    assert catalog.label_skus.tolist() == sorted(set(skus))
    assert len(catalog) == len(skus)


def test_files_start_from_the_root_unless_absolute():
    catalog = Catalog(["a/1.jpg", "/elsewhere/2.jpg"], ["x", "y"], root="photos")
    assert catalog.files.tolist() == [os.path.join("photos", "a/1.jpg"), "/elsewhere/2.jpg"]


def test_numbers_may_be_skus():
    assert catalog_of([10, 9, 10]).label_skus.tolist() == ["10", "9"]


def test_take_keeps_every_column_and_numbers_labels_anew(full):
    part = full.take([3, 0, 2])
    assert part.paths.tolist() == ["3.jpg", "0.jpg", "2.jpg"]
    assert part.skus.tolist() == ["jar", "mug", "mug"]
    assert part.labels.tolist() == [0, 1, 1]
    assert part.categories.tolist() == ["c", "a", "a"]
    assert part.attributes["colour"].tolist() == ["red", "red", "green"]
    assert part.splits.tolist() == ["train", "train", "train"]
    assert part.roles.tolist() == ["", "", "gallery"]
    assert part.root == "photos"
    assert part.where(0) == "list.csv:5"


def test_take_by_mask_is_take_by_rows(full):
    mask = np.array([True, False, False, True, True])
    assert full.take(mask).paths.tolist() == full.take([0, 3, 4]).paths.tolist()


def test_split_takes_its_rows(full):
    assert full.split("test").paths.tolist() == ["1.jpg", "4.jpg"]
    assert full.split("train").paths.tolist() == ["0.jpg", "2.jpg", "3.jpg"]
    assert full.split("test").roles.tolist() == ["query", "gallery"]
    assert full.split("all") is full


def test_without_roles_there_are_none_in_any_part():
    catalog = catalog_of(["a", "b", "b"], splits=["train", "test", "test"])
    assert catalog.roles is None
    assert catalog.split("test").roles is None


def test_unknown_split_lists_the_known_ones(full):
    with pytest.raises(CatalogError, match=r"list\.csv: \['test', 'train'\]\. Received: split='val'"):
        full.split("val")


def test_split_of_a_catalogue_without_splits_says_so():
    with pytest.raises(CatalogError, match="it has none"):
        catalog_of(["a", "b"]).split("train")


@given(
    counts=st.lists(st.integers(1, 4), min_size=4, max_size=30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_hold_out_cuts_between_products(counts, share, seed):
    """Held out are max(2, round(share x products)) of the products with two photos or more, or it is refused."""
    skus = np.repeat([f"sku{number}" for number in range(len(counts))], counts)
    catalog = catalog_of(skus)
    num_held = max(2, round(share * len(counts)))
    if num_held > sum(count >= 2 for count in counts) or len(counts) - num_held < 2:
        with pytest.raises(CatalogError, match="too few"):
            catalog.hold_out(share, seed)
        return
    rest, held = catalog.hold_out(share, seed)
    assert not set(rest.skus) & set(held.skus)
    assert sorted([*rest.paths, *held.paths]) == sorted(catalog.paths)
    assert held.num_classes == num_held
    assert np.bincount(held.labels).min() >= 2
    assert catalog.hold_out(share, seed)[1].paths.tolist() == held.paths.tolist()


def test_hold_out_depends_on_the_seed():
    catalog = catalog_of(np.repeat(np.arange(50).astype(str), 2))
    drawn = {tuple(catalog.hold_out(0.2, seed)[1].label_skus) for seed in range(5)}
    assert len(drawn) == 5


def test_hold_out_keeps_the_role_of_each_photo():
    roles = np.tile(["query", "gallery", ""], 4)
    catalog = catalog_of(np.repeat(["a", "b", "c", "d"], 3), roles=roles)
    for part in catalog.hold_out(0.5):
        assert part.roles.tolist() == [roles[int(path.removesuffix(".jpg"))] for path in part.paths]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_hold_out_refuses_a_share_outside_0_to_1(full, share):
    with pytest.raises(CatalogError, match=f"`share` must be between 0 and 1. Received: share={share}"):
        full.hold_out(share)


def test_hold_out_of_too_few_products_names_the_source():
    with pytest.raises(CatalogError, match=r"Holding out 2 of 3 products of list\.csv .*Give more products"):
        catalog_of(["a", "a", "b", "b", "c", "c"]).hold_out(0.1)


# Columns


def test_column_finds_attributes_and_the_categories(full):
    assert full.column("colour").tolist() == ["red", "blue", "green", "red", "red"]
    assert full.column("category").tolist() == ["a", "b", "a", "c", "b"]


def test_categorized_by_an_attribute_changes_nothing_else(full):
    by_colour = full.categorized_by("colour")
    assert by_colour.categories.tolist() == ["red", "blue", "green", "red", "red"]
    assert by_colour.attributes["colour"].tolist() == full.attributes["colour"].tolist()
    for name in ("paths", "skus", "labels", "label_skus", "splits", "roles", "lines"):
        assert getattr(by_colour, name).tolist() == getattr(full, name).tolist()
    assert (by_colour.root, by_colour.source) == (full.root, full.source)
    assert full.categories.tolist() == ["a", "b", "a", "c", "b"]


def test_categorized_by_category_leaves_them(full):
    assert full.categorized_by("category").categories.tolist() == full.categories.tolist()


def test_an_attribute_named_category_counts_where_there_are_no_categories():
    catalog = catalog_of(["a", "b"], attributes={"category": ["cup", "mug"]})
    assert catalog.categorized_by("category").categories.tolist() == ["cup", "mug"]


def test_an_unknown_column_lists_the_known_ones(full):
    with pytest.raises(
        CatalogError, match=r"list\.csv has no column 'size'. Its columns are: \['category', 'colour'\]"
    ):
        full.categorized_by("size")


def test_category_is_no_column_of_a_catalogue_without_categories():
    with pytest.raises(CatalogError, match=r"list\.csv has no column 'category'. Its columns are: none"):
        catalog_of(["a", "b"]).categorized_by("category")


# Refusals at construction


def test_no_photos():
    with pytest.raises(CatalogError, match="list.csv lists no photos"):
        Catalog([], [], source="list.csv")


@pytest.mark.parametrize("column", ["skus", "categories", "splits", "roles", "lines"])
def test_a_column_of_another_length_is_named(column):
    columns = {"skus": ["x", "y"], column: ["1"]}
    with pytest.raises(CatalogError, match=rf"`{column}` must have one value per photo.*\(1,\) for 2 photos"):
        Catalog(["a", "b"], **columns)


def test_an_attribute_of_another_length_is_named():
    with pytest.raises(CatalogError, match=r"`attributes\['colour'\]` must have one value per photo"):
        Catalog(["a", "b"], ["x", "y"], attributes={"colour": ["red"]})


@pytest.mark.parametrize("paths, skus", [(["a", "", "c"], ["x", "y", "z"]), (["a", "b", "c"], ["x", "", "z"])])
def test_a_row_without_path_or_sku_is_named(paths, skus):
    with pytest.raises(CatalogError, match="list.csv:8: a row has no path or no sku"):
        Catalog(paths, skus, source="list.csv", lines=[4, 8, 9])


@pytest.mark.parametrize("role", ["both", "Query", "query "])
def test_a_role_that_is_none_of_the_three_is_named(role):
    message = rf"list\.csv:3: the role of a photo must be 'query', 'gallery' or '' \(both\)\. Received: '{role}'"
    with pytest.raises(CatalogError, match=message):
        catalog_of(["a", "b", "b"], roles=["query", role, "?"])


def test_a_photo_listed_twice_is_named_with_both_places():
    """The repeat that comes first in sorted order is reported: c.jpg of lines 9 and 3."""
    message = r"list\.csv:9: photo 'c\.jpg' is listed a second time \(first at list\.csv:3\)"
    with pytest.raises(CatalogError, match=message):
        Catalog(["z.jpg", "c.jpg", "a.jpg", "c.jpg"], ["a", "b", "c", "d"], source="list.csv", lines=[2, 3, 4, 9])


def test_without_lines_the_source_alone_is_named():
    assert Catalog(["a"], ["x"], source="somewhere").where(0) == "somewhere"


# Files and products


@pytest.fixture
def on_disk(tmp_path):
    """Three photo files that are not empty."""
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"x")
    return Catalog(["0.jpg", "1.jpg", "2.jpg"], ["a", "b", "c"], root=str(tmp_path), source="list.csv", lines=[2, 3, 4])


def test_check_files_returns_the_catalogue(on_disk):
    assert on_disk.check_files() is on_disk


def test_check_files_names_a_missing_photo(on_disk):
    os.remove(on_disk.files[1])
    with pytest.raises(CatalogError, match=f"list.csv:3: photo file '{on_disk.root}/1.jpg' does not exist"):
        on_disk.check_files()


def test_check_files_names_an_empty_photo(on_disk):
    open(on_disk.files[2], "w").close()
    with pytest.raises(CatalogError, match=f"list.csv:4: photo file '{on_disk.root}/2.jpg' is empty"):
        on_disk.check_files()


def test_a_folder_is_no_photo(on_disk):
    os.remove(on_disk.files[0])
    os.mkdir(on_disk.files[0])
    with pytest.raises(CatalogError, match="list.csv:2: .* does not exist"):
        on_disk.check_files()


def test_check_trainable_returns_the_catalogue():
    catalog = catalog_of(["a", "b", "b", "a"])
    assert catalog.check_trainable() is catalog


def test_one_product_is_not_trainable():
    with pytest.raises(CatalogError, match="list.csv has only one product, 'a'"):
        catalog_of(["a", "a"]).check_trainable()


def test_a_product_with_one_photo_is_named_and_can_be_left_out():
    catalog = catalog_of(["b", "b", "c", "a", "a", "d"])
    with pytest.raises(CatalogError, match=r"list\.csv:4: product 'c' has one photo.*2 of 4 products.*drop_singles"):
        catalog.check_trainable()
    mended = catalog.without_singles().check_trainable()
    assert mended.skus.tolist() == ["b", "b", "a", "a"]


def test_errors_are_one_line_for_a_person(on_disk):
    os.remove(on_disk.files[1])
    with pytest.raises(CatalogError) as caught:
        on_disk.check_files()
    assert not re.search("\n", str(caught.value))
