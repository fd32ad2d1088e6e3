"""The training step: what it logs, what moves the weights, which losses it takes and which it refuses."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    AttributeLoss,
    BinomialDevianceLoss,
    EETLoss,
    MetricLearner,
    RetrievalEvaluation,
    SoftBinomialDevianceLoss,
    TripletLoss,
)
from eet_tf.training.batches import out_of_memory

LABELS = np.array([5, 5, 0, 2, 2, 2, 0, 9] * 2)
IMAGES = np.random.default_rng(0).normal(size=[16, 6]).astype(np.float32)
ANCHOR_TERMS = ["margin", "symmetric", "equidistant", "max_min", "equal_minima"]


class MeanLength(keras.losses.Loss):
    """A Keras loss that knows nothing of this package: the squared length of each embedding."""

    def call(self, y_true, y_pred):
        return tf.reduce_sum(tf.square(y_pred), axis=-1)


def make_embedder(regularizer=None):
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(7, activation="tanh", kernel_regularizer=regularizer)
    return keras.Sequential([keras.Input([6]), hidden, keras.layers.Dense(4)])


def make_learner(loss, embedder=None, rate=0.05, **compile_arguments):
    made = MetricLearner(embedder or make_embedder())
    made.compile(optimizer=keras.optimizers.SGD(rate), loss=loss, **compile_arguments)
    return made


def fit(model, epochs=1, rows=16):
    return model.fit(IMAGES[:rows], LABELS[:rows], batch_size=8, epochs=epochs, shuffle=False, verbose=0).history


def test_it_logs_the_loss_and_each_of_its_terms():
    history = fit(make_learner(EETLoss(symmetric_margin=True)), epochs=2)
    assert set(history) == {"loss", *ANCHOR_TERMS}
    assert history["loss"] == pytest.approx(sum(np.array(history[term]) for term in ANCHOR_TERMS), rel=1e-5)


def test_terms_left_out_of_the_loss_are_not_logged():
    assert set(fit(make_learner(EETLoss(equidistributed_weight=0.0)))) == {"loss", "margin", "equidistant"}


def test_what_it_logs_is_the_mean_over_the_epochs_anchors():
    """Of 12 photos the first batch has 8, the second 4: each anchor counts once. With rate 0 nothing moves."""
    model, loss = make_learner(EETLoss(), rate=0.0), EETLoss()
    embeddings = model.embedder(IMAGES[:12]).numpy()
    batches = [loss.terms(LABELS[part], embeddings[part]) for part in (slice(0, 8), slice(8, 12))]
    history = fit(model, rows=12)
    for term in loss.term_names:
        expected = np.mean(np.concatenate([batch[term] for batch in batches]))
        assert history[term] == pytest.approx([expected], rel=1e-5, abs=1e-6)


def test_every_epoch_starts_its_means_anew():
    history = fit(make_learner(EETLoss(), rate=0.0), epochs=2)
    for values in history.values():
        assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("loss", [EETLoss(), TripletLoss(), MeanLength()], ids=lambda loss: type(loss).__name__)
def test_its_update_is_that_of_a_plain_keras_model(loss):
    regularizer = keras.regularizers.L2(0.02)
    model, plain = make_learner(loss, make_embedder(regularizer)), make_embedder(regularizer)
    plain.compile(optimizer=keras.optimizers.SGD(0.05), loss=loss)
    start = plain.get_weights()
    fit(model)
    fit(plain)
    for weight, expected, before in zip(model.embedder.get_weights(), plain.get_weights(), start):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6)
        assert not np.array_equal(weight, before)


def test_regularisation_enters_the_update_but_not_the_log():
    """All labels are one, so the triplet loss and its gradient are 0. One step of rate 0.1 on the regularisation
    0.5 |w|^2, whose gradient is w, leaves 0.9 w of the first kernel and all of the rest."""
    embedder = make_embedder(keras.regularizers.L2(0.5))
    before = embedder.get_weights()
    model = make_learner(TripletLoss(), embedder, rate=0.1)
    history = model.fit(IMAGES[:8], np.full(8, 3), batch_size=8, verbose=0).history
    assert history["loss"] == [0.0]
    np.testing.assert_allclose(embedder.get_weights()[0], 0.9 * before[0], rtol=1e-5)
    for weight, start in zip(embedder.get_weights()[1:], before[1:]):
        np.testing.assert_array_equal(weight, start)


def test_it_may_be_compiled_again_with_another_loss():
    model = make_learner(EETLoss())
    fit(model)
    model.compile(keras.optimizers.SGD(0.01), TripletLoss())
    assert set(fit(model)) == {"loss", "margin"}


def test_averaged_has_the_running_average_of_the_weights():
    """Momentum 0.8: the first step sets it (Keras 3) or it begins at the first weights (Keras 2), and each later step
    moves it by 0.2 of the way. Weights go back afterwards."""
    model = MetricLearner(make_embedder())
    model.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8), EETLoss())
    expected = model.embedder.get_weights() if keras.__version__.startswith("2.") else None
    for _ in range(3):
        model.train_on_batch(IMAGES[:8], LABELS[:8])
        weights = model.embedder.get_weights()
        expected = weights if expected is None else [0.8 * e + 0.2 * w for e, w in zip(expected, weights)]
    with model.averaged():
        averages = model.embedder.get_weights()
    for average, weight, wanted, after in zip(averages, weights, expected, model.embedder.get_weights()):
        np.testing.assert_allclose(average, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after, weight)
    assert not np.allclose(averages[0], weights[0], atol=1e-5)


def test_averaged_changes_nothing_where_no_average_is_kept():
    model = make_learner(EETLoss())
    before = model.embedder.get_weights()
    with model.averaged():
        for weight, start in zip(model.embedder.get_weights(), before):
            np.testing.assert_array_equal(weight, start)


def test_evaluate_measures_without_an_update():
    model, loss = make_learner(EETLoss()), EETLoss()
    before = model.embedder.get_weights()
    found = model.evaluate(IMAGES[:8], LABELS[:8], batch_size=8, verbose=0, return_dict=True)
    terms = loss.terms(LABELS[:8], model.embedder(IMAGES[:8]))
    expected = {name: float(np.mean(values)) for name, values in terms.items()}
    assert found == pytest.approx({"loss": sum(expected.values()), **expected}, rel=1e-5, abs=1e-6)
    for weight, start in zip(model.embedder.get_weights(), before):
        np.testing.assert_array_equal(weight, start)


def test_validation_data_is_logged_under_its_own_names():
    model = make_learner(TripletLoss())
    data = (IMAGES[:8], LABELS[:8])
    history = model.fit(*data, batch_size=8, validation_data=data, verbose=0).history
    assert set(history) == {"loss", "margin", "val_loss", "val_margin"}


def test_predict_gives_embeddings():
    model = make_learner(EETLoss())
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), model.embedder(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(keras.losses, "Circle"), reason="Keras 2 has no Circle loss")
def test_keras_own_metric_loss_works():
    """Every anchor has a positive here: Keras leaves the others out of its mean, the learner counts them with 0."""
    labels = np.array([5, 5, 0, 2, 2, 2, 0, 5])
    model = make_learner(keras.losses.Circle(), rate=0.0)
    expected = float(keras.losses.Circle()(labels, model.embedder(IMAGES[:8])))
    history = model.fit(IMAGES[:8], labels, batch_size=8, verbose=0).history
    assert set(history) == {"loss"}
    assert history["loss"] == pytest.approx([expected], rel=1e-4)


def test_batch_normalisation_learns_its_statistics_in_fit_only():
    embedder = keras.Sequential([keras.Input([6]), keras.layers.BatchNormalization(), keras.layers.Dense(4)])
    model = make_learner(EETLoss(), embedder)
    mean = embedder.layers[0].moving_mean
    model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0)
    np.testing.assert_array_equal(mean, np.zeros(6))
    fit(model)
    assert np.all(np.asarray(mean) != 0)


def test_layers_that_are_not_trainable_stay():
    embedder = make_embedder()
    embedder.layers[0].trainable = False
    before = embedder.get_weights()
    fit(make_learner(EETLoss(), embedder))
    np.testing.assert_array_equal(embedder.get_weights()[0], before[0])
    assert not np.array_equal(embedder.get_weights()[2], before[2])


def test_labels_above_what_float32_can_count_are_told_apart():
    """2**24 and 2**24 + 1 are the same float32. The learner hands integers on as they are: two photos of two labels
    have no positive, so the triplet loss is 0; as one label they would have no negative either, so a third is there."""
    labels = np.array([2**24, 2**24 + 1, 5, 5])
    model = make_learner(TripletLoss(margin=2.0), rate=0.0)
    expected = float(TripletLoss(margin=2.0)(np.array([1, 2, 5, 5]), model.embedder(IMAGES[:4])))
    history = model.fit(IMAGES[:4], labels, batch_size=4, verbose=0).history
    assert history["loss"] == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_takes_nearly_the_same_step(policy, set_policy):
    """Half precision has 8 (bfloat16) or 11 bits, so a step of size s is met to a few hundredths of s. In float16 the
    gradient is scaled up and back down by the optimizer; without either, the step would be off by the scale, 256."""
    exact = make_learner(EETLoss())
    start = exact.embedder.get_weights()
    fit(exact, rows=8)
    set_policy(policy)
    half = MetricLearner(make_embedder())
    optimizer = keras.optimizers.SGD(0.05)
    if policy == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=256.0)
    half.compile(optimizer=optimizer, loss=EETLoss())
    fit(half, rows=8)
    for weight, expected, before in zip(half.embedder.get_weights(), exact.embedder.get_weights(), start):
        size = np.max(np.abs(expected - before))
        assert size > 0
        assert weight.dtype == np.float32
        np.testing.assert_allclose(weight, expected, rtol=0, atol=0.1 * size + 1e-6)


def test_a_step_that_overflows_float16_is_left_out_and_the_scale_lowered(set_policy):
    set_policy("mixed_float16")
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=2.0**30)
    model = MetricLearner(make_embedder())
    model.compile(optimizer=optimizer, loss=EETLoss())
    before = model.embedder.get_weights()
    fit(model, rows=8)
    for weight, start in zip(model.embedder.get_weights(), before):
        np.testing.assert_array_equal(weight, start)
    fit(model, rows=8, epochs=30)
    assert not np.array_equal(model.embedder.get_weights()[0], before[0])
    assert np.all(np.isfinite(model.embedder.get_weights()[0]))


def test_compiled_by_xla_it_takes_the_same_step():
    plain, compiled = make_learner(EETLoss(), jit_compile=False), make_learner(EETLoss(), jit_compile=True)
    histories = [fit(model, rows=8) for model in (plain, compiled)]
    assert histories[1] == {name: pytest.approx(values, rel=1e-4, abs=1e-5) for name, values in histories[0].items()}
    for weight, expected in zip(compiled.embedder.get_weights(), plain.embedder.get_weights()):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)


def make_huge():
    """A layer that asks for 3.6e15 bytes."""

    class Huge(keras.layers.Layer):
        def call(self, inputs):
            many = tf.cast(tf.round(3e7 * tf.reduce_max(tf.ones_like(inputs))), tf.int32)
            return inputs + tf.reduce_mean(tf.fill([many, many], inputs[0, 0]))

        def compute_output_shape(self, input_shape):
            return input_shape

    return keras.Sequential([keras.Input([6]), Huge(), keras.layers.Dense(4)])


@pytest.mark.parametrize("has_strategy", [False, True])
def test_a_batch_that_is_too_large_for_the_memory_is_named(has_strategy):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0") if has_strategy else tf.distribute.get_strategy()
    with strategy.scope():
        model = make_learner(EETLoss(), make_huge(), jit_compile=False)
        dataset = tf.data.Dataset.from_tensors((IMAGES, LABELS))
        message = r"^A batch of 16 photos of 6 on each device does not fit .*: [\d,]{15,} bytes more .*--microbatch=N"
        with pytest.raises(MemoryError, match=message):
            model.fit(dataset, shuffle=False, verbose=0)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Out of memory while trying to allocate 8589934592 bytes.", "8,589,934,592 bytes"),
        ("OOM when allocating tensor with shape[1024,56,56,64] and type bfloat16 on /job", "411,041,792 bytes"),
        ("something else", "memory. Let fewer"),
    ],
)
def test_the_bytes_are_those_an_allocator_was_asked_for(text, expected):
    """1024 * 56 * 56 * 64 * 2 = 411,041,792."""
    error = tf.errors.ResourceExhaustedError(None, None, text)
    assert expected in out_of_memory(error, tf.TensorShape([None, 224, 224, 3]))
    assert "A batch of 224 x 224 x 3 on" in out_of_memory(error, tf.TensorShape([None, 224, 224, 3]))


def test_the_embedder_is_what_was_trained_and_is_saved_alone(tmp_path):
    model = make_learner(EETLoss())
    fit(model)
    model.embedder.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), rtol=1e-6)


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="`embedder` must be a Keras model. Received: embedder='resnet50'"):
        MetricLearner("resnet50")


@pytest.mark.parametrize(
    "loss, received", [(None, "None"), ("eet", "'eet'"), (3, "3"), (EETLoss, r"the class EETLoss; write EETLoss\(\)")]
)
def test_what_is_no_loss_is_refused(loss, received):
    message = rf"`loss` must be a Keras loss, e.g. eet_tf.EETLoss\(\), a function .* Received: loss={received}\.$"
    with pytest.raises(ValueError, match=message):
        MetricLearner(make_embedder()).compile(loss=loss)


def hinge_of_pairs(labels, embeddings):
    """`[B]`, of a few lines, as somebody writes it."""
    is_same = tf.equal(tf.reshape(labels, [-1, 1]), tf.reshape(labels, [1, -1]))
    distances = tf.reduce_sum(tf.square(embeddings[:, tf.newaxis] - embeddings[tf.newaxis]), axis=2)
    return tf.reduce_mean(tf.where(is_same, distances, tf.nn.relu(1 - distances)), axis=1)


@pytest.mark.parametrize("form", ["of each photo", "mean", "of each pair"])
def test_a_function_is_a_loss(form):
    """Labels reach it as integers: 2**24 and 2**24 + 1 are the same float32."""
    labels = 2**24 + LABELS[:8]

    def loss(labels, embeddings):
        values = hinge_of_pairs(labels, embeddings)
        return {"of each photo": values, "mean": tf.reduce_mean(values), "of each pair": tf.stack([values] * 2, 1)}[
            form
        ]

    model, same = make_learner(loss), make_embedder()
    history = model.fit(IMAGES[:8], labels, batch_size=8, shuffle=False, verbose=0).history
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(hinge_of_pairs(labels, same(IMAGES[:8], training=True)))
    assert history == {"loss": [pytest.approx(float(value), rel=1e-5)]}
    for weight, start, slope in zip(
        model.embedder.get_weights(), same.get_weights(), tape.gradient(value, same.weights)
    ):
        np.testing.assert_allclose(weight, start - 0.05 * slope, rtol=1e-4, atol=1e-6)


def test_the_name_of_a_loss_of_keras_is_a_loss():
    model, targets = make_learner("mean_squared_error", rate=0.0), np.ones([8, 4], np.float32)
    history = model.fit(IMAGES[:8], targets, batch_size=8, verbose=0).history
    assert history["loss"] == [pytest.approx(np.mean((model.embedder(IMAGES[:8]) - targets) ** 2), rel=1e-5)]


@pytest.mark.parametrize("loss_class", [EETLoss, TripletLoss])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_that_does_not_average_is_refused(loss_class, reduction):
    message = f"`loss` must have reduction='sum_over_batch_size'.* Received: reduction='{reduction}'"
    with pytest.raises(ValueError, match=message):
        make_learner(loss_class(reduction=reduction))


def test_single_batches_train_as_fit_does():
    fitted, stepped = make_learner(EETLoss()), make_learner(EETLoss())
    stepped.set_weights(fitted.get_weights())
    fitted.fit(IMAGES, LABELS, batch_size=16, shuffle=False, verbose=0)
    stepped.train_on_batch(IMAGES, LABELS)
    for weight, expected in zip(stepped.get_weights(), fitted.get_weights()):
        np.testing.assert_allclose(weight, expected, atol=1e-6)
    assert np.isfinite(stepped.test_on_batch(IMAGES, LABELS)).all()


@pytest.mark.parametrize("name, weights", [("sample_weight", np.ones(16)), ("class_weight", {5: 2.0, 0: 1.0})])
def test_weights_are_refused_by_name(name, weights):
    with pytest.raises(
        ValueError, match=f"`{name}` must be left out: a metric loss compares pairs .* Received: a \\w+."
    ):
        make_learner(EETLoss()).fit(IMAGES, LABELS, **{name: weights}, verbose=0)


def test_weights_in_a_dataset_are_refused():
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, np.ones(16, np.float32))).batch(8)
    message = r"^`sample_weight` must be left out: .* \(images, labels, sample_weight\), the last float32 \[None\]\.$"
    for method, arguments in (("fit", {"shuffle": False}), ("evaluate", {})):
        with pytest.raises(ValueError, match=message):
            getattr(make_learner(EETLoss()), method)(batches, **arguments, verbose=0)


def test_a_dataset_may_say_that_there_are_no_weights():
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8).map(lambda *batch: (*batch, None))
    plain, model = make_learner(TripletLoss()), make_learner(TripletLoss())
    assert model.fit(batches, shuffle=False, verbose=0).history == fit(plain)


def test_images_without_labels_are_refused():
    with pytest.raises(ValueError, match=r"batches of \(images, labels\). Received: images alone, float32 \[None, 6\]"):
        make_learner(EETLoss()).fit(tf.data.Dataset.from_tensor_slices(IMAGES).batch(8), shuffle=False, verbose=0)


NAMES = np.array([f"sku {label}" for label in LABELS])
GIVEN_NAMES = {
    "array": (IMAGES, NAMES),
    "list": (IMAGES, NAMES.tolist()),
    "objects": (IMAGES, NAMES.astype(object)),
    "dict": (IMAGES, {"label": NAMES}),
    "dataset": (tf.data.Dataset.from_tensor_slices((IMAGES, NAMES)).batch(8),),
}


@pytest.mark.parametrize("given", GIVEN_NAMES)
@pytest.mark.parametrize("memory_size", [0, 4])
def test_strings_are_refused_in_one_sentence(given, memory_size):
    model = MetricLearner(make_embedder(), memory_size)
    model.compile("sgd", TripletLoss())
    with pytest.raises(ValueError, match=r"^`labels` must be integer labels. Received: strings. Number the skus"):
        model.fit(*GIVEN_NAMES[given], shuffle=False, verbose=0)


# Metrics


class LargestLabel(keras.metrics.Metric):
    """Keeps integers as they are."""

    def __init__(self, name="largest_label"):
        super().__init__(name=name, dtype="int64")
        self.largest = self.add_weight(name="largest", shape=(), initializer="zeros", dtype="int64")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.largest.assign(tf.maximum(self.largest, tf.cast(tf.reduce_max(y_true), tf.int64)))

    def result(self):
        return tf.convert_to_tensor(self.largest)


def mean_length(labels, embeddings):
    return tf.norm(embeddings, axis=1)


@pytest.mark.parametrize("argument, microbatch", [("metrics", 3), ("weighted_metrics", None)])
def test_metrics_get_labels_and_embeddings(argument, microbatch):
    """With rate 0 nothing moves; the largest label is none that float32 can count."""
    given = {argument: [LargestLabel(), mean_length]}
    model, labels = make_learner(EETLoss(), rate=0.0, microbatch=microbatch, **given), LABELS + 2**40
    data = {"validation_data": (IMAGES[:8], labels[:8])}
    history = model.fit(IMAGES, labels, batch_size=8, epochs=2, **data, shuffle=False, verbose=0).history
    embeddings = model.embedder(IMAGES).numpy()
    lengths = np.linalg.norm(embeddings, axis=1)
    for prefix, rows in (("", slice(None)), ("val_", slice(8))):
        assert history[f"{prefix}largest_label"] == [int(labels[rows].max())] * 2
        assert history[f"{prefix}mean_length"] == pytest.approx([lengths[rows].mean()] * 2, rel=1e-5)
    evaluated = model.evaluate(IMAGES[:8], labels[:8], batch_size=8, verbose=0, return_dict=True)
    assert set(evaluated) == {"loss", *EETLoss().term_names, "largest_label", "mean_length"}
    assert evaluated["mean_length"] == pytest.approx(lengths[:8].mean(), rel=1e-5)


def test_metrics_of_two_heads_get_the_embedding():
    model = make_two_headed_learner(SoftBinomialDevianceLoss(), AttributeLoss(), rate=0.0, metrics=[mean_length])
    history = fit_two_heads(model)
    expected = np.linalg.norm(model.embedder(IMAGES)["embedding"], axis=1).mean()
    assert history["mean_length"] == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize(
    "metrics, received",
    [
        (keras.metrics.Mean(), "<.*Mean"),
        (["no_such_metric"], "'no_such_metric'"),
        ([keras.metrics.Mean], "the class Mean"),
        ([7], "7"),
        ({"embedding": "mse"}, "{'embedding': 'mse'}"),
    ],
    ids=str,
)
def test_what_is_no_metric_is_refused(metrics, received):
    with pytest.raises(ValueError, match=f"`metrics` must be a list of Keras metrics, .* Received: {received}"):
        make_learner(EETLoss(), metrics=metrics)


@pytest.mark.parametrize(
    "metrics", [[keras.metrics.Mean(name="loss")], [keras.metrics.Mean(name="margin")], ["mse", "mse"]]
)
def test_a_second_figure_of_one_name_is_refused(metrics):
    with pytest.raises(ValueError, match="`metrics` must have names of their own in the log. Received: a second '"):
        make_learner(EETLoss(), metrics=metrics)


# How steps run


@pytest.mark.parametrize(
    "how, microbatch", [({"run_eagerly": True}, 3), ({"steps_per_execution": 2}, 3), ({"steps_per_execution": 3}, None)]
)
def test_however_steps_run_the_update_is_the_same(how, microbatch):
    plain, other = make_learner(EETLoss()), make_learner(EETLoss(), microbatch=microbatch, **how)
    expected, history = fit(plain, epochs=2), fit(other, epochs=2)
    assert history == {name: pytest.approx(values, rel=1e-5, abs=1e-6) for name, values in expected.items()}
    for weight, wanted in zip(other.embedder.get_weights(), plain.embedder.get_weights()):
        np.testing.assert_allclose(weight, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [0, -1, 1.5, None, "many"])
def test_a_number_of_steps_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="`steps_per_execution` must be a positive integer. Received: "):
        make_learner(EETLoss(), steps_per_execution=value)


def test_replicas_take_one_step_at_a_time():
    class Shared(MetricLearner):
        distribute_strategy = types.SimpleNamespace(num_replicas_in_sync=2)

    with pytest.raises(ValueError, match="`steps_per_execution` must be 1 where replicas share a batch: .*execution=2"):
        Shared(make_embedder()).compile("sgd", EETLoss(), steps_per_execution=2)


def test_eager_steps_are_not_compiled():
    with pytest.raises(ValueError, match="`jit_compile` must not be True where `run_eagerly` is"):
        make_learner(EETLoss(), run_eagerly=True, jit_compile=True)


# Two heads


ATTRIBUTES = np.random.default_rng(2).integers(-1, 2, size=[16, 3])
TARGETS = {"label": LABELS, "attributes": ATTRIBUTES}


def make_two_heads():
    keras.utils.set_random_seed(1)
    images = keras.Input([6])
    hidden = keras.layers.Dense(7, activation="tanh")(images)
    outputs = {"embedding": keras.layers.Dense(4)(hidden), "attributes": keras.layers.Dense(3)(hidden)}
    return keras.Model(images, outputs)


def make_two_headed_learner(loss, attribute_loss=None, rate=0.05, **compile_arguments):
    return make_learner(loss, make_two_heads(), rate, attribute_loss=attribute_loss, **compile_arguments)


def fit_two_heads(model, rows=16, targets=TARGETS):
    given = {name: values[:rows] for name, values in targets.items()} if isinstance(targets, dict) else targets[:rows]
    return model.fit(IMAGES[:rows], given, batch_size=8, shuffle=False, verbose=0).history


@pytest.mark.parametrize("granularity", ["labels", "predictions"])
def test_two_heads_are_logged_term_by_term(granularity):
    """The first batch has 8 photos, the second 4, and each counts once; the attribute term is logged as it is added.
    With rate 0 nothing moves."""
    loss = SoftBinomialDevianceLoss(granularity=granularity)
    model = make_two_headed_learner(loss, AttributeLoss(), rate=0.0, attribute_weight=0.7)
    history = fit_two_heads(model, rows=12)
    outputs = model.embedder(IMAGES[:12])
    expected = {"positive_pairs": [], "negative_pairs": [], "attributes": []}
    for part in (slice(0, 8), slice(8, 12)):
        here = [{name: values[part] for name, values in each.items()} for each in (TARGETS, outputs)]
        for name, values in loss.terms(*here).items():
            expected[name].extend(values.numpy())
        expected["attributes"].extend(0.7 * AttributeLoss().call(here[0]["attributes"], here[1]["attributes"]).numpy())
    means = {name: np.mean(values) for name, values in expected.items()}
    assert {name: values[0] for name, values in history.items()} == pytest.approx(
        {"loss": sum(means.values()), **means}, rel=1e-5
    )


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_update_is_that_of_the_sum_of_both_losses(weight):
    loss, attribute_loss = SoftBinomialDevianceLoss(granularity="predictions"), AttributeLoss()
    model, same = make_two_headed_learner(loss, attribute_loss, attribute_weight=weight), make_two_heads()
    fit_two_heads(model, rows=8)
    targets = {name: values[:8] for name, values in TARGETS.items()}
    with tf.GradientTape() as tape:
        outputs = same(IMAGES[:8], training=True)
        per_photo = loss.call(targets, outputs)
        per_photo += weight * attribute_loss.call(targets["attributes"], outputs["attributes"])
        total = tf.reduce_mean(per_photo)
    gradients = tape.gradient(total, same.trainable_variables)
    for weights, start, gradient in zip(model.embedder.get_weights(), same.get_weights(), gradients):
        np.testing.assert_allclose(weights, start - 0.05 * gradient, rtol=1e-4, atol=1e-6)
        assert not np.array_equal(weights, start)


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
@pytest.mark.parametrize("targets", [TARGETS, LABELS], ids=["dict", "labels"])
@pytest.mark.parametrize(
    "loss", [TripletLoss(), BinomialDevianceLoss(), MeanLength()], ids=lambda loss: type(loss).__name__
)
def test_losses_of_the_embedding_alone_get_it_from_two_heads(loss, targets):
    """As if there were no other head, whose weights stay."""
    model, alone = make_two_headed_learner(loss), make_two_heads()
    start = alone.get_weights()
    single = make_learner(loss, keras.Model(alone.input, alone.output["embedding"]))
    history, expected = fit_two_heads(model, targets=targets), fit(single)
    assert history == {name: pytest.approx(values, rel=1e-5) for name, values in expected.items()}
    moved = [not np.array_equal(weight, before) for weight, before in zip(model.embedder.get_weights(), start)]
    assert moved.count(False) == 2
    for weight, other in zip(model.embedder.get_weights(), alone.get_weights()):
        np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-6)


def test_keras_own_losses_on_both_heads():
    """Each batch of 8 counts alike in Keras's mean."""
    attributes = np.maximum(ATTRIBUTES, 0)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    model = make_two_headed_learner(MeanLength(), cross_entropy, rate=0.0)
    history = fit_two_heads(model, targets={"label": LABELS, "attributes": attributes})
    outputs = model.embedder(IMAGES)
    expected = float(cross_entropy(attributes, outputs["attributes"]))
    assert history["attributes"] == pytest.approx([expected], rel=1e-5)
    lengths = np.sum(np.square(outputs["embedding"]), axis=1).mean()
    assert history["loss"] == pytest.approx([lengths + expected], rel=1e-5)


def test_one_head_takes_the_label_of_a_dict():
    plain, model = make_learner(TripletLoss()), make_learner(TripletLoss())
    assert fit_two_heads(model) == fit(plain)


def test_predict_gives_both_heads():
    model = make_two_headed_learner(EETLoss())
    outputs, expected = model.predict(IMAGES, verbose=0), model.embedder(IMAGES)
    assert set(outputs) == {"embedding", "attributes"}
    for name, values in outputs.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)


def test_evaluate_measures_both_heads():
    model = make_two_headed_learner(SoftBinomialDevianceLoss(), AttributeLoss(), rate=0.0)
    found = model.evaluate(IMAGES, TARGETS, batch_size=8, verbose=0, return_dict=True)
    assert found == {name: pytest.approx(values[0], rel=1e-5) for name, values in fit_two_heads(model).items()}


def test_two_heads_compiled_by_xla_take_the_same_step():
    losses = SoftBinomialDevianceLoss(granularity="predictions"), AttributeLoss()
    plain, compiled = (make_two_headed_learner(*losses, jit_compile=jit_compile) for jit_compile in (False, True))
    for model in (plain, compiled):
        fit_two_heads(model, rows=8)
    for weight, expected in zip(compiled.embedder.get_weights(), plain.embedder.get_weights()):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss, attribute_loss, argument",
    [(SoftBinomialDevianceLoss(), None, "loss"), (EETLoss(), AttributeLoss(), "attribute_loss")],
    ids=["loss", "attribute_loss"],
)
def test_losses_of_attributes_without_an_attribute_head_are_refused(loss, attribute_loss, argument):
    message = f"`{argument}` must not use attributes where the embedder predicts none.*attribute_names="
    with pytest.raises(ValueError, match=message):
        make_learner(loss, attribute_loss=attribute_loss)


@pytest.mark.parametrize(
    "loss, attribute_loss",
    [(SoftBinomialDevianceLoss(), None), (EETLoss(), AttributeLoss())],
    ids=["loss", "attribute_loss"],
)
def test_batches_without_attributes_are_refused(loss, attribute_loss):
    with pytest.raises(
        ValueError, match="`y_true` must be a dict with 'attributes'. Received: y_true is a dict of label"
    ):
        fit_two_heads(make_two_headed_learner(loss, attribute_loss), targets=LABELS)


@pytest.mark.parametrize("loss", ["attributes", AttributeLoss])
def test_an_attribute_loss_that_is_none_is_refused(loss):
    with pytest.raises(ValueError, match=r"`attribute_loss` must be a Keras loss, e.g. eet_tf.AttributeLoss\(\)"):
        make_two_headed_learner(EETLoss(), loss)


def test_an_attribute_loss_that_does_not_average_is_refused():
    with pytest.raises(ValueError, match="`attribute_loss` must have reduction='sum_over_batch_size'.*'sum'"):
        make_two_headed_learner(EETLoss(), AttributeLoss(reduction="sum"))


def test_a_negative_attribute_weight_is_refused():
    with pytest.raises(ValueError, match="`attribute_weight` must be 0 or more. Received: attribute_weight=-1"):
        make_two_headed_learner(EETLoss(), AttributeLoss(), attribute_weight=-1)


def pieces_embedder(dropout=0.0, heads=False):
    """Batch norm that is frozen, weights with regularisation, and one layer that no loss reaches."""
    keras.utils.set_random_seed(2)
    images = keras.Input([6])
    hidden = keras.layers.Dense(7, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.02))(images)
    norm = keras.layers.BatchNormalization()
    norm.trainable = False
    hidden = norm(hidden)
    if dropout:
        hidden = keras.layers.Dropout(dropout, seed=3)(hidden)
    embedding, attributes = keras.layers.Dense(4)(hidden), keras.layers.Dense(3, name="unreached")(hidden)
    outputs = {"embedding": embedding, "attributes": attributes} if heads else embedding
    return keras.Model(images, outputs)


def weights_after(microbatch, steps=2, rows=16, optimizer=None, attribute_loss=None, loss=None, **embedder_arguments):
    """Weights after some steps of one batch, with what was logged, and the weights before."""
    embedder = pieces_embedder(**embedder_arguments)
    before = embedder.get_weights()
    model = MetricLearner(embedder)
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss or EETLoss(), attribute_loss, microbatch=microbatch)
    targets = LABELS[:rows]
    if embedder_arguments.get("heads"):
        targets = {"label": targets, "attributes": np.random.default_rng(1).integers(-1, 2, size=[rows, 3])}
    history = model.fit(IMAGES[:rows], targets, batch_size=rows, epochs=steps, shuffle=False, verbose=0).history
    return embedder.get_weights(), history, before


@pytest.fixture(scope="module")
def whole_batch():
    """`weights_after` without pieces."""
    return weights_after(None)


@pytest.mark.parametrize("microbatch", [1, 5, 16, *(pytest.param(size, marks=pytest.mark.long) for size in (4, 23))])
def test_in_pieces_the_update_is_that_of_the_whole_batch(microbatch, whole_batch):
    whole, logged, before = whole_batch
    in_pieces, logged_in_pieces, _ = weights_after(microbatch)
    assert any(not np.array_equal(weight, start) for weight, start in zip(whole, before))
    for weight, expected in zip(in_pieces, whole):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
    for name, values in logged.items():
        assert logged_in_pieces[name] == pytest.approx(values, rel=1e-4, abs=1e-5)


def test_in_pieces_both_heads_are_trained():
    arguments = {
        "attribute_loss": AttributeLoss(),
        "loss": SoftBinomialDevianceLoss(granularity="predictions"),
        "heads": True,
    }
    whole, logged, _ = weights_after(None, **arguments)
    in_pieces, logged_in_pieces, _ = weights_after(4, **arguments)
    for weight, expected in zip(in_pieces, whole):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
    assert {name: values[-1] for name, values in logged_in_pieces.items()} == pytest.approx(
        {name: values[-1] for name, values in logged.items()}, rel=1e-4
    )


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_in_pieces_a_layer_that_no_loss_reaches_stays_as_it_is():
    """Also under weight decay, which an optimizer applies wherever there is a gradient, be it 0."""
    optimizers = [keras.optimizers.AdamW(0.01, weight_decay=0.5) for _ in range(2)]
    whole, _, before = weights_after(None, heads=True, optimizer=optimizers[0])
    in_pieces, _, _ = weights_after(4, heads=True, optimizer=optimizers[1])
    for weight, expected in zip(in_pieces, whole):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
    unreached = [weight for weight in range(len(before)) if before[weight].shape == (7, 3)]
    for weight in unreached:
        np.testing.assert_array_equal(in_pieces[weight], whole[weight])


@pytest.mark.skipif(keras.__version__.startswith("2."), reason="Keras 2 draws dropout anew")
def test_in_pieces_of_the_whole_dropout_is_the_same_both_times():
    whole, _, _ = weights_after(None, dropout=0.5)
    in_one_piece, _, _ = weights_after(16, dropout=0.5)
    for weight, expected in zip(in_one_piece, whole):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)


def test_in_pieces_statistics_move_once_for_each_piece():
    """Momentum 0.9, mean 3 of every piece: after two pieces 3 (1 - 0.9^2), not 3 (1 - 0.9^4)."""
    embedder = keras.Sequential(
        [keras.Input([6]), keras.layers.BatchNormalization(momentum=0.9), keras.layers.Dense(4)]
    )
    model = MetricLearner(embedder)
    model.compile(keras.optimizers.SGD(0.0), TripletLoss(), microbatch=4)
    images = np.tile(IMAGES[:4] - IMAGES[:4].mean(0) + 3.0, [2, 1])
    model.fit(images, LABELS[:8], batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_allclose(embedder.layers[0].moving_mean, np.full(6, 3 * (1 - 0.9**2)), rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_pieces_half_precision_moves_the_weights_alike(policy, set_policy):
    set_policy(policy)
    optimizers = [keras.optimizers.SGD(0.1) for _ in range(2)]
    if policy == "mixed_float16":
        optimizers = [keras.mixed_precision.LossScaleOptimizer(optimizer) for optimizer in optimizers]
    whole, _, before = weights_after(None, optimizer=optimizers[0])
    in_pieces, _, _ = weights_after(4, optimizer=optimizers[1])
    for weight, expected in zip(in_pieces, whole):
        np.testing.assert_allclose(weight, expected, rtol=0.02, atol=2e-3)
    assert any(not np.array_equal(weight, start) for weight, start in zip(in_pieces, before))


@pytest.mark.parametrize("jit_compile, heads", [(False, True), (True, False)])
def test_a_last_batch_that_does_not_fall_into_pieces_gives_the_same_update(jit_compile, heads):
    """Batches of 9, 7: pieces of 4, 4, 1 and 4, 3. Rows that fill up the last piece reach no loss."""
    arguments = {"loss": EETLoss()}
    if heads:
        arguments = {"loss": SoftBinomialDevianceLoss(negative_cost=2.0), "attribute_loss": AttributeLoss()}
    weights, histories = [], []
    for microbatch in (None, 4):
        embedder = pieces_embedder(heads=heads)
        model = MetricLearner(embedder)
        model.compile(keras.optimizers.SGD(0.1), **arguments, microbatch=microbatch, jit_compile=jit_compile)
        targets = TARGETS if heads else LABELS
        histories.append(model.fit(IMAGES, targets, batch_size=9, epochs=2, shuffle=False, verbose=0).history)
        weights.append(embedder.get_weights())
    for weight, expected in zip(*weights):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-5)
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("argument", ["microbatch", "memory_size"])
def test_an_embedder_without_a_shape_is_refused_where_one_is_needed(argument):
    class Subclassed(keras.Model):
        def call(self, images):
            return images

    with pytest.raises(ValueError, match=f"`{argument}` must be .* make it a functional model. Received: {argument}=4"):
        MetricLearner(Subclassed(), **({"memory_size": 4} if argument == "memory_size" else {})).compile(
            "sgd", EETLoss(), microbatch=4
        )


def test_a_microbatch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`microbatch` must be at least 1, or None. Received: microbatch=0"):
        make_learner(EETLoss(), microbatch=0)


class Traced(keras.layers.Layer):
    """Hands its input on, and counts how often it is traced."""

    count = 0

    def call(self, inputs):
        self.count += 1
        return inputs


@pytest.mark.parametrize("microbatch", [None, 4])
def test_nothing_is_traced_after_the_first_epoch(microbatch):
    """Batches of one, of few, of many classes; the memory fills; each epoch is measured, its last batch being short."""
    traced, counts = Traced(), []
    embedder = keras.Sequential([keras.Input([6]), traced, keras.layers.Dense(4)])
    model = MetricLearner(embedder, memory_size=40, memory_start=6)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), EETLoss(), microbatch=microbatch)
    labels = np.array([[0] * 8, [0, 0, 1, 1, 2, 2, 2, 2], list(range(8)), [3, 3, 1, 1, 5, 5, 4, 4]])
    images = np.random.default_rng(1).normal(size=[32, 6]).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, labels.reshape(-1))).batch(8, drop_remainder=True).repeat()
    evaluation = RetrievalEvaluation(tf.data.Dataset.from_tensor_slices(images).batch(12), labels.reshape(-1))
    counter = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: counts.append(traced.count))
    model.fit(batches, epochs=4, steps_per_epoch=4, callbacks=[evaluation, counter], shuffle=False, verbose=0)
    assert counts[0] > 0
    assert counts == [counts[0]] * 4
