"""A promised recall: measured against exact answers, kept, and refused where it cannot be had."""

import numpy as np
import pytest

from eet_tf.index import CatalogIndexError, ExactIndex, ScannConfiguration, ScannIndex, load_index, tuning

SIZE, DIM = 4_000, 32
TREE = ScannConfiguration(num_candidates=200, num_leaves=50, num_leaves_to_search=5)


def make_vectors(count, seed):
    """Products of a few photos each, close to one another, in directions of every kind."""
    centres = np.random.default_rng(0).normal(size=(SIZE // 4, DIM))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(len(centres), size=count)] + 0.4 * rng.normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return make_vectors(SIZE, 1)


def recall_of(index, queries):
    exact = ExactIndex.build(index.embeddings, index.skus, index.photos)
    found, true = (each.search(queries, k=10).photos.tolist() for each in (index, exact))
    return np.mean([len(set(ours) & set(theirs)) / 10 for ours, theirs in zip(found, true, strict=True)])


@pytest.mark.parametrize("target", [0.8, 0.99])
def test_the_promise_holds_for_queries_that_it_never_saw(target, vectors, tmp_path):
    index = ScannIndex.build(vectors, range(SIZE), configuration=TREE, target_recall=target)
    recall = index.recall
    assert (recall["target"], recall["k"], recall["num_queries"]) == (target, 10, 1_000)
    assert recall["recall"] >= target
    assert abs(recall_of(index, make_vectors(1_000, 2)) - recall["recall"]) < 0.03
    assert index.configuration.num_leaves == 50
    assert {"leaves", "candidates", "recall", "queries_per_second"} == set(recall["curve"][0])
    chosen = (index.configuration.num_candidates, index.configuration.num_leaves_to_search)
    assert chosen in [(row["candidates"], row["leaves"]) for row in recall["curve"]]
    index.save(tmp_path)
    loaded = load_index(tmp_path)
    assert loaded.recall == recall and loaded.configuration == index.configuration


def test_more_recall_takes_more_leaves(vectors):
    leaves = []
    for target in (0.7, 0.999):
        curve = ScannIndex.build(vectors, range(SIZE), configuration=TREE, target_recall=target).recall["curve"]
        leaves.append(min(row["leaves"] for row in curve if row["recall"] >= target))
    assert leaves[0] < leaves[1]


def test_a_target_out_of_reach_is_refused(vectors, monkeypatch):
    monkeypatch.setattr(tuning, "_CANDIDATES", (12,))
    with pytest.raises(CatalogIndexError, match=r"`target_recall` must be within reach. .*the most .* is 0\.\d+"):
        ScannIndex.build(vectors, range(SIZE), configuration=ScannConfiguration(12, 50, 5), target_recall=1.0)


def test_a_small_catalogue_is_searched_exactly_and_says_so():
    vectors = make_vectors(300, 3)
    index = ScannIndex.build(vectors, range(300), target_recall=0.95)
    assert index.is_exact and index.recall["recall"] == 1.0 and index.recall["curve"] == []


@pytest.mark.parametrize("count", [1, 2, 11])
def test_a_tiny_catalogue(count):
    index = ScannIndex.build(make_vectors(count, 3), range(count), target_recall=1.0)
    assert index.search(make_vectors(1, 4), k=20).photos.shape == (1, count)


def test_rows_are_judged_among_the_others(vectors):
    """A row is its own nearest neighbour: to find that one says nothing."""
    judge = tuning._Judge(*_held([3, 70], vectors))

    class Itself:
        def search(self, queries, k):
            rows = np.stack([[3] + [3_999] * (k - 1), [70] + [3_998] * (k - 1)])
            return rows, None

    assert judge.recall(Itself()) < 0.11


def _held(rows, vectors):
    from eet_tf.index.storage import Vectors

    return Vectors(vectors), vectors[rows], np.asarray(rows)


def test_given_queries_are_used(vectors):
    queries = make_vectors(400, 5)
    index = ScannIndex.build(
        vectors, range(SIZE), configuration=TREE, target_recall=0.9, tuning_queries=queries.astype(np.float64)
    )
    assert (index.recall["num_queries"], index.recall["queries"]) == (200, "given")
    assert index.recall["recall"] == pytest.approx(recall_of(index, queries[1::2]))


def test_compacted_it_keeps_the_promise(vectors, tmp_path):
    index = ScannIndex.build(vectors, range(SIZE), configuration=TREE, target_recall=0.9)
    index.save(tmp_path)
    index.delete(photos=[str(row) for row in range(1_000)])
    index.compact()
    assert load_index(tmp_path).recall["recall"] >= 0.9
    assert recall_of(index, make_vectors(500, 2)) > 0.85


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"target_recall": 0}, "`target_recall` must be a share"),
        ({"target_recall": 95}, "`target_recall` must be a share"),
        ({"target_recall": True}, "`target_recall` must be a share"),
        ({"target_recall": "0.9"}, "`target_recall` must be a share"),
        ({"tuning_queries": make_vectors(200, 5)}, "`tuning_queries` must come with `target_recall`"),
        ({"target_recall": 0.9, "tuning_queries": make_vectors(99, 5)}, "`tuning_queries` must be at least 100"),
        ({"target_recall": 0.9, "tuning_queries": make_vectors(200, 5)[:, :9]}, "index's 32 dimensions"),
    ],
)
def test_refused_before_anything_is_built(arguments, message, vectors, monkeypatch):
    monkeypatch.setattr(tuning, "tuned", None)
    with pytest.raises(CatalogIndexError, match=message):
        ScannIndex.build(vectors, range(SIZE), configuration=TREE, **arguments)


# Candidates by the first dimensions


def nested_vectors(count, seed):
    """As an embedder that was trained on prefixes makes them: leading dimensions vary more than those behind them."""
    rng, scales = np.random.default_rng(seed), 1 / np.sqrt(1 + np.arange(64))
    centres = np.random.default_rng(0).normal(size=(SIZE // 4, 64))
    vectors = (centres[rng.integers(len(centres), size=count)] + 0.4 * rng.normal(size=(count, 64))) * scales
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_a_prefix_finds_what_all_dimensions_put_into_order(storage, tmp_path):
    """The promise is of all dimensions, the scores too; more candidates than all are not asked for."""
    vectors = nested_vectors(SIZE, 1)
    asked = ScannConfiguration(200, 50, 5, search_prefix=16)
    index = ScannIndex.build(vectors, range(SIZE), configuration=asked, target_recall=0.9, storage=storage)
    assert index.configuration.search_prefix == 16 and not index.is_exact
    queries = nested_vectors(500, 2)
    assert recall_of(index, queries) > 0.87
    found = index.search(queries[:9], k=5)
    kept = index.embeddings.astype(np.float64)
    for query, photos, scores in zip(queries, found.photos, found.scores):
        expected = [float(kept[int(photo)] @ query) for photo in photos]
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        assert expected == sorted(expected, reverse=True)
    index.save(tmp_path)
    loaded = load_index(tmp_path)
    assert loaded.configuration == index.configuration
    assert loaded.search(queries, k=7).photos.tolist() == index.search(queries, k=7).photos.tolist()


def test_more_recall_takes_more_candidates_or_leaves_of_a_prefix():
    vectors, chosen = nested_vectors(SIZE, 1), []
    for target in (0.5, 0.99):
        asked = ScannConfiguration(200, 50, 5, search_prefix=8)
        index = ScannIndex.build(vectors, range(SIZE), configuration=asked, target_recall=target)
        assert index.recall["recall"] >= target
        chosen.append(index.configuration)
    assert chosen[0].num_candidates * chosen[0].num_leaves_to_search < (
        chosen[1].num_candidates * chosen[1].num_leaves_to_search
    )


def test_a_prefix_is_left_out_where_all_is_compared_and_used_where_it_is_not(monkeypatch):
    from eet_tf.index import scann

    vectors = nested_vectors(SIZE, 1)
    assert ScannIndex.build(vectors, range(SIZE), search_prefix=16).is_exact
    monkeypatch.setattr(scann, "_BRUTE_FORCE_BELOW", 1_000)
    index = ScannIndex.build(vectors, range(SIZE), search_prefix=16)
    assert index.configuration == ScannConfiguration(200, search_prefix=16)
    index.delete(photos=[str(row) for row in range(3_500)])
    index.compact()
    assert index.is_exact and index.size == 500


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"search_prefix": 0}, "`search_prefix` must be a number of leading dimensions"),
        ({"search_prefix": 16, "configuration": TREE}, "`search_prefix` must stand in `configuration`"),
        ({"configuration": ScannConfiguration(200, search_prefix=33)}, "at most the vectors' 32 dimensions"),
        ({"configuration": ScannConfiguration(search_prefix=3)}, "with candidates"),
    ],
)
def test_a_prefix_that_cannot_be_is_refused(arguments, message, vectors):
    with pytest.raises(CatalogIndexError, match=message):
        ScannIndex.build(vectors, range(SIZE), **arguments)


def test_a_search_cannot_have_another_prefix(vectors):
    index = ScannIndex.build(vectors, range(SIZE), configuration=ScannConfiguration(200, search_prefix=16))
    with pytest.raises(CatalogIndexError, match="the prefix of the index"):
        index.with_configuration(ScannConfiguration(200, search_prefix=8))
