"""The miner of triplets against plain loops: who is chosen, who may not be, and that no gradient flows back."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.pairs import mining, pairwise
from tests import reference

SIZES = {3: 4, 40: 2, 7: 1, 12: 3, 0: 1}  # label -> photos; in no order, two classes with one photo


def make_batch(seed, sizes=None, dim=5):
    """Asymmetric: labels neither dense, sorted nor contiguous, by default classes of 1 to 4 photos."""
    rng = np.random.default_rng(seed)
    sizes = sizes or SIZES
    labels = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    return labels, rng.normal(size=[len(labels), dim]).astype(np.float32)


def batch_hard(labels, embeddings):
    rows = np.arange(len(labels), dtype=np.int32)
    return mining.mine_triplets(embeddings, rows, embeddings, mining.find_classes(tf.constant(labels)))


def in_blocks_of(monkeypatch, block_rows):
    monkeypatch.setattr(pairwise, "block_rows_against", lambda references: block_rows)


@pytest.mark.parametrize("block_rows", [1, 4, 512])
@pytest.mark.parametrize("seed", range(3))
def test_batch_hard_chooses_what_loops_choose(seed, block_rows, monkeypatch):
    in_blocks_of(monkeypatch, block_rows)
    labels, embeddings = make_batch(seed)
    triplets = batch_hard(labels, embeddings)
    for a in range(len(labels)):
        positive, negative = reference.hardest(labels, embeddings.astype(np.float64), a)
        assert bool(triplets.is_valid[a]) == (positive is not None)
        if positive is not None:
            assert (int(triplets.positives[a]), int(triplets.negatives[a])) == (positive, negative)


def test_batch_hard_never_takes_the_anchor_for_its_own_positive():
    """Both photos of each class are identical: anchor and positive are equally far, 0, and the anchor comes first."""
    labels, embeddings = np.array([0, 0, 1, 1]), np.repeat(np.eye(2, dtype=np.float32), 2, axis=0)
    np.testing.assert_array_equal(batch_hard(labels, embeddings).positives, [1, 0, 3, 2])


def test_anchors_may_be_some_rows_of_the_references():
    """As on the second of two replicas: anchors are the references' rows from 4 on."""
    labels, embeddings = make_batch(0)
    rows = np.arange(4, len(labels), dtype=np.int32)
    classes = mining.find_classes(tf.constant(labels))
    some = mining.mine_triplets(tf.constant(embeddings[4:]), rows, tf.constant(embeddings), classes)
    for field, whole_field in zip(some, batch_hard(labels, embeddings)):
        np.testing.assert_array_equal(field, whole_field[4:])


@pytest.mark.parametrize("labels", [[5, 5, 5], [5, 6, 7], [5]], ids=["one_class", "all_different", "one_photo"])
def test_a_batch_without_triplets_has_no_valid_anchor(labels):
    triplets = batch_hard(np.array(labels), make_batch(0)[1][: len(labels)])
    assert not np.any(triplets.is_valid)


@pytest.mark.parametrize("at_once", [1, 2, 32])
def test_large_classes_are_searched_some_members_at_a_time(at_once, monkeypatch):
    """Five photos of a class, looked at one, two or all at a time; own rows and other classes in between."""
    monkeypatch.setattr(mining, "_MEMBERS_AT_ONCE", at_once)
    labels, embeddings = np.array([0, 1, 0, 0, 2, 0, 1, 0]), make_batch(0)[1][:8]
    triplets = batch_hard(labels, embeddings)
    for a in np.flatnonzero(labels == 0):
        positive, negative = reference.hardest(labels, embeddings.astype(np.float64), a)
        assert (int(triplets.positives[a]), int(triplets.negatives[a])) == (positive, negative)


def test_classes_describe_the_batch():
    """Numbers follow the labels; those that no class has are of size 0."""
    labels, _ = make_batch(0)
    classes = mining.find_classes(tf.constant(labels))
    sizes, order = np.asarray(classes.sizes), np.asarray(classes.order)
    for row, number in enumerate(np.asarray(classes.of_row)):
        assert sizes[number] == SIZES[labels[row]]
        members = order[int(classes.starts[number]) : int(classes.starts[number]) + sizes[number]]
        np.testing.assert_array_equal(members, np.flatnonzero(labels == labels[row]))
    assert sizes.sum() == len(labels) == int(classes.num_rows)
    assert len(sizes) == len(labels)
    np.testing.assert_array_equal(classes.of_row, np.searchsorted(np.unique(labels), labels))


def test_rows_that_are_not_there_are_in_no_class():
    """Their labels are those of classes that are there, and of one that is not."""
    labels = np.array([5, 9, 5, -3, 9, 5, 7])
    is_present = np.array([True, True, False, True, True, True, False])
    classes = mining.find_classes(tf.constant(labels), tf.constant(is_present))
    np.testing.assert_array_equal(classes.of_row, [1, 2, -1, 0, 2, 1, -1])
    np.testing.assert_array_equal(classes.sizes, [1, 2, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(classes.order, [3, 0, 5, 1, 4, 2, 6])
    np.testing.assert_array_equal(classes.starts[:3], [0, 1, 3])
    assert int(classes.num_rows) == 5


def test_nothing_flows_back_through_a_choice():
    labels, embeddings = make_batch(0)
    x = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(x)
        triplets = mining.mine_triplets(x, tf.range(len(labels)), x, mining.find_classes(tf.constant(labels)))
        chosen = tf.add_n([tf.reduce_sum(tf.cast(field, tf.float32)) for field in triplets])
    assert tape.gradient(chosen, x) is None


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_labels_of_any_number_type_choose_the_same(dtype):
    labels, embeddings = make_batch(1)
    for field, expected in zip(batch_hard(labels.astype(dtype), embeddings), batch_hard(labels, embeddings)):
        np.testing.assert_array_equal(field, expected)
