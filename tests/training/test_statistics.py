"""Replicas end a step with the same statistics of batch normalisation, so that what is measured is what is saved."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner, build_embedder, load_embedder, make_strategy, replicas

RNG = np.random.default_rng(7)
B, STEPS, MOMENTUM = 64, 3, 0.8
ROWS = (RNG.normal(size=[STEPS * B, 6]) * RNG.uniform(0.1, 5, [STEPS * B, 1])).astype(np.float32)
PHOTOS = (RNG.uniform(0, 255, [B, 32, 32, 3]) * np.linspace(0.1, 1, B)[:, None, None, None]).astype(np.float32)
LABELS = np.arange(STEPS * B) % B // 4


def report(microbatch, jit_compile):
    """Runs in a process of its own, on two devices: what each replica has, and what is measured and what is saved."""
    replicas.split_cpu(2)
    keras.utils.set_random_seed(0)
    strategy = make_strategy("mirrored")
    how = {"microbatch": microbatch, "jit_compile": jit_compile}
    with strategy.scope():
        norm = keras.layers.BatchNormalization(momentum=MOMENTUM)
        learner = MetricLearner(keras.Sequential([keras.Input([6]), norm, keras.layers.Dense(4)]))
        learner.compile("sgd", EETLoss(), **how)
        learner.fit(ROWS, LABELS, batch_size=B, shuffle=False, verbose=0)
    held = {}
    for name in ("moving_mean", "moving_variance"):
        variable = getattr(norm, name)
        raw = getattr(variable, "value", variable) if not isinstance(variable, tf.Variable) else variable
        held[name] = [each.numpy().tolist() for each in strategy.experimental_local_results(raw)]
    print(json.dumps(held))


def report_measured(folder):
    """Likewise, of photos that both replicas embed, and of the file."""
    replicas.split_cpu(2)
    keras.utils.set_random_seed(0)
    with make_strategy("mirrored").scope():
        learner = MetricLearner(build_embedder("small_cnn", 8, image_size=32))
        learner.compile("sgd", EETLoss())
        learner.fit(PHOTOS, LABELS[:B], batch_size=B, epochs=2, shuffle=False, verbose=0)
        measured = learner.embedder.predict(PHOTOS, batch_size=B, verbose=0)
    learner.embedder.save(f"{folder}/model.keras")
    saved = load_embedder(f"{folder}/model.keras").predict(PHOTOS, verbose=0)
    print(json.dumps({"measured": measured.tolist(), "saved": saved.tolist()}))


def call(code):
    return f"from tests.training.test_statistics import report, report_measured; {code}"


def moved_by_loops():
    """The mean over two replicas of what each would have moved to, and so after every step."""
    mean, variance = np.zeros(6), np.ones(6)
    for step in range(STEPS):
        halves = np.split(ROWS[step * B : (step + 1) * B].astype(np.float64), 2)
        mean = np.mean([MOMENTUM * mean + (1 - MOMENTUM) * half.mean(axis=0) for half in halves], axis=0)
        variance = np.mean([MOMENTUM * variance + (1 - MOMENTUM) * half.var(axis=0) for half in halves], axis=0)
    return {"moving_mean": mean, "moving_variance": variance}


@pytest.mark.parametrize("how", ["None, False", "None, True", "32, False"])
def test_all_replicas_have_the_mean_of_what_each_has_moved(how, run_python):
    held = json.loads(run_python(call(f"report({how})"))[0].splitlines()[-1])
    for name, expected in moved_by_loops().items():
        one, two = held[name]
        assert one == two
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-6)


def test_what_is_measured_in_training_is_what_is_saved(tmp_path, run_python):
    found = json.loads(run_python(call(f"report_measured({str(tmp_path)!r})"))[0].splitlines()[-1])
    np.testing.assert_allclose(found["measured"], found["saved"], atol=1e-5)
