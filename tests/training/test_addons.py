"""The adapters to tensorflow-addons: what each feeds to Addons, one update on any number of replicas, and refusals."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner, build_embedder, compat, make_strategy, replicas
from eet_tf.cli import training_flags
from eet_tf.training import addons

needs_addons = pytest.mark.skipif(not compat.KERAS_2, reason="tensorflow-addons needs Keras 2: make test-addons")
without_addons = pytest.mark.skipif(compat.KERAS_2, reason="what is said where Addons is not")

# Pairs, of which classes 4 and 9 have two each
LABELS = np.array([4, 4, 7, 7, 4, 4, 9, 9, 9, 9, 2, 2])
TRIPLETS = {
    "tfa_triplet_semihard": {"margin": 0.4, "distance": "squared"},
    "tfa_triplet_hard": {"margin": 0.4, "distance": "cosine", "soft_margin": True},
}
SETTINGS = {**TRIPLETS, "tfa_lifted": {"margin": 0.4}, "tfa_npairs": {}, "tfa_contrastive": {"margin": 0.9}}


def make_embeddings(seed=0):
    return tf.math.l2_normalize(tf.constant(np.random.default_rng(seed).normal(size=[12, 5]), tf.float32), axis=1)


def tfa():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons
    return tensorflow_addons


def npairs(labels, x):
    products = tf.stack([tf.linalg.matvec(x[1::2], anchor) for anchor in x[0::2]])
    return tfa().losses.NpairsLoss()(labels[0::2], products)


def contrastive(labels, x):
    """Hadsell's loss in a loop: the squared distance within a class, what is missing to the margin otherwise."""
    each = []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            distance = tf.norm(x[i] - x[j])
            each.append(distance**2 if labels[i] == labels[j] else tf.maximum(0.9 - distance, 0.0) ** 2)
    return tf.add_n(each) / len(each)


EXPECTED = {
    "tfa_triplet_semihard": lambda labels, x: tfa().losses.TripletSemiHardLoss(0.4, "squared-L2")(labels, x),
    "tfa_triplet_hard": lambda labels, x: tfa().losses.TripletHardLoss(0.4, True, "angular")(labels, x),
    "tfa_lifted": lambda labels, x: tfa().losses.LiftedStructLoss(0.4)(labels, x),
    "tfa_npairs": npairs,
    "tfa_contrastive": contrastive,
}


def test_every_loss_is_tried_here():
    assert set(SETTINGS) == set(EXPECTED) == set(addons.LOSSES)


def test_the_training_script_has_the_same_names():
    assert list(training_flags.ADDONS_LOSSES) == list(addons.LOSSES)
    assert list(addons.OPTIMIZERS) == training_flags.ADDONS_OPTIMIZERS


@needs_addons
@pytest.mark.parametrize("kind", SETTINGS)
def test_value_and_gradient_are_those_of_addons(kind):
    found = []
    for loss in (addons.AddonsLoss(kind, **SETTINGS[kind]), EXPECTED[kind]):
        x = make_embeddings()
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(LABELS, x)
        found.append((float(value), np.asarray(tape.gradient(value, x))))
    (value, gradient), (expected, slope) = found
    assert value > 0.01
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


@needs_addons
@pytest.mark.parametrize("kind", SETTINGS)
def test_each_anchor_has_the_loss_of_the_batch(kind):
    loss = addons.AddonsLoss(kind, **SETTINGS[kind])
    each = loss.call(LABELS[:, np.newaxis], make_embeddings())
    assert (each.shape, each.dtype) == ([12], tf.float32)
    assert len(np.unique(each)) == 1


@needs_addons
@pytest.mark.parametrize("kind", SETTINGS)
def test_large_labels_do_not_collide(kind):
    """2**24 + 1 is no float32; Addons compares the labels of n-pairs as such."""
    loss = addons.AddonsLoss(kind, **SETTINGS[kind])
    large = np.unique(LABELS, return_inverse=True)[1] + 2**24
    assert float(loss(large, make_embeddings())) == pytest.approx(float(loss(LABELS, make_embeddings())))


@needs_addons
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_loss_comes_back_from_its_config(kind):
    loss = addons.AddonsLoss(kind, **SETTINGS[kind], name="other")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(LABELS, make_embeddings())) == float(loss(LABELS, make_embeddings()))


@needs_addons
def test_what_addons_has_not_is_refused():
    with pytest.raises(ValueError, match="`kind` must be one of tfa_triplet_semihard.*Received: kind='hard'"):
        addons.AddonsLoss("hard")
    with pytest.raises(ValueError, match="`distance` must be 'euclidean' for tfa_lifted. Received: distance='cosine'"):
        addons.AddonsLoss("tfa_lifted", distance="cosine")
    with pytest.raises(ValueError, match="`soft_margin` must be False for tfa_triplet_semihard"):
        addons.AddonsLoss("tfa_triplet_semihard", soft_margin=True)
    with pytest.raises(ValueError, match="labels of pairs for tfa_npairs. Received: 11 labels"):
        addons.AddonsLoss("tfa_npairs")(LABELS[:11], make_embeddings()[:11])
    with pytest.raises(tf.errors.InvalidArgumentError, match="even place followed by one of its class"):
        addons.AddonsLoss("tfa_npairs")(np.sort(LABELS)[[0, 4, 1, 5]], make_embeddings()[:4])


# One batch, one update, however many replicas


def make_learner(loss, optimizer):
    images = keras.Input([6])
    embedder = keras.Model(images, keras.layers.UnitNormalization()(keras.layers.Dense(4)(images)))
    learner = MetricLearner(embedder)
    learner.compile(optimizer, loss=loss)
    return learner


def report_updates(strategy_name):
    """Runs in a process of its own: the weights after two steps with each loss, and with each optimizer."""
    if strategy_name == "mirrored":
        replicas.split_cpu(2)
    strategy, found = make_strategy(strategy_name), {}
    rng = np.random.default_rng(3)
    images = np.concatenate([rng.normal(size=[12, 6]), rng.normal(size=[12, 6])]).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.concatenate([LABELS, LABELS]))).batch(12)
    losses = {kind: (kind, None) for kind in addons.LOSSES}
    for name, (kind, optimizer) in {**losses, **{name: ("tfa_lifted", name) for name in addons.OPTIMIZERS}}.items():
        keras.utils.set_random_seed(7)
        with strategy.scope():
            rule = addons.make_optimizer(optimizer, 0.05, global_clipnorm=0.1) if optimizer else keras.optimizers.SGD(1)
            learner = make_learner(addons.AddonsLoss(kind, **SETTINGS[kind]), rule)
        before = learner.embedder.get_weights()
        loss = learner.fit(dataset, shuffle=False, verbose=0).history["loss"]
        after = learner.embedder.get_weights()
        found[name] = [loss, [float(value) for one, two in zip(before, after) for value in (two - one).ravel()]]
    print(json.dumps(found))


def report_bare_updates(strategy_name):
    """Runs in a process of its own: what Addons' own class changes in one step of a batch of two equal halves."""
    if strategy_name == "mirrored":
        replicas.split_cpu(2)
    keras.utils.set_random_seed(7)
    half = np.random.default_rng(3).normal(size=[12, 6]).astype(np.float32)
    copies = 2 if strategy_name == "mirrored" else 1
    data = (np.concatenate([half] * copies), np.concatenate([LABELS] * copies))
    with make_strategy(strategy_name).scope():
        model = keras.Sequential([keras.Input([6]), keras.layers.Dense(4), keras.layers.UnitNormalization()])
        model.compile(keras.optimizers.SGD(0.1), loss=tfa().losses.TripletHardLoss(0.4))
    before = model.get_weights()[0]
    model.fit(tf.data.Dataset.from_tensor_slices(data).batch(12 * copies), verbose=0)
    print(json.dumps((model.get_weights()[0] - before).tolist()))


@needs_addons
def test_the_update_is_the_same_on_two_replicas(run_python):
    call = "from tests.training import test_addons; test_addons.report_updates({!r})"
    printed = run_python(call.format("default"), call.format("mirrored"))
    one, two = (json.loads(text.splitlines()[-1]) for text in printed)
    for name, (loss, changes) in one.items():
        assert np.abs(changes).max() > 1e-4, name
        assert two[name][0] == pytest.approx(loss, rel=1e-4), name
        np.testing.assert_allclose(two[name][1], changes, rtol=1e-3, atol=1e-5, err_msg=name)


@needs_addons
def test_without_the_adapter_two_replicas_make_twice_the_update(run_python):
    """Two replicas with the same 12 photos each, against one with these 12."""
    call = "from tests.training import test_addons; test_addons.report_bare_updates({!r})"
    one, two = (
        json.loads(text.splitlines()[-1]) for text in run_python(call.format("default"), call.format("mirrored"))
    )
    assert np.abs(one).max() > 1e-4
    np.testing.assert_allclose(two, 2 * np.array(one), rtol=1e-3, atol=1e-6)


# Optimizers


def weights_after(optimizer, steps=4):
    keras.utils.set_random_seed(1)
    layer = keras.layers.Dense(3)
    layer.build([None, 2])
    for step in range(steps):
        gradients = [tf.cast(tf.reshape(tf.range(tf.size(w)), w.shape), tf.float32) - step for w in layer.weights]
        optimizer.apply_gradients(zip(gradients, layer.trainable_weights))
    return np.concatenate([weight.ravel() for weight in layer.get_weights()])


@needs_addons
@pytest.mark.parametrize("name", addons.OPTIMIZERS)
def test_every_optimizer_changes_the_weights_along_a_schedule(name):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    changed = weights_after(addons.make_optimizer(name, schedule))
    assert np.isfinite(changed).all()
    assert not np.allclose(changed, weights_after(addons.make_optimizer(name, schedule), steps=1))


@needs_addons
@pytest.mark.parametrize(
    "name, of_keras",
    {
        "tfa_adamw": lambda rate, decay: keras.optimizers.AdamW(rate, weight_decay=decay / rate),
        "tfa_sgdw": lambda rate, decay: keras.optimizers.SGD(
            rate, momentum=0.9, nesterov=True, weight_decay=decay / rate
        ),
    }.items(),
)
def test_weight_decay_of_keras_is_that_of_addons_over_the_learning_rate(name, of_keras):
    theirs = weights_after(addons.make_optimizer(name, 0.05, weight_decay=0.01))
    np.testing.assert_allclose(weights_after(of_keras(0.05, 0.01)), theirs, rtol=1e-4, atol=1e-6)
    assert not np.allclose(weights_after(of_keras(0.05, 0.01 * 0.05)), theirs, rtol=1e-4, atol=1e-6)


@needs_addons
def test_lazy_adam_is_adam_for_dense_gradients():
    theirs = weights_after(addons.make_optimizer("tfa_lazyadam", 0.05))
    np.testing.assert_allclose(weights_after(keras.optimizers.Adam(0.05)), theirs, rtol=1e-4, atol=1e-6)


@needs_addons
def test_optimizers_refuse_what_they_have_not():
    with pytest.raises(ValueError, match="`weight_decay` must be 0 for tfa_yogi. Received: weight_decay=0.1"):
        addons.make_optimizer("tfa_yogi", 0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="`name` must be one of tfa_adabelief.*Received: name='lamb'"):
        addons.make_optimizer("lamb", 0.1)


@needs_addons
@pytest.mark.parametrize("kind", addons.LOSSES)
def test_labels_nan_and_no_photos_are_as_in_every_loss(kind):
    """EANs differ though float32 does not tell them apart; one NaN makes the loss NaN; no photos lose nothing."""
    loss, embeddings = addons.AddonsLoss(kind, **SETTINGS[kind]), make_embeddings().numpy()
    value = float(loss(LABELS, embeddings))
    assert float(loss(LABELS + 4_006_381_333_931, embeddings)) == pytest.approx(value, rel=1e-6)
    assert float(loss(LABELS[:0], embeddings[:0])) == 0.0
    with pytest.raises(ValueError, match="`y_true` must be integer labels. Received: strings. Number the skus"):
        loss(LABELS.astype(str), embeddings)
    embeddings[5, 2] = np.nan
    assert np.isnan(loss(LABELS, embeddings))


# Where Addons is not


@without_addons
@pytest.mark.parametrize("flag, name", [("loss", "tfa_triplet_hard"), ("optimizer", "tfa_sgdw")])
def test_without_addons_the_message_names_both_ways_out(flag, name):
    with pytest.raises(ValueError, match=rf"`{flag}` must not .*needs Keras 2.*Received: {flag}={name}") as raised:
        addons.check_available(flag, name)
    instead = addons.LOSSES[name] if flag == "loss" else addons.OPTIMIZERS[name][-1]
    assert "pip install 'eet-tf[addons]'" in str(raised.value)
    assert str(raised.value).endswith(f"Or take {instead}.")


@without_addons
def test_without_addons_the_adapters_say_so_too():
    with pytest.raises(ImportError, match="needs Keras 2, and this is Keras 3"):
        addons.AddonsLoss("tfa_lifted")
    with pytest.raises(ImportError, match="needs Keras 2"):
        addons.make_optimizer("tfa_lamb", 0.1)


def test_names_of_this_package_pass():
    for name in ("eet", "adam"):
        assert addons.check_available("loss", name) is None


@needs_addons
def test_learning_rates_apart_hold_for_its_optimizers():
    """Which are of an older kind: a step at half the rate is half as far, and a backbone that waits stays."""
    images = np.random.default_rng(0).uniform(0, 255, [16, 32, 32, 3]).astype(np.float32)

    def moved(**rates):
        keras.utils.set_random_seed(0)
        learner = MetricLearner(build_embedder("small_cnn", 4, image_size=32))
        learner.compile(addons.make_optimizer("tfa_sgdw", 0.01, 0.0), EETLoss(), **rates)
        parts = {"trunk": learner.embedder.get_layer("small_cnn"), "head": learner.embedder.get_layer("projection")}
        before = {name: [each.numpy() for each in part.trainable_weights] for name, part in parts.items()}
        learner.fit(images, np.arange(16) // 2, batch_size=16, shuffle=False, verbose=0)
        return {
            name: [weight.numpy() - old for weight, old in zip(part.trainable_weights, before[name])]
            for name, part in parts.items()
        }

    together, slower, later = moved(), moved(trunk_rate=0.5), moved(head_only_steps=5)
    assert max(np.abs(step).max() for step in together["trunk"]) > 1e-3
    for step, half, none in zip(together["trunk"], slower["trunk"], later["trunk"]):
        np.testing.assert_allclose(half, 0.5 * step, atol=1e-7)
        assert not none.any()
    for step, same, also in zip(together["head"], slower["head"], later["head"]):
        np.testing.assert_array_equal(same, step)
        np.testing.assert_array_equal(also, step)
