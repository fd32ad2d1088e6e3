"""Learning rates apart: what the trunk, the head and the class vectors move by, in every optimizer and precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner, NormalizedSoftmaxLoss, build_embedder, compat

LABELS = np.random.default_rng(1).integers(0, 10, 32)
IMAGES = np.random.default_rng(0).normal(size=[32, 6]).astype(np.float32)


def make_learner(loss, optimizer, **arguments):
    keras.utils.set_random_seed(1)
    images = keras.Input([6])
    trunk = keras.Sequential([keras.Input([6]), keras.layers.Dense(7, activation="tanh", name="inner")], name="trunk")
    learner = MetricLearner(keras.Model(images, keras.layers.Dense(4, name="projection")(trunk(images))))
    learner.compile(optimizer, loss, **arguments)
    return learner


def fit(learner, epochs=1):
    return learner.fit(IMAGES, LABELS, batch_size=32, epochs=epochs, shuffle=False, verbose=0)


def weights_of(learner):
    """Two of the trunk, two of the head, the class vectors."""
    return [weight.numpy().copy() for weight in learner.trainable_variables]


def moves(optimizer, epochs=1, **arguments):
    learner = make_learner(NormalizedSoftmaxLoss(10), optimizer, **arguments)
    before = weights_of(learner)
    fit(learner, epochs)
    return [after - start for after, start in zip(weights_of(learner), before, strict=True)]


def schedule():
    """Other rates in the first steps."""
    return keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.01, warmup_steps=4)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw_clipped": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.5, global_clipnorm=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "adagrad": lambda: keras.optimizers.Adagrad(0.01),
    "warm_up": lambda: keras.optimizers.AdamW(schedule(), weight_decay=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_is_each_ones_share_weight_decay_and_all(name):
    """With a warm-up the second one, as the first is none."""
    steps = 2 if name == "warm_up" else 1
    alike, apart = (
        moves(OPTIMIZERS[name](), steps, **rates) for rates in ({}, {"trunk_rate": 0.25, "class_vectors_rate": 5.0})
    )
    for found, expected, share in zip(apart, alike, (0.25, 0.25, 1, 1, 5), strict=True):
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(found, share * expected, rtol=2e-3, atol=2e-7 * max(share, 1))


def by_hand(steps, rates, decay=0.1, momentum=0.9, rate=0.05):
    """Gradient descent with a momentum, written out, each weight at its own rate: all weights after each step."""
    loss = EETLoss()
    learner = make_learner(loss, "sgd")
    velocities, after = [0.0] * 4, []
    for _ in range(steps):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss.call(LABELS, learner.embedder(IMAGES)))
        gradients = tape.gradient(value, learner.trainable_variables)
        for place, (variable, gradient) in enumerate(zip(learner.trainable_variables, gradients)):
            velocities[place] = momentum * velocities[place] - rate * gradient
            kept = 1 - rates[place] * decay * rate
            variable.assign(kept * variable.numpy() + rates[place] * velocities[place])
        after.append(weights_of(learner))
    return after


def test_many_steps_are_those_of_an_optimizer_with_two_rates():
    expected = by_hand(5, (0.2, 0.2, 1.0, 1.0))
    learner = make_learner(EETLoss(), keras.optimizers.SGD(0.05, 0.9, weight_decay=0.1), trunk_rate=0.2)
    for step in range(5):
        fit(learner)
        for found, weight in zip(weights_of(learner), expected[step], strict=True):
            np.testing.assert_allclose(found, weight, rtol=1e-4, atol=1e-6)


def test_running_averages_are_those_of_the_weights_as_they_moved():
    """With a trunk that rests in the first two steps and then moves at a fifth. Keras 3 begins with the first step."""
    optimizer = keras.optimizers.SGD(0.05, 0.9, use_ema=True, ema_momentum=0.8)
    learner = make_learner(EETLoss(), optimizer, trunk_rate=0.2, head_only_steps=2)
    compat.build_optimizer(optimizer, learner.trainable_variables)
    averages = [each.numpy() for each in compat.weight_averages(optimizer)]
    start, path = weights_of(learner), []
    for step in range(4):
        learner.train_on_batch(IMAGES, LABELS)
        path.append(weights_of(learner))
        kept = 0.0 if step == 0 and not compat.KERAS_2 else 0.8
        averages = [kept * old + (1 - kept) * new for old, new in zip(averages, path[-1], strict=True)]
    with learner.averaged():
        for found, expected in zip(weights_of(learner), averages, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.array_equal(path[1][0], start[0]) and not np.array_equal(path[2][0], start[0])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("microbatch", [None, 5])
def test_the_trunk_rests_for_so_many_steps_to_the_last_bit(microbatch, jit_compile):
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    learner = make_learner(
        NormalizedSoftmaxLoss(10), optimizer, head_only_steps=3, microbatch=microbatch, jit_compile=jit_compile
    )
    start = weights_of(learner)
    fit(learner, 3)
    for number, (found, before) in enumerate(zip(weights_of(learner), start, strict=True)):
        assert np.array_equal(found, before) == (number < 2)
    fit(learner)
    assert not np.array_equal(weights_of(learner)[0], start[0])


def test_in_float16_steps_that_overflow_move_nothing_and_do_not_count(set_policy):
    set_policy("mixed_float16")
    learner = make_learner(NormalizedSoftmaxLoss(10), keras.optimizers.SGD(0.1), trunk_rate=0.5, head_only_steps=1)
    for _ in range(30):
        before = weights_of(learner)
        fit(learner)
        after, steps = weights_of(learner), int(compat.steps_of(learner.optimizer))
        assert all(np.isfinite(each).all() for each in after)
        has_moved = [not np.array_equal(new, old) for new, old in zip(after, before)]
        assert has_moved == [steps > 1, steps > 1, *[steps > 0] * 3] or not any(has_moved)
        if steps > 3:
            return
    raise AssertionError("no step was taken")


def test_a_saved_learner_has_its_rates_and_its_steps(tmp_path):
    learner = make_learner(
        NormalizedSoftmaxLoss(10),
        keras.optimizers.Adam(0.01),
        trunk_rate=0.1,
        class_vectors_rate=4.0,
        head_only_steps=3,
    )
    fit(learner, 2)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    start = weights_of(loaded)
    for each in (learner, loaded):
        fit(each)
    np.testing.assert_array_equal(weights_of(loaded)[0], start[0])  # the third step
    for each in (learner, loaded):
        fit(each)
    assert not np.array_equal(weights_of(loaded)[0], start[0])
    for found, expected in zip(weights_of(loaded), weights_of(learner), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_of_an_embedder_of_this_package_the_backbone_is_the_trunk():
    keras.utils.set_random_seed(1)
    embedder = build_embedder("small_cnn", 8, image_size=32)
    learner = MetricLearner(embedder)
    learner.compile("sgd", EETLoss(), head_only_steps=5)
    (backbone,) = [layer for layer in embedder.layers if isinstance(layer, keras.Model)]
    of_both = [backbone.trainable_variables, embedder.get_layer("projection").trainable_variables]
    before = [[each.numpy().copy() for each in variables] for variables in of_both]
    photos = np.random.default_rng(0).uniform(0, 255, size=[8, 32, 32, 3]).astype(np.float32)
    learner.fit(photos, np.arange(8) // 2, verbose=0)
    for variables, starts, stays in zip(of_both, before, (True, False), strict=True):
        for variable, start in zip(variables, starts, strict=True):
            assert np.array_equal(variable.numpy(), start) == stays


WRONG = [
    ({"trunk_rate": -0.1}, "`trunk_rate` must be a number of at least 0"),
    ({"trunk_rate": float("nan")}, "`trunk_rate` must be a number of at least 0"),
    ({"class_vectors_rate": "fast"}, "`class_vectors_rate` must be a number of at least 0"),
    ({"head_only_steps": 1.5}, "`head_only_steps` must be an integer of at least 0"),
]


@pytest.mark.parametrize("arguments, message", WRONG, ids=lambda each: str(each)[:30])
def test_what_is_no_rate_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_learner(NormalizedSoftmaxLoss(10), "sgd", **arguments)


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`class_vectors_rate` must be None where the loss has no class vectors"):
        make_learner(EETLoss(), "sgd", class_vectors_rate=2.0)
    flat = MetricLearner(keras.Sequential([keras.Input([6]), keras.layers.Dense(4)]))
    for arguments in ({"trunk_rate": 0.5}, {"head_only_steps": 1}):
        with pytest.raises(
            ValueError, match="`trunk_rate` must be 1 and `head_only_steps` 0 where the embedder has no"
        ):
            flat.compile("sgd", EETLoss(), **arguments)


def test_an_optimizer_that_overwrites_weights_is_refused():
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=3)
    with pytest.raises(ValueError, match="`optimizer` must have ema_overwrite_frequency=None where weights have"):
        make_learner(EETLoss(), optimizer, trunk_rate=0.5)
    make_learner(EETLoss(), optimizer)
