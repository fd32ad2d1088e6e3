"""The ranking in blocks against plain loops: any shape, any tie, any size of block; and the memory that it takes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.memory import PeakMemory
from eet_tf.evaluation import metrics, ranking
from tests import reference


def spread(rng, rows, dim):
    return rng.normal(size=[rows, dim])


def whole_numbers(rng, rows, dim):
    """Many scores are equal, though few vectors are."""
    vectors = rng.integers(-2, 3, size=[rows, dim])
    vectors[~vectors.any(axis=1), 0] = 1
    return vectors


def copies(rng, rows, dim):
    """A few photos again and again, of several lengths; doubling and halving is exact."""
    return rng.normal(size=[4, dim])[rng.integers(4, size=rows)] * 2.0 ** rng.integers(-20, 20, size=[rows, 1])


def one_point(rng, rows, dim):
    return np.tile(rng.normal(size=dim), [rows, 1])


def near_one_point(rng, rows, dim):
    """All cosines within 1e-5 of 1: float32 products cannot tell them apart."""
    return 1 + 1e-3 * rng.normal(size=[rows, dim])


KINDS = [spread, whole_numbers, copies, one_point, near_one_point]
SIZES = {"_CHUNK": [1, 2, 3, 64], "_SCORES_AT_ONCE": [1, 100, 2**24], "_ROWS": [(1, 3), (5, 1024)]}
SIZES |= {"_CROWD": [0, 3, 1024], "_PAIRS_AT_ONCE": [1, 7, 128], "_COLUMNS_AT_ONCE": [1, 9, 2**12]}


def draw_labels(rng, rows):
    """Classes of very different sizes, some of one photo, in no order; as numbers or as names."""
    labels = np.minimum(rng.geometric(rng.choice([0.05, 0.3, 0.7]), size=rows), rng.integers(1, 40))
    return np.array([f"sku {label}" for label in labels]) if rng.integers(2) else labels


def assert_equals_loops(embeddings, labels, gallery=None, gallery_labels=None):
    """Every figure of every query; the gallery is all others if none is given."""
    embeddings = np.asarray(embeddings, np.float32)
    alone = gallery is None
    gallery, gallery_labels = (embeddings, labels) if alone else (np.asarray(gallery, np.float32), gallery_labels)
    rows = np.arange(len(gallery))
    expected, of_products = [], []
    for query, label in enumerate(labels):
        others = rows[rows != query] if alone else rows
        places = reference.places_of_right(embeddings[query], label, gallery[others], gallery_labels[others])
        expected.append(reference.figures_of_places(places))
        found = reference.place_of_product(embeddings[query], label, gallery[others], gallery_labels[others])
        of_products.append(found)
    given_gallery = (None, None) if alone else (gallery, gallery_labels)
    if not any(first for first, *_ in expected):
        with pytest.raises(ValueError, match="no query has a right answer"):
            metrics.rank_queries(embeddings, labels, *given_gallery)
        return
    result = metrics.rank_queries(embeddings, labels, *given_gallery)
    figures = result.first_places, result.average_precisions, result.r_precisions
    np.testing.assert_array_equal(result.first_places, [first for first, *_ in expected])
    np.testing.assert_array_equal(result.product_places, of_products)
    np.testing.assert_allclose(np.transpose(figures), expected, rtol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    rows=st.integers(2, 60),
    dim=st.integers(1, 9),
    gallery_rows=st.none() | st.integers(1, 60),
    sizes=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SIZES.items()}),
)
def test_equals_loops(seed, kind, rows, dim, gallery_rows, sizes):
    rng = np.random.default_rng(seed)
    embeddings, labels = kind(rng, rows + (gallery_rows or 0), dim), draw_labels(rng, rows + (gallery_rows or 0))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in sizes.items():
            patch.setattr(ranking, name, value)
        if gallery_rows is None:
            assert_equals_loops(embeddings, labels)
        else:
            assert_equals_loops(embeddings[:rows], labels[:rows], embeddings[rows:], labels[rows:])


@pytest.mark.parametrize("kind", KINDS)
def test_equals_loops_at_the_sizes_that_are_set(kind):
    """700 photos have 11 chunks, so that classes of up to 2 other photos are ranked by float32 first."""
    rng = np.random.default_rng(0)
    assert_equals_loops(kind(rng, 700, 24), rng.integers(300, size=700))


def test_copies_count_against_us_wherever_they_stand():
    """Each photo is there 7 times, each time as another product beside a right one a little off: BLAS scores the copies
    differently in their last digits, some above the right answer and some below. All 6 wrong copies come first."""
    rng = np.random.default_rng(0)
    photos = rng.normal(size=[150, 67]).astype(np.float32)
    embeddings, labels = np.tile(photos, [14, 1]), np.arange(14 * 150) % (7 * 150)
    order = rng.permutation(len(labels))
    result = metrics.rank_queries(embeddings[order], labels[order])
    assert set(result.first_places) == {13}  # 12 copies of the 6 other products, then the own one
    assert result.summary(ks=[1, 12, 13]) == pytest.approx(
        {"recall@1": 0, "recall@12": 0, "recall@13": 1, "map@r": 0, "r_precision": 0}
        | {"num_queries": len(labels), "num_without_answer": 0}
    )


def test_what_float32_products_cannot_tell_apart_is_told_apart():
    """The right answer is nearer than 2,000 wrong ones by 1e-8, a tenth of what float32 resolves near 1."""
    angles = np.full(2001, 2e-4)
    angles[1000] = 1.5e-4
    gallery = np.stack([np.cos(angles), np.sin(angles), np.zeros(2001)], axis=1).astype(np.float32)
    labels = (np.arange(2001) == 1000).astype(int)
    result = metrics.rank_queries([[1.0, 0.0, 0.0]], [1], gallery, labels)
    assert result.first_places.tolist() == [1]


def test_a_ranking_is_the_same_from_either_way(monkeypatch):
    """By float32 first, or all in float64."""
    rng = np.random.default_rng(0)
    labels = rng.integers(400, size=3000)
    embeddings = rng.normal(size=[3000, 32]) + rng.normal(size=[400, 32])[labels]
    first = metrics.rank_queries(embeddings, labels)
    monkeypatch.setattr(ranking, "_CHUNK", 10**6)
    second = metrics.rank_queries(embeddings, labels)
    np.testing.assert_array_equal(first.first_places, second.first_places)
    np.testing.assert_allclose(first.average_precisions, second.average_precisions, rtol=1e-12)
    np.testing.assert_array_equal(first.r_precisions, second.r_precisions)


def report(num_classes, closeness):
    """Runs in a process of its own: megabytes over the embeddings, 12,000 x 64 in so many classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(num_classes, size=12_000)
    embeddings = (1 + rng.normal(size=[12_000, 64]) / closeness).astype(np.float32)
    metrics.rank_queries(embeddings[:500], labels[:500] % 9)
    with PeakMemory() as memory:
        metrics.rank_queries(embeddings, labels)
    print(json.dumps(memory.megabytes))


@pytest.mark.parametrize("num_classes, closeness", [(2000, 1), (2, 1), (2000, 1e6)], ids=["few", "many", "crowded"])
def test_memory_does_not_grow_with_the_square(num_classes, closeness, run_python):
    """All scores of 12,000 against 12,000 would be 576 MB, and as many labels compared 144 MB."""
    (printed,) = run_python(
        f"from tests.evaluation import test_ranking; test_ranking.report({num_classes}, {closeness})", fresh=True
    )
    assert 1 < json.loads(printed.splitlines()[-1]) < 200
