"""Numbers that are names: none is taken for another one, in any index, however it is asked for."""

import math

import numpy as np
import pytest

from eet_tf.index import CatalogIndexError, ExactIndex, MilvusIndex, ScannIndex, load_index, read_where, typed_columns
from eet_tf.numerals import as_float, largest_float, least_float
from tests.reference_index import InCluster, where_installed

KINDS = where_installed([ExactIndex, ScannIndex, MilvusIndex, InCluster])
every_kind = pytest.mark.parametrize("kind", KINDS)
CODES = ["12E3", "12000", "1E1", "10"] * 2
VERSIONS = ["1.10", "1.1", "2.0", "2"] * 2
IDS = [str(2**53 + number) for number in range(8)]
PRICES = ["19.90", "5.00", "", "12.50", "19.99", "0.10", "100.00", "7.25"]
TEXTS = {"code": CODES, "version": VERSIONS, "id": IDS, "price": PRICES}


def unit_vectors(count):
    vectors = np.random.default_rng(1).normal(size=[count, 4]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=KINDS)
def index(request, tmp_path_factory):
    """An index over texts as a CSV has them, saved and loaded, with two photos added after that."""
    folder = tmp_path_factory.mktemp("index") / "index"
    rows = {name: texts[:6] for name, texts in TEXTS.items()}
    request.param.build(unit_vectors(6), range(6), attributes=typed_columns(rows)).save(folder)
    index = load_index(folder)
    late = typed_columns({name: texts[6:] for name, texts in TEXTS.items()}, index.attributes)
    index.upsert(unit_vectors(2), ["6", "7"], ["6", "7"], late)
    return load_index(folder, read_only=True)


def found(index, *conditions):
    where = read_where(conditions, index.attributes)
    neighbors = index.search(unit_vectors(1), k=8, where=where)
    return sorted(int(sku) for sku in neighbors.skus[0]) if neighbors.skus.size else []


@pytest.mark.parametrize("name", ["code", "version", "id"])
def test_equality_compares_texts(index, name):
    """As the texts themselves compare: no text finds the photos of another."""
    for asked in {*TEXTS[name], "9007199254740993.0", "1.100", "120e2"}:
        assert found(index, f"{name}={asked}") == [row for row, text in enumerate(TEXTS[name]) if text == asked]


@pytest.mark.parametrize("ends", [("5", "19.9"), ("5.01", "19.99"), ("0", "1000"), ("12.5", "12.5")])
def test_prices_have_ranges(index, ends):
    expected = [row for row, text in enumerate(PRICES) if text and float(ends[0]) <= float(text) <= float(ends[1])]
    assert found(index, f"price>={ends[0]}", f"price<={ends[1]}") == expected


@every_kind
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, object])
def test_an_integer_that_float64_does_not_hold_is_refused(kind, dtype):
    values = np.array([1, 2**53 + 1], dtype)
    with pytest.raises(CatalogIndexError, match=r"`attributes\['id'\]` must hold numbers .*9007199254740993 in row 1"):
        kind.build(unit_vectors(2), ["mug", "cup"], attributes={"id": values})


@every_kind
def test_conditions_above_two_to_the_53_are_exact(kind):
    """2**53 + 1 lies between two floats: no photo has it, and it bounds as it stands."""
    index = kind.build(unit_vectors(3), range(3), attributes={"n": [2**53, 2**53 + 2, None]})
    odd = 2**53 + 1

    def rows(condition):
        return sorted(index.search(unit_vectors(1), k=3, where={"n": condition}).photos.reshape(-1).tolist())

    for value in (odd, np.int64(odd), np.uint64(odd), np.array(odd)):
        assert rows(value) == rows([value]) == []
        assert rows({"min": value}) == ["1"]
        assert rows({"max": value}) == ["0"]
    assert rows([odd, odd + 1]) == ["1"]
    assert rows({"max": 10**400}) == ["0", "1"] and rows(10**400) == []


def test_floats_around_a_number():
    """By Python's own comparison of int and float, which is exact."""
    rng = np.random.default_rng(0)
    for number in [*map(int, rng.integers(2**53, 2**62, 200)), 10**400, -(10**400), 0, 2.5, float("inf")]:
        least, largest = least_float(number), largest_float(number)
        assert largest <= number <= least
        assert as_float(number) == (least if least == number else None)
        assert least == largest or math.nextafter(largest, math.inf) == least


@pytest.mark.parametrize("values", [[1, 2.5, None], [np.int64(3), np.float32(0.5), np.float64(1)], np.array([1, 2, 3])])
def test_numbers_of_all_types_are_one_kind(values):
    assert ExactIndex.build(unit_vectors(3), range(3), attributes={"n": values}).attributes == {"n": "number"}


@pytest.mark.parametrize(
    "where",
    [
        {"n": np.str_("x")},
        {"n": np.array(["x", "y"])},
        {"n": [np.float64("nan")]},
        {"colour": np.array([1, 2])},
        {"n": {"min": np.str_("x")}},
    ],
    ids=str,
)
def test_messages_show_values_as_a_person_writes_them(where):
    index = ExactIndex.build(unit_vectors(2), range(2), attributes={"n": [1, 2], "colour": ["red", "blue"]})
    with pytest.raises(CatalogIndexError, match="`where") as refused:
        index.search(unit_vectors(1), where=where)
    assert "np." not in str(refused.value) and "array(" not in str(refused.value)
