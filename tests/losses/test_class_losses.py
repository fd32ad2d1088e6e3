"""Normalised softmax, ArcFace and Proxy-Anchor against loops: values, gradients, samples of classes, labels, XLA."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf import (
    ArcFaceLoss,
    CombinedLoss,
    EETLoss,
    MetricLearner,
    NormalizedSoftmaxLoss,
    ProxyAnchorLoss,
    plans,
)
from eet_tf.losses import class_vectors
from eet_tf.losses.batch import Remembered
from eet_tf.pairs import pairwise
from tests import reference, reference_classes
from tests.losses.settings import dynamic_dimensions, hlo_of
from tests.rounding import tensor_float_32  # noqa: F401

NUM_CLASSES, DIM = 30, 6
# (class, its arguments, the loss of every photo by loops)
CASES = {
    "softmax": (NormalizedSoftmaxLoss, {}, reference_classes.normalized_softmax),
    "softmax_smooth": (
        NormalizedSoftmaxLoss,
        {"temperature": 0.2, "label_smoothing": 0.1},
        reference_classes.normalized_softmax,
    ),
    "arcface": (ArcFaceLoss, {}, reference_classes.arcface),
    "arcface_gentle": (
        ArcFaceLoss,
        {"margin": 0.2, "scale": 8.0, "label_smoothing": 0.3},
        reference_classes.arcface,
    ),
    "arcface_beyond": (ArcFaceLoss, {"margin": 2.0, "scale": 5.0}, reference_classes.arcface),
    "arcface_subcenters": (ArcFaceLoss, {"subcenters": 3, "scale": 20.0}, reference_classes.arcface),
    "proxy_anchor": (ProxyAnchorLoss, {}, reference_classes.proxy_anchor),
    "proxy_anchor_gentle": (ProxyAnchorLoss, {"margin": 0.3, "scale": 4.0}, reference_classes.proxy_anchor),
}
# What each class is compiled with by XLA
CHOICES = {
    NormalizedSoftmaxLoss: {"label_smoothing": [0.0, 0.1], "sampled_classes": [None, 25]},
    ArcFaceLoss: {"subcenters": [1, 3], "label_smoothing": [0.0, 0.1], "sampled_classes": [None, 25]},
    ProxyAnchorLoss: {"sampled_classes": [None, 25]},
}
every_case = pytest.mark.parametrize("name", CASES)
every_loss = pytest.mark.parametrize("loss_class", CHOICES)


def make_batch(num_photos=64, seed=0, num_classes=NUM_CLASSES, subcenters=1, dim=DIM):
    """Labels in no order, some classes absent; embeddings near their class; vectors of every length."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes // 2, size=num_photos) * 2
    vectors = rng.normal(size=[num_classes, subcenters, dim]) * rng.uniform(0.1, 5, size=[num_classes, subcenters, 1])
    centers = vectors[labels, rng.integers(subcenters, size=num_photos)]
    embeddings = reference.unit(centers) + 0.5 * rng.normal(size=[num_photos, dim])
    vectors = vectors[:, 0] if subcenters == 1 else vectors
    return labels, embeddings.astype(np.float32), vectors.astype(np.float32)


def made(name):
    """The loss, a function of it by loops, and a batch for it."""
    loss_class, arguments, by_loops = CASES[name]
    rest = {key: value for key, value in arguments.items() if key != "subcenters"}
    batch = make_batch(subcenters=arguments.get("subcenters", 1))
    return loss_class(NUM_CLASSES, **arguments), lambda *given, **more: by_loops(*given, **rest, **more), batch


def of_photos(loss, labels, embeddings, vectors):
    """The loss of each photo."""
    ((name, _),) = loss.class_vectors_shapes(DIM).items()
    ((term, values),) = loss.terms(labels, embeddings, class_vectors={name: vectors}).items()
    assert term == name == loss.term_names[0]
    return values


def both_gradients(loss, labels, embeddings, vectors):
    """Of the mean, to the embeddings and to the class vectors."""
    embeddings, vectors = tf.convert_to_tensor(embeddings), tf.convert_to_tensor(vectors)
    with tf.GradientTape() as tape:
        tape.watch([embeddings, vectors])
        value = tf.reduce_mean(of_photos(loss, labels, embeddings, vectors))
    return value, *tape.gradient(value, [embeddings, vectors])


@every_case
def test_every_photo_is_the_loops(name):
    loss, by_loops, batch = made(name)
    np.testing.assert_allclose(of_photos(loss, *batch), by_loops(*batch), rtol=2e-5, atol=2e-5)


@every_case
def test_functions_are_their_classes(name):
    loss, by_loops, (labels, embeddings, vectors) = made(name)
    function = {
        NormalizedSoftmaxLoss: eet_tf.normalized_softmax_loss,
        ArcFaceLoss: eet_tf.arcface_loss,
        ProxyAnchorLoss: eet_tf.proxy_anchor_loss,
    }[type(loss)]
    names = set(inspect.signature(function).parameters)
    arguments = {key: value for key, value in loss.get_config().items() if key in names}
    found = function(labels[:, np.newaxis], embeddings, vectors, **arguments)
    np.testing.assert_array_equal(found, of_photos(loss, labels, embeddings, vectors))
    unit = reference.unit(embeddings)
    assert not np.allclose(function(labels, 0.5 * unit, vectors, **(arguments | {"from_normalized": True})), found)


@every_case
def test_gradients_are_those_of_the_loops(name):
    """To embeddings and class vectors, by central differences in float64."""
    loss, by_loops, (labels, embeddings, vectors) = made(name)
    labels, embeddings = labels[:10], embeddings[:10]
    _, of_embeddings, of_vectors = both_gradients(loss, labels, embeddings, vectors)
    expected = reference.numeric_gradient(lambda x: by_loops(labels, x, vectors).mean(), embeddings)
    assert np.abs(of_embeddings - expected).max() < 2e-4 * np.abs(expected).max()
    rows = [labels[0], labels[1], 1]  # of the 30, two that are there and one that is not

    def moved(some):
        whole = vectors.astype(np.float64)
        whole[rows] = some
        return by_loops(labels, embeddings, whole).mean()

    expected = reference.numeric_gradient(moved, vectors[rows])
    assert np.abs(of_vectors.numpy()[rows] - expected).max() < 2e-4 * np.abs(expected).max()


@pytest.mark.parametrize("mode", [tf.function, tf.function(jit_compile=True)], ids=["graph", "xla"])
@every_case
def test_in_blocks_it_is_the_same(name, mode, monkeypatch):
    """Of 7 rows and not of one, in a graph and compiled."""
    loss, _, batch = made(name)
    expected = both_gradients(loss, *batch)
    monkeypatch.setattr(pairwise, "block_rows_against", lambda references: 7)
    found = mode(lambda *given: both_gradients(loss, *given))(*[tf.constant(each) for each in batch])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5 * np.abs(other).max())


@pytest.mark.usefixtures("tensor_float_32")
@every_case
def test_rounded_factors_change_nothing(name):
    """As on a GPU with TensorFloat-32."""
    loss, by_loops, batch = made(name)
    np.testing.assert_allclose(of_photos(loss, *batch), by_loops(*batch), rtol=2e-5, atol=2e-5)


def settings_of(loss_class):
    names = CHOICES[loss_class]
    return [dict(zip(names, values)) for values in itertools.product(*names.values())]


@pytest.mark.parametrize("num_photos", [None, 20], ids=["any_number", "20"])
@pytest.mark.parametrize("choice", [(kind, each) for kind in CHOICES for each in settings_of(kind)], ids=str)
def test_no_shape_is_known_only_at_run_time(choice, num_photos):
    loss_class, settings = choice
    loss = loss_class(NUM_CLASSES, **settings)
    batch = make_batch(20, subcenters=settings.get("subcenters", 1))
    rows = [tf.TensorSpec([num_photos], tf.int64), tf.TensorSpec([num_photos, DIM])]
    signature = [*rows, tf.TensorSpec(batch[2].shape)]
    arguments = [tf.constant(each) for each in batch]
    assert dynamic_dimensions(hlo_of(lambda *given: both_gradients(loss, *given), arguments, signature)) == []


def largest_tensor(function, arguments):
    """The most numbers that any tensor of a graph has, as far as its shape is known, with all that it calls."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    definitions = graph.as_graph_def(add_shapes=True)
    nodes = [*definitions.node, *[node for each in definitions.library.function for node in each.node_def]]
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    shapes += [shape for each in definitions.library.function for shape in _shapes_within(each)]
    sizes = [np.prod([dim.size for dim in shape.dim], dtype=np.int64) for shape in shapes if not shape.unknown_rank]
    return max(size for size in sizes if size > 0)


def _shapes_within(function):
    return [shape for node in function.node_def for shape in node.attr["_output_shapes"].list.shape]


@every_loss
def test_no_matrix_of_all_photos_and_all_classes(loss_class):
    """On a CPU; a block of 8 MB is 2^21 numbers. The class vectors themselves have 3 * 2^16."""
    if plans.has_gpu():
        pytest.skip("a GPU has all in one block")
    num_classes, num_photos = 2**15, 512
    labels, embeddings, vectors = make_batch(num_photos, num_classes=num_classes)
    loss = loss_class(num_classes, sampled_classes=num_classes)
    given = [tf.constant(each) for each in (labels, embeddings, vectors)]
    found = tf.function(lambda *batch: both_gradients(loss, *batch))(*given)
    assert all(np.isfinite(each).all() for each in found)
    assert largest_tensor(lambda *batch: both_gradients(loss, *batch), given) <= 2**21 < num_classes * num_photos


def test_such_a_matrix_would_be_seen():
    given = [tf.zeros([512, 3]), tf.zeros([2**15, 3])]
    assert largest_tensor(lambda x, w: tf.reduce_sum(tf.matmul(x, w, transpose_b=True)), given) == 2**24


# Samples of classes


@pytest.mark.parametrize("name", ["softmax_smooth", "arcface_subcenters", "proxy_anchor"])
def test_of_a_sample_it_is_the_loops_over_the_sample(name):
    loss_class, arguments, _ = CASES[name]
    _, by_loops, batch = made(name)
    found = of_photos(loss_class(NUM_CLASSES, sampled_classes=20, **arguments), *batch)
    classes = class_vectors.sample(tf.constant(batch[0]), NUM_CLASSES, 20).numpy()
    np.testing.assert_allclose(found, by_loops(*batch, classes=classes.tolist()), rtol=2e-5, atol=2e-5)


def test_gradients_of_a_sample_are_those_of_its_classes_alone():
    labels, embeddings, vectors = make_batch()
    loss = NormalizedSoftmaxLoss(NUM_CLASSES, temperature=0.3, sampled_classes=20)
    classes = class_vectors.sample(tf.constant(labels), NUM_CLASSES, 20).numpy()
    _, of_embeddings, of_vectors = both_gradients(loss, labels, embeddings, vectors)
    whole = NormalizedSoftmaxLoss(20, temperature=0.3)
    _, expected, expected_of_vectors = both_gradients(
        whole, np.searchsorted(classes, labels), embeddings, vectors[classes]
    )
    np.testing.assert_allclose(of_embeddings, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_vectors.numpy()[classes], expected_of_vectors, rtol=1e-4, atol=1e-6)
    assert not np.any(np.delete(of_vectors.numpy(), classes, axis=0))


def test_a_sample_holds_the_batch_and_is_uniform_of_the_others():
    """300 batches of 2 classes: of the 98 others, 18 are drawn, each in 55 of the batches, give or take 5 deviations.

    The deviation of a count is sqrt(300 * 18/98 * 80/98) = 6.7.
    """
    counts = np.zeros(100)
    for number in range(300):
        labels = tf.constant([number % 50, 50 + (7 * number + number // 50) % 50], tf.int64)
        drawn = class_vectors.sample(labels, 100, 20).numpy()
        assert len(np.unique(drawn)) == 20 and set(labels.numpy()) <= set(drawn) and drawn[0] >= 0 and drawn[-1] < 100
        np.testing.assert_array_equal(drawn, np.sort(drawn))
        counts[np.setdiff1d(drawn, labels)] += 1
    expected = 300 * 18 / 98 * (1 - 1 / 50)  # a class is one of the batch's in 6 of 300
    assert np.abs(counts - expected).max() < 5 * 6.7


def test_the_same_batch_has_the_same_sample_and_another_one_another():
    labels = tf.constant([5, 900, 17, 5], tf.int64)
    first = class_vectors.sample(labels, 1000, 50)
    for mode in (tf.function, tf.function(jit_compile=True)):
        np.testing.assert_array_equal(mode(class_vectors.sample)(labels, 1000, 50), first)
    other = class_vectors.sample(tf.constant([6, 899, 17, 5], tf.int64), 1000, 50)  # of the same sum
    assert len(np.intersect1d(first, other)) < 15


# Labels


@every_loss
def test_a_label_that_is_no_class_is_refused_or_not_a_number(loss_class):
    labels, embeddings, vectors = make_batch()
    loss = loss_class(NUM_CLASSES)
    graph = tf.function(lambda *batch: of_photos(loss, *batch))
    xla = tf.function(lambda *batch: of_photos(loss_class(NUM_CLASSES, sampled_classes=25), *batch), jit_compile=True)
    for wrong in (-1, NUM_CLASSES, 10**12):
        labels[3] = wrong
        message = f"`y_true` must be labels from 0 to .*here 29. Received: {wrong} in row 3"
        with pytest.raises(ValueError, match=message):
            of_photos(loss, labels, embeddings, vectors)
        for function in (graph, xla):
            assert np.isnan(function(*[tf.constant(each) for each in (labels, embeddings, vectors)])).all()


@every_loss
def test_more_classes_than_the_sample_holds_are_refused_or_not_a_number(loss_class):
    batch = make_batch()
    count = len(np.unique(batch[0]))
    loss = loss_class(NUM_CLASSES, sampled_classes=count - 1)
    with pytest.raises(
        ValueError, match=f"`sampled_classes` must be at least .*here {count}. Received: .*={count - 1}"
    ):
        of_photos(loss, *batch)
    function = tf.function(lambda *given: of_photos(loss, *given))
    assert np.isnan(function(*[tf.constant(each) for each in batch])).all()


# What is no number, and what is at the ends


@every_case
def test_one_embedding_that_is_no_number_makes_all_nan(name):
    loss, _, (labels, embeddings, vectors) = made(name)
    embeddings[5, 2] = np.nan
    assert np.isnan(of_photos(loss, labels, embeddings, vectors)).all()


@every_case
def test_a_class_vector_that_is_no_number_is_no_silence(name):
    loss, _, (labels, embeddings, vectors) = made(name)
    vectors[labels[0]] = np.nan
    assert np.isnan(of_photos(loss, labels, embeddings, vectors)).any()


@every_case
def test_photos_on_and_opposite_their_class_have_finite_gradients(name):
    loss, by_loops, (labels, embeddings, vectors) = made(name)
    first = vectors if vectors.ndim == 2 else vectors[:, 0]
    embeddings[:32], embeddings[32:] = 3 * first[labels[:32]], -first[labels[32:]]
    embeddings[40] = 0.0
    value, *gradients = both_gradients(loss, labels, embeddings, vectors)
    assert np.isfinite(value) and all(np.isfinite(each).all() for each in gradients)
    known = np.arange(64) != 40
    if "proxy" not in name:
        found = of_photos(loss, labels, embeddings, vectors).numpy()[known]
        expected = by_loops(labels[known], embeddings[known], vectors)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * expected.max())


def test_beyond_a_half_turn_the_loss_still_falls_with_the_angle():
    """The margin's cosine would rise again there."""
    angles = np.linspace(0, np.pi, 50)
    photos = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    losses = eet_tf.arcface_loss(np.zeros(50, int), photos, np.array([[1.0, 0.0], [0.0, -1.0]]), margin=1.0, scale=3.0)
    own = -3 * np.sin(angles) - np.log(np.expm1(losses))  # of log(1 + exp(other - own)), the other's cosine is -sin
    assert np.all(np.diff(own) < 1e-4) and own[-1] < -3 * 1.3


def test_empty_batches_and_one_photo():
    for loss_class in CHOICES:
        loss = loss_class(NUM_CLASSES)
        labels, embeddings, vectors = make_batch(1)
        assert of_photos(loss, labels, embeddings, vectors).shape == [1]
        assert of_photos(loss, labels[:0], embeddings[:0], vectors).shape == [0]


def test_a_batch_without_partners_is_no_reason_to_warn():
    loss = NormalizedSoftmaxLoss(NUM_CLASSES)
    _, embeddings, vectors = make_batch(20)
    of_photos(loss, np.arange(20), embeddings, vectors)  # warnings are errors


@every_loss
def test_what_is_remembered_is_passed_over(loss_class):
    labels, embeddings, vectors = make_batch()
    loss = loss_class(NUM_CLASSES)
    (name,) = loss.term_names
    memory = Remembered(tf.constant(reference.unit(embeddings)), tf.constant(labels))
    found = loss.terms(labels, embeddings, memory, class_vectors={name: vectors})
    np.testing.assert_array_equal(found[name], of_photos(loss, labels, embeddings, vectors))


# Where the vectors come from


@every_loss
def test_a_plain_keras_model_is_told_what_to_write(loss_class):
    model = keras.Sequential([keras.Input([DIM]), keras.layers.Dense(4)])
    model.compile("sgd", loss=loss_class(num_classes=9))
    mend = rf"Write eet_tf.MetricLearner\(model\).compile\(optimizer, loss=eet_tf.{loss_class.__name__}\(num_classes=9"
    with pytest.raises(ValueError, match=f"`loss` must be compiled by a MetricLearner where it is .*{mend}"):
        model.fit(np.ones([8, DIM], np.float32), np.arange(8), verbose=0)
    with pytest.raises(ValueError, match="Received: no class vectors"):
        CombinedLoss([EETLoss(), loss_class(9)])(np.arange(8) // 2, np.eye(8, dtype=np.float32))


@pytest.mark.parametrize("shape", [[NUM_CLASSES], [NUM_CLASSES, DIM + 1], [NUM_CLASSES, 2, DIM], [1, 1, 1, DIM]])
def test_vectors_of_another_shape_are_refused(shape):
    labels, embeddings, _ = make_batch()
    with pytest.raises(ValueError, match=r"`class_vectors` must be \[num_classes, dim\], of the embeddings' dim, 6"):
        eet_tf.normalized_softmax_loss(labels, embeddings, np.zeros(shape))
    if len(shape) != 3:
        with pytest.raises(ValueError, match=r"`class_vectors` must be \[num_classes, dim\] or \[num_classes, subcent"):
            eet_tf.arcface_loss(labels, embeddings, np.zeros(shape))


def test_names_of_terms_of_a_million_classes_cost_no_memory():
    """It would take 20 TB."""
    assert NormalizedSoftmaxLoss(10**10).names_of_terms(embedding_dim=512) == ("normalized_softmax",)


def test_a_loss_of_ones_own_learns_class_vectors():
    class Pull(eet_tf.MetricLoss):
        compares_photos = False

        def class_vectors_shapes(self, embedding_dim):
            return {"homes": (4, embedding_dim)}

        def terms(self, labels, embeddings, memory=None, class_vectors=None):
            return {"pull": tf.reduce_sum(tf.square(embeddings - tf.gather(class_vectors["homes"], labels)), axis=1)}

    learner = MetricLearner(keras.Sequential([keras.Input([DIM]), keras.layers.Dense(3)]))
    learner.compile(keras.optimizers.SGD(0.1), Pull())
    images = np.random.default_rng(0).normal(size=[16, DIM]).astype(np.float32)
    history = learner.fit(images, np.arange(16) % 4, epochs=4, verbose=0).history
    assert set(history) == {"loss", "pull"} and history["pull"][-1] < history["pull"][0]
    assert learner.class_vectors.by_name()["homes"].shape == [4, 3]
