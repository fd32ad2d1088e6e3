"""Multi-similarity, supervised contrastive, Smooth-AP, ROADMAP and recall against loops: every anchor, batches without
pairs, copies, memory, blocks."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    MultiSimilarityLoss,
    RecallAtKLoss,
    RoadmapLoss,
    SmoothAPLoss,
    SupervisedContrastiveLoss,
    multi_similarity_loss,
    recall_at_k_loss,
    roadmap_loss,
    smooth_ap_loss,
    supervised_contrastive_loss,
)
from eet_tf.losses.batch import Remembered
from eet_tf.pairs import pairwise
from tests import reference_pairs as loops

SIZES = {3: 4, 40: 2, 7: 1, 12: 5, 0: 1}  # label -> photos; in no order, two classes with one photo
# (class, its arguments, function, the terms of every anchor by loops)
CASES = {
    "multi_similarity": (MultiSimilarityLoss, {}, multi_similarity_loss, loops.multi_similarity),
    "multi_similarity_gentle": (
        MultiSimilarityLoss,
        {"positive_scale": 5.0, "negative_scale": 8.0, "threshold": 0.2, "epsilon": 0.4},
        multi_similarity_loss,
        loops.multi_similarity,
    ),
    "contrastive": (SupervisedContrastiveLoss, {}, supervised_contrastive_loss, loops.supervised_contrastive),
    "contrastive_warm": (
        SupervisedContrastiveLoss,
        {"temperature": 0.7},
        supervised_contrastive_loss,
        loops.supervised_contrastive,
    ),
    "smooth_ap": (SmoothAPLoss, {}, smooth_ap_loss, loops.smooth_ap),
    "smooth_ap_warm": (SmoothAPLoss, {"temperature": 0.3}, smooth_ap_loss, loops.smooth_ap),
    "roadmap": (RoadmapLoss, {}, roadmap_loss, loops.roadmap),
    "roadmap_warm": (
        RoadmapLoss,
        {"calibration_weight": 0.2, "temperature": 0.2, "slope": 3.0, "delta": 0.3, "negative_threshold": 0.4},
        roadmap_loss,
        loops.roadmap,
    ),
    "sup_ap": (RoadmapLoss, {"calibration_weight": 0.0, "positive_threshold": 0.5}, roadmap_loss, loops.roadmap),
    "recall": (RecallAtKLoss, {}, recall_at_k_loss, loops.recall_at_k),
    "recall_warm": (
        RecallAtKLoss,
        {"ks": (1, 3), "temperature": 0.2, "rank_temperature": 0.5},
        recall_at_k_loss,
        loops.recall_at_k,
    ),
}
every_case = pytest.mark.parametrize("name", CASES)


def make_batch(seed):
    """Asymmetric: labels neither dense, sorted nor contiguous, classes of 1 to 5 photos that partly overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    centres = {label: rng.normal(size=5) for label in SIZES}
    noise = rng.normal(size=[len(labels), 5], scale=0.6)
    return labels, (np.stack([centres[label] for label in labels]) + noise).astype(np.float32)


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_every_anchor_is_the_loops(name, seed):
    """The function, and the terms of the class one by one."""
    loss_class, arguments, function, by_loops = CASES[name]
    labels, embeddings = make_batch(seed)
    expected = by_loops(labels, embeddings, **arguments).reshape([len(labels), -1])
    np.testing.assert_allclose(function(labels, embeddings, **arguments), expected.sum(axis=1), rtol=2e-4, atol=2e-5)
    loss = loss_class(**arguments)
    terms = loss.terms(labels, embeddings)
    assert tuple(terms) == loss.term_names
    columns = expected.T if len(terms) == expected.shape[1] else expected.T[: len(terms)]
    for values, column in zip(terms.values(), columns, strict=True):
        np.testing.assert_allclose(values, column, rtol=2e-4, atol=2e-5)
    assert float(loss(labels, embeddings)) == pytest.approx(expected.sum() / len(labels), rel=1e-4)


@every_case
def test_vectors_of_unit_length_may_be_said_to_be(name):
    loss_class, arguments, function, _ = CASES[name]
    labels, embeddings = make_batch(0)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = function(labels, embeddings, **arguments)
    np.testing.assert_allclose(function(labels, unit, from_normalized=True, **arguments), expected, atol=1e-4)
    doubled = loss_class(from_normalized=True, **arguments).call(labels, 0.5 * unit)
    assert not np.allclose(doubled, expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:No photo of this batch has a partner")
@every_case
def test_what_has_no_pair_loses_nothing(name):
    """A batch of one class, of different classes, and of one photo: finite, with a finite gradient; no positives: 0."""
    _, arguments, function, by_loops = CASES[name]
    _, embeddings = make_batch(1)
    for labels, is_zero in (([4] * 6, False), (list(range(6)), True), ([4], True)):
        rows = tf.constant(embeddings[: len(labels)])
        with tf.GradientTape() as tape:
            tape.watch(rows)
            values = function(labels, rows, **arguments)
        gradient = tape.gradient(values, rows)
        assert np.isfinite(gradient).all()
        expected = by_loops(labels, rows.numpy(), **arguments).reshape([len(labels), -1]).sum(axis=1)
        np.testing.assert_allclose(values, expected, rtol=2e-4, atol=2e-5)
        if is_zero and "roadmap" not in name:  # the calibration pushes negatives also where there are no positives
            assert not np.any(values) and not np.any(gradient)


@every_case
def test_copies_have_finite_gradients(name):
    _, arguments, function, _ = CASES[name]
    labels, embeddings = make_batch(2)
    embeddings[:] = embeddings[0]
    rows = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        values = function(labels, rows, **arguments)
    assert np.isfinite(values).all()
    assert np.isfinite(tape.gradient(values, rows)).all()


@every_case
def test_a_memory_is_compared_with_and_gets_no_anchor(name):
    """The loops over batch and memory together, of which only the batch's anchors count."""
    loss_class, arguments, _, by_loops = CASES[name]
    labels, embeddings = make_batch(0)
    more, remembered = make_batch(5)
    unit = remembered / np.linalg.norm(remembered, axis=1, keepdims=True)
    is_filled = np.arange(len(more)) < 9
    memory = Remembered(*map(tf.constant, (unit, more)), None, tf.constant(is_filled))
    together = np.concatenate([labels, more[:9]]), np.concatenate([embeddings, unit[:9]])
    terms = loss_class(**arguments).terms(labels, embeddings, memory)
    expected = by_loops(*together, **arguments).reshape([len(together[0]), -1])[: len(labels)]
    if "roadmap" in name or name == "sup_ap":
        expected, terms = (
            expected[:, :1],
            {"average_precision": terms["average_precision"]},
        )  # others are means of pairs
    np.testing.assert_allclose(tf.add_n(list(terms.values())), expected.sum(axis=1), rtol=2e-4, atol=2e-5)


@every_case
def test_blocks_change_nothing(name, monkeypatch):
    """Of 3 anchors each, in a graph and outside one: value and gradient."""
    _, arguments, function, _ = CASES[name]
    labels, embeddings = make_batch(0)

    def both(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            values = function(labels, rows, **arguments)
        return values, tape.gradient(values, rows)

    whole = both(tf.constant(embeddings))
    monkeypatch.setattr(pairwise, "block_rows_against", lambda references: 3)
    for mode in (lambda f: f, tf.function):
        for found, expected in zip(mode(both)(tf.constant(embeddings)), whole, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_contrastive_of_pairs_is_nt_xent():
    """Two photos of each class: -log of the partner's share, worked out by hand for unit vectors at right angles."""
    embeddings = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    value = SupervisedContrastiveLoss(temperature=0.5)(np.repeat(np.arange(3), 2), embeddings)
    assert float(value) == pytest.approx(-np.log(np.exp(2) / (np.exp(2) + 4)), rel=1e-5)


def test_smooth_ap_at_a_low_temperature_is_one_minus_average_precision():
    """Cosines of the first anchor in order: negative, positive, negative, positive: AP = (1/2 + 2/4) / 2."""
    angles = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    values = smooth_ap_loss([1, 0, 1, 0, 1], embeddings, temperature=1e-4)
    assert float(values[0]) == pytest.approx(0.5, abs=1e-4)


def test_roadmap_is_never_below_one_minus_average_precision():
    """SupAP bounds it from above, in 50 batches, where Smooth-AP does not."""
    below = 0
    for seed in range(50):
        labels, embeddings = make_batch(seed)
        true = smooth_ap_loss(labels, embeddings, temperature=1e-5).numpy()
        bound = roadmap_loss(labels, embeddings, calibration_weight=0.0).numpy()
        assert (bound >= true - 1e-3).all()
        below += np.sum(smooth_ap_loss(labels, embeddings, temperature=0.3).numpy() < true - 1e-3)
    assert below


def test_recall_at_a_low_temperature_counts_the_first():
    """Of 5 photos in order along an arc, labels 1 0 1 0 1: no anchor of 1 has a positive first."""
    angles = np.array([0.0, 0.1, 0.21, 0.33, 0.46])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    values = recall_at_k_loss([1, 0, 1, 0, 1], embeddings, ks=(2,), temperature=1e-5, rank_temperature=0.01)
    # at rank k the step is half: the end photos have a positive at rank 2, the middle one none before rank 3
    np.testing.assert_allclose(values[::2], [0.75, 1.0, 0.75], atol=0.01)
