"""The ranking that a GPU does, on a CPU: exactly the figures that NumPy finds, and NumPy takes over where it fails.

No test here needs a GPU: TensorFlow places an operation that is meant for one on the CPU where there is none.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from eet_tf import evaluation
from eet_tf.evaluation import metrics, ranking, ranking_on_gpu
from tests.evaluation.test_ranking import KINDS, assert_equals_loops, draw_labels
from tests.rounding import tensor_float_32  # noqa: F401

FIGURES = ("first_places", "product_places", "average_precisions", "r_precisions")


def ranked(monkeypatch, is_on_gpu, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "_is_gpu_there", lambda: is_on_gpu)
        return metrics.rank_queries(*arguments)


def assert_same_on_both(monkeypatch, *arguments):
    """Every figure of every query, to the last bit."""
    result, expected = (ranked(monkeypatch, is_on_gpu, *arguments) for is_on_gpu in (True, False))
    for name in FIGURES:
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    return result


def draw(rows, num_classes, dim=48, seed=0):
    """Classes that overlap, so that places are neither all first nor all last."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.zeros(2, int), rng.integers(num_classes, size=rows - 2)])
    return rng.normal(size=[rows, dim]) + 0.6 * rng.normal(size=[num_classes, dim])[labels], labels


# rows, classes: few photos of each, some alone; thousands of each; both sides of a chunk of 64 and of a block of 1,024
CATALOGS = [(2, 1), (64, 20), (257, 150), (257, 4), (1025, 1), (5000, 1500)]


@pytest.mark.parametrize("rows, num_classes", [*CATALOGS, (2500, 2)])
def test_is_what_numpy_finds_among_all_others(monkeypatch, rows, num_classes):
    assert_same_on_both(monkeypatch, *draw(rows, num_classes))


@pytest.mark.parametrize("rows, num_classes", [*CATALOGS, (5000, 2)])
def test_is_what_numpy_finds_in_a_gallery(monkeypatch, rows, num_classes):
    """Some queries have no answer there, whole classes of the gallery are asked for by nobody."""
    queries, labels = draw(max(rows // 3, 2), num_classes + 1, seed=1)
    assert_same_on_both(monkeypatch, queries, labels, *draw(rows, num_classes))


def test_is_what_numpy_finds_for_changed_queries_that_are_left_out(monkeypatch):
    embeddings, labels = draw(700, 200)
    changed = embeddings + np.random.default_rng(1).normal(size=embeddings.shape)
    assert_same_on_both(monkeypatch, changed, labels, embeddings, labels, True)


@pytest.mark.parametrize("rows, num_classes", [(64, 20), (700, 300), (2000, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_ties_count_against_us_as_with_numpy(monkeypatch, kind, rows, num_classes):
    """Copies of a photo in its own class and in others; all photos the same; all of them nearly."""
    rng = np.random.default_rng(2)
    assert_same_on_both(monkeypatch, kind(rng, rows, 24), rng.integers(num_classes, size=rows))


def test_classes_of_all_sizes_in_one_block(monkeypatch):
    labels = np.concatenate([np.arange(300), np.full(40, 7), np.full(900, 8), np.arange(100).repeat(3)])
    embeddings = np.random.default_rng(3).normal(size=[len(labels), 16]) + np.eye(16)[labels % 16]
    assert_same_on_both(monkeypatch, embeddings, labels)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    rows=st.integers(2, 60),
    dim=st.integers(1, 9),
    gallery_rows=st.none() | st.integers(1, 60),
    rows_of_block=st.sampled_from([(1, 3), (5, 1024)]),
)
def test_equals_loops(seed, kind, rows, dim, gallery_rows, rows_of_block):
    rng = np.random.default_rng(seed)
    embeddings, labels = kind(rng, rows + (gallery_rows or 0), dim), draw_labels(rng, rows + (gallery_rows or 0))
    gallery = () if gallery_rows is None else (embeddings[rows:], labels[rows:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_is_gpu_there", lambda: True)
        patch.setattr(ranking, "_ROWS", rows_of_block)
        assert_equals_loops(embeddings[:rows], labels[:rows], *gallery)


@pytest.mark.usefixtures("tensor_float_32")
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_to_tensor_float_32_changes_nothing(monkeypatch, kind):
    rng = np.random.default_rng(4)
    embeddings, labels = kind(rng, 700, 24), rng.integers(200, size=700)
    result = assert_same_on_both(monkeypatch, embeddings, labels)
    assert result.summary([1]) == ranked(monkeypatch, False, embeddings, labels).summary([1])


@pytest.mark.usefixtures("tensor_float_32")
def test_rounded_float32_products_would_change_much():
    """Otherwise the test above would see nothing."""
    embeddings, labels = draw(700, 200)
    unit = tf.constant(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), tf.float32)
    off = tf.matmul(unit, unit, transpose_b=True).numpy() - np.float64(unit) @ np.float64(unit).T
    assert np.abs(off).max() > 1e-5


def test_a_gpu_that_tensorflow_sees_is_used(monkeypatch):
    embeddings, labels = draw(64, 20)
    expected = evaluation.rank_catalog(embeddings, labels)
    blocks = []
    count = ranking_on_gpu.Gallery.num_wrong_before

    def counting(self, queries, *arguments):
        blocks.append(len(queries))
        return count(self, queries, *arguments)

    monkeypatch.setattr(ranking_on_gpu.Gallery, "num_wrong_before", counting)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] if kind == "GPU" else [])
    result = evaluation.rank_catalog(embeddings, labels)
    assert sum(blocks) == np.sum(expected.is_answered)
    np.testing.assert_array_equal(result.first_places, expected.first_places)


def test_without_a_gpu_numpy_ranks(monkeypatch):
    monkeypatch.setattr(ranking_on_gpu.Gallery, "__init__", None)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert metrics.rank_queries(*draw(64, 20)).is_answered.any()


def test_tensorflow_is_not_imported_to_look_for_a_gpu(run_python):
    (printed,) = run_python(
        "import json, sys; from eet_tf import evaluate_retrieval\n"
        "evaluate_retrieval([[1.0, 0.0], [1.0, 0.1]], [1, 1])\n"
        "print(json.dumps([name for name in sys.modules if name.partition('.')[0] in ('tensorflow', 'keras')]))",
        fresh=True,
    )
    assert json.loads(printed) == []


@pytest.mark.parametrize(
    "error", [tf.errors.ResourceExhaustedError, tf.errors.InternalError, tf.errors.UnimplementedError]
)
def test_where_a_gpu_fails_numpy_ranks_everything(monkeypatch, error):
    """In its third block, so that some queries have been ranked."""
    embeddings, labels = draw(257, 30)
    expected = ranked(monkeypatch, False, embeddings, labels)
    left = iter([ranking_on_gpu._num_between] * 4)

    def failing(limits, distances):
        try:
            return next(left)(limits, distances)
        except StopIteration:
            raise error(None, None, "no memory\nand where it was missing") from None

    monkeypatch.setattr(ranking_on_gpu, "_num_between", failing)
    monkeypatch.setattr(ranking, "_ROWS", (1, 50))
    with pytest.warns(UserWarning, match="Ranking takes longer, on the CPU: no memory$"):
        result = ranked(monkeypatch, True, embeddings, labels)
    for name in FIGURES:
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


def test_what_is_wrong_in_a_call_is_not_hidden(monkeypatch):
    def wrong(limits, distances):
        return tf.reshape(limits, [-1, 7, 11])

    monkeypatch.setattr(ranking_on_gpu, "_num_between", wrong)
    with pytest.raises(tf.errors.InvalidArgumentError):
        ranked(monkeypatch, True, *draw(64, 20))
