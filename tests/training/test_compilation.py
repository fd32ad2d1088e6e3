"""A compiled step under every strategy: the update is that of a plain one, nothing is traced twice, and a network that
XLA cannot compile is trained without it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import (
    AttributeLoss,
    BinomialDevianceLoss,
    EETLoss,
    MetricLearner,
    SoftBinomialDevianceLoss,
    TripletLoss,
    build_embedder,
    make_strategy,
    replicas,
)
from eet_tf.training import compilation

# 40 photos of uneven classes in no order, on two replicas 20 each: more than the 16 up to which XLA was right by chance
ROWS = 40
RNG = np.random.default_rng(2)
LABELS = RNG.permutation(np.repeat(np.arange(ROWS), RNG.integers(1, 6, size=ROWS))[:ROWS])
IMAGES = RNG.normal(size=[ROWS, 8, 8, 3]).astype(np.float32)
ATTRIBUTES = RNG.integers(-1, 2, size=[ROWS, 5])
# What is trained: the arguments of the learner and of `compile`. Steep losses would show rounding.
TRAININGS = {
    "eet": {"loss": lambda: EETLoss(symmetric_margin=True)},
    "eet_in_pieces": {"loss": lambda: EETLoss(), "microbatch": 5},
    "eet_in_uneven_pieces": {"loss": lambda: EETLoss(), "microbatch": 7},
    "eet_clipped": {"loss": lambda: EETLoss(), "optimizer": {"global_clipnorm": 0.05}},
    "eet_averaged": {"loss": lambda: EETLoss(), "optimizer": {"use_ema": True, "ema_momentum": 0.8}},
    "eet_with_memory": {"loss": lambda: EETLoss(), "memory_size": 50},
    "eet_in_half_precision": {"loss": lambda: EETLoss(), "policy": "mixed_bfloat16"},
    "batch_all": {"loss": lambda: TripletLoss(positives="all", negatives="all")},
    "deviance_with_memory": {"loss": lambda: BinomialDevianceLoss(negative_cost=2.0), "memory_size": 50},
    "two_heads": {
        "loss": lambda: SoftBinomialDevianceLoss(negative_cost=2.0, granularity="predictions"),
        "attribute_loss": AttributeLoss,
    },
}
STRATEGIES = {  # without one Keras compiles the whole step by itself
    "default": ["eet", "eet_in_pieces", "eet_in_uneven_pieces", "eet_with_memory", "two_heads"],
    "one_device": ["eet", "eet_in_pieces", "batch_all"],
    "mirrored": list(TRAININGS),
}
# each compilation takes seconds: what the two sets of versions do in different ways; the others in `make test-long`
OFTEN = {"default": ["eet", "two_heads"], "mirrored": ["eet_in_pieces", "eet_clipped", "eet_with_memory"]}
CASES = [
    pytest.param(strategy, name, marks=() if name in OFTEN.get(strategy, ()) else pytest.mark.long)
    for strategy, names in STRATEGIES.items()
    for name in names
]


def make_embedder(has_two_heads=False):
    """With statistics that it changes itself, on one replica's rows, and with regularisation."""
    images = keras.Input([8, 8, 3])
    hidden = keras.layers.Conv2D(6, 3, kernel_regularizer=keras.regularizers.L2(0.01))(images)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Flatten()(keras.layers.Activation("tanh")(hidden))
    embedding = keras.layers.Dense(7, dtype="float32")(hidden)
    if not has_two_heads:
        return keras.Model(images, embedding)
    return keras.Model(images, {"embedding": embedding, "attributes": keras.layers.Dense(5)(hidden)})


def make_dataset(has_two_heads=False):
    targets = {"label": LABELS, "attributes": ATTRIBUTES} if has_two_heads else LABELS
    # as from Keras, which leaves open how many photos a batch has
    return tf.data.Dataset.from_tensor_slices((IMAGES, targets)).batch(ROWS).repeat(2)


def train(name, strategy, jit_compile):
    """Two steps of plain gradient descent: the history and every weight."""
    settings = dict(TRAININGS[name])
    keras.mixed_precision.set_global_policy(settings.pop("policy", "float32"))
    keras.utils.set_random_seed(7)
    with strategy.scope():
        has_two_heads = "attribute_loss" in settings
        learner = MetricLearner(make_embedder(has_two_heads), settings.pop("memory_size", 0), memory_start=1)
        optimizer = keras.optimizers.SGD(0.05, **settings.pop("optimizer", {}))
        losses = {each: settings.pop(each)() for each in ("loss", "attribute_loss") if each in settings}
        learner.compile(optimizer, **losses, jit_compile=jit_compile, **settings)
        if learner._compiles_parts != (jit_compile and tf.distribute.has_strategy()):
            raise AssertionError(f"{name} is compiled otherwise than it should be")
        before = learner.embedder.get_weights()
        history = learner.fit(make_dataset(has_two_heads), shuffle=False, verbose=0).history
    keras.mixed_precision.set_global_policy("float32")
    with learner.averaged():
        weights = learner.embedder.get_weights()
    return {
        "history": history,
        **{k: [each.tolist() for each in v] for k, v in [("before", before), ("after", weights)]},
    }


def report_trainings(strategy_name, names):
    """Runs in a process of its own: trains under a strategy, compiled and not, and prints what came out."""
    if strategy_name == "mirrored":
        replicas.split_cpu(2)
    strategy = make_strategy(strategy_name)
    print(json.dumps({name: [train(name, strategy, jit) for jit in (False, True)] for name in names}))


def report_tracing():
    """Runs in a process of its own: how often the step of two replicas is traced in each of three epochs."""
    replicas.split_cpu(2)
    traced, counts = [], []

    class Counting(MetricLearner):
        def train_step(self, data):
            traced.append(1)
            return super().train_step(data)

    with make_strategy("mirrored").scope():
        learner = Counting(make_embedder(), 50, memory_start=1)
        learner.compile("sgd", EETLoss(), jit_compile=True)
        count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: counts.append(len(traced)))
        learner.fit(make_dataset().repeat(), epochs=3, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[count])
    print(json.dumps(counts))


@pytest.fixture(scope="module")
def trainings(run_python, request):
    """{strategy: {name: [plain, compiled]}} of the tests that run."""
    wanted = {name: [] for name in STRATEGIES}
    for item in request.session.items:
        if item.path == request.path and "strategy" in getattr(getattr(item, "callspec", None), "params", ()):
            wanted[item.callspec.params["strategy"]].append(item.callspec.params["name"])
    call = "from tests.training import test_compilation; test_compilation.report_trainings({!r}, {!r})"
    return {
        strategy: json.loads(run_python(call.format(strategy, names))[0].splitlines()[-1])
        for strategy, names in wanted.items()
        if names
    }


@pytest.mark.parametrize("strategy, name", CASES)
def test_the_compiled_update_is_the_plain_one(strategy, name, trainings):
    """To 1e-5 of each weight's largest change; half precision, which rounds in other places, to 0.02 of the largest."""
    plain, compiled = trainings[strategy][name]
    tolerance = 0.02 if "half" in name else 1e-5
    sizes = [np.max(np.abs(np.subtract(after, before))) for before, after in zip(plain["before"], plain["after"])]
    assert min(sizes) > 0
    for size, weight, expected in zip(sizes, compiled["after"], plain["after"]):
        size = max(sizes) if "half" in name else size
        np.testing.assert_allclose(weight, expected, rtol=0, atol=tolerance * size + 2e-7)
    for logged, values in plain["history"].items():
        np.testing.assert_allclose(compiled["history"][logged], values, rtol=5 * tolerance, atol=1e-5, err_msg=logged)


def test_nothing_is_traced_after_the_first_epoch(run_python):
    printed = run_python("from tests.training import test_compilation; test_compilation.report_tracing()")
    first, *others = json.loads(printed[0].splitlines()[-1])
    assert first > 0
    assert others == [first, first]


def make_refused(name="odd_one"):
    """A layer that XLA cannot compile: it looks at the text of numbers."""

    class Odd(keras.layers.Layer):
        def call(self, inputs):
            return inputs + tf.strings.to_number(tf.strings.as_string(tf.stop_gradient(inputs)))

        def compute_output_shape(self, input_shape):
            return input_shape

    images = keras.Input([6])
    return keras.Model(images, keras.layers.Dense(4)(Odd(name=name)(keras.layers.Dense(5)(images))))


def test_a_network_that_xla_cannot_compile_is_trained_without_it():
    learner = MetricLearner(make_refused())
    with pytest.warns(UserWarning, match="XLA cannot compile the network, so it is trained without: layer 'odd_one'"):
        learner.compile("sgd", EETLoss(), jit_compile=True)
    images = RNG.normal(size=[20, 6]).astype(np.float32)
    history = learner.fit(images, LABELS[:20], batch_size=20, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_the_layer_is_named_in_a_model_within_the_model():
    inner = make_refused("inner_odd")
    outer = keras.Sequential([keras.Input([6]), inner, keras.layers.Dense(3)])
    reason = compilation.refusal(outer)
    assert "layer 'inner_odd'" in reason
    assert "\n" not in reason


@pytest.mark.parametrize("has_two_heads", [False, True])
def test_a_network_that_xla_can_compile_is_not_refused(has_two_heads):
    assert compilation.refusal(make_embedder(has_two_heads)) is None


@pytest.mark.parametrize("pooling", ["gem", "avg", "grid"])
def test_no_embedder_of_this_package_is_refused(pooling):
    embedder = build_embedder("small_cnn", 8, image_size=64, pooling=pooling, attribute_names=["striped"])
    assert compilation.refusal(embedder) is None


class Subclassed(keras.Model):
    """A model that has no shape of its images before its first call."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, images, training=None):
        return self.dense(images)


def test_a_model_without_a_shape_is_compiled_unchecked():
    learner = MetricLearner(Subclassed())
    learner.compile("sgd", EETLoss(), jit_compile=True)
    images = RNG.normal(size=[20, 6]).astype(np.float32)
    assert np.isfinite(learner.fit(images, LABELS[:20], batch_size=20, verbose=0).history["loss"]).all()


def test_it_may_be_compiled_outside_the_scope_that_made_it():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        learner = MetricLearner(make_embedder())
    learner.compile("sgd", EETLoss(), jit_compile=True)
    assert learner._compiles_parts


def test_without_a_gpu_auto_compiles_nothing():
    learner = MetricLearner(make_embedder())
    learner.compile("sgd", EETLoss())
    assert not learner.jit_compile


@pytest.mark.parametrize("value", ["on", None, 2])
def test_another_value_is_named(value):
    with pytest.raises(ValueError, match="`jit_compile` must be True, False or 'auto'. Received: jit_compile="):
        MetricLearner(make_embedder()).compile("sgd", EETLoss(), jit_compile=value)
