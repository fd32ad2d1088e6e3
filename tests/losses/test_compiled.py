"""What XLA makes of every loss in every setting: no shape that is known only at run time, and the loops' numbers.

On a CPU XLA carries such shapes, and gets them wrong from 17 rows on; on a GPU it ends the training.
"""

import functools
import itertools
import json
import re

import numpy as np
import pytest
import tensorflow as tf

import eet_tf
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
    make_strategy,
    plans,
    replicas,
)
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Remembered
from eet_tf.pairs import precision
from tests import reference_gradients
from tests.rounding import tensor_float_32  # noqa: F401

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


def test_every_loss_is_here():
    public = {getattr(eet_tf, name) for name in eet_tf.__all__}
    losses = {each for each in public if isinstance(each, type) and issubclass(each, (MetricLoss, AttributeLoss))}
    of_classes = {eet_tf.ArcFaceLoss, eet_tf.NormalizedSoftmaxLoss, eet_tf.ProxyAnchorLoss}  # test_class_losses.py
    assert losses - {MetricLoss, *of_classes} == set(CHOICES)  # MetricLoss is what one's own losses derive from


@pytest.mark.parametrize("loss_class, settings", ALL, ids=NAMES)
def test_no_shape_is_known_only_at_run_time(loss_class, settings):
    check_shapes(loss_class(**settings), None)


@pytest.mark.parametrize("loss_class", [c for c in CHOICES if c is not AttributeLoss])
def test_nor_with_a_memory_that_is_not_full(loss_class):
    for choices in settings_of(loss_class)[:: 1 if loss_class is not TripletLoss else 6]:
        check_shapes(loss_class(**choices), make_memory())


def check_shapes(loss, memory, signature=None):
    function = loss_function(loss, memory)
    arguments = [tf.constant(each) for each in make_batch(20)]
    assert dynamic_dimensions(hlo_of(function, arguments, signature)) == []


def test_a_shape_known_only_at_run_time_would_be_seen():
    assert dynamic_dimensions(hlo_of(lambda x: tf.unique(x)[0], [tf.constant([1, 1, 2])]))


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


@pytest.mark.parametrize("name", COMPARED)
def test_traced_for_any_number_of_rows(name):
    """One trace, two sizes, each compiled anew: the shapes and the numbers."""
    loss = COMPARED[name][0]
    check_shapes(loss, None, ANY_ROWS)
    compiled = tf.function(loss_function(loss), input_signature=ANY_ROWS, jit_compile=True)
    for num_rows in (20, 257):
        batch, value, gradient = expected_of(name, num_rows, "uneven")
        check(compiled(*[tf.constant(each) for each in batch]), (value, gradient))


BATCHES = [(20, "even"), (20, "uneven"), (64, "uneven"), (257, "even"), (257, "uneven"), (1024, "uneven")]


@pytest.mark.parametrize("num_rows, labels", BATCHES)
@pytest.mark.parametrize("name", COMPARED)
def test_value_and_gradient_are_the_loops(name, num_rows, labels):
    """Compiled and not."""
    batch, value, gradient = expected_of(name, num_rows, labels)
    function = loss_function(COMPARED[name][0])
    arguments = [tf.constant(each) for each in batch]
    for mode in (tf.function, tf.function(jit_compile=True)):
        check(mode(function)(*arguments), (value, gradient), 12 if (name, num_rows) == ("semi-hard", 1024) else 0)


ON_TWO = [
    ("eet", 20),
    ("eet", 64),
    ("eet", 257),
    ("eet", 1024),
    ("batch-hard", 257),
    ("batch-all", 64),
    ("deviance", 257),
    ("multi-similarity", 257),
    ("contrastive", 257),
    ("smooth-ap", 64),
    ("roadmap", 257),
    ("recall", 64),
    ("prefixes", 257),
]


def report_two_replicas():
    """Runs in a process of its own: {setting: [rows, error of the value, error of the gradient]}, plain and compiled.

    The first replica has some more rows than the second; classes lie on both.
    """
    replicas.split_cpu(2)
    strategy, results = make_strategy("mirrored"), {}
    for name, num_rows in ON_TWO:
        batch, expected, expected_gradient = expected_of(name, num_rows, "uneven")
        for is_compiled in (False, True):
            value, gradient = on_two_replicas(strategy, COMPARED[name][0], batch, is_compiled)
            error = np.max(np.abs(gradient - expected_gradient)) / np.max(np.abs(expected_gradient))
            results[f"{name}, {num_rows}, {is_compiled}"] = [abs(value / expected - 1), float(error)]
    print(json.dumps(results))


def on_two_replicas(strategy, loss, batch, is_compiled):
    labels, embeddings, _ = batch
    middle = (len(labels) + 3) // 2

    def shared(array):
        parts = array[:middle], array[middle:]
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    @tf.function
    def step(labels, embeddings):
        with plans.compiling_parts(is_compiled), tf.GradientTape() as tape:
            tape.watch(embeddings)
            total = tf.reduce_sum(tf.add_n(list(loss.terms(labels, embeddings).values())))
        return total, tape.gradient(total, embeddings)

    total, gradient = strategy.run(step, args=(shared(labels), shared(embeddings)))
    totals, gradients = (strategy.experimental_local_results(each) for each in (total, gradient))
    size = len(labels)
    return float(sum(totals)) / size, np.concatenate([np.asarray(each) for each in gradients]) / size


def test_two_replicas_have_the_loops_value_and_gradient(run_python):
    printed = run_python("from tests.losses import test_compiled; test_compiled.report_two_replicas()")
    results = json.loads(printed[0].splitlines()[-1])
    assert len(results) == 2 * len(ON_TWO)
    for name, (value_error, gradient_error) in results.items():
        assert value_error < 1e-5, name
        assert gradient_error < 5e-5, name


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.float32])
def test_labels_of_any_number_type(dtype):
    batch, value, gradient = expected_of("eet", 257, "uneven")
    labels = batch[0] - min(batch[0].min(), 0)  # some types have no negative numbers
    arguments = [tf.constant(each) for each in (labels.astype(dtype), *batch[1:])]
    check(tf.function(loss_function(EETLoss()), jit_compile=True)(*arguments), (value, gradient))


@pytest.mark.usefixtures("tensor_float_32")
@pytest.mark.parametrize("mode", [tf.function, tf.function(jit_compile=True)], ids=["graph", "xla"])
@pytest.mark.parametrize("name", COMPARED)
def test_rounded_factors_change_nothing(name, mode):
    """As on a GPU with TensorFloat-32: products are rounded to 10 bits of mantissa, losses are not."""
    batch, value, gradient = expected_of(name, 257, "uneven")
    check(mode(loss_function(COMPARED[name][0]))(*[tf.constant(each) for each in batch]), (value, gradient))


def test_the_plain_product_would_be_seen(tensor_float_32, monkeypatch):  # noqa: F811
    monkeypatch.setattr(precision, "rounds_factors", lambda: False)
    batch, _, gradient = expected_of("eet", 257, "uneven")
    found = loss_function(EETLoss())(*[tf.constant(each) for each in batch])[1]
    assert np.max(np.abs(found - gradient)) > 2e-4 * np.max(np.abs(gradient))


@pytest.mark.parametrize("name", ["eet", "batch-all", "deviance"])
def test_a_memory_that_is_not_full_is_as_the_photos_it_holds(name):
    """Compiled, against the loops over the batch and the 32 photos of 48 places that are there."""
    memory, batch = make_memory(), make_batch(64)
    filled = memory.is_filled.numpy()
    remembered = memory.embeddings.numpy()[filled], memory.labels.numpy()[filled]
    loops = reference_gradients.Batch(batch[0], batch[1], *remembered)
    value = COMPARED[name][1](loops)
    function = loss_function(COMPARED[name][0], memory)
    found = tf.function(function, jit_compile=True)(*[tf.constant(each) for each in batch])
    check(found, (value, loops.gradient()))
