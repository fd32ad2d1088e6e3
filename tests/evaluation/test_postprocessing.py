"""Query expansion, whitening and re-ranking against plain loops and known truths; and what is refused."""

import json

import numpy as np
import pytest

from benchmarks.memory import PeakMemory
from eet_tf.evaluation import metrics, postprocessing
from eet_tf.evaluation.postprocessing import Whitening, expand_queries, fit_whitening, rerank
from tests import reference


def make_embeddings(rows, seed, dim=6, num_classes=7):
    """Unit vectors around a few centres; `(embeddings, labels)`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=rows)
    centres = np.random.default_rng(99).normal(size=[num_classes, dim])
    return reference.unit(centres[labels] + 0.7 * rng.normal(size=[rows, dim])).astype(np.float32), labels


@pytest.fixture(params=[1, 2**24], ids=["small blocks", "one block"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(postprocessing, "_SCORES_AT_ONCE", 60 * request.param)
    monkeypatch.setattr(postprocessing, "_MAX_ROWS", 3 if request.param == 1 else 256)


# Query expansion


@pytest.mark.parametrize("num_neighbors, alpha", [(1, 0), (4, 3.0), (10, 0.5), (100, 1)])
def test_expanded_queries_equal_loops(num_neighbors, alpha, blocks):
    queries, gallery = make_embeddings(11, 0)[0], make_embeddings(23, 1)[0]
    expected = [reference.expanded_query(query, gallery, num_neighbors, alpha) for query in queries]
    np.testing.assert_allclose(expand_queries(3 * queries, gallery * 0.5, num_neighbors, alpha), expected, atol=1e-5)
    expected = [
        reference.expanded_query(query, queries, num_neighbors, alpha, row) for row, query in enumerate(queries)
    ]
    np.testing.assert_allclose(expand_queries(queries, None, num_neighbors, alpha), expected, atol=1e-5)


def test_neighbours_on_the_far_side_are_not_added():
    """A negative cosine to a broken power would be no number."""
    np.testing.assert_array_equal(expand_queries([[1.0, 0.0]], [[-0.6, 0.8]], 1, alpha=2.5), [[1.0, 0.0]])


def test_expanded_queries_leave_themselves_out_of_the_ranking():
    embeddings, labels = make_embeddings(40, 3)
    expanded = expand_queries(embeddings, None, num_neighbors=3)
    result = metrics.rank_queries(expanded, labels, embeddings, labels, leave_out_self=True)
    for query in range(40):
        others = np.delete(np.arange(40), query)
        places = reference.places_of_right(expanded[query], labels[query], embeddings[others], labels[others])
        figures = result.first_places[query], result.average_precisions[query], result.r_precisions[query]
        assert figures == pytest.approx(reference.figures_of_places(places))


# Whitening


def test_whitened_embeddings_have_no_mean_and_vary_alike():
    """Before they come to unit length."""
    embeddings = np.random.default_rng(0).normal(size=[5000, 5]) @ np.random.default_rng(1).normal(size=[5, 5]) + 3
    whitening = fit_whitening(embeddings)
    whitened = (embeddings - whitening.mean) @ whitening.projection
    np.testing.assert_allclose(whitened.mean(axis=0), np.zeros(5), atol=1e-4)
    np.testing.assert_allclose(whitened.T @ whitened / 5000, np.eye(5), atol=1e-3)
    applied = whitening.apply(embeddings)
    np.testing.assert_allclose(applied, reference.unit(whitened), atol=1e-5)
    assert applied.dtype == np.float32


def test_the_directions_kept_are_those_in_which_they_vary_most():
    embeddings = np.random.default_rng(0).normal(size=[2000, 4]) * [1.0, 9.0, 0.1, 4.0]
    projection = fit_whitening(embeddings, dim=2).projection
    np.testing.assert_allclose(np.abs(projection[[1, 3]]), np.diag([1 / 9, 1 / 4]), rtol=0.1, atol=0.01)
    assert np.abs(projection[[0, 2]]).max() < 0.02


def test_directions_in_which_nothing_varies_are_left_out():
    embeddings = np.random.default_rng(0).normal(size=[100, 3]) @ np.random.default_rng(1).normal(size=[3, 8])
    assert fit_whitening(embeddings).dim == 3
    with pytest.raises(ValueError, match="`dim` must be from 1 to 3, .* Received: dim=4"):
        fit_whitening(embeddings, dim=4)


def test_a_photo_at_the_mean_becomes_no_nan():
    whitening = fit_whitening(np.random.default_rng(0).normal(size=[50, 3]))
    assert np.isfinite(whitening.apply([whitening.mean])).all()


def test_a_whitening_comes_back_from_its_file(tmp_path):
    whitening = fit_whitening(np.random.default_rng(0).normal(size=[50, 6]), dim=4)
    whitening.write(tmp_path / "new" / "whitening.npz")
    again = Whitening.read(tmp_path / "new" / "whitening.npz")
    np.testing.assert_array_equal(again.mean, whitening.mean)
    np.testing.assert_array_equal(again.projection, whitening.projection)
    assert again.dim == 4


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off", None], ids=str)
def test_files_that_are_no_whitening_are_refused(content, tmp_path):
    file = tmp_path / "whitening.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"whitening\.npz' is no whitening: .* Make one with"):
        Whitening.read(file)


def test_archives_of_something_else_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    np.save(tmp_path / "other.npy", np.zeros(3))
    for name in ("other.npz", "other.npy"):
        with pytest.raises(ValueError, match="is no whitening"):
            Whitening.read(tmp_path / name)


# Re-ranking

SETTINGS = {"num_candidates": 9, "k1": 5, "k2": 3, "original_weight": 0.3}


@pytest.mark.parametrize(
    "changed", [{}, {"k2": 1}, {"k1": 8}, {"k1": 1}, {"num_candidates": 1000}, {"k1": 100}], ids=str
)
@pytest.mark.parametrize("seed", range(2))
def test_reranking_equals_loops(changed, seed, blocks):
    settings = SETTINGS | changed
    queries, gallery = make_embeddings(8, seed)[0], make_embeddings(29, seed + 10)[0]
    photos = np.concatenate([queries, gallery])
    expected = reference.reranked(photos, range(8), range(8, 37), **settings)
    rows, distances = rerank(queries, gallery, **settings)
    assert (rows + 8).tolist() == [[row for row, _ in ranked] for ranked in expected]
    np.testing.assert_allclose(distances, [[distance for _, distance in ranked] for ranked in expected], atol=1e-5)


def test_reranking_among_themselves_equals_loops(blocks):
    photos, _ = make_embeddings(31, 4)
    expected = reference.reranked(photos, range(31), range(31), **SETTINGS)
    rows, distances = rerank(photos, **SETTINGS)
    assert rows.tolist() == [[row for row, _ in ranked] for ranked in expected]
    np.testing.assert_allclose(distances, [[distance for _, distance in ranked] for ranked in expected], atol=1e-5)


def test_with_its_own_weight_alone_the_order_stays():
    embeddings, labels = make_embeddings(60, 5)
    rows, distances = rerank(embeddings, num_candidates=59, original_weight=1)
    before = metrics.rank_queries(embeddings, labels)
    after = metrics.reorder(before, rows, distances, labels, leave_out_self=True)
    np.testing.assert_array_equal(after.first_places, before.first_places)
    np.testing.assert_allclose(after.average_precisions, before.average_precisions)
    np.testing.assert_array_equal(after.r_precisions, before.r_precisions)


def test_a_reordered_ranking_by_hand():
    """Rows 4, 2, 0 now stand in the order 2, 0 and 4 alike: of the two that tie the wrong one comes first. Labels are
    right in rows 2 and 4: places 1 and 3 of R = 2, so mAP@R = (1 / 1) / 2. The second query's answer stays beyond."""
    nothing = np.full(2, np.nan)
    result = metrics.RetrievalResult(np.array([1, 3]), np.array([1, 4]), np.array([1, 3]), nothing, nothing)
    labels = [0, 0, 1, 3, 1]
    changed = metrics.reorder(result, [[4, 2, 0], [0, 1, 2]], [[0.5, 0.1, 0.5], [0.0, 0.1, 0.2]], labels)
    assert changed.first_places.tolist() == [1, 4]
    assert changed.product_places.tolist() == [1, 3]
    assert changed.average_precisions.tolist() == [0.5, 0.0]
    assert changed.r_precisions.tolist() == [0.5, 0.0]
    assert result.first_places.tolist() == [1, 4]


def report():
    """Runs in a process of its own: megabytes over 12,000 x 16 embeddings."""
    embeddings, _ = make_embeddings(12_000, 0, dim=16, num_classes=3000)
    rerank(embeddings[:500], num_candidates=10)
    with PeakMemory() as memory:
        rerank(embeddings, num_candidates=10)
    print(json.dumps(memory.megabytes))


def test_memory_of_reranking_does_not_grow_with_the_square(run_python):
    """All distances of 12,000 photos would be 576 MB in float32."""
    (printed,) = run_python(
        "from tests.evaluation import test_postprocessing; test_postprocessing.report()", fresh=True
    )
    assert 1 < json.loads(printed.splitlines()[-1]) < 250


# Refusals


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: expand_queries([1.0], [[1.0]]), r"`queries` must be \[N, D\], N 1 or more. Received: shape \(1,\)"),
        (lambda: expand_queries([[1.0]], np.zeros([0, 1])), r"`gallery` must be \[N, D\]"),
        (lambda: expand_queries([[1.0]], [[1.0], [0.0]]), "`gallery` must be finite and not zero. Received: row 1"),
        (lambda: expand_queries([[1.0]], [[1.0, 2.0]]), "the same dimension. Received: 1 and 2"),
        (
            lambda: expand_queries([[1.0]], num_neighbors=0),
            "`num_neighbors` must be 1 or more. Received: num_neighbors=0",
        ),
        (lambda: expand_queries([[1.0]], alpha=-1), "`alpha` must be 0 or more. Received: alpha=-1"),
        (lambda: expand_queries([[1.0]], num_neighbors=2.0), "`num_neighbors` must be 1 or more. .*=2.0. Give a whole"),
        (lambda: rerank([[1.0]], k1="3"), "`k1` must be 1 or more. Received: k1='3'. Give a whole number"),
        (lambda: fit_whitening(np.eye(3), dim=1.5), "`dim` must be from 1 to 2.*Received: dim=1.5"),
        (lambda: rerank([[1.0]], k1=0), "`k1` must be 1 or more"),
        (lambda: rerank([[1.0]], k2=0), "`k2` must be 1 or more"),
        (lambda: rerank([[1.0]], num_candidates=0), "`num_candidates` must be 1 or more"),
        (
            lambda: rerank([[1.0]], original_weight=2),
            "`original_weight` must be from 0 to 1. Received: original_weight=2",
        ),
        (lambda: fit_whitening([1.0, 2.0]), r"`embeddings` must be \[N, D\] and finite. Received: shape \(2,\)"),
        (lambda: fit_whitening([[np.nan]]), r"`embeddings` must be \[N, D\] and finite"),
        (lambda: fit_whitening([[1.0, 2.0]] * 3), "`dim` must be from 1 to 0"),
        (lambda: fit_whitening(np.eye(3), dim=0), "`dim` must be from 1 to 2"),
        (lambda: Whitening([0.0], [[1.0], [2.0]]), r"Received: shapes \(1,\) and \(2, 1\)"),
        (lambda: Whitening([0.0], [[np.inf]]), "must be finite"),
        (
            lambda: Whitening([0.0], [[1.0]]).apply([[1.0, 2.0]]),
            r"`embeddings` must be \[N, 1\]. Received: shape \(1, 2\)",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_orders_that_do_not_fit_a_ranking_are_refused():
    embeddings, labels = make_embeddings(20, 0)
    result = metrics.rank_queries(embeddings, labels)
    with pytest.raises(ValueError, match=r"`rows` and `distances` must be \[20, C\]. Received: shapes \(20, 2\)"):
        metrics.reorder(result, np.zeros([20, 2], int), np.zeros([20, 3]), labels)
    with pytest.raises(ValueError, match="Received: 1, and a query with .*larger num_candidates"):
        metrics.reorder(result, np.zeros([20, 1], int), np.zeros([20, 1]), labels, leave_out_self=True)
    distances = np.ones([20, 2])
    distances[3, 1] = np.nan
    with pytest.raises(ValueError, match="`distances` must be numbers. Received: NaN for query 3"):
        metrics.reorder(result, np.zeros([20, 2], int), distances, labels)
    with pytest.raises(ValueError, match="`gallery_labels` must begin with those of the queries if `leave_out_self`"):
        metrics.rank_queries(embeddings, labels, embeddings, labels[::-1], leave_out_self=True)
