"""Labels are compared exactly, in whatever type they come, and none is missing: here, and wherever labels are taken."""

import datetime

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import RetrievalEvaluation, evaluate_retrieval
from eet_tf.data import PKSampler
from eet_tf.evaluation import metrics
from eet_tf.evaluation.callback import rank_catalog
from eet_tf.evaluation.comparison import ClassResults
from eet_tf.labels import check_labels, numbered
from tests import reference

HUGE = 2**63
VECTORS = np.random.default_rng(0).normal(size=[6, 4])


class NAType:
    """As pandas has it: no comparison with it is true or false."""

    def __repr__(self):
        return "<NA>"

    def __ne__(self, other):
        return self

    __eq__ = __ne__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "values, expected",
    [
        ([3, 1, 1], [3, 1, 1]),
        (np.array([[7], [2]], np.int8), [7, 2]),
        (np.array([2**53, 2**53 + 1]), [2**53, 2**53 + 1]),
        (np.array([HUGE, 5], np.uint64), [HUGE, 5]),
        ([HUGE, -1], [HUGE, -1]),
        ([np.uint64(HUGE + 1), np.int64(4)], [HUGE + 1, 4]),
        ([2**70, 1], [2**70, 1]),
        (np.array([4.0, 2.0]), [4, 2]),
        ([1, 2.0], [1, 2]),
        (np.array([True, False]), [1, 0]),
        (["b", "a"], ["b", "a"]),
        (np.array([["mug"], ["cup"]]), ["mug", "cup"]),
        (np.array([b"k\xc3\xbcche", b"x"]), ["küche", "x"]),
        (tf.constant(["a", "b"]), ["a", "b"]),
        (tf.constant([[1], [2]], tf.uint64), [1, 2]),
        ([], []),
    ],
    ids=str,
)
def test_labels_stay_what_they_are(values, expected):
    found = check_labels("labels", values)
    assert found.tolist() == expected
    assert {type(value) for value in found.tolist()} <= {int, str}


MISSING = {
    "None": (["a", "b", None], r"labels\[2\]=None\. Leave"),
    "NaN among strings": (["a", float("nan"), "b"], r"labels\[1\]=NaN\. Leave"),
    "NaN among integers": ([4, 2, float("nan")], r"labels\[2\]=NaN.*pandas makes floats of integers"),
    "NaN among numbers": (np.array([4.0, np.nan]), r"labels\[1\]=NaN.*pandas makes floats of integers"),
    "NA": (np.array([1, NAType()], dtype=object), r"labels\[1\]=<NA>\. Leave"),
    "not a time": ([np.datetime64("NaT")], r"labels\[0\]=NaT\. Leave"),
    "empty": (["a", ""], r"labels\[1\]=''\. Leave"),
    "blank": (np.array(["a", " \t"]), r"labels\[1\]=' "),
    "no bytes": ([b"a", b""], r"labels\[1\]=''\. Leave"),
}


@pytest.mark.parametrize("values, message", MISSING.values(), ids=MISSING)
def test_a_missing_label_is_refused_with_its_row(values, message):
    with pytest.raises(ValueError, match=r"`labels` must be integers or strings, none missing. Received: " + message):
        check_labels("labels", values)


@pytest.mark.parametrize(
    "values, message",
    [
        ([1, 2.5], r"labels\[1\]=2\.5, a floating-point number that stands for no one integer"),
        (np.array([1.0, np.inf]), r"labels\[1\]=inf, a floating"),
        (np.array([2.0**53], np.float64), r"labels\[0\]=9007199254740992\.0, a floating"),
        ([1, "1"], r"all integers or all strings. Received: labels\[0\]=1 and labels\[1\]='1'"),
        (["1", np.int64(1)], r"Received: labels\[0\]='1' and labels\[1\]=1\. Make"),
        ([datetime.date(2026, 1, 1)], r"labels\[0\] is a date"),
        ([[1, 2], [3, 4]], r"`labels` must be \[N\]. Received: shape \(2, 2\)"),
        ("mug", r"`labels` must be \[N\]. Received: shape \(\)"),
    ],
    ids=str,
)
def test_what_is_no_label_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_labels("labels", values)


def test_other_columns_may_have_empty_values():
    assert check_labels("categories", ["a", ""], may_be_empty=True).tolist() == ["a", ""]


def test_there_is_one_label_for_each_photo():
    with pytest.raises(ValueError, match=r"`labels` must be \[3\], one for each photo. Received: shape \(2,\)"):
        check_labels("labels", [1, 2], 3)


# Wherever labels are taken. Row 2 has none.


TAKERS = {
    "evaluate_retrieval": lambda labels: evaluate_retrieval(VECTORS, labels, [1]),
    "a gallery": lambda labels: evaluate_retrieval(VECTORS, list("aabbcc"), [1], VECTORS, labels),
    "rank_catalog": lambda labels: rank_catalog(VECTORS, labels),
    "RetrievalEvaluation": lambda labels: RetrievalEvaluation(VECTORS, labels),
    "PKSampler": lambda labels: PKSampler(labels, 2, 2),
    "categories": lambda labels: PKSampler([0, 0, 1, 1, 2, 2], 2, 2, categories=labels),
    "roles": lambda labels: rank_catalog(VECTORS, list("aabbcc"), roles=labels),
    "by_group": lambda labels: metrics.rank_queries(VECTORS, list("aabbcc")).by_group(labels, [1]),
    "reorder": lambda labels: metrics.reorder(
        metrics.rank_queries(VECTORS, list("aabbcc")), np.zeros([6, 1], int), np.zeros([6, 1]), labels
    ),
    "ClassResults": lambda labels: ClassResults(labels, [1] * 6, {"recall@1": [1] * 6}),
}


@pytest.mark.parametrize("missing", [None, float("nan"), NAType()], ids=["None", "NaN", "NA"])
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_everywhere_a_missing_label_is_refused(take, missing):
    with pytest.raises(ValueError, match=r"` must be integers or strings, none missing. Received: [\w.]+\[2\]="):
        take(["gallery", "query", missing, "c", "d", "d"])


@pytest.mark.parametrize(
    "near", [[2**53, 2**53 + 1], [HUGE - 1, HUGE], [HUGE + 2, HUGE + 3], [-1, 2**64 - 1]], ids=lambda near: str(near[0])
)
@pytest.mark.parametrize("has_gallery", [False, True])
def test_large_integers_are_told_apart(near, has_gallery):
    """As the same photos with the names of these numbers for labels."""
    labels = [near[n] for n in (0, 0, 1, 1, 0, 1)]
    names = [str(label) for label in labels]
    given = labels if min(near) < 0 else np.array(labels, np.uint64 if max(near) >= HUGE else np.int64)
    if not has_gallery:
        assert evaluate_retrieval(VECTORS, given, [1, 2]) == evaluate_retrieval(VECTORS, names, [1, 2])
        return
    queries = [label for label in labels if -HUGE <= label < HUGE] or labels
    expected = evaluate_retrieval(VECTORS[: len(queries)], [str(q) for q in queries], [1, 2], VECTORS, names)
    assert evaluate_retrieval(VECTORS[: len(queries)], queries, [1, 2], VECTORS, given) == expected
    recall = reference.retrieval(reference.unit(VECTORS[: len(queries)]), np.array([str(q) for q in queries]), 1,
                                 reference.unit(VECTORS), np.array(names))[0]  # fmt: skip
    assert expected["recall@1"] == pytest.approx(recall)


def test_a_batch_tells_large_integers_apart():
    labels = np.array([HUGE + 2, HUGE + 2, HUGE + 3, HUGE + 3], np.uint64)
    for batch, _ in zip(PKSampler(labels[:, np.newaxis], 2, 2, seed=1).batches(0), range(4)):
        drawn = labels[batch].reshape(2, 2)
        assert drawn[0, 0] == drawn[0, 1] != drawn[1, 0] == drawn[1, 1]


def test_a_ranking_in_another_order_tells_large_integers_apart():
    """The gallery's labels are int64, those of the queries uint64; the right answer comes second, then first."""
    result = metrics.rank_queries([[1.0, 0.0]], np.array([HUGE - 1], np.uint64), [[1.0, 0.1], [1.0, 0.2]],
                                  np.array([HUGE, HUGE - 1], np.uint64))  # fmt: skip
    changed = metrics.reorder(result, [[0, 1]], [[0.7, 0.2]], np.array([HUGE, HUGE - 1], np.uint64))
    assert (result.first_places.tolist(), changed.first_places.tolist()) == ([2], [1])


def test_strings_and_integers_do_not_meet():
    with pytest.raises(ValueError, match=r"`labels` and `gallery_labels` must both .* labels\[0\]=7 and .*\[0\]='7'"):
        numbered("labels", np.array([7]), "gallery_labels", np.array(["7"]))
    with pytest.raises(ValueError, match="must both be integers or both be strings"):
        evaluate_retrieval(VECTORS, [1] * 6, [1], VECTORS, ["1"] * 6)


@pytest.mark.parametrize("roles", [["Query", "gallery"] * 3, ["query", "database"] * 3, [1, 2] * 3])
def test_a_role_that_is_none_is_not_taken_for_all(roles):
    with pytest.raises(ValueError, match=r"`roles` must be 'query', 'gallery' or '' \(both\). Received: roles\["):
        rank_catalog(VECTORS, list("aabbcc"), roles)


WRONG_KS = [
    [0],
    [1, -3],
    [1.0],
    [1, 1],
    [True],
    "10",
    10,
    [None],
    [np.float32(2)],
    np.array([[1, 2]]),
    [1, np.int64(1)],
]


@pytest.mark.parametrize("ks", WRONG_KS, ids=str)
def test_what_is_no_place_in_a_ranking_is_refused(ks):
    message = r"`ks` must be different positive integers, e.g. \(1, 10\). Received: ks="
    result = metrics.rank_queries(VECTORS, list("aabbcc"))
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(np.full([6, 4], np.nan), list("aabbcc"), ks)  # before anything is looked at
    with pytest.raises(ValueError, match=message) as refusal:
        result.summary(ks)
    assert "np." not in str(refusal.value) and "array" not in str(refusal.value)
    with pytest.raises(ValueError, match=message):
        result.by_class(ks)
    with pytest.raises(ValueError, match=message):
        RetrievalEvaluation(VECTORS, list("aabbcc"), ks)


@pytest.mark.parametrize("ks", [range(1, 3), np.array([1, 2], np.uint8), (np.int64(1), 2)])
def test_ks_may_be_any_integers(ks):
    found = evaluate_retrieval(VECTORS, list("aabbcc"), ks)
    assert found == evaluate_retrieval(VECTORS, list("aabbcc"), (1, 2))
