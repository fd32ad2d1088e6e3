"""What several machines need before and beside the training itself, which tests/end_to_end/test_workers.py runs."""

import json
import socket
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import MetricLearner, TripletLoss, make_strategy, replicas
from eet_tf.training import workers


def free_addresses(number):
    """Addresses of this machine that nobody answers at."""
    doors = [socket.create_server(("localhost", 0)) for _ in range(number)]
    addresses = [f"localhost:{door.getsockname()[1]}" for door in doors]
    for door in doors:
        door.close()
    return addresses


@pytest.fixture
def set_cluster(monkeypatch):
    """Sets TF_CONFIG."""

    def set_to(cluster, job="worker", index=0):
        config = {"cluster": cluster, "task": {"type": job, "index": index}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))

    monkeypatch.delenv("TF_CONFIG", raising=False)
    return set_to


def test_without_a_cluster_one_process_is_everyone(set_cluster):
    cluster = replicas.read_cluster()
    assert (cluster, cluster.others, cluster.is_chief) == (("", []), [], True)
    workers.wait_for_others(lambda missing: pytest.fail("it waits"))


@pytest.mark.parametrize("index", [0, 1])
def test_without_a_chief_worker_0_is_it(set_cluster, index):
    set_cluster({"worker": ["a:1", "b:2"]}, index=index)
    cluster = replicas.read_cluster()
    assert cluster.workers == ["a:1", "b:2"]
    assert cluster.is_chief == (index == 0)
    assert (cluster.own, cluster.others) == (("a:1", ["b:2"]) if index == 0 else ("b:2", ["a:1"]))


@pytest.mark.parametrize("job, index, is_chief", [("chief", 0, True), ("worker", 0, False), ("worker", 1, False)])
def test_a_chief_that_is_named_is_it(set_cluster, job, index, is_chief):
    set_cluster({"chief": ["c:3"], "worker": ["a:1", "b:2"]}, job, index)
    cluster = replicas.read_cluster()
    assert cluster.workers == ["c:3", "a:1", "b:2"]
    assert cluster.is_chief == is_chief
    assert len(cluster.others) == 2


@pytest.mark.parametrize(
    "text",
    [
        "{bad",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
    ids=["no json", "no dict", "no task", "no such worker", "below 0", "ps", "no port", "twice"],
)
def test_a_cluster_that_is_not_understood_is_shown(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=r'TF_CONFIG must be like \{"cluster".*Received: TF_CONFIG=') as raised:
        replicas.read_cluster()
    assert text in str(raised.value)


def test_it_waits_until_all_others_answer_and_says_for_whom(set_cluster):
    own, *others = free_addresses(3)
    set_cluster({"worker": [own, *others]})
    reported, doors = [], []

    def open_doors():
        for address in others:
            doors.append(socket.create_server(("localhost", int(address.split(":")[1]))))
            time.sleep(1.2)

    opening = threading.Timer(0.8, open_doors)
    opening.start()
    workers.wait_for_others(lambda missing: reported.append(list(missing)))
    opening.join()
    for door in doors:
        door.close()
    assert reported[0] == others
    assert reported[-1] == others[1:]


def test_two_that_wait_for_each_other_find_each_other(run_python):
    """And each lets go of its port, which the strategy then takes."""
    addresses = free_addresses(2)
    code = """
import json, os
os.environ["TF_CONFIG"] = json.dumps({{"cluster": {{"worker": {0}}}, "task": {{"type": "worker", "index": {1}}}}})
from eet_tf import make_strategy
from eet_tf.training import workers
workers.wait_for_others()
strategy = make_strategy("multi_worker")
print(strategy.num_replicas_in_sync, workers.agree(strategy, "same", "own " * {1}))
workers.part_ways(strategy)
"""
    printed = run_python(code.format(addresses, 0), code.format(addresses, 1))
    assert [text.splitlines()[-1] for text in printed] == ["2 [True, False]"] * 2


def test_a_port_that_is_taken_is_named(set_cluster):
    own, other = free_addresses(2)
    set_cluster({"worker": [own, other]})
    message = f"TF_CONFIG's address of this worker must be free. Received: '{own}'"
    with socket.create_server(("", int(own.split(":")[1]))), pytest.raises(ValueError, match=message):
        workers.wait_for_others()


def test_a_worker_of_several_devices_gives_each_its_own_photos():
    """Worker 1 of 2 has photos 8 to 15 of every batch of 16; its first device gets 8 to 11, its second 12 to 15."""
    batches = np.arange(32).reshape(2, 16)

    def dataset_of_part(part):
        assert part == (1, 2)
        return tf.data.Dataset.from_tensor_slices((batches[:, 8:], {"label": batches[:, 8:] * 10}))

    context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=4)
    dataset = workers._dataset_function(dataset_of_part)(context)
    found = list(dataset.as_numpy_iterator())
    np.testing.assert_array_equal([images for images, _ in found], batches[:, 8:].reshape(4, 4))
    np.testing.assert_array_equal([targets["label"] for _, targets in found], batches[:, 8:].reshape(4, 4) * 10)


IMAGES = np.random.default_rng(0).normal(size=[16, 6]).astype(np.float32)
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3] * 2)


def make_learner(strategy):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        embedder = keras.Sequential([keras.Input([6]), keras.layers.Dense(8), keras.layers.BatchNormalization()])
        learner = MetricLearner(embedder, memory_size=10, memory_start=2)
        learner.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), TripletLoss())
    return learner


def dataset_of_part(part=(0, 1)):
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8, drop_remainder=True).repeat()


class Watch(keras.callbacks.Callback):
    """Remembers what a callback is told."""

    def __init__(self):
        super().__init__()
        self.steps, self.weights = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((batch, logs["loss"]))

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.embedder.get_weights())


def test_its_loop_is_that_of_keras():
    """On one device: weights, logs, and what callbacks are told; the averages of weights for those that measure."""
    plain, learner = make_learner(make_strategy("default")), make_learner(make_strategy("one_device"))
    expected = plain.fit(dataset_of_part(), epochs=3, steps_per_epoch=2, shuffle=False, verbose=0).history
    watch = Watch()
    found = workers.fit(learner, dataset_of_part, 3, 2, callbacks=[watch], verbose=0).history
    assert found == {name: pytest.approx(values, rel=1e-5) for name, values in expected.items()}
    for weight, other in zip(learner.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-5, atol=1e-6)
    assert [step for step, _ in watch.steps] == [0, 1] * 3
    with plain.averaged():
        for weight, other in zip(watch.weights[-1], plain.embedder.get_weights(), strict=True):
            np.testing.assert_allclose(weight, other, rtol=1e-5, atol=1e-6)


def test_within_a_scope_it_is_refused():
    strategy = make_strategy("one_device")
    learner = make_learner(strategy)
    with strategy.scope(), pytest.raises(ValueError, match="`workers.fit` must be called outside the scope"):
        workers.fit(learner, dataset_of_part, 1, 1)


@pytest.mark.parametrize(
    "error, is_loss",
    [
        (tf.errors.UnavailableError(None, None, "failed to connect"), True),
        (tf.errors.InternalError(None, None, "Collective ops is aborted by: Device incarnation doesn't match"), True),
        (tf.errors.InvalidArgumentError(None, None, "Collective ops is aborted by: Shape mismatch"), False),
        (tf.errors.NotFoundError(None, None, "photos/7.jpg; No such file"), False),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), False),
    ],
)
def test_what_says_that_another_worker_is_gone(error, is_loss):
    assert workers.is_loss_of_worker(error) == is_loss
