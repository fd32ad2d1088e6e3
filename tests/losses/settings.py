"""Every loss in every setting, batches, and values and gradients by loops: what several test modules compare."""

import functools
import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    AttributeLoss,
    BinomialDevianceLoss,
    CombinedLoss,
    DistillationLoss,
    EETLoss,
    MultiSimilarityLoss,
    PrefixLoss,
    RecallAtKLoss,
    RoadmapLoss,
    SmoothAPLoss,
    SoftBinomialDevianceLoss,
    SupervisedContrastiveLoss,
    TripletLoss,
)
from eet_tf.losses.batch import Remembered
from tests import reference_gradients

NUM_ATTRIBUTES, NUM_REMEMBERED = 6, 48
CHOICES = {
    EETLoss: {
        "equidistant_weight": [1.0, 0.0],
        "equidistributed_weight": [1.0, 0.0],
        "symmetric_margin": [False, True],
        "from_normalized": [False, True],
    },
    TripletLoss: {
        "positives": ["hard", "partner", "all"],
        "negatives": ["hard", "semi_hard", "all"],
        "distance": ["euclidean", "squared", "cosine"],
        "soft_margin": [False, True],
    },
    BinomialDevianceLoss: {"from_normalized": [False, True]},
    SoftBinomialDevianceLoss: {
        "weighting": ["informativeness", "preserving"],
        "granularity": ["labels", "predictions"],
    },
    MultiSimilarityLoss: {"from_normalized": [False, True]},
    SupervisedContrastiveLoss: {"from_normalized": [False, True]},
    SmoothAPLoss: {"from_normalized": [False, True]},
    RoadmapLoss: {"calibration_weight": [0.5, 0.0, 1.0]},
    RecallAtKLoss: {"ks": [(1, 2, 4, 8, 16), (3,)]},
    CombinedLoss: {
        "losses": [
            [EETLoss(), TripletLoss(distance="cosine")],
            [SoftBinomialDevianceLoss(granularity="predictions"), RecallAtKLoss()],
        ]
    },
    PrefixLoss: {
        "loss": [None, BinomialDevianceLoss(), SoftBinomialDevianceLoss(granularity="predictions")],
        "prefixes": [None, (3, 16)],
    },
    DistillationLoss: {"loss": [None, EETLoss(), SoftBinomialDevianceLoss()]},
    AttributeLoss: {"from_logits": [True, False]},
}


def settings_of(loss_class):
    """Every combination of its choices."""
    names = CHOICES[loss_class]
    return [dict(zip(names, values)) for values in itertools.product(*names.values())]


ALL = [(loss_class, settings) for loss_class in CHOICES for settings in settings_of(loss_class)]


def shown(value):
    """Losses by their names."""
    return "+".join(each.name for each in value) if isinstance(value, list) else getattr(value, "name", f"{value}")


NAMES = ["-".join([c.__name__, *map(shown, settings.values())]) for c, settings in ALL]


def make_batch(num_rows, labels="uneven", seed=0, dim=16):
    """Labels of `even` classes of 4, or `uneven` ones of 1 to 12 in no order, embeddings, and attributes."""
    rng = np.random.default_rng(seed)
    if labels == "even":
        classes = np.arange(num_rows) // 4
    else:
        classes = np.repeat(np.arange(num_rows), rng.integers(1, 13, size=num_rows))[:num_rows]
    classes = classes * 7 - 20  # neither dense nor positive
    centres = {number: rng.normal(size=dim) for number in np.unique(classes)}
    embeddings = np.stack([centres[number] for number in classes]) + 1.2 * rng.normal(size=[num_rows, dim])
    if labels == "uneven":
        order = rng.permutation(num_rows)
        classes, embeddings = classes[order], embeddings[order]
    attributes = rng.integers(-1, 2, size=[num_rows, NUM_ATTRIBUTES])
    return classes, embeddings.astype(np.float32), attributes


def loss_function(loss, memory=None):
    """A function of (labels, embeddings, attributes) that gives the value and its gradients."""

    def both(labels, embeddings, attributes):
        logits = 3.0 * embeddings[:, :NUM_ATTRIBUTES]
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            if isinstance(loss, AttributeLoss):
                predictions = 3.0 * embeddings[:, :NUM_ATTRIBUTES]
                per_photo = loss.call(attributes, predictions if loss.from_logits else tf.sigmoid(predictions))
            elif loss.takes_dicts:
                teacher = tf.stop_gradient(embeddings[:, ::-1])
                targets = {"label": labels, "attributes": attributes, "teacher": teacher}
                terms = loss.terms(targets, {"embedding": embeddings, "attributes": logits}, memory)
                per_photo = tf.add_n(list(terms.values()))
            else:
                per_photo = tf.add_n(list(loss.terms(labels, embeddings, memory).values()))
            value = tf.reduce_mean(per_photo)
        return value, tape.gradient(value, embeddings)

    return both


def make_memory(dim=16):
    """Remembered photos of which the last third is not there yet."""
    labels, embeddings, attributes = make_batch(NUM_REMEMBERED, seed=9, dim=dim)
    is_filled = np.arange(NUM_REMEMBERED) < 32
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Remembered(*[tf.constant(each) for each in (unit, labels, attributes.astype(np.float32), is_filled)])


# As Keras traces a step: it leaves the rows open, since the last batch may have fewer
ANY_ROWS = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 16]), tf.TensorSpec([None, NUM_ATTRIBUTES], tf.int64)]


def hlo_of(function, arguments, signature=None):
    compiled = tf.function(function, input_signature=signature, jit_compile=True)
    return compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")


def dynamic_dimensions(hlo):
    """Sizes that are an upper bound only: `f32[<=20,5]`."""
    return re.findall(r"\w+\[[^\]]*<=[^\]]*\]", hlo)


def check_shapes(loss, memory, signature=None):
    function = loss_function(loss, memory)
    arguments = [tf.constant(each) for each in make_batch(20)]
    assert dynamic_dimensions(hlo_of(function, arguments, signature)) == []


# The settings that are compared with the loops at every size: those with names, and a few besides
COMPARED = {
    "eet": (EETLoss(), lambda b: reference_gradients.eet(b)),
    "eet-symmetric": (EETLoss(symmetric_margin=True), lambda b: reference_gradients.eet(b, symmetric=1.0)),
    "eet-no-class-terms": (
        EETLoss(equidistributed_weight=0.0),
        lambda b: reference_gradients.eet(b, equidistributed=0.0),
    ),
    "batch-hard": (TripletLoss(), lambda b: reference_gradients.triplet(b)),
    "batch-hard-soft": (TripletLoss(soft_margin=True), lambda b: reference_gradients.triplet(b, soft=True)),
    "batch-all": (
        TripletLoss(positives="all", negatives="all"),
        lambda b: reference_gradients.triplet(b, positives="all", negatives="all"),
    ),
    "semi-hard": (
        TripletLoss(0.2, positives="all", negatives="semi_hard", distance="squared"),
        lambda b: reference_gradients.triplet(b, 0.2, positives="all", negatives="semi_hard", kind="squared"),
    ),
    "online-sampling": (
        TripletLoss(0.1, positives="partner", distance="cosine"),
        lambda b: reference_gradients.triplet(b, 0.1, positives="partner", kind="cosine"),
    ),
    "deviance": (BinomialDevianceLoss(), lambda b: reference_gradients.deviance(b)),
    "soft-deviance": (SoftBinomialDevianceLoss(), None),
    "multi-similarity": (MultiSimilarityLoss(), reference_gradients.multi_similarity),
    "contrastive": (SupervisedContrastiveLoss(), reference_gradients.supervised_contrastive),
    "smooth-ap": (SmoothAPLoss(0.05), lambda b: reference_gradients.smooth_ap(b, 0.05)),
    "roadmap": (RoadmapLoss(temperature=0.05), lambda b: reference_gradients.roadmap(b, temperature=0.05)),
    "prefixes": (
        PrefixLoss(EETLoss(), (5, 8, 16), (1.0, 2.0, 1.0)),
        lambda b: reference_gradients.on_prefixes(b, {5: 0.25, 8: 0.5, 16: 0.25}, reference_gradients.eet),
    ),
    "recall": (RecallAtKLoss(temperature=0.05), lambda b: reference_gradients.recall_at_k(b, temperature=0.05)),
}


def by_loops(name, batch):
    """Value and gradient of a setting."""
    labels, embeddings, attributes = batch
    loops = reference_gradients.Batch(labels, embeddings)
    if name == "soft-deviance":
        g = reference_gradients.granularity(attributes, attributes)
        value = reference_gradients.deviance(loops, weights=(2 - g, 1 + g))
    else:
        value = COMPARED[name][1](loops)
    return value, loops.gradient()


@functools.cache
def expected_of(name, num_rows, labels):
    """A batch, and value and gradient by the loops.

    It is the first one in which no choice of a photo hangs on the rounding of float32: embeddings that are some
    millionths longer or shorter in every direction have the same gradient, to a thousandth.
    """
    for seed in range(20):
        batch = make_batch(num_rows, labels, seed)
        value, gradient = by_loops(name, batch)
        if (name, num_rows) == ("semi-hard", 1024):
            return batch, value, gradient  # some of 6,000 positives are as far as some negative, in every batch
        if all(is_same_gradient(by_loops(name, moved(batch, each))[1], gradient) for each in range(2)):
            return batch, value, gradient
    raise AssertionError("in every batch some choice hangs on rounding")


def moved(batch, seed):
    factors = 1 + 3e-6 * np.random.default_rng(seed).normal(size=batch[1].shape)
    return batch[0], batch[1].astype(np.float64) * factors, batch[2]


def is_same_gradient(found, expected):
    return np.max(np.abs(found - expected)) < 1e-3 * np.max(np.abs(expected))


def check(found, expected, other_rows=0):
    """Relative to the value, and to the largest number of the gradient, but for a few rows."""
    (value, gradient), (expected_value, expected_gradient) = found, expected
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    errors = np.max(np.abs(np.asarray(gradient) - expected_gradient), axis=1) / np.max(np.abs(expected_gradient))
    assert np.sort(errors)[-1 - other_rows] < 5e-5
