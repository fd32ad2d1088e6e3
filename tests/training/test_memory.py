"""Cross-batch memory: what the queue holds, what each loss makes of it, and what a learner does with it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import BinomialDevianceLoss, EETLoss, MetricLearner, SoftBinomialDevianceLoss, TripletLoss
from eet_tf.losses.batch import Remembered
from eet_tf.training.memory import CrossBatchMemory
from tests import reference, reference_sgml

RNG = np.random.default_rng(4)
NUM_OWN, NUM_KEPT, DIM = 14, 23, 5
LABELS = RNG.integers(0, 6, NUM_OWN + NUM_KEPT)  # the memory knows classes that the batch does not, and the other way
EMBEDDINGS = reference.unit(RNG.normal(size=[NUM_OWN + NUM_KEPT, DIM])).astype(np.float32)
ATTRIBUTES = RNG.integers(-1, 2, [NUM_OWN + NUM_KEPT, 4])
BATCH, KEPT = slice(0, NUM_OWN), slice(NUM_OWN, None)
MEMORY = Remembered(EMBEDDINGS[KEPT], LABELS[KEPT], ATTRIBUTES[KEPT].astype(np.float32))
PER_ANCHOR = {
    "batch_hard": TripletLoss(),
    "cosine": TripletLoss(distance="cosine", margin=0.5),
    "semi_hard_of_hard": TripletLoss(negatives="semi_hard", soft_margin=True),
    "partner": TripletLoss(positives="partner"),
    "eet_without_classes": EETLoss(equidistributed_weight=0.0, symmetric_margin=True),
}


def value_and_gradient(function, embeddings):
    """Of what a function of the batch's embeddings gives per anchor."""
    embeddings = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        values = function(embeddings)
        total = tf.reduce_sum(values)
    return np.array(values), np.asarray(tape.gradient(total, embeddings))


@pytest.mark.parametrize("name", PER_ANCHOR)
@pytest.mark.parametrize("num_own", [14, 13])
def test_an_anchor_loses_what_it_would_among_all_of_them(name, num_own):
    """As the first anchors of one great batch do, from which no gradient reaches the rest. With 13, the last anchor
    would find a partner in the memory."""
    loss = PER_ANCHOR[name]
    own, kept = np.arange(num_own), np.arange(NUM_OWN, NUM_OWN + NUM_KEPT)
    labels = LABELS.copy()
    labels[12] = labels[NUM_OWN]
    both = np.concatenate([own, kept])
    memory = Remembered(EMBEDDINGS[kept], labels[kept])

    def with_memory(x):
        return tf.add_n(list(loss.terms(labels[own], x, memory).values()))

    def among_all(x):
        found = loss.terms(labels[both], tf.concat([x, EMBEDDINGS[kept]], axis=0))
        return tf.add_n(list(found.values()))[:num_own]

    values, gradient = value_and_gradient(with_memory, EMBEDDINGS[own])
    expected, expected_gradient = value_and_gradient(among_all, EMBEDDINGS[own])
    if name == "partner" and num_own == 13:
        assert values[12] == 0
        values[12] = expected[12]
    else:
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    alone, _ = value_and_gradient(lambda x: tf.add_n(list(loss.terms(labels[own], x).values())), EMBEDDINGS[own])
    assert name == "partner" or not np.allclose(values, alone)


@pytest.mark.parametrize("positives, negatives", [("all", "all"), ("all", "semi_hard"), ("hard", "all")])
def test_means_over_triplets_are_over_those_of_the_batchs_anchors(positives, negatives):
    """Oracle: plain loops over the triplets of the great batch whose anchor is in the small one."""
    found = []
    for a, p, n in reference.triplets(LABELS, EMBEDDINGS, reference.distance, positives, negatives):
        if a < NUM_OWN:
            f = EMBEDDINGS
            found.append(max(reference.distance(f[a], f[p]) - reference.distance(f[a], f[n]) + 0.3, 0.0))
    count = sum(value > 0 for value in found) if negatives == "all" else len(found)
    loss = TripletLoss(positives=positives, negatives=negatives)
    term = loss.terms(LABELS[BATCH], EMBEDDINGS[BATCH], MEMORY)["margin"]
    assert np.mean(term) == pytest.approx(sum(found) / count, rel=1e-5)


def test_deviances_are_means_over_the_pairs_of_the_batchs_anchors():
    """Oracle: plain loops over pairs, one of the batch with one of either."""
    sums = {"positive_pairs": [], "negative_pairs": []}
    for a in range(NUM_OWN):
        for r in range(len(LABELS)):
            s = float(EMBEDDINGS[a] @ EMBEDDINGS[r])
            if LABELS[a] != LABELS[r]:
                sums["negative_pairs"].append(np.log1p(np.exp(2 * 25 * (s - 0.5))))
            elif a != r:
                sums["positive_pairs"].append(np.log1p(np.exp(-2 * (s - 0.5))))
    terms = BinomialDevianceLoss().terms(LABELS[BATCH], EMBEDDINGS[BATCH], MEMORY)
    for name, values in sums.items():
        assert np.mean(terms[name]) == pytest.approx(np.mean(values), rel=1e-5)


def test_attributes_of_remembered_photos_weigh_their_pairs():
    """Oracle: as above, each pair with its weight, divided by the sum of weights."""
    sums, weights = {"positive_pairs": 0.0, "negative_pairs": 0.0}, {"positive_pairs": 0.0, "negative_pairs": 0.0}
    for a in range(NUM_OWN):
        for r in range(len(LABELS)):
            if a == r:
                continue
            g = reference_sgml.granularity(ATTRIBUTES[a], ATTRIBUTES[r])
            s = float(EMBEDDINGS[a] @ EMBEDDINGS[r])
            name = "positive_pairs" if LABELS[a] == LABELS[r] else "negative_pairs"
            is_positive = name == "positive_pairs"
            weight = 2 - g if is_positive else 1 + g
            sums[name] += weight * np.log1p(np.exp(-2 * (s - 0.5) if is_positive else 50 * (s - 0.5)))
            weights[name] += weight
    targets = {"label": LABELS[BATCH], "attributes": ATTRIBUTES[BATCH]}
    terms = SoftBinomialDevianceLoss().terms(targets, {"embedding": EMBEDDINGS[BATCH]}, MEMORY)
    for name, total in sums.items():
        assert np.mean(terms[name]) == pytest.approx(total / weights[name], rel=1e-5)


def test_class_terms_of_eet_are_those_of_the_batch():
    loss = EETLoss()
    alone = loss.terms(LABELS[BATCH], EMBEDDINGS[BATCH])
    remembering = loss.terms(LABELS[BATCH], EMBEDDINGS[BATCH], MEMORY)
    for name in ("max_min", "equal_minima"):
        np.testing.assert_array_equal(remembering[name], alone[name])
    assert not np.allclose(remembering["margin"], alone["margin"])


def held(memory):
    """Its rows as a set of (label, rounded embedding)."""
    rows = memory.rows()
    filled = rows.is_filled.numpy()
    return {
        (int(label), *np.round(row, 5))
        for label, row in zip(rows.labels.numpy()[filled], rows.embeddings.numpy()[filled])
    }


@pytest.mark.parametrize("size", [1, 7, 10, 12, 100])
def test_the_queue_holds_the_last_rows(size):
    """Oracle: a Python list. Batches of 10, or of 3, do not divide the size; one is larger than it."""
    memory, kept, rng = CrossBatchMemory(size, 3, start=0), [], np.random.default_rng(size)
    for count in (10, 3, 10, 10, 1):
        embeddings, labels = rng.normal(size=[count, 3]).astype(np.float32), rng.integers(0, 2**40, count)
        memory.add(embeddings, labels[:, np.newaxis])
        kept = (kept + [(int(label), *np.round(row, 5)) for label, row in zip(labels, reference.unit(embeddings))])[
            -size:
        ]
        assert np.sum(memory.rows().is_filled) == len(kept)
        assert len(memory.rows().labels) == size
        assert {row[0] for row in held(memory)} == {row[0] for row in kept}
        for row, expected in zip(sorted(held(memory)), sorted(kept)):
            np.testing.assert_allclose(row, expected, atol=2e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 0}, "`size` must be at least 1. Received: size=0"),
        ({"size": 2, "start": -1}, "`start` must be 0 or more. Received: start=-1"),
    ],
)
def test_a_queue_of_nothing_or_from_before_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CrossBatchMemory(**arguments, embedding_dim=3)


IMAGES = RNG.normal(size=[24, 6]).astype(np.float32)
PHOTO_LABELS = RNG.integers(0, 4, 24)


def make_learner(loss, memory_size, memory_start=0, **compile_arguments):
    keras.utils.set_random_seed(3)
    embedder = keras.Sequential([keras.Input([6]), keras.layers.Dense(7, activation="tanh"), keras.layers.Dense(4)])
    learner = MetricLearner(embedder, memory_size, memory_start)
    learner.compile(keras.optimizers.SGD(0.1), loss, **compile_arguments)
    return learner


def train_by_hand(loss, memory_size):
    """Three batches of 8 with a list for a memory: the weights after them."""
    embedder, kept = make_learner(loss, 0).embedder, ([], [])
    for start in (0, 8, 16):
        images, labels = IMAGES[start : start + 8], PHOTO_LABELS[start : start + 8]
        memory = Remembered(np.array(kept[0], np.float32).reshape(-1, 4), np.array(kept[1], np.int64))
        with tf.GradientTape() as tape:
            embeddings = embedder(images, training=True)
            value = tf.reduce_mean(tf.add_n(list(loss.terms(labels, embeddings, memory).values())))
        for variable, gradient in zip(embedder.trainable_variables, tape.gradient(value, embedder.trainable_variables)):
            variable.assign(variable - 0.1 * gradient)
        kept = ([*kept[0], *reference.unit(embeddings.numpy())][-memory_size:], [*kept[1], *labels][-memory_size:])
    return embedder.get_weights()


@pytest.mark.parametrize("microbatch", [None, 4])
@pytest.mark.parametrize("memory_size", [11, 40])
@pytest.mark.parametrize("loss", [TripletLoss(), EETLoss()], ids=["triplet", "eet"])
def test_a_learner_trains_with_what_it_has_seen(loss, memory_size, microbatch):
    learner = make_learner(loss, memory_size, microbatch=microbatch)
    learner.fit(IMAGES, PHOTO_LABELS, batch_size=8, shuffle=False, verbose=0)
    for weight, expected in zip(learner.embedder.get_weights(), train_by_hand(loss, memory_size)):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)


def test_the_first_steps_are_those_without_a_memory():
    """Of three steps two; the third meets what both of them left."""
    learner, plain, late = (make_learner(TripletLoss(), *memory) for memory in ((20, 2), (0,), (20, 3)))
    for start in (0, 8):
        for model in (learner, plain, late):
            model.train_on_batch(IMAGES[start : start + 8], PHOTO_LABELS[start : start + 8])
    for weight, expected in zip(learner.embedder.get_weights(), plain.embedder.get_weights()):
        np.testing.assert_allclose(weight, expected, rtol=1e-6, atol=1e-7)
    assert np.sum(learner.memory.rows().is_filled) == 16
    assert np.sum(late.memory.rows().is_filled) == 0
    for model in (learner, plain, late):
        model.train_on_batch(IMAGES[16:], PHOTO_LABELS[16:])
    weights = [model.embedder.get_weights()[0] for model in (learner, plain, late)]
    assert not np.allclose(weights[0], weights[1], atol=1e-5)
    np.testing.assert_allclose(weights[2], weights[1], rtol=1e-6, atol=1e-7)


def test_evaluation_neither_uses_nor_feeds_the_memory():
    learner, plain = make_learner(TripletLoss(), 10), make_learner(TripletLoss(), 0)
    learner.memory.add(EMBEDDINGS[:6, :4], LABELS[:6])
    before = held(learner.memory)
    arguments = {"batch_size": 8, "verbose": 0, "return_dict": True}
    found = learner.evaluate(IMAGES, PHOTO_LABELS, **arguments)
    assert found == pytest.approx(plain.evaluate(IMAGES, PHOTO_LABELS, **arguments), rel=1e-5)
    assert held(learner.memory) == before


def test_the_memory_is_saved_with_the_weights(tmp_path):
    learner, other = make_learner(TripletLoss(), 10), make_learner(TripletLoss(), 10)
    learner.fit(IMAGES, PHOTO_LABELS, batch_size=8, shuffle=False, verbose=0)
    other.fit(IMAGES[:8], PHOTO_LABELS[:8], batch_size=8, verbose=0)
    assert held(learner.memory) != held(other.memory)
    learner.save_weights(tmp_path / "all.weights.h5")
    other.load_weights(tmp_path / "all.weights.h5")
    assert held(learner.memory) == held(other.memory)


def test_under_half_precision_it_keeps_whole_numbers(set_policy):
    set_policy("mixed_bfloat16")
    learner = make_learner(TripletLoss(), 10)
    learner.fit(IMAGES, PHOTO_LABELS + 70_001, batch_size=8, verbose=0)
    assert set(learner.memory.rows().labels.numpy()) <= set(PHOTO_LABELS + 70_001)
    assert learner.memory.rows().embeddings.dtype == tf.float32


def test_losses_that_know_no_memory_are_refused():
    with pytest.raises(ValueError, match=r"`loss` must be a loss of this package where `memory_size` is given"):
        make_learner(keras.losses.MeanSquaredError(), 8)
