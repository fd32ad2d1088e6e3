"""A sum of losses: its terms are those of its parts, weighted, under names that stay apart."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    AttributeLoss,
    BinomialDevianceLoss,
    CombinedLoss,
    EETLoss,
    MetricLearner,
    MetricLoss,
    NormalizedSoftmaxLoss,
    SoftBinomialDevianceLoss,
    TripletLoss,
    build_embedder,
)
from eet_tf.losses.batch import Remembered

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 12, 64)
EMBEDDINGS = RNG.normal(size=[64, 5]).astype(np.float32)
ATTRIBUTES = RNG.integers(-1, 2, size=[64, 3])


def test_terms_are_those_of_the_parts_times_their_weights():
    parts = [EETLoss(), TripletLoss(distance="cosine"), BinomialDevianceLoss()]
    found = CombinedLoss(parts, [1.0, 0.5, 0.1]).terms(LABELS, EMBEDDINGS)
    eet, triplet, deviance = (loss.terms(LABELS, EMBEDDINGS) for loss in parts)
    expected = {
        "eet_loss_margin": eet["margin"],
        **{name: eet[name] for name in ("equidistant", "max_min", "equal_minima")},
        "triplet_loss_margin": 0.5 * triplet["margin"],
        **{name: 0.1 * values for name, values in deviance.items()},
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_without_weights_each_counts_once():
    loss = CombinedLoss([TripletLoss(0.3, name="near"), TripletLoss(0.9, name="far")])
    assert loss.term_names == ("near_margin", "far_margin")
    expected = TripletLoss(0.3)(LABELS, EMBEDDINGS) + TripletLoss(0.9)(LABELS, EMBEDDINGS)
    assert float(loss(LABELS, EMBEDDINGS)) == pytest.approx(float(expected), rel=1e-6)


def test_a_sum_within_a_sum():
    inner = CombinedLoss([TripletLoss(), NormalizedSoftmaxLoss(12)], [0.5, 2.0], name="inner")
    loss = CombinedLoss([inner, NormalizedSoftmaxLoss(12, 0.3)])
    shapes = loss.class_vectors_shapes(5)
    assert shapes == {"inner_normalized_softmax": (12, 5), "normalized_softmax_loss_normalized_softmax": (12, 5)}
    vectors = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found = loss.terms(LABELS, EMBEDDINGS, class_vectors=vectors)
    for name, weight, temperature in zip(shapes, (2.0, 1.0), (0.05, 0.3), strict=True):
        alone = NormalizedSoftmaxLoss(12, temperature)
        (expected,) = alone.terms(LABELS, EMBEDDINGS, class_vectors={"normalized_softmax": vectors[name]}).values()
        np.testing.assert_allclose(found[name], weight * expected, rtol=1e-5)


def test_all_meet_what_is_remembered():
    remembered = RNG.normal(size=[8, 5]).astype(np.float32)
    memory = Remembered(tf.constant(remembered / np.linalg.norm(remembered, axis=1, keepdims=True)), LABELS[:8])
    parts = [TripletLoss(), BinomialDevianceLoss()]
    found = CombinedLoss(parts).terms(LABELS, EMBEDDINGS, memory)
    for loss in parts:
        for name, values in loss.terms(LABELS, EMBEDDINGS, memory).items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6)


@pytest.mark.parametrize("memory_size", [0, 24])
def test_beside_a_loss_of_two_heads_the_others_take_labels_and_embeddings(memory_size):
    soft, plain = SoftBinomialDevianceLoss(granularity="predictions"), TripletLoss()
    loss = CombinedLoss([plain, soft, NormalizedSoftmaxLoss(12)], [0.5, 1.0, 0.2])
    keras.utils.set_random_seed(2)
    images = keras.Input([5])
    heads = {"embedding": keras.layers.Dense(4)(images), "attributes": keras.layers.Dense(3)(images)}
    learner = MetricLearner(keras.Model(images, heads), memory_size, memory_start=1)
    learner.compile(keras.optimizers.SGD(0.0), loss, AttributeLoss())
    targets = {"label": LABELS, "attributes": ATTRIBUTES}
    history = learner.fit(EMBEDDINGS, targets, batch_size=64, verbose=0).history
    outputs = learner.embedder(EMBEDDINGS)
    assert history["margin"][0] == pytest.approx(0.5 * float(plain(LABELS, outputs["embedding"])), rel=1e-5)
    graded = history["positive_pairs"][0] + history["negative_pairs"][0]
    assert graded == pytest.approx(float(soft(targets, outputs)), rel=1e-5)
    names = {"loss", "margin", "positive_pairs", "negative_pairs", "normalized_softmax", "attributes"}
    assert set(history) == names
    assert history["loss"][0] == pytest.approx(sum(history[name][0] for name in names - {"loss"}), rel=1e-5)


def test_its_configuration_holds_its_losses():
    loss = CombinedLoss([EETLoss(0.1), NormalizedSoftmaxLoss(12, 0.3, name="mine")], [1, 0.5])
    again = CombinedLoss.from_config(loss.get_config())
    assert [type(each) for each in again.losses] == [EETLoss, NormalizedSoftmaxLoss]
    assert (again.losses[0].margin, again.losses[1].temperature, again.losses[1].name) == (0.1, 0.3, "mine")
    assert list(again.weights) == [1, 0.5]


WRONG = [
    (([],), "`losses` must be a list of losses, at least one"),
    ((EETLoss(),), "`losses` must be a list of losses, at least one"),
    (([EETLoss],), r"`losses` must be losses of this package.*Received: the class EETLoss; write EETLoss\(\)"),
    (([EETLoss(), AttributeLoss()],), "`losses` must be losses of this package.*Received: <"),
    (
        ([EETLoss(), EETLoss(0.5)],),
        r"`losses` must have names of their own.*'eet_loss' twice. Write EETLoss\(",
    ),
    (
        ([SoftBinomialDevianceLoss(), SoftBinomialDevianceLoss(name="b")],),
        "`losses` must hold at most one loss that uses attributes. Received: 2",
    ),
    (([EETLoss()], [1.0, 2.0]), "`weights` must be a number for each of the 1 losses"),
    (([EETLoss()], 1.0), "`weights` must be a number for each of the 1 losses"),
    (([EETLoss()], [-1.0]), "`weights` must be 0 or more. Received: weights=-1.0"),
    (([EETLoss()], [float("nan")]), "`weights` must be 0 or more. Received: weights=nan"),
]


@pytest.mark.parametrize("given, message", WRONG, ids=range(len(WRONG)))
def test_what_is_no_sum_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        CombinedLoss(*given)


class Seen(MetricLoss):
    """The first number of each vector, so that it shows which vectors a loss was given."""

    def __init__(self, looks_after_neck, name):
        super().__init__(name=name)
        self.looks_after_neck = looks_after_neck

    def terms(self, labels, embeddings, memory=None):
        return {self.name: embeddings[:, 0]}


def test_pairs_see_what_is_before_the_neck_and_classes_what_is_after_it():
    """The learner logs the mean of each: of the two outputs of an embedder whose neck changes every number."""
    keras.utils.set_random_seed(3)
    embedder = build_embedder("small_cnn", 6, image_size=32, neck="layer_norm")
    photos = RNG.uniform(0, 255, [16, 32, 32, 3]).astype(np.float32)
    outputs = embedder.predict(photos, verbose=0)
    after, before = outputs["embedding"][:, 0].mean(), outputs["before_neck"][:, 0].mean()
    assert abs(after - before) > 1e-3
    learner = MetricLearner(embedder)
    for looks in ((False, True), (True, True), (False, False)):
        learner.compile("sgd", CombinedLoss([Seen(looks[0], "first"), Seen(looks[1], "second")]))
        found = learner.evaluate(photos, np.arange(16) // 2, batch_size=16, verbose=0, return_dict=True)
        expected = [after if is_after else before for is_after in looks]
        assert [found["first"], found["second"]] == pytest.approx(expected, abs=1e-5), looks


def test_with_a_neck_class_vectors_are_trained_beside_pairs_in_a_memory():
    keras.utils.set_random_seed(3)
    learner = MetricLearner(build_embedder("small_cnn", 6, image_size=32, neck="batch_norm"), 8, memory_start=0)
    learner.compile("sgd", CombinedLoss([EETLoss(), NormalizedSoftmaxLoss(4)], [1.0, 0.5]))
    photos = RNG.uniform(0, 255, [8, 32, 32, 3]).astype(np.float32)
    before = learner.class_vectors.by_name()["normalized_softmax"].numpy()
    history = learner.fit(photos, np.arange(8) // 2, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert not np.allclose(learner.class_vectors.by_name()["normalized_softmax"].numpy(), before)
    np.testing.assert_allclose(np.linalg.norm(learner.memory.rows().embeddings, axis=1), 1, atol=1e-5)
