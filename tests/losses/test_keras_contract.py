"""What Keras asks of a loss: one line in `compile`, and then fit, evaluate, save, load, half precision and XLA."""

import inspect
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf import AttributeLoss, EETLoss, TripletLoss

# Every public loss with a value other than the default for each argument. A new loss must be added here.
OTHER_ARGUMENTS = {
    "ArcFaceLoss": {
        "num_classes": 11,
        "margin": 0.3,
        "scale": 8.0,
        "subcenters": 3,
        "label_smoothing": 0.2,
        "sampled_classes": 9,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "AttributeLoss": {
        "from_logits": False,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "BinomialDevianceLoss": {
        "alpha": 3.0,
        "beta": 0.25,
        "negative_cost": 10.0,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "DistillationLoss": {
        "loss": TripletLoss(margin=0.2),
        "weight": 2.0,
        "teacher_references": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "CombinedLoss": {
        "losses": [keras.saving.serialize_keras_object(loss) for loss in (TripletLoss(0.1), EETLoss(0.2))],
        "weights": [0.5, 2.0],
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "EETLoss": {
        "margin": 0.45,
        "equidistant_weight": 0.5,
        "equidistributed_weight": 2.0,
        "symmetric_margin": True,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "MultiSimilarityLoss": {
        "positive_scale": 3.0,
        "negative_scale": 20.0,
        "threshold": 0.25,
        "epsilon": 0.3,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "PrefixLoss": {
        "loss": TripletLoss(margin=0.2),
        "weights": (1.0, 3.0),
        "prefixes": (2, 4),
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "NormalizedSoftmaxLoss": {
        "num_classes": 11,
        "temperature": 0.2,
        "label_smoothing": 0.2,
        "sampled_classes": 9,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "ProxyAnchorLoss": {
        "num_classes": 11,
        "margin": 0.3,
        "scale": 4.0,
        "sampled_classes": 9,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "RecallAtKLoss": {
        "ks": (1, 3),
        "temperature": 0.2,
        "rank_temperature": 0.5,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "RoadmapLoss": {
        "calibration_weight": 0.2,
        "temperature": 0.2,
        "slope": 3.0,
        "delta": 0.3,
        "positive_threshold": 0.8,
        "negative_threshold": 0.4,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "SmoothAPLoss": {
        "temperature": 0.2,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "SoftBinomialDevianceLoss": {
        "alpha": 3.0,
        "beta": 0.25,
        "negative_cost": 10.0,
        "weighting": "preserving",
        "granularity": "predictions",
        "preserved_share": 0.25,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "SupervisedContrastiveLoss": {
        "temperature": 0.2,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
    "TripletLoss": {
        "margin": 0.45,
        "positives": "all",
        "negatives": "semi_hard",
        "distance": "cosine",
        "soft_margin": True,
        "from_normalized": True,
        "reduction": "sum",
        "name": "other",
        "dtype": "float64",
    },
}
# What a loss cannot be made without
REQUIRED = {
    **dict.fromkeys(["ArcFaceLoss", "NormalizedSoftmaxLoss", "ProxyAnchorLoss"], {"num_classes": 10}),
    "CombinedLoss": {"losses": OTHER_ARGUMENTS["CombinedLoss"]["losses"]},
}
OF_EVERY_LOSS = ("from_normalized", "reduction", "name", "dtype")
# Losses that `compile` cannot take, and why. Their own tests see to precision, XLA and training.
CLASS_VECTORS = "its class vectors are weights of a MetricLearner; tests/losses/test_class_losses.py"
NOT_COMPILED = {
    "SoftBinomialDevianceLoss": "it needs both heads at once, and Keras gives a loss one output at a time",
    "DistillationLoss": "it needs labels and a teacher's vectors at once",
    **dict.fromkeys(["ArcFaceLoss", "NormalizedSoftmaxLoss", "ProxyAnchorLoss"], CLASS_VECTORS),
}

LABELS = np.array([5, 5, 0, 2, 2, 2, 0, 9] * 2)
IMAGES = np.random.default_rng(0).normal(size=[16, 6]).astype(np.float32)
OUTPUTS = IMAGES[:8, :4]
ATTRIBUTES = np.random.default_rng(1).integers(-1, 2, size=[16, 4])
COMPILED = [getattr(eet_tf, name) for name in OTHER_ARGUMENTS if name not in NOT_COMPILED]
every_loss = pytest.mark.parametrize("loss_class", [getattr(eet_tf, name) for name in OTHER_ARGUMENTS])
every_compiled_loss = pytest.mark.parametrize(
    "loss_class, targets",
    [(loss_class, ATTRIBUTES if loss_class is AttributeLoss else LABELS) for loss_class in COMPILED],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)


def made(loss_class, **arguments):
    """The loss with what it needs and some arguments more."""
    return loss_class(**{**REQUIRED.get(loss_class.__name__, {}), **arguments})


def make_model(loss, **compile_arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input([6]), keras.layers.Dense(7, activation="tanh"), keras.layers.Dense(4)])
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss=loss, **compile_arguments)
    return model


def mean_over_batches(loss, targets, outputs):
    return np.mean([loss(targets[start : start + 8], outputs[start : start + 8]) for start in (0, 8)])


def test_every_public_loss_is_held_to_the_contract():
    losses = {name for name in eet_tf.__all__ if isinstance(getattr(eet_tf, name), type)}
    losses = {name for name in losses if issubclass(getattr(eet_tf, name), keras.losses.Loss)}
    assert losses - {"MetricLoss"} == set(OTHER_ARGUMENTS)  # the base of the others has no terms
    assert set(NOT_COMPILED) < set(OTHER_ARGUMENTS)


@every_compiled_loss
def test_fit_learns_and_evaluate_measures(loss_class, targets):
    # a few steps along a gradient that steep ranks have for an instant only may lead anywhere
    arguments = {"temperature": 0.3} if loss_class is eet_tf.RecallAtKLoss else {}
    model = make_model(made(loss_class, **arguments))
    before = model.evaluate(IMAGES, targets, batch_size=8, verbose=0)
    expected = mean_over_batches(made(loss_class, **arguments), targets, model(IMAGES).numpy())
    assert before == pytest.approx(expected, rel=1e-5)
    history = model.fit(IMAGES, targets, batch_size=8, epochs=4, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert model.evaluate(IMAGES, targets, batch_size=8, verbose=0) < before


@every_compiled_loss
def test_fit_takes_a_last_batch_that_is_smaller(loss_class, targets):
    model = make_model(made(loss_class))
    history = model.fit(IMAGES[:11], targets[:11], batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"][0])


@every_compiled_loss
def test_one_step_is_plain_gradient_descent_on_the_mean(loss_class, targets):
    model, same = make_model(made(loss_class)), make_model(made(loss_class))
    model.fit(IMAGES[:8], targets[:8], batch_size=8, shuffle=False, verbose=0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(made(loss_class).call(targets[:8], same(IMAGES[:8], training=True)))
    gradients = tape.gradient(loss, same.trainable_variables)
    for weight, start, gradient in zip(model.get_weights(), same.get_weights(), gradients):
        np.testing.assert_allclose(weight, start - 0.05 * gradient, rtol=1e-4, atol=1e-6)


@every_compiled_loss
def test_reductions_are_keras(loss_class, targets):
    vector = np.asarray(made(loss_class, reduction="none")(targets[:8], OUTPUTS))
    assert vector.shape == (8,)
    assert float(made(loss_class)(targets[:8], OUTPUTS)) == pytest.approx(vector.mean(), rel=1e-5)
    assert float(made(loss_class, reduction="sum")(targets[:8], OUTPUTS)) == pytest.approx(vector.sum(), rel=1e-5)


@every_compiled_loss
def test_sample_weights_weigh_anchors(loss_class, targets):
    weights = np.linspace(0.0, 2.0, 8).astype(np.float32)
    vector = np.asarray(made(loss_class, reduction="none")(targets[:8], OUTPUTS))
    found = float(made(loss_class)(targets[:8], OUTPUTS, sample_weight=weights))
    assert found == pytest.approx(np.sum(vector * weights) / 8, rel=1e-5)


@every_compiled_loss
@pytest.mark.parametrize("policy", [pytest.param("mixed_bfloat16", marks=pytest.mark.long), "mixed_float16"])
def test_fit_in_half_precision(loss_class, targets, policy, set_policy):
    set_policy(policy)
    model = make_model(made(loss_class))
    assert model(IMAGES).dtype == policy.removeprefix("mixed_")
    # float16 passes over steps until the scale of the loss is low enough
    history = model.fit(IMAGES, targets, batch_size=8, epochs=8, shuffle=False, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))
    assert history[-1] < history[0]
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())


@every_compiled_loss
def test_fit_compiled_by_xla_is_the_same(loss_class, targets):
    plain, compiled = make_model(made(loss_class), jit_compile=False), make_model(made(loss_class), jit_compile=True)
    for model in (plain, compiled):
        model.fit(IMAGES, targets, batch_size=8, shuffle=False, verbose=0)
    for weight, expected in zip(compiled.get_weights(), plain.get_weights()):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)


@every_loss
def test_config_lists_every_argument(loss_class):
    parameters = inspect.signature(loss_class.__init__).parameters
    assert set(made(loss_class).get_config()) == set(parameters) - {"self"}
    assert list(parameters)[-3:] == ["reduction", "name", "dtype"]
    assert set(OTHER_ARGUMENTS[loss_class.__name__]) == set(parameters) - {"self"}


def as_configured(arguments):
    """Arguments as a configuration has them: a loss that another is built on as Keras describes it."""
    is_loss = {name: isinstance(value, keras.losses.Loss) for name, value in arguments.items()}
    describe = keras.saving.serialize_keras_object
    return {name: describe(value) if is_loss[name] else value for name, value in arguments.items()}


@every_loss
def test_config_brings_back_every_argument(loss_class):
    arguments = OTHER_ARGUMENTS[loss_class.__name__]
    loss = made(loss_class, **arguments)
    assert loss.get_config() == as_configured(arguments)
    assert loss_class.from_config(loss.get_config()).get_config() == as_configured(arguments)


@every_loss
def test_defaults_come_back_as_defaults(loss_class):
    parameters = inspect.signature(loss_class.__init__).parameters
    defaults = {name: each.default for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
    assert set(parameters) - {"self"} - set(defaults) == set(REQUIRED.get(loss_class.__name__, {}))
    expected = made(loss_class, **defaults).get_config()
    assert loss_class.from_config(made(loss_class).get_config()).get_config() == expected


@every_loss
def test_keras_serializes_it(loss_class):
    arguments = OTHER_ARGUMENTS[loss_class.__name__]
    serialized = keras.saving.serialize_keras_object(made(loss_class, **arguments))
    assert serialized["registered_name"] == f"eet_tf>{loss_class.__name__}"
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is loss_class
    assert again.get_config() == made(loss_class, **arguments).get_config()


@every_compiled_loss
def test_a_compiled_model_is_saved_and_loaded_without_custom_objects(loss_class, targets, tmp_path):
    *_, first = [each for each in OTHER_ARGUMENTS[loss_class.__name__].items() if each[0] not in OF_EVERY_LOSS]
    model = make_model(made(loss_class, **dict([first])))
    model.fit(IMAGES, targets, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is loss_class
    assert loaded.loss.get_config() == model.loss.get_config()
    expected = model.evaluate(IMAGES, targets, batch_size=8, verbose=0)
    assert loaded.evaluate(IMAGES, targets, batch_size=8, verbose=0) == pytest.approx(expected, rel=1e-6)
    loaded.fit(IMAGES, targets, batch_size=8, verbose=0)


def test_a_fresh_process_that_imports_the_loss_loads_the_model(tmp_path, run_python):
    model = make_model(EETLoss(margin=0.45))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=LABELS)
    code = f"""
import keras, numpy
from eet_tf import EETLoss
model = keras.models.load_model({os.fspath(tmp_path / "model.keras")!r})
data = numpy.load({os.fspath(tmp_path / "data.npz")!r})
print(model.loss.margin, model.evaluate(data["images"], data["labels"], batch_size=8, verbose=0))
"""
    margin, loss = run_python(code, fresh=True)[0].split()[-2:]
    assert margin == "0.45"
    assert float(loss) == pytest.approx(model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0), rel=1e-5)


def test_without_its_weights_eet_is_the_triplet_loss():
    loss = EETLoss(margin=0.2, equidistant_weight=0.0, equidistributed_weight=0.0)
    eet, triplet = make_model(loss), make_model(TripletLoss(margin=0.2))
    histories = [
        model.fit(IMAGES, LABELS, batch_size=8, shuffle=False, epochs=2, verbose=0).history for model in (eet, triplet)
    ]
    assert histories[0]["loss"] == pytest.approx(histories[1]["loss"], rel=1e-6)


def test_a_model_that_ends_in_a_map_is_told_so():
    model = keras.Sequential([keras.Input([6]), keras.layers.Reshape([3, 2])])
    model.compile(optimizer="sgd", loss=EETLoss())
    with pytest.raises(ValueError, match="End the model in one vector per photo"):
        model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0)


def test_a_loss_of_two_heads_in_compile_says_what_to_do():
    """Keras hands it one output after the other, or refuses dicts itself."""
    images = keras.Input([6])
    model = keras.Model(images, keras.layers.Dense(4)(images))
    model.compile(optimizer="sgd", loss=eet_tf.SoftBinomialDevianceLoss())
    with pytest.raises(ValueError, match="`y_true` must be a dict with 'label'.*need eet_tf.MetricLearner"):
        model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0)
