"""Nearest rows of class pairs against plain loops, the triplets found along with them, and the distances' gradient."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.pairs import class_pairs, mining
from tests import reference
from tests.pairs.test_mining import SIZES, in_blocks_of, make_batch


def classes_of(labels):
    return class_pairs.without_empty(mining.find_classes(tf.constant(labels)))


def mine(labels, embeddings):
    x = tf.constant(embeddings)
    return class_pairs.mine(x, tf.range(len(labels)), x, classes_of(labels))


def numbers_of(labels):
    """label -> the class number that the batch gives it."""
    return dict(zip(labels.tolist(), np.asarray(mining.find_classes(tf.constant(labels)).of_row).tolist()))


@pytest.mark.parametrize("block_rows", [1, 4, 512])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_the_nearest_rows(seed, block_rows, monkeypatch):
    in_blocks_of(monkeypatch, block_rows)
    labels, embeddings = make_batch(seed)
    _, pairs = mine(labels, embeddings)
    numbers = numbers_of(labels)
    for c, number in numbers.items():
        for other, other_number in numbers.items():
            if c == other:
                continue
            u, v = int(pairs.rows[number, other_number]), int(pairs.rows[other_number, number])
            assert (labels[u], labels[v]) == (c, other)
            expected = reference.class_distance(labels, embeddings, c, other)
            assert reference.distance(embeddings[u], embeddings[v]) == pytest.approx(expected)
            assert float(pairs.squared[number, other_number]) == pytest.approx(expected**2, rel=1e-4)


@pytest.mark.parametrize("block_rows", [1, 4, 512])
@pytest.mark.parametrize("seed", range(3))
def test_triplets_are_those_of_the_miner_of_triplets(seed, block_rows, monkeypatch):
    in_blocks_of(monkeypatch, block_rows)
    labels, embeddings = make_batch(seed)
    triplets, _ = mine(labels, embeddings)
    rows = np.arange(len(labels), dtype=np.int32)
    expected = mining.mine_triplets(embeddings, rows, embeddings, mining.find_classes(tf.constant(labels)))
    np.testing.assert_array_equal(triplets.is_valid, expected.is_valid)
    for found, wanted in zip(triplets[:2], expected[:2]):
        np.testing.assert_array_equal(found[expected.is_valid], wanted[expected.is_valid])


def test_which_pairs_exist():
    """All but those of a class with itself."""
    labels, _ = make_batch(0)
    np.testing.assert_array_equal(class_pairs.exist(classes_of(labels)), ~np.eye(len(SIZES), dtype=bool))


def test_pairs_of_identical_photos_are_still_of_the_two_classes():
    labels = np.array([1, 0, 1, 0])
    _, pairs = mine(labels, np.ones([4, 3], np.float32))
    numbers = numbers_of(labels)
    assert labels[int(pairs.rows[numbers[0], numbers[1]])] == 0
    assert labels[int(pairs.rows[numbers[1], numbers[0]])] == 1


def weighted_sum_of_distances(labels, weights):
    """Of embeddings: the class distances, each with its own weight, by plain loops."""

    def value(x):
        total = 0.0
        for (c, other), weight in weights.items():
            total += weight * reference.class_distance(labels, x, c, other)
        return np.array(total)

    return value


@pytest.mark.parametrize("mode", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("block_rows", [1, 3, 512])
def test_gradient_of_the_distances_is_the_numeric_one(block_rows, mode, monkeypatch):
    """Every ordered pair has another weight, so that nothing symmetric can hide a mistake."""
    in_blocks_of(monkeypatch, block_rows)
    labels, embeddings = make_batch(4)
    numbers = numbers_of(labels)
    weights = {
        (c, other): np.sin(3.0 * numbers[c] + 5.0 * numbers[other]) for c in SIZES for other in SIZES if c != other
    }

    def gradient(x, y):
        rows = tf.range(tf.shape(x)[0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            classes = class_pairs.without_empty(mining.find_classes(y))
            _, pairs = class_pairs.mine(x, rows, x, classes)
            distances = class_pairs.distances(x, rows, x, classes, pairs)
            number = tf.range(len(SIZES))
            angles = tf.cast(3 * number[:, tf.newaxis] + 5 * number[tf.newaxis, :], tf.float32)
            total = tf.reduce_sum(tf.sin(angles) * distances)
        return total, tape.gradient(total, x)

    total, found = mode(gradient)(tf.constant(embeddings), tf.constant(labels))
    plain = weighted_sum_of_distances(labels, weights)
    assert float(total) == pytest.approx(float(plain(embeddings.astype(np.float64))), rel=1e-4)
    expected = reference.numeric_gradient(plain, embeddings)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_classes_that_touch_have_distance_0_and_no_gradient():
    labels = np.array([0, 1, 2])
    x = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        classes = classes_of(labels)
        rows = tf.range(3)
        _, pairs = class_pairs.mine(x, rows, x, classes)
        distances = class_pairs.distances(x, rows, x, classes, pairs)
        value = distances[0, 1]
    assert float(value) == 0.0
    assert float(distances[0, 2]) == pytest.approx(np.sqrt(2))
    np.testing.assert_array_equal(tape.gradient(value, x), np.zeros([3, 2]))


def test_classes_in_several_blocks_of_one_batch():
    """700 rows are two blocks; 40 classes lie across both, in no order."""
    labels, embeddings = make_batch(5, {label: 17 + label % 2 for label in range(40)}, dim=16)
    _, pairs = mine(labels, embeddings)
    squared = ((embeddings[:, np.newaxis] - embeddings[np.newaxis]) ** 2).sum(-1)
    numbers = numbers_of(labels)
    for c in range(0, 40, 3):
        for other in range(1, 40, 4):
            if c != other:
                expected = squared[labels == c][:, labels == other].min()
                assert float(pairs.squared[numbers[c], numbers[other]]) == pytest.approx(expected, rel=1e-4)


def test_nothing_flows_back_through_a_choice():
    labels, embeddings = make_batch(0)
    x = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(x)
        triplets, pairs = class_pairs.mine(x, tf.range(len(labels)), x, classes_of(labels))
        chosen = tf.add_n([tf.reduce_sum(tf.cast(field, tf.float32)) for field in (*triplets, *pairs)])
    assert tape.gradient(chosen, x) is None


def distances_of(labels, points):
    """The class distances, where class numbers are those of the labels."""
    x, rows = tf.constant(points, tf.float32), tf.range(len(points))
    classes = classes_of(labels)
    _, pairs = class_pairs.mine(x, rows, x, classes)
    return class_pairs.distances(x, rows, x, classes, pairs)


def test_the_nearest_class_is_measured_exactly():
    """1e-4 apart, which a product of unit vectors in float32 cannot tell from 0."""
    near = distances_of([0, 1, 2], [[1.0, 0.0], [1.0, 1e-4], [0.0, 1.0]])
    assert float(near[0, 1]) == pytest.approx(1e-4, rel=1e-4)
    assert float(near[1, 0]) == pytest.approx(1e-4, rel=1e-4)


def test_two_equally_near_pairs_do_not_make_a_longer_one():
    """0-1 and 5-6 are both 1 apart; the first rows of each class, 0 and 6, are no pair."""
    tied = distances_of([0, 0, 1, 1], [[0.0], [5.0], [6.0], [1.0]])
    assert float(tied[0, 1]) == 1.0 == float(tied[1, 0])


def test_xla_refuses_it():
    """As of a graph that was traced before, for no compiler, and is called in one that is compiled."""

    @tf.function
    def pairs(x, y):
        return class_pairs.separate(x, tf.range(20), x, mining.find_classes(y))[1]

    labels, embeddings = tf.range(20) // 3, tf.random.stateless_normal([20, 4], [1, 2])
    pairs(embeddings, labels)
    with pytest.raises(tf.errors.InvalidArgumentError, match="compile-time constant"):
        tf.function(lambda x, y: pairs(x, y), jit_compile=True)(embeddings, labels)
