"""One batch, one update, however many replicas share it. Each strategy trains in a process of its own."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    ArcFaceLoss,
    AttributeLoss,
    BinomialDevianceLoss,
    CombinedLoss,
    DistillationLoss,
    EETLoss,
    MetricLearner,
    MultiSimilarityLoss,
    NormalizedSoftmaxLoss,
    PrefixLoss,
    ProxyAnchorLoss,
    RecallAtKLoss,
    RoadmapLoss,
    SmoothAPLoss,
    SoftBinomialDevianceLoss,
    SupervisedContrastiveLoss,
    TripletLoss,
    make_strategy,
    replicas,
)
from eet_tf.evaluation.callback import embed
from tests.losses.test_own_loss import Contrastive

# Three global batches of 8, of which each of two replicas gets one half. The first has its classes whole on one
# replica; in the second every positive is on the other replica; the third is uneven, with classes of 1 to 3.
LABELS = np.array([[0, 0, 1, 1, 2, 2, 3, 3], [4, 5, 6, 7, 4, 5, 6, 7], [9, 2, 2, 9, 8, 9, 5, 2]])
# Of the 24 photos, in {1, 0, -1 = unknown}; nothing is known of the second one
ATTRIBUTES = np.random.default_rng(5).integers(-1, 2, size=[LABELS.size, 5])
ATTRIBUTES[1] = -1
# What each process trains: a kind of model, and what makes its losses. The default negative_cost of 25 is steep enough
# to show the rounding of sums in another order.
TRAININGS = {
    "learner": lambda: {"loss": EETLoss(symmetric_margin=True)},
    "learner_in_pieces": lambda: {"loss": EETLoss(symmetric_margin=True), "microbatch": 2},
    # neither 8 nor 4 photos fall into pieces of 3
    "learner_in_uneven_pieces": lambda: {
        "loss": EETLoss(symmetric_margin=True),
        "microbatch": 3,
        "metrics": [mean_length],
    },
    "learner_clipped": lambda: {"loss": EETLoss(), "clip_norm": 0.1},
    "learner_with_memory": lambda: {"loss": EETLoss(), "memory_size": 12},
    "keras_model": lambda: {"loss": EETLoss(symmetric_margin=True)},
    "learner_without_class_terms": lambda: {"loss": EETLoss(equidistributed_weight=0.0)},
    "learner_of_triplets": lambda: {"loss": TripletLoss()},
    "learner_of_all_pairs": lambda: {"loss": BinomialDevianceLoss(negative_cost=2.0)},
    "learner_of_multi_similarity": lambda: {"loss": MultiSimilarityLoss(negative_scale=5.0)},
    "learner_of_roadmap": lambda: {"loss": RoadmapLoss(temperature=0.3, slope=3.0)},
    "learner_of_smooth_ap": lambda: {"loss": SmoothAPLoss(temperature=0.3)},
    "learner_of_recall": lambda: {"loss": RecallAtKLoss(temperature=0.3)},
    "learner_of_contrast": lambda: {"loss": SupervisedContrastiveLoss(temperature=0.5)},
    "learner_of_prefixes": lambda: {"loss": PrefixLoss(EETLoss(), [2, 4]), "memory_size": 12},
    "learner_of_a_teacher": lambda: {"loss": DistillationLoss(TripletLoss(), 2.0, teacher_references=True)},
    # the batches have some of the classes, and the sample of 9 leaves one or two out
    "learner_of_classes": lambda: {"loss": NormalizedSoftmaxLoss(11, temperature=0.3, sampled_classes=9)},
    "learner_of_classes_in_pieces": lambda: {
        "loss": ArcFaceLoss(11, scale=4.0, subcenters=2),
        "microbatch": 3,
        "class_vectors_rate": 3.0,
        "clip_norm": 0.1,
    },
    "learner_of_proxies": lambda: {"loss": ProxyAnchorLoss(11, scale=2.0), "class_vectors_rate": 5.0},
    "learner_of_a_sum": lambda: {
        "loss": CombinedLoss([EETLoss(), NormalizedSoftmaxLoss(11, temperature=0.3)], [1.0, 0.5]),
        "memory_size": 12,
    },
    "learner_with_a_slow_trunk": lambda: {"loss": EETLoss(), "trunk_rate": 0.3, "ema": 0.9},
    "learner_of_its_head_first": lambda: {"loss": EETLoss(), "head_only_steps": 3},
    "learner_of_a_loss_of_ones_own": lambda: {"loss": Contrastive()},
    "learner_of_two_heads": lambda: {
        "loss": SoftBinomialDevianceLoss(negative_cost=2.0, granularity="predictions"),
        "attribute_loss": AttributeLoss(),
        "attribute_weight": 0.5,
    },
}

# in `make test-long` alone: they differ from the others in what a loss does, which its own tests look at
LONG = (
    *("learner_without_class_terms", "learner_of_triplets", "learner_of_multi_similarity", "learner_of_roadmap"),
    *("learner_of_recall", "learner_of_contrast", "learner_of_proxies", "learner_of_a_loss_of_ones_own"),
)
OFTEN = tuple(name for name in TRAININGS if name not in LONG)
MARKED = [*OFTEN, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)]


def mean_length(labels, embeddings):
    """A metric of one's own."""
    return tf.norm(embeddings, axis=1)


def make_embedder(has_two_heads):
    """Without batch normalisation, which sees one replica's rows only; with regularisation, which has no rows."""
    images = keras.Input([6])
    layer = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.05))
    hidden = keras.Sequential([keras.Input([6]), layer])(images)
    embedding = keras.layers.Dense(4)(hidden)
    heads = {"embedding": embedding, "attributes": keras.layers.Dense(5)(hidden)} if has_two_heads else embedding
    return keras.Model(images, heads)


def make_dataset(has_two_heads, has_teacher):
    images = np.random.default_rng(3).normal(size=[LABELS.size, 6]).astype(np.float32)
    labels = LABELS.reshape(-1)
    targets = {"label": labels, "attributes": ATTRIBUTES} if has_two_heads else labels
    if has_teacher:
        targets = {"label": labels, "teacher": np.random.default_rng(4).normal(size=[LABELS.size, 4])}
    return tf.data.Dataset.from_tensor_slices((images, targets)).batch(8, drop_remainder=True)


def train(name, strategy):
    """Three steps of plain gradient descent: the history and every weight."""
    keras.utils.set_random_seed(7)
    with strategy.scope():
        losses = TRAININGS[name]()
        memory_size, clip_norm = losses.pop("memory_size", 0), losses.pop("clip_norm", None)
        ema = losses.pop("ema", None)
        averages = {"use_ema": True, "ema_momentum": ema} if ema else {}
        has_two_heads = "attribute_loss" in losses
        embedder = make_embedder(has_two_heads)
        model = MetricLearner(embedder, memory_size, memory_start=1) if name.startswith("learner") else embedder
        model.compile(optimizer=keras.optimizers.SGD(0.2, global_clipnorm=clip_norm, **averages), **losses)

    def weights():
        vectors = model.class_vectors.by_name().values() if isinstance(model, MetricLearner) else ()
        return [each.tolist() for each in [*embedder.get_weights(), *[vector.numpy() for vector in vectors]]]

    before = weights()
    dataset = make_dataset(has_two_heads, getattr(losses["loss"], "uses_teacher", False))
    history = model.fit(dataset, shuffle=False, verbose=0).history
    evaluated = model.evaluate(dataset, verbose=0, return_dict=True)
    after = weights()
    held = [] if not memory_size else [field.numpy().tolist() for field in model.memory.rows()]
    return {"history": history, "evaluated": evaluated, "before": before, "after": after, "memory": held}


def report_trainings(strategy_name, names):
    """Runs in a process of its own: trains some under a strategy and prints what came out."""
    if strategy_name == "mirrored":
        replicas.split_cpu(2)
    strategy = make_strategy(strategy_name)
    result = {name: train(name, strategy) for name in names}
    print(json.dumps({"num_replicas": strategy.num_replicas_in_sync, **result}))


def report_overflow():
    """Runs in a process of its own: weights before and after steps in float16, of which one overflows somewhere."""
    replicas.split_cpu(2)
    keras.mixed_precision.set_global_policy("mixed_float16")
    strategy, results = make_strategy("mirrored"), []
    for overflowing in (0, 7):
        with strategy.scope():
            learner = MetricLearner(make_embedder(False))
            optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.2))
            learner.compile(optimizer, loss=EETLoss())
        images = np.random.default_rng(3).normal(size=[8, 6]).astype(np.float32)
        labels = LABELS[0]
        for factor in (1.0, 1e30, 1.0):
            before = [weight.tolist() for weight in learner.embedder.get_weights()]
            images[overflowing] = factor
            dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
            learner.fit(dataset, shuffle=False, verbose=0)
            results.append([before, [weight.tolist() for weight in learner.embedder.get_weights()]])
    print(json.dumps(results))


def report_gathering():
    """Runs in a process of its own: what `gather` and `global_rows` give each of two replicas, and gradients."""
    replicas.split_cpu(2)
    strategy = make_strategy("mirrored")
    rows = [np.arange(6, dtype=np.float32).reshape(3, 2), 10 + np.arange(4, dtype=np.float32).reshape(2, 2)]

    def per_replica(arrays):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(arrays[context.replica_id_in_sync_group])
        )

    def step(x, factor):
        with tf.GradientTape() as tape:
            tape.watch(x)
            everything = replicas.gather(x)
            picked = tf.gather(everything, [0, 0, 4])
            loss = factor * tf.reduce_sum(picked)
        return everything, replicas.global_rows(tf.shape(x)[0]), tape.gradient(loss, x), replicas.num_replicas()

    factors = per_replica([np.float32(1.0), np.float32(10.0)])
    results = strategy.run(tf.function(step), args=(per_replica(rows), factors))
    values = [[np.asarray(each).tolist() for each in strategy.experimental_local_results(r)] for r in results]
    embedded = embed_on_all(strategy)
    print(json.dumps({"embedded": embedded, **dict(zip(["everything", "rows", "gradient", "num_replicas"], values))}))


def embed_on_all(strategy):
    """[number of images, their embeddings by all replicas, those by one] for batches of 4 and what is left of them."""
    with strategy.scope():
        convolution = keras.layers.Conv2D(5, 3, activation="relu")
        layers = [convolution, keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
        embedder = keras.Sequential([keras.Input([6, 6, 3]), *layers])
    results = []
    for count, whole in ((1, False), (4, True), (5, False), (11, False), (11, True)):
        images = np.random.default_rng(count).normal(size=[count, 6, 6, 3]).astype(np.float32)
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(4 if count != 11 else 3, drop_remainder=whole)
        asked_for = images[: len(images) // 3 * 3] if count == 11 and whole else images
        found = embed(embedder, dataset)
        results.append([len(asked_for), found.tolist(), embedder(asked_for, training=False).numpy().tolist()])
    return results


def call(function):
    return f"from tests.training import test_replicas; test_replicas.{function}"


def trained(run_python, names):
    """What was trained on one replica and on two."""
    calls = [call(f"report_trainings({strategy!r}, {names!r})") for strategy in ("default", "mirrored")]
    one, two = (json.loads(text.splitlines()[-1]) for text in run_python(*calls))
    assert (one.pop("num_replicas"), two.pop("num_replicas")) == (1, 2)
    return one, two


@pytest.fixture(scope="module")
def trainings(run_python):
    """What was trained of OFTEN."""
    return trained(run_python, OFTEN)


@pytest.fixture(scope="module")
def long_trainings(run_python):
    """What was trained of LONG."""
    return trained(run_python, LONG)


@pytest.fixture
def pair(name, request):
    """One training, on one replica and on two."""
    return [each[name] for each in request.getfixturevalue("long_trainings" if name in LONG else "trainings")]


@pytest.fixture(scope="module")
def gathered(run_python):
    """What each of two replicas gathered; the first has three rows, the second two."""
    return json.loads(run_python(call("report_gathering()"))[0].splitlines()[-1])


@pytest.mark.parametrize("name", MARKED)
def test_same_update_on_one_and_on_two_replicas(name, pair):
    one, two = pair
    for first, start, on_one, on_two in zip(one["before"], two["before"], one["after"], two["after"]):
        np.testing.assert_array_equal(first, start)
        np.testing.assert_allclose(on_two, on_one, rtol=0, atol=2e-6)
    num_vectors = len(TRAININGS[name]()["loss"].class_vectors_shapes(4))
    assert len(one["after"]) == (6 if name == "learner_of_two_heads" else 4) + num_vectors
    stays = name == "learner_of_its_head_first"
    assert np.array_equal(one["before"][0], one["after"][0]) == stays
    for first, last in zip(one["before"][2 if stays else 0 :], one["after"][2 if stays else 0 :]):
        assert not np.allclose(first, last, atol=1e-3)


@pytest.mark.parametrize("name", MARKED)
def test_same_history_on_one_and_on_two_replicas(pair):
    one, two = (each["history"] for each in pair)
    assert set(one) == set(two) and "loss" in one
    for logged, values in one.items():
        np.testing.assert_allclose(two[logged], values, rtol=1e-5, atol=1e-6, err_msg=logged)


@pytest.mark.parametrize("name", MARKED)
def test_same_evaluation_on_one_and_on_two_replicas(pair):
    one, two = (each["evaluated"] for each in pair)
    assert two == pytest.approx(one, rel=1e-5, abs=1e-6)


def test_a_step_that_overflows_on_one_replica_is_left_out_on_both(run_python):
    """Whichever it is; the steps before and after it are taken. The first finds a scale small enough."""
    results = json.loads(run_python(call("report_overflow()"))[0].splitlines()[-1])
    for number, (before, after) in enumerate(results):
        assert all(np.isfinite(weight).all() for weight in after)
        if number % 3 == 1:
            assert before == after
    for steps in (results[:3], results[3:]):
        assert any(before != after for before, after in steps)


def test_every_replica_remembers_the_batches_of_all(trainings):
    """12 of the last 16 photos, in the places that one replica would give them."""
    (embeddings, labels, *_), (other_embeddings, other_labels, *_) = (
        t["learner_with_memory"]["memory"] for t in trainings
    )
    np.testing.assert_allclose(other_embeddings, embeddings, rtol=0, atol=2e-6)
    assert other_labels == labels
    assert sorted(labels) == sorted(LABELS.reshape(-1)[-12:])


@pytest.mark.parametrize("number", [0, 1], ids=["one_replica", "two_replicas"])
@pytest.mark.parametrize("name", ["learner", "learner_in_pieces", "learner_in_uneven_pieces"])
def test_learner_and_plain_keras_model_take_the_same_update(pair, number, trainings):
    learner, plain = pair[number], trainings[number]["keras_model"]
    for weight, expected in zip(learner["after"], plain["after"]):
        np.testing.assert_allclose(weight, expected, rtol=0, atol=2e-6)


def test_every_replica_gathers_all_rows_in_order(gathered):
    expected = [[0, 1], [2, 3], [4, 5], [10, 11], [12, 13]]
    assert gathered["everything"] == [expected, expected]
    assert gathered["num_replicas"] == [2]


def test_replicas_embed_whatever_is_left_for_them(gathered):
    """One image for two replicas, batches of odd sizes, with and without one that is smaller than the others."""
    assert [count for count, _, _ in gathered["embedded"]] == [1, 4, 5, 11, 9]
    for count, found, expected in gathered["embedded"]:
        assert np.shape(found) == (count, 5)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_every_replica_knows_where_its_rows_stand(gathered):
    assert gathered["rows"] == [[0, 1, 2], [3, 4]]


def test_gradients_come_back_from_every_replica(gathered):
    """Replica 0 sums rows 0, 0 and 4, replica 1 ten times that: row 0 gets 2 + 20, row 4 (its second) 1 + 10."""
    first, second = gathered["gradient"]
    assert first == [[22, 22], [0, 0], [0, 0]]
    assert second == [[0, 0], [11, 11]]


def test_on_one_replica_gathering_is_nothing():
    x = tf.ones([3, 2])
    assert replicas.gather(x) is x
    assert replicas.num_replicas() == 1
    np.testing.assert_array_equal(replicas.global_rows(tf.constant(3)), [0, 1, 2])


def test_inside_a_strategy_of_one_device_gathering_is_nothing():
    strategy = make_strategy("one_device")
    everything, rows = strategy.run(lambda: (replicas.gather(tf.ones([3, 2])), replicas.global_rows(tf.constant(3))))
    np.testing.assert_array_equal(everything, np.ones([3, 2]))
    np.testing.assert_array_equal(rows, [0, 1, 2])


@pytest.mark.parametrize("name", ["default", "one_device"])
def test_strategies_of_one_replica(name):
    assert make_strategy(name).num_replicas_in_sync == 1


def test_an_unknown_strategy_is_named():
    with pytest.raises(ValueError, match="`name` must be one of default, .*mirrored.* Received: name='tpu'"):
        make_strategy("tpu")


def test_splitting_the_cpu_too_late_is_refused():
    tf.ones([1])  # TensorFlow has started
    with pytest.raises(ValueError, match="`split_cpu` must be called before TensorFlow is used"):
        replicas.split_cpu(2)


@pytest.mark.parametrize("batch_size, advice", [(7, "e.g. to 6"), (1, "e.g. to 2")])
def test_a_batch_that_replicas_cannot_share_is_refused(batch_size, advice, two_replicas):
    message = f"`batch_size` must be a multiple of the 2 replicas. Received: batch_size={batch_size}.*{advice}"
    with pytest.raises(ValueError, match=message):
        replicas.check_batch_size(batch_size, two_replicas)


@pytest.mark.parametrize("microbatch", [0, 3, 8])
def test_a_microbatch_that_does_not_divide_a_replicas_share_is_refused(microbatch, two_replicas):
    message = f"`microbatch` must divide the 4 photos that each of 2 replicas gets .* Received: microbatch={microbatch}"
    with pytest.raises(ValueError, match=message):
        replicas.check_batch_size(8, two_replicas, microbatch)


def test_a_batch_that_replicas_can_share_is_taken(two_replicas):
    replicas.check_batch_size(8, two_replicas)
    replicas.check_batch_size(8, two_replicas, 2)


@pytest.fixture
def two_replicas():
    """All that `check_batch_size` asks of a strategy."""

    class TwoReplicas:
        num_replicas_in_sync = 2

    return TwoReplicas()
