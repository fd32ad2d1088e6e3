"""An index is brought in step with a catalogue: what is planned, and what is rewritten without embedding it again."""

import numpy as np
import pytest

from eet_tf.index import CatalogIndexError, ExactIndex, MilvusIndex, ScannIndex, load_index, lookup_photos, plan_update
from tests.reference_index import (
    InCluster,
    Oracle,
    assert_agrees,
    assert_same_rows,
    make_rows,
    unit_vectors,
    where_installed,
)

KINDS = where_installed([ExactIndex, ScannIndex, MilvusIndex, InCluster])
CHANGES = {"colour": "gold", "price": np.nan, "in_stock": False, "tags": ("gold",)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_comes_in_step_with_a_catalogue(kind, tmp_path):
    """The catalogue has lost photos 0 to 9, gained 7, and changed 2 products and one value of each attribute."""
    before, new = make_rows(60), make_rows(7, seed=4, prefix="new")
    kind.build(**before).save(tmp_path)
    index = load_index(tmp_path)
    skus = [*before["skus"][10:], *new["skus"]]
    photos = [*before["photos"][10:], *new["photos"]]
    attributes = {name: [*values[10:], *new["attributes"][name]] for name, values in before["attributes"].items()}
    expected = {3, 8}
    skus[3], skus[8] = "other", "another"
    for name, value in CHANGES.items():
        row = next(row for row in range(50) if attributes[name][row] not in (value, "") and row not in expected)
        attributes[name][row] = value
        expected.add(row)
    order = np.random.default_rng(3).permutation(len(photos))
    catalog = {"skus": [skus[row] for row in order], "photos": [photos[row] for row in order]}
    catalog["attributes"] = {name: [values[row] for row in order] for name, values in attributes.items()}

    plan = plan_update(index, **catalog)
    assert {int(order[row]) for row in plan.new} == set(range(50, 57))
    assert {int(order[row]) for row in plan.changed} == expected
    assert set(plan.gone) == set(before["photos"][:10]) and plan.num_same == 50 - len(expected)

    index.delete(photos=plan.gone)
    index.rewrite(**some(catalog, plan.changed))
    vectors = np.concatenate([before["embeddings"][10:], new["embeddings"]])[order]
    index.upsert(vectors[plan.new], **some(catalog, plan.new))
    for each in (index, load_index(tmp_path)):
        again = plan_update(each, **catalog)
        assert (again.new.tolist(), again.changed.tolist(), again.gone, again.num_same) == ([], [], [], 57)
        kept = lookup_photos(each, catalog["photos"])
        np.testing.assert_array_equal(kept.embeddings, vectors)
        assert kept.skus.tolist() == catalog["skus"]


def some(catalog, rows):
    """Those rows of a catalogue."""
    picked = {name: [catalog[name][row] for row in rows] for name in ("skus", "photos")}
    return {**picked, "attributes": {name: [of[row] for row in rows] for name, of in catalog["attributes"].items()}}


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_a_rewritten_photo_keeps_its_vector_as_it_was_rounded(storage, tmp_path):
    """Also when it is rewritten twice and the index is built anew."""
    rows = make_rows(20)
    index = ExactIndex.build(**rows, storage=storage)
    before = lookup_photos(index, rows["photos"]).embeddings
    rows["skus"][4:7] = ["x", "y", "z"]
    facts = {name: rows[name] for name in ("skus", "photos", "attributes")}
    index.save(tmp_path)
    index.rewrite(**facts)
    index.rewrite(**some(facts, [6, 4]))
    for each in (index, load_index(tmp_path)):
        np.testing.assert_array_equal(lookup_photos(each, rows["photos"]).embeddings, before)
    index.compact()
    np.testing.assert_array_equal(lookup_photos(index, rows["photos"]).embeddings, before)
    assert lookup_photos(index, rows["photos"][4:7]).skus.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_rewrite_changes_nothing(kind, tmp_path):
    rows = make_rows(20)
    index, oracle = kind.build(**rows), Oracle(rows)
    index.save(tmp_path)
    facts = some(rows, [0, 1])
    for change, message in [
        ({"photos": ["photo/1.jpg", "nowhere"]}, "`photos` must be in the index. Received: 'nowhere'"),
        ({"photos": ["photo/1.jpg"] * 2}, "`photos` must be unique"),
        ({"skus": ["a"]}, "`skus` must be one per embedding, 2"),
        ({"attributes": None}, "`attributes` must be those of the index"),
        ({"attributes": {**facts["attributes"], "price": ["cheap", 1]}}, "'cheap' in row 0"),
    ]:
        with pytest.raises(CatalogIndexError, match=message):
            index.rewrite(**{**facts, **change})
    with pytest.raises(CatalogIndexError, match="loaded with read_only=True"):
        load_index(tmp_path, read_only=True).rewrite(**facts)
    for each in (index, load_index(tmp_path)):
        assert_same_rows(each, oracle)
        assert_agrees(each, oracle, unit_vectors(2, seed=3), 20)


def test_an_update_of_a_folder_that_other_attributes_took_is_refused(tmp_path):
    """It was checked by the attributes that the index had."""
    facts = some(make_rows(9), [0, 1])
    for update in (ExactIndex.rewrite, lambda index, **facts: index.upsert(unit_vectors(2), **facts)):
        index = ExactIndex.build(**make_rows(9))
        index.save(tmp_path)
        ExactIndex.build(**{**make_rows(9), "attributes": None}).save(tmp_path)
        with pytest.raises(CatalogIndexError, match="replaced by one of another embedder or of other attributes"):
            update(index, **facts)
        assert load_index(tmp_path).size == 9


def test_a_plan_needs_the_attributes_of_the_index():
    index = ExactIndex.build(**make_rows(9))
    facts = some(make_rows(9), range(9))
    with pytest.raises(CatalogIndexError, match="`attributes` must be those of the index"):
        plan_update(index, **{**facts, "attributes": None})
    with pytest.raises(CatalogIndexError, match="must hold numbers"):
        plan_update(index, **{**facts, "attributes": {**facts["attributes"], "price": ["7"] * 9}})
