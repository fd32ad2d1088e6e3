"""What an index keeps of photos, by their ids: after updates, in every kind and storage."""

import numpy as np
import pytest

from eet_tf.index import (
    CatalogIndexError,
    ExactIndex,
    MilvusIndex,
    ScannIndex,
    attribute_values,
    count_values,
    load_index,
    lookup_photos,
    splits_of,
)
from tests.reference_index import InCluster, where_installed

DIM = 8


def unit_vectors(seed, number):
    vectors = np.random.default_rng(seed).normal(size=[number, DIM])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def attributes(numbers):
    """Of every kind, one value missing of those that may be."""
    return {
        "colour": [None if number == 3 else f"colour {number % 3}" for number in numbers],
        "price": [None if number == 4 else float(number) for number in numbers],
        "new": [number % 2 == 0 for number in numbers],
        "tags": [tuple(f"tag {tag}" for tag in range(number % 3)) for number in numbers],
    }


@pytest.fixture(params=where_installed([ExactIndex, MilvusIndex, InCluster]))
def any_kind(request):
    return made(request.param)


@pytest.fixture
def index():
    return made(ExactIndex)


def made(kind):
    """Photos 0 to 9; then 10 and 11 were added, 2 replaced by another product, and 5 deleted."""
    skus, photos = [f"sku {number // 2}" for number in range(10)], [f"{number}.jpg" for number in range(10)]
    index = kind.build(unit_vectors(0, 10), skus, photos, attributes(range(10)))
    names = ["10.jpg", "11.jpg", "2.jpg"]
    index.upsert(unit_vectors(1, 3), ["new", "new", "other"], names, attributes([10, 11, 102]))
    index.delete("5.jpg")
    return index


def test_photos_are_given_in_the_order_asked_for(any_kind):
    kept = lookup_photos(any_kind, ["11.jpg", "0.jpg", "2.jpg", "9.jpg", "0.jpg"])
    assert kept.skus.tolist() == ["new", "sku 0", "other", "sku 4", "sku 0"]
    old, new = unit_vectors(0, 10), unit_vectors(1, 3)
    np.testing.assert_array_equal(kept.embeddings, [new[1], old[0], new[2], old[9], old[0]])
    assert kept.attributes["price"].tolist() == [11, 0, 102, 9, 0]
    assert kept.attributes["colour"].tolist() == ["colour 2", "colour 0", "colour 0", "colour 0", "colour 0"]
    assert kept.attributes["new"].tolist() == [False, True, True, False, True]
    assert kept.attributes["tags"].tolist() == [("tag 0", "tag 1"), (), (), (), ()]


def test_a_missing_value_is_empty_or_no_number(any_kind):
    kept = lookup_photos(any_kind, ["3.jpg", "4.jpg"])
    assert kept.attributes["colour"].tolist() == ["", "colour 1"]
    np.testing.assert_array_equal(kept.attributes["price"], [3, np.nan])


@pytest.mark.parametrize("photo", ["5.jpg", "12.jpg", "../0.jpg", ""])
def test_what_is_not_there_is_refused(any_kind, photo):
    with pytest.raises(CatalogIndexError, match=f"`photos` must be in the index. Received: '{photo}', not in it"):
        lookup_photos(any_kind, ["0.jpg", photo])


def test_an_answer_has_the_attributes_that_were_asked_for(any_kind):
    """Each as `lookup_photos` gives it; of the photo alone, or of the best one of each product."""
    queries = unit_vectors(7, 3)
    assert any_kind.search(queries).attributes is None
    for how in ({}, {"group_by_sku": True}, {"where": {"tags": "tag 0"}}, {"where": {"colour": "never"}}):
        found = any_kind.search(queries, k=20, with_attributes=True, **how)
        assert found.attributes.keys() == any_kind.attributes.keys()
        kept = lookup_photos(any_kind, found.photos.reshape(-1).tolist()).attributes
        for name, values in found.attributes.items():
            assert values.shape == found.photos.shape
            np.testing.assert_array_equal(values.reshape(-1), kept[name])
    assert any_kind.search(np.zeros((0, DIM)), with_attributes=True).attributes["price"].shape == (0, 10)


def test_the_parts_of_the_catalogue_are_known_if_they_were_given(index):
    splits = ["train", "test", "train"]
    assert splits_of(ExactIndex.build(unit_vectors(0, 3), list("abc"), attributes={"split": splits})).tolist() == splits
    assert splits_of(index) is None
    assert splits_of(ExactIndex.build(unit_vectors(0, 3), list("abc"), attributes={"split": [1, 2, 3]})) is None


def test_all_values_are_in_the_order_of_the_photos(index):
    for name in index.attributes:
        expected = lookup_photos(index, index.photos.tolist()).attributes[name]
        np.testing.assert_array_equal(attribute_values(index, name), expected)
    with pytest.raises(CatalogIndexError, match="must be one of colour, price, new, tags. Received: 'size'"):
        attribute_values(index, "size")


def test_values_are_counted_among_the_photos_that_are_there(index):
    """5.jpg is deleted, 2.jpg has another colour now, and 3.jpg has none."""
    assert count_values(index, "colour") == {"": 1, "colour 0": 4, "colour 1": 4, "colour 2": 2}
    assert count_values(index, "tags") == {"tag 0": 6, "tag 1": 2}
    index.delete(["8.jpg", "11.jpg"])
    assert count_values(index, "tags") == {"tag 0": 4}
    assert "colour 2" not in count_values(index, "colour")
    with pytest.raises(CatalogIndexError, match="must be an attribute of strings. Received: 'price', of numbers"):
        count_values(index, "price")


def test_no_photos_are_no_rows(any_kind):
    kept = lookup_photos(any_kind, [])
    assert (kept.skus.shape, kept.embeddings.shape) == ((0,), (0, DIM))


@pytest.mark.parametrize("storage, tolerance", [("float32", 0), ("bfloat16", 4e-3), ("int8", 1e-2)])
def test_vectors_are_as_near_as_the_storage_allows(tmp_path, storage, tolerance):
    vectors = unit_vectors(2, 5)
    ExactIndex.build(vectors, list("abcde"), list("vwxyz"), storage=storage).save(tmp_path / "index")
    kept = lookup_photos(load_index(tmp_path / "index", read_only=True), ["z", "w"])
    np.testing.assert_allclose(kept.embeddings, vectors[[4, 1]], atol=tolerance)


def test_it_follows_what_others_write(index, tmp_path):
    index.save(tmp_path / "index")
    reader = load_index(tmp_path / "index", read_only=True)
    lookup_photos(reader, ["0.jpg"])
    index.upsert(unit_vectors(3, 1), ["late"], ["late.jpg"], attributes([7]))
    assert reader.refresh()
    assert lookup_photos(reader, ["late.jpg"]).skus.tolist() == ["late"]
    index.compact()
    reader.refresh()
    assert lookup_photos(reader, ["late.jpg", "9.jpg"]).skus.tolist() == ["late", "sku 4"]


def test_a_condition_that_nothing_meets_says_which(any_kind):
    """Twelve photos were there, one of them deleted; `price` is missing of one."""
    assert any_kind.why_none({"colour": "colour 1"}) is None
    assert any_kind.count() == 11 and any_kind.count({"price": {"!=": 5000}}) == 11
    where = {"colour": "colour 1", "new": True, "price": {">=": 11, "<": 12}, "tags": "none"}
    assert any_kind.why_none(where) == (
        "No photo meets all conditions. Of the 11 photos in the index, 4 meet that on 'colour', 6 meet that on 'new', "
        "1 meets that on 'price', 0 meet that on 'tags'."
    )
    with pytest.raises(CatalogIndexError, match="`where` must name attributes of the index. Received: 'size'"):
        any_kind.count({"size": "XL"})


@pytest.mark.parametrize("kind", where_installed([ExactIndex, ScannIndex, MilvusIndex]))
def test_values_are_kept_as_what_they_are(kind, tmp_path):
    """Strings that look like numbers or truths are strings: only the readers of files take texts for anything else."""
    attributes = {
        "price": [1.5, 2.0, None],
        "count": np.array([1, 2, 3]),
        "in_stock": [True, False, True],
        "code": ["007", "7", "true"],
        "tags": [["1", "2"], (), None],
    }
    kind.build(unit_vectors(0, 3), list("abc"), list("xyz"), attributes).save(tmp_path)
    index = load_index(tmp_path)
    assert list(index.attributes.values()) == ["number", "number", "bool", "string", "strings"]
    found = {name: values.tolist() for name, values in lookup_photos(index, list("xyz")).attributes.items()}
    assert found["count"] == [1.0, 2.0, 3.0] and found["in_stock"] == [True, False, True]
    assert found["code"] == ["007", "7", "true"] and found["tags"] == [("1", "2"), (), ()]
    np.testing.assert_array_equal(found["price"], [1.5, 2.0, np.nan])
    for where in ({"code": "7"}, {"in_stock": False}, {"price": 2}, {"count": {">": 1, "<": 3}}):
        assert index.search(unit_vectors(1, 1), where=where).photos.tolist() == [["y"]]
