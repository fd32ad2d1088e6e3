"""Retrieval figures against plain sorting loops: ties, galleries, queries without an answer, blocks, and refusals."""

import numpy as np
import pytest

from eet_tf import evaluate_retrieval
from eet_tf.evaluation import metrics
from tests import reference

NAMES = ("map@r", "r_precision")


def make_embeddings(rows, seed, dim=6):
    return np.random.default_rng(seed).normal(size=[rows, dim])


def make_labels(rows, seed, num_classes=9):
    """Uneven classes in no order: low numbers are common, some high ones stand alone."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.3, size=rows), num_classes) * 7 - 3


def assert_equals_loops(embeddings, labels, ks, gallery=None, gallery_labels=None):
    result = evaluate_retrieval(embeddings, labels, ks, gallery, gallery_labels)
    assert set(result) == {*[f"recall@{k}" for k in ks], *NAMES, "num_queries", "num_without_answer"}
    unit = reference.unit(np.asarray(embeddings, np.float64))
    unit_gallery = None if gallery is None else reference.unit(np.asarray(gallery, np.float64))
    for k in ks:
        recall, average, r_precision, answered = reference.retrieval(unit, labels, k, unit_gallery, gallery_labels)
        assert result[f"recall@{k}"] == pytest.approx(recall)
        assert [result[name] for name in NAMES] == pytest.approx([average, r_precision])
        assert (result["num_queries"], result["num_without_answer"]) == (answered, len(labels) - answered)
    return result


@pytest.mark.parametrize("seed", range(5))
def test_equals_loops_with_itself_as_gallery(seed):
    labels = make_labels(40, seed)
    embeddings = make_embeddings(40, seed) + 1.5 * np.eye(6)[labels % 6]
    result = assert_equals_loops(embeddings, labels, ks=[1, 2, 5, 39])
    assert 0 < result["recall@1"] < result["recall@5"] <= 1


@pytest.mark.parametrize("seed", range(5))
def test_equals_loops_with_a_gallery(seed):
    queries, gallery = make_embeddings(23, seed), make_embeddings(31, seed + 100)
    assert_equals_loops(queries, make_labels(23, seed), [1, 3, 10], gallery, make_labels(31, seed + 100))


@pytest.mark.parametrize("seed", range(5))
def test_equals_loops_where_most_scores_tie(seed):
    """Directions along an axis, so that every score is exactly -1, 0 or 1."""
    rng = np.random.default_rng(seed)
    embeddings = np.eye(3)[rng.integers(3, size=25)] * rng.choice([-2.0, 1.0], size=[25, 1])
    gallery = np.eye(3)[rng.integers(3, size=12)]
    labels, gallery_labels = make_labels(25, seed), make_labels(12, seed + 1)
    assert_equals_loops(embeddings, labels, ks=[1, 2, 5])
    assert_equals_loops(embeddings, labels, [1, 2, 5], gallery, gallery_labels)


def assert_each_query_equals_loops(result, embeddings, labels, gallery_of):
    """`gallery_of(query)` gives the vectors and labels that this query alone is ranked against."""
    embeddings = reference.unit(embeddings)
    for query, label in enumerate(labels):
        gallery, gallery_labels = gallery_of(query)
        figures = result.first_places[query], result.average_precisions[query], result.r_precisions[query]
        if label not in gallery_labels:
            np.testing.assert_array_equal(figures, [0, np.nan, np.nan])
            continue
        arguments = embeddings[[query]], labels[[query]]
        looked_at = [reference.retrieval(*arguments, k, reference.unit(gallery), gallery_labels) for k in range(1, 40)]
        first_place = 1 + [recall for recall, *_ in looked_at].index(1.0)
        assert figures == pytest.approx((first_place, *looked_at[0][1:3]))


@pytest.mark.parametrize("seed", range(3))
def test_each_query_is_ranked_as_by_itself(seed):
    embeddings, labels = make_embeddings(40, seed), make_labels(40, seed)
    result = metrics.rank_queries(embeddings, labels)
    np.testing.assert_array_equal(result.labels, labels)
    assert_each_query_equals_loops(
        result, embeddings, labels, lambda query: (np.delete(embeddings, query, 0), np.delete(labels, query))
    )
    gallery, gallery_labels = make_embeddings(31, seed + 100), make_labels(31, seed + 100)
    result = metrics.rank_queries(embeddings, labels, gallery, gallery_labels)
    assert_each_query_equals_loops(result, embeddings, labels, lambda query: (gallery, gallery_labels))


def test_sums_of_classes_are_those_of_their_queries():
    """Labels 0 to 3 in the queries; the gallery has no 2."""
    embeddings, gallery = make_embeddings(60, 5), make_embeddings(20, 6)
    labels = np.random.default_rng(5).integers(4, size=60)
    result = metrics.rank_queries(embeddings, labels, gallery, np.arange(20) % 5 + 3 * (np.arange(20) % 5 == 2))
    classes, num_queries, sums = result.by_class(ks=[1, 5])
    assert classes.tolist() == [0, 1, 3]
    assert list(sums) == ["recall@1", "recall@5", *NAMES]
    for row, label in enumerate(classes):
        own = [query for query in range(60) if labels[query] == label]
        assert num_queries[row] == len(own)
        assert sums["recall@1"][row] == len([query for query in own if result.first_places[query] == 1])
        assert sums["recall@5"][row] == len([query for query in own if result.first_places[query] <= 5])
        assert sums["map@r"][row] == pytest.approx(sum(result.average_precisions[query] for query in own))
        assert sums["r_precision"][row] == pytest.approx(sum(result.r_precisions[query] for query in own))
    assert [sums[name].dtype for name in sums] == [np.int64, np.int64, np.float64, np.float64]


def test_one_ranking_gives_the_means_and_the_sums_of_classes():
    embeddings, labels = make_embeddings(40, 1), make_labels(40, 1)
    result = metrics.rank_queries(embeddings, labels)
    summary = result.summary(ks=[1, 5])
    assert summary == evaluate_retrieval(embeddings, labels, ks=[1, 5])
    _, num_queries, sums = result.by_class(ks=[1, 5])
    assert num_queries.sum() == summary["num_queries"] < len(labels)
    for name, values in sums.items():
        assert values.sum() / num_queries.sum() == pytest.approx(summary[name])


def test_each_product_counts_once_among_products():
    """Classes of 2 to 9 photos, so that a mean over photos would be another number."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat(np.arange(12), np.arange(12) // 2 + 2))
    embeddings = rng.normal(size=[12, 6])[labels] + 1.5 * rng.normal(size=[len(labels), 6])
    embeddings = embeddings.astype(np.float32)
    places = {}
    for query, label in enumerate(labels):
        others = np.arange(len(labels)) != query
        place = reference.place_of_product(embeddings[query], label, embeddings[others], labels[others])
        places.setdefault(label, []).append(place)
    found = metrics.rank_queries(embeddings, labels).of_products(ks=(1, 3))
    for k in (1, 3):
        expected = np.mean([np.mean(np.array(of_product) <= k) for of_product in places.values()])
        assert found[f"product_recall@{k}"] == pytest.approx(expected)
        assert expected != pytest.approx(np.mean(np.concatenate(list(places.values())) <= k), abs=1e-3)
    assert found["num_products"] == 12


def test_figures_of_a_group_are_the_means_of_its_queries():
    """Each query is still ranked against all; a group whose queries have no answer is left out."""
    embeddings, labels = make_embeddings(60, 5), make_labels(60, 5)
    labels[:3] = [1000, 1001, 1002]
    groups = np.array(["hats", "bags", "shoes"])[np.random.default_rng(6).integers(3, size=60)]
    groups[:2], groups[2] = "scarves", "hats"
    result = metrics.rank_queries(embeddings, labels)
    summaries = result.by_group(groups, ks=[1, 5])
    assert list(summaries) == ["bags", "hats", "shoes"]
    for group, summary in summaries.items():
        own = [query for query in range(60) if groups[query] == group and result.first_places[query]]
        assert list(summary) == list(result.summary(ks=[1, 5]))
        assert summary["recall@5"] == pytest.approx(np.mean([result.first_places[query] <= 5 for query in own]))
        assert summary["map@r"] == pytest.approx(np.mean([result.average_precisions[query] for query in own]))
        assert summary["num_queries"] == len(own)
        assert summary["num_queries"] + summary["num_without_answer"] == np.sum(groups == group)
    assert summaries["hats"]["num_without_answer"] >= 1


def test_numbers_of_groups_become_text():
    result = metrics.rank_queries(make_embeddings(6, 0), [0, 0, 1, 1, 2, 2])
    assert list(result.by_group(np.array([7, 7, 3, 3, 7, 3]), ks=[1])) == ["3", "7"]


@pytest.mark.parametrize("groups", [["a"] * 5, [["a"] * 6]])
def test_groups_that_are_not_one_for_each_query_are_refused(groups):
    result = metrics.rank_queries(make_embeddings(6, 0), [0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match=r"`groups` must be \[6\], one for each photo. Received: shape"):
        result.by_group(groups, ks=[1])


def test_an_embedder_that_maps_everything_to_one_point_finds_nothing():
    """Every wrong answer ties with the right ones and so stands before them."""
    labels = np.arange(50) % 5
    result = evaluate_retrieval(np.tile([0.3, -0.7, 0.2], [50, 1]), labels, ks=[1, 10])
    assert [result[name] for name in ("recall@1", "recall@10", *NAMES)] == [0.0] * 4


def test_a_perfect_embedder_finds_everything():
    labels = np.arange(20) % 4
    result = evaluate_retrieval(np.eye(4)[labels], labels, ks=[1])
    assert [result[name] for name in ("recall@1", *NAMES)] == [1.0] * 3


def test_a_worked_example():
    """One query at angle 0; the gallery at 10, 20, 30, 40 degrees is wrong, right, wrong, right. The first right
    answer stands second: R@1 = 0, R@2 = 1. R = 2 and within the first two places one is right: R-precision 1/2,
    mAP@R = (1/2) * (precision 1/2 at place 2) = 1/4."""
    angles = np.deg2rad([10, 20, 30, 40])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    result = evaluate_retrieval([[1.0, 0.0]], ["a"], [1, 2], gallery, ["b", "a", "b", "a"])
    expected = {"recall@1": 0.0, "recall@2": 1.0, "map@r": 0.25, "r_precision": 0.5}
    assert result == pytest.approx({**expected, "num_queries": 1, "num_without_answer": 0})


def test_a_query_is_left_out_by_position_so_that_a_duplicate_counts():
    """Rows 0 and 1 are the same photo under two labels, row 2 a third one: for row 0 the duplicate is a wrong first."""
    embeddings = [[1.0, 0.0], [1.0, 0.0], [0.9, 0.5]]
    result = evaluate_retrieval(embeddings, ["a", "b", "a"], ks=[1])
    assert (result["recall@1"], result["num_queries"], result["num_without_answer"]) == (0.0, 2, 1)


def test_with_a_gallery_nothing_is_left_out():
    embeddings = make_embeddings(12, 3)
    labels = np.arange(12)
    result = evaluate_retrieval(embeddings, labels, [1], embeddings, labels)
    assert (result["recall@1"], result["num_queries"]) == (1.0, 12)


def test_queries_without_an_answer_are_counted_and_left_out():
    result = evaluate_retrieval([[1.0, 0.0], [0.0, 1.0]], ["a", "z"], [1], [[1.0, 0.1], [0.0, 1.0]], ["a", "b"])
    assert (result["recall@1"], result["num_queries"], result["num_without_answer"]) == (1.0, 1, 1)


def test_length_of_an_embedding_does_not_matter():
    embeddings, labels = make_embeddings(40, 2), make_labels(40, 2)
    longer = embeddings * np.linspace(0.01, 50, 40)[:, np.newaxis]
    assert evaluate_retrieval(longer, labels, [1]) == pytest.approx(evaluate_retrieval(embeddings, labels, [1]))


def test_labels_may_be_names():
    embeddings, labels = make_embeddings(40, 2), make_labels(40, 2)
    names = [f"sku-{label}" for label in labels]
    assert evaluate_retrieval(embeddings, names, [1]) == evaluate_retrieval(embeddings, labels, [1])


def test_k_beyond_the_gallery_finds_every_answer():
    result = evaluate_retrieval(make_embeddings(10, 0), np.arange(10) % 2, ks=[1000])
    assert result["recall@1000"] == 1.0


def test_its_arguments_are_left_as_they_were():
    embeddings, labels = make_embeddings(10, 0).astype(np.float32), np.arange(10) % 2
    before = embeddings.copy()
    evaluate_retrieval(embeddings, labels, ks=[1])
    np.testing.assert_array_equal(embeddings, before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([1.0, 2.0], [0, 0]), r"`embeddings` must be \[N, D\] and `labels` \[N\]. Received: shapes \(2,\) and \(2,\)"),
        (([[1.0], [2.0]], [0, 0, 0]), r"Received: shapes \(2, 1\) and \(3,\)"),
        (([[1.0], [2.0]], [[0, 0], [0, 0]]), r"`labels` must be \[N\]. Received: shape \(2, 2\)"),
        (([[1.0], [0.0]], [0, 0]), "`embeddings` must be finite and not zero. Received: row 1 is not"),
        (([[np.nan], [1.0]], [0, 0]), "`embeddings` must be finite and not zero. Received: row 0 is not"),
        (([[1.0], [np.inf]], [0, 0]), "`embeddings` must be finite and not zero. Received: row 1 is not"),
        (([[1.0], [2.0]], [0, 1]), "`labels` must repeat: no query has a right answer"),
        (([[1.0]], [0], [1], [[1.0]], None), "`gallery_embeddings` and `gallery_labels` must be given together"),
        (([[1.0]], [0], [1], None, [0]), "`gallery_embeddings` and `gallery_labels` must be given together"),
        (([[1.0]], [0], [1], [[1.0, 2.0]], [0]), "the same dimension. Received: 1 and 2"),
        (([[1.0]], [0], [1], [[0.0]], [0]), "`gallery_embeddings` must be finite and not zero. Received: row 0"),
        (([[1.0]], [0], [1], [[1.0]], [0, 1]), r"`gallery_embeddings` must be \[N, D\] and `gallery_labels` \[N\]"),
    ],
)
def test_what_cannot_be_ranked_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(*arguments)
