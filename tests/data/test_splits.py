"""What is learned from and what is measured: the parts of a catalogue, and that they share nothing."""

import os

import numpy as np
import pytest

from eet_tf.data import Catalog, CatalogError, parts_of, splits

PRODUCTS = ["mug", "mug", "cup", "cup", "jar", "jar", "pot", "pot"]


def catalog_of(marks, skus=PRODUCTS, **more):
    paths = [f"{row}.jpg" for row in range(len(skus))]
    return Catalog(paths, skus, splits=marks, source="list.csv", lines=list(range(2, len(skus) + 2)), **more)


def paths(part):
    return None if part is None else part.paths.tolist()


def test_without_splits_all_is_learned():
    parts = parts_of(catalog_of(None))
    assert (len(parts.train), parts.validation, parts.test) == (8, None, None)


@pytest.mark.parametrize("blank", ["", " "])
def test_a_column_of_blanks_is_none(blank):
    assert catalog_of([blank] * 8).splits is None
    assert len(parts_of(catalog_of([blank] * 8)).train) == 8


def test_each_part_has_its_rows():
    parts = parts_of(catalog_of(["TRAIN", "train", "Val", "valid", "Testing", "test", "", ""]))
    assert [paths(part) for part in parts] == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"], ["4.jpg", "5.jpg"]]


def test_a_photo_without_a_split_is_in_no_part_even_if_its_product_is():
    parts = parts_of(catalog_of(["train", "", "train", "train", "test", "test", "", "test"]))
    assert [paths(part) for part in parts] == [["0.jpg", "2.jpg", "3.jpg"], None, ["4.jpg", "5.jpg", "7.jpg"]]


@pytest.mark.parametrize(
    "marks",
    [["test"] * 4 + [""] * 4, ["val"] * 8, ["test"] * 8],
    ids=["only the test rows are marked", "validation", "test"],
)
def test_nothing_to_learn_from_is_refused_and_what_is_there_is_told(marks):
    with pytest.raises(CatalogError, match=r"list\.csv: no photo has the split 'train'.*Write train in the rows"):
        parts_of(catalog_of(marks))


@pytest.mark.parametrize("mark", ["trian", "learn", "1", "Train/Test", "query"])
def test_a_split_that_is_not_known_is_refused_with_its_lines(mark):
    marks = ["train", mark, "train", "train", mark, "test", "test", mark]
    with pytest.raises(CatalogError) as caught:
        catalog_of(marks)
    assert str(caught.value) == (
        "list.csv:3: a split must be one of train (training), validation (valid, val), test (testing), or empty. "
        f"Received: {mark!r}, and in 2 other rows."
    )


def test_all_unknown_splits_are_named_at_once():
    with pytest.raises(CatalogError) as caught:
        catalog_of(["train", "a", "b", "test", "c", "test", "train", "b"])
    assert [line.partition("Received: ")[2] for line in str(caught.value).splitlines()] == [
        "'a'.",
        "'b', and in 1 other row.",
        "'c'.",
    ]


def test_products_in_two_splits_are_all_named():
    catalog = catalog_of(["train", "test", "train", "train", "validation", "test", "train", "train"])
    assert [rows.tolist() for rows in splits.shared_products(catalog)] == [[4, 5], [0, 1]]
    with pytest.raises(CatalogError) as caught:
        parts_of(catalog)
    assert str(caught.value).splitlines() == [
        "list.csv:6: product 'jar' has photos in several splits (1 in test, 1 in validation). Give all photos of a "
        "product one split.",
        "list.csv:2: product 'mug' has photos in several splits (1 in test, 1 in train). Give all photos of a product "
        "one split.",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_shared_products_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    skus = rng.integers(0, 12, 50).astype(str).tolist()
    marks = rng.choice(["train", "test", "validation", ""], 50, p=[0.6, 0.1, 0.1, 0.2]).tolist()
    catalog = catalog_of(marks, skus)
    found = {catalog.skus[rows[0]]: rows.tolist() for rows in splits.shared_products(catalog)}
    expected = {}
    for sku in set(skus):
        rows = [row for row in range(50) if skus[row] == sku and marks[row]]
        if len({marks[row] for row in rows}) > 1:
            expected[sku] = rows
    assert found == expected


def test_the_names_of_splits_are_read_as_their_columns_are():
    catalog = catalog_of(["train"] * 4 + ["Val"] * 4)
    assert paths(catalog.split("VALID")) == paths(catalog.split("validation")) == [f"{row}.jpg" for row in range(4, 8)]
    for name in ("", "test", "x"):
        with pytest.raises(CatalogError, match=r"\['train', 'validation'\]"):
            catalog.split(name)


# Copies by content


@pytest.fixture
def photos(tmp_path):
    """Contents of learned and of measured photos; of equal size some, and some that begin alike."""
    rng = np.random.default_rng(0)

    def write(name, contents):
        os.makedirs(tmp_path / name)
        for row, content in enumerate(contents):
            (tmp_path / name / f"{row}.jpg").write_bytes(content)
        return Catalog([f"{row}.jpg" for row in range(len(contents))], ["a"] * len(contents), root=str(tmp_path / name))

    random = [rng.bytes(size) for size in (40, 40, 3 << 20, 50)]
    learned = write("learned", [random[0], random[1], random[2], random[0]])
    measured = write("measured", [random[3], random[1], random[2][:-1] + b"x", random[0], random[1], rng.bytes(40)])
    return learned, measured


def test_copies_are_found_by_their_bytes(photos):
    learned, measured = photos
    assert splits.copies(learned, measured) == [(1, 1), (0, 3), (1, 4)]
    assert splits.copies(learned, measured.take([0, 2, 5])) == []


def test_only_files_of_equal_size_are_read(photos, monkeypatch):
    learned, measured = photos
    read = []
    original = splits._digest
    monkeypatch.setattr(splits, "_digest", lambda file: read.append(os.path.basename(file)) or original(file))
    assert splits.copies(learned.take([2]), measured.take([0, 1, 3])) == []
    assert read == []
