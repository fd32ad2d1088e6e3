"""A catalogue: dense labels, cuts that share no product, and every bad list refused with its place and its mend."""

import os
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eet_tf.data.benchmarks import load_csv
from eet_tf.data.catalog import Catalog, CatalogError, MissingPhotosError

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


class NAType:
    """As pandas' NA."""

    def __ne__(self, other):
        return self


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, NAType()], ids=["None", "nan", "numpy", "NA"])
@pytest.mark.parametrize("name", ["paths", "skus", "categories", "splits"])
def test_a_missing_value_is_refused_with_its_row(name, missing):
    columns = {"paths": ["1.jpg", "2.jpg", "3.jpg"], "skus": ["a", "b", "b"], "categories": ["x"] * 3}
    columns = {**columns, "splits": ["train", "train", "test"]}
    columns[name] = [columns[name][0], missing, missing]
    with pytest.raises(CatalogError) as caught:
        Catalog(**columns, source="list.csv", lines=[2, 5, 9])
    first, second = str(caught.value).splitlines()
    assert first.startswith("list.csv:5: the ") and second.startswith("list.csv:9: the ")
    assert "is missing (N" in first


def test_without_lines_a_missing_value_is_refused_with_the_number_of_its_row():
    with pytest.raises(CatalogError, match="^the catalogue, row 2: the sku is missing"):
        Catalog(["1.jpg", "2.jpg", "3.jpg"], ["a", "b", None])


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "NULL", "NA", "<NA>", "NaT", "#N/A"])
def test_what_programs_write_for_a_missing_sku_is_no_sku(text):
    with pytest.raises(CatalogError, match=f"list.csv:3: the sku is '{text}', which programs write"):
        catalog_of(["a", text, "b"])


@pytest.mark.parametrize("sku", ["nano", "None of these", "Null", "NAN-1", "0", "nat", "-", "na"])
def test_a_name_that_only_resembles_a_missing_value_is_one(sku):
    assert catalog_of(["a", sku, "b"]).skus[1] == sku


def test_whole_numbers_that_pandas_made_floats_are_named_as_such():
    with pytest.raises(CatalogError) as caught:
        catalog_of([4711.0, 4711.0, float("nan")])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("list.csv:2: the sku must be text or a whole number. Received: 4711.0")
    assert "dtype=str" in lines[0]
    assert "missing" in lines[2]


def test_a_missing_attribute_is_unknown():
    catalog = catalog_of(["a", "b", "b"], attributes={"colour": ["red", None, float("nan")], "price": [1.5, 2, 3.0]})
    assert catalog.attributes["colour"].tolist() == ["red", "", ""]
    assert catalog.attributes["price"].tolist() == [1.5, 2.0, 3.0]
    assert catalog.column_texts("price").tolist() == ["1.5", "2", "3.0"]


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0"])
def test_a_sku_of_blanks_is_none(blank):
    with pytest.raises(CatalogError, match="list.csv:3: a row has no path or no sku"):
        catalog_of(["a", blank, "b"])


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(CatalogError) as caught:
        Catalog(
            ["1.jpg", "2.jpg", "1.jpg", "", "5.jpg"],
            ["a", None, "b", "c", ""],
            splits=["train", "trian", "test", "test", "test"],
            roles=["", "", "asked", "", ""],
            source="list.csv",
            lines=[2, 3, 4, 5, 6],
        )
    found = [line.split(":")[1] for line in str(caught.value).splitlines()]
    assert sorted(found) == ["3", "3", "4", "4", "5", "6"]


def test_of_very_many_complaints_the_first_are_said_and_how_many_more_there_are():
    with pytest.raises(CatalogError) as caught:
        Catalog([f"{row}.jpg" for row in range(1500)], [None] * 1500)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1001
    assert lines[-1] == "... and 500 more like these."


def test_one_long_cell_takes_no_room_in_the_other_rows():
    """An array of NumPy's strings would take 4 x 50,000 x 20,000 bytes, 4 GB."""
    texts = ["short"] * 20_000
    texts[7] = "x" * 50_000
    paths = [f"{row}.jpg" for row in range(20_000)]
    tracemalloc.start()
    catalog = Catalog(paths, ["a", "b"] * 10_000, attributes={"text": texts})
    part = catalog.take(np.arange(0, 20_000, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert part.attributes["text"][0] == "short"
    assert catalog.attributes["text"][7] == "x" * 50_000


def test_places_of_several_files_may_be_told_row_by_row():
    catalog = Catalog(["1.jpg", "2.jpg"], ["a", "b"], lines=["train.txt:3", "test.txt:2"])
    assert [catalog.where(row) for row in range(2)] == ["train.txt:3", "test.txt:2"]
    assert catalog.take([1]).where(0) == "test.txt:2"


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


def test_check_files_names_all_that_are_missing(on_disk):
    os.remove(on_disk.files[0])
    os.remove(on_disk.files[2])
    with pytest.raises(CatalogError) as caught:
        on_disk.check_files()
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["list.csv:2", "list.csv:4"]


@pytest.mark.parametrize(
    "listed, there",
    [("caf\u00e9.jpg", "cafe\u0301.jpg"), ("Mug.JPG", "mug.jpg"), ("a b.jpg", "a\u00a0b.jpg"), ("a.jpg", "a.jpg ")],
)
def test_a_missing_photo_is_told_of_the_file_that_looks_like_it(tmp_path, listed, there):
    os.makedirs(tmp_path / "photos")
    (tmp_path / "photos" / there).write_bytes(b"x")
    catalog = Catalog([f"photos/{listed}", "photos/other.jpg"], ["a", "b"], root=str(tmp_path))
    with pytest.raises(CatalogError) as caught:
        catalog.check_files()
    first, second = str(caught.value).splitlines()
    assert first.endswith(f" Its folder has {ascii(there)}, whose name only looks the same as {ascii(listed)}.")
    assert second.endswith("Mend the path or delete the row.")


def test_a_path_that_no_file_can_have_is_missing(tmp_path):
    with pytest.raises(CatalogError, match="does not exist"):
        Catalog(["a\0b.jpg"], ["a"], root=str(tmp_path)).check_files()


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
    with pytest.raises(CatalogError, match=r"\nlist\.csv:7: product 'd' has one photo$"):
        catalog.check_trainable()
    mended = catalog.without_singles().check_trainable()
    assert mended.skus.tolist() == ["b", "b", "a", "a"]


def test_leaving_out_all_products_is_refused():
    with pytest.raises(CatalogError, match=r"list\.csv: no product has two photos"):
        catalog_of(["a", "b", "c"]).without_singles()


def test_errors_are_one_line_for_a_person(on_disk):
    os.remove(on_disk.files[1])
    with pytest.raises(CatalogError) as caught:
        on_disk.check_files()
    assert not re.search("\n", str(caught.value))


# Photos at URLs


def test_a_list_may_name_photos_at_urls(tmp_path):
    """A URL is the photo's name as it is; whether it is there, its server says when it is read."""
    (tmp_path / "here.jpg").write_bytes(b"photo")
    url = "https://shop.example/mugs/1.jpg?width=2,3&sign=a%2Fb"
    rows = f'"{url}",mug\nhere.jpg,mug\nfile://{tmp_path}/here.jpg,cup\n'
    (tmp_path / "catalog.csv").write_text(f"path,sku\n{rows}", encoding="utf-8")
    catalog = load_csv(str(tmp_path))
    assert catalog.paths[0] == url
    assert catalog.files.tolist() == [url, f"{tmp_path}/here.jpg", f"{tmp_path}/here.jpg"]
    assert catalog.check_files() is catalog
    assert Catalog(["1.jpg"], ["mug"], root="s3://bucket/mugs/").files.tolist() == ["s3://bucket/mugs/1.jpg"]


def test_urls_that_nothing_here_reads_are_refused_with_what_to_install(monkeypatch):
    asked = []

    def why(protocol):
        asked.append(protocol)
        return "" if protocol == "https" else f"{protocol}:// is read with {protocol}fs: pip install {protocol}fs"

    monkeypatch.setattr("eet_tf.data.remote.why_no_reader", why)
    paths = ["s3://a/1.jpg", "https://shop.example/2.jpg", "s3://a/3.jpg"]
    with pytest.raises(MissingPhotosError) as caught:
        Catalog(paths, list("abc"), source="list.csv", lines=[2, 3, 4]).check_files()
    assert str(caught.value) == (
        "list.csv:2: photo 's3://a/1.jpg' cannot be read: s3:// is read with s3fs: pip install s3fs.\n"
        "list.csv:4: photo 's3://a/3.jpg' cannot be read: s3:// is read with s3fs: pip install s3fs."
    )
    assert asked == ["s3", "https"]  # once each
    assert caught.value.catalog.paths.tolist() == paths
