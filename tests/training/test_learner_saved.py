"""A learner is a Keras model in every respect: built when its embedder is, saved, loaded, cloned, gone on with."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner, SoftBinomialDevianceLoss, build_embedder, load_embedder
from eet_tf.losses.attributes import AttributeLoss

LABELS = np.array([5, 5, 0, 2, 2, 2, 0, 9] * 2)
IMAGES = np.random.default_rng(0).normal(size=[16, 6]).astype(np.float32)


def make_embedder(heads=False):
    keras.utils.set_random_seed(1)
    images = keras.Input([6])
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(7, activation="tanh")(images))
    embedding = keras.layers.Dense(4)(hidden)
    outputs = {"embedding": embedding, "attributes": keras.layers.Dense(3)(hidden)} if heads else embedding
    return keras.Model(images, outputs)


# What a learner and its compilation are made of.
MADE = {
    "memory": (
        {"memory_size": 11, "memory_start": 1},
        {"loss": EETLoss(symmetric_margin=True, margin=0.4), "microbatch": 3},
    ),
    "named": ({"name": "mine"}, {"loss": "mean_squared_error", "metrics": ["mean_absolute_error"]}),
    "two heads": (
        {},
        {"loss": SoftBinomialDevianceLoss(), "attribute_loss": AttributeLoss(), "attribute_weight": 0.3},
    ),
}


def make_learner(name):
    made, compiled = MADE[name]
    learner = MetricLearner(make_embedder(heads=name == "two heads"), **made)
    learner.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.5), **compiled)
    return learner


def train(learner, name, epochs=2, callbacks=()):
    targets = LABELS
    if name == "two heads":
        targets = {"label": LABELS, "attributes": np.random.default_rng(1).integers(-1, 2, size=[16, 3])}
    if name == "named":
        targets = np.ones([16, 4], np.float32) * LABELS[:, np.newaxis]
    return learner.fit(
        IMAGES, targets, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    ).history


def assert_same_state(found, expected):
    """All weights, those of the optimizer and the memory among them."""
    for weight, wanted in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, wanted)
    for variable, wanted in zip(found.optimizer.variables, expected.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), np.asarray(wanted))


@pytest.mark.parametrize("name, with_custom_objects", [("memory", True), *[(name, False) for name in MADE]])
def test_a_saved_learner_goes_on_as_if_it_had_not_been_saved(name, with_custom_objects, tmp_path):
    learner = make_learner(name)
    train(learner, name)
    learner.save(tmp_path / "learner.keras")
    custom_objects = {"MetricLearner": MetricLearner} if with_custom_objects else None
    loaded = keras.models.load_model(tmp_path / "learner.keras", custom_objects=custom_objects)
    assert type(loaded) is MetricLearner and loaded.name == learner.name
    assert_same_state(loaded, learner)
    assert train(loaded, name) == {key: pytest.approx(values) for key, values in train(learner, name).items()}
    assert_same_state(loaded, learner)


# as of any Keras model whose optimizer has taken no step
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("weights_only", [False, True])
def test_checkpoints_are_written_in_every_epoch(weights_only, tmp_path):
    name = os.fspath(tmp_path / ("{epoch}.weights.h5" if weights_only else "{epoch}.keras"))
    learner = make_learner("memory")
    train(learner, "memory", 3, [keras.callbacks.ModelCheckpoint(name, save_weights_only=weights_only)])
    assert len(os.listdir(tmp_path)) == 3
    loaded = make_learner("memory")
    if weights_only:
        loaded.load_weights(name.format(epoch=3))  # before its first step
    else:
        loaded = keras.models.load_model(name.format(epoch=3))
    for weight, expected in zip(loaded.get_weights(), learner.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_the_embedder_is_taken_out_of_a_saved_learner(tmp_path):
    keras.utils.set_random_seed(2)
    learner = MetricLearner(build_embedder("small_cnn", 8, image_size=32), memory_size=5)
    learner.compile("adam", EETLoss())
    learner.save(tmp_path / "model.keras")
    embedder = load_embedder(os.fspath(tmp_path))
    assert embedder.output_shape == (None, 8)
    for weight, expected in zip(embedder.get_weights(), learner.embedder.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_another_process_needs_no_list_of_classes(tmp_path, run_python):
    """It has imported the learner, and neither the losses nor the layers that are in the file."""
    learner = MetricLearner(build_embedder("small_cnn", 8, image_size=32, attribute_names=["red"]))
    learner.compile("sgd", SoftBinomialDevianceLoss(), AttributeLoss())
    learner.save(tmp_path / "learner.keras")
    printed = run_python(f"""
import keras
from eet_tf import MetricLearner
loaded = keras.models.load_model({os.fspath(tmp_path / "learner.keras")!r})
print(type(loaded).__name__, sorted(loaded.embedder.output))
from eet_tf import load_embedder
print(load_embedder({os.fspath(tmp_path / "learner.keras")!r}).name)
""")
    assert printed[0].split("\n")[:2] == ["MetricLearner ['attributes', 'embedding']", "small_cnn_embedder"]


def test_a_clone_is_made_alike_and_is_another():
    learner = make_learner("memory")
    train(learner, "memory", epochs=1)
    clone = keras.models.clone_model(learner)
    assert [weight.shape for weight in clone.get_weights()] == [weight.shape for weight in learner.get_weights()]
    assert (clone.memory.size, clone.memory.start) == (11, 1)
    clone.set_weights(learner.get_weights())
    before = learner.get_weights()
    clone.compile("sgd", EETLoss())
    train(clone, "memory", epochs=1)
    for weight, expected in zip(learner.get_weights(), before):
        np.testing.assert_array_equal(weight, expected)


def test_a_learner_is_built_when_its_embedder_is(capsys):
    learner = MetricLearner(make_embedder())
    assert learner.built
    learner.summary()
    printed = capsys.readouterr().out
    assert "unbuilt" not in printed and "metric_learner" in printed
    late = MetricLearner(keras.Sequential([keras.layers.Dense(4)]))
    assert not late.built
    late.compile("sgd", EETLoss())
    late.fit(IMAGES, LABELS, batch_size=8, verbose=0)
    assert late.built


class Killed(keras.callbacks.Callback):
    """Ends a training after its second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_killed_training_is_gone_on_with(tmp_path):
    """By `keras.callbacks.BackupAndRestore`, with the learner made anew: it ends where one that was not killed does."""
    name = "memory"
    whole, killed, resumed = (make_learner(name) for _ in range(3))
    train(whole, name, epochs=4)
    backup = keras.callbacks.BackupAndRestore(os.fspath(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        train(killed, name, 4, [backup, Killed()])
    history = train(resumed, name, 4, [keras.callbacks.BackupAndRestore(os.fspath(tmp_path / "backup"))])
    assert len(history["loss"]) == 2
    for weight, expected in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)


def test_a_learner_that_was_not_compiled_is_saved_too(tmp_path):
    learner = MetricLearner(make_embedder())
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(loaded(IMAGES), learner(IMAGES))


@pytest.mark.parametrize("name", ["learner.h5", "learner", "learner.keras.zip"])
def test_only_the_format_that_holds_a_learner_is_written(name, tmp_path):
    with pytest.raises(ValueError, match=r"`filepath` must end in .keras. Received: filepath='.*learner.embedder.save"):
        make_learner("memory").save(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_keras_exports_the_embedder_of_a_learner_that_was_never_called(tmp_path):
    learner = make_learner("memory")
    learner.export(os.fspath(tmp_path / "exported"))
    exported = tf.saved_model.load(os.fspath(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(IMAGES), learner.embedder(IMAGES), rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_registered_is_no_reason_to_lose_the_model(tmp_path):
    class Mine(EETLoss):
        pass

    learner = MetricLearner(make_embedder())
    learner.compile("sgd", Mine())
    learner.save(tmp_path / "learner.keras")
    with pytest.raises(TypeError, match="Could not locate class 'Mine'.*register_keras_serializable"):
        keras.models.load_model(tmp_path / "learner.keras")
    for model in (
        keras.models.load_model(tmp_path / "learner.keras", compile=False),
        load_embedder(os.fspath(tmp_path / "learner.keras")),
    ):
        np.testing.assert_allclose(model(IMAGES), learner(IMAGES), rtol=1e-5, atol=1e-6)


def test_a_file_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"`path` must be a .keras file that this version of Keras, .*/model.keras'"):
        load_embedder(os.fspath(tmp_path / "model.keras"))


def test_layers_of_somebody_elses_are_named_with_the_mend(tmp_path):
    class Odd(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    keras.Sequential([keras.Input([6]), Odd()]).save(tmp_path / "odd.keras")
    with pytest.raises(
        ValueError, match=r"can load. Received: .*odd.keras': .*([Oo]dd|added layer).* Layers of your own must"
    ):
        load_embedder(os.fspath(tmp_path / "odd.keras"))
