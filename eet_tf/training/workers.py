"""Training shared by several machines: the loop that Keras 3 lacks there, in which each worker reads its own photos."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from eet_tf import replicas
from eet_tf.training.batches import out_of_memory
from eet_tf.training.learner import MetricLearner
from eet_tf.training.loading import load_embedder
from eet_tf.wording import said_by


def fit(
    learner: MetricLearner,
    dataset_of_part: Callable[[tuple[int, int]], tf.data.Dataset],
    epochs: int,
    steps_per_epoch: int,
    initial_epoch: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> keras.callbacks.History:
    """Trains under `MultiWorkerMirroredStrategy`, as `learner.fit` does on one machine: the same update.

    All workers call it, outside the strategy's scope. Callbacks get, as their model, a copy of this worker's alone with
    the weights that the epoch ended with, their running averages if the optimizer keeps them: measuring and saving it
    waits for nobody. What they say of `stop_training` is not heeded.

    Args:
        learner: made and compiled in the scope of the strategy.
        dataset_of_part: from `(k, n)` to endless batches of the k-th of n workers, whose photos are the k-th of n equal
            parts of the batch of all; `training_dataset(..., part=(k, n))`.
        epochs: as in `keras.Model.fit`.
        steps_per_epoch: as in `keras.Model.fit`.
        initial_epoch: as in `keras.Model.fit`.
        callbacks: those of this worker; e.g. the chief alone measures.
        verbose: as in `keras.Model.fit`.

    Returns:
        The logs of every epoch, the same on every worker but for what its callbacks add.

    Raises:
        ValueError: if it is called within a strategy's scope, or the learner was compiled with metrics.
        tf.errors.OpError: if another worker is gone; see `is_loss_of_worker`.
        MemoryError: if a batch does not fit into the memory of a device.
    """
    if tf.distribute.has_strategy():
        raise ValueError("`workers.fit` must be called outside the scope of the strategy that made the learner.")
    if learner.measures_more:
        raise ValueError(
            "`metrics` must be left out of `compile` where several workers train: they would be averaged over workers, "
            "which is right for a mean alone. Measure the saved embedder instead."
        )
    strategy = learner.distribute_strategy
    batches = iter(strategy.distribute_datasets_from_function(_dataset_function(dataset_of_part)))
    names = [metric.name for metric in learner.metrics]

    @tf.function
    def step(batch):
        def of_replica(batch):
            logs = learner.train_step(batch)
            return tf.stack([logs[name] for name in names])

        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(of_replica, args=(batch,)), axis=None)

    alone, history = copy_of_worker(learner), keras.callbacks.History()
    progress = {"epochs": epochs, "steps": steps_per_epoch, "verbose": verbose}
    listeners = keras.callbacks.CallbackList([*callbacks, history], add_progbar=verbose > 0, model=alone, **progress)
    listeners.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        for metric in learner.metrics:
            metric.reset_state()
        listeners.on_epoch_begin(epoch)
        for number in range(steps_per_epoch):
            listeners.on_train_batch_begin(number)
            try:
                logs = dict(zip(names, step(next(batches)).numpy().tolist()))
            except tf.errors.ResourceExhaustedError as error:
                raise MemoryError(out_of_memory(error, learner.images_shape)) from None
            listeners.on_train_batch_end(number, logs)
        _copy_weights(learner, alone)
        listeners.on_epoch_end(epoch, logs)
    with strategy.scope():
        learner.optimizer.finalize_variable_values(learner.trainable_variables)
    listeners.on_train_end()
    return history


def _dataset_function(dataset_of_part: Callable) -> Callable[[tf.distribute.InputContext], tf.data.Dataset]:
    """What a strategy asks for: the batches of a worker, one for each of its replicas after the other."""

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = dataset_of_part((context.input_pipeline_id, context.num_input_pipelines))
        num_replicas = context.num_replicas_in_sync // context.num_input_pipelines
        if num_replicas == 1:
            return batches

        def split(part):
            rows = tf.shape(part)[0]
            return tf.reshape(part, tf.concat([[num_replicas, rows // num_replicas], tf.shape(part)[1:]], axis=0))

        return batches.map(lambda *batch: tf.nest.map_structure(split, batch)).unbatch()

    return dataset


def copy_of_worker(learner: MetricLearner) -> MetricLearner:
    """A learner, not compiled, with a copy of the embedder that belongs to no strategy. All workers must ask for it."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.keras")
        learner.embedder.save(file)
        alone = MetricLearner(load_embedder(file))
    alone.optimizer = None  # which callbacks ask for
    return alone


def _copy_weights(learner: MetricLearner, alone: MetricLearner) -> None:
    """All workers do, since some weights are means over the replicas and reading them takes everyone."""
    with learner.averaged():
        alone.embedder.set_weights(learner.embedder.get_weights())


def wait_for_others(report: Callable[[list[str]], None] | None = None) -> None:
    """Returns once every worker that `TF_CONFIG` names is there; call it before the strategy is made.

    The strategy itself waits too, but deaf to signals and without a word. Meanwhile this worker answers at its address,
    so that the others see it.

    Args:
        report: called twice a second with the addresses that do not answer yet.

    Raises:
        ValueError: if the port of this worker is taken.
    """
    cluster = replicas.read_cluster()
    own, missing = cluster.own, cluster.others
    if not missing:
        return
    port = int(own.rpartition(":")[2])
    try:
        door = socket.create_server(("", port), backlog=len(missing) + 16)
    except OSError as error:
        raise ValueError(
            f"TF_CONFIG's address of this worker must be free. Received: {own!r}: {said_by(error)}. Another training, "
            "or one that was killed a moment ago?"
        ) from error
    with door:
        while missing:
            missing = [address for address in missing if not _answers(address)]
            if missing:
                if report is not None:
                    report(missing)
                time.sleep(0.5)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def agree(strategy: tf.distribute.Strategy, *facts: str) -> list[bool]:
    """Which of some facts are the same on all workers; it waits for all of them."""
    numbers = [int.from_bytes(hashlib.sha256(fact.encode()).digest()[:7], "big") for fact in facts]

    @tf.function
    def gathered():
        return strategy.run(lambda: replicas.gather(tf.constant([numbers], tf.int64)))

    everyone = strategy.experimental_local_results(gathered())[0].numpy()
    return (everyone == everyone[:1]).all(axis=0).tolist()


def part_ways(strategy: tf.distribute.Strategy) -> None:
    """Returns once all workers have come here, so that each may end without being taken for lost by another.

    A worker that has the answer of all may end while another still fetches its part of it. So all are asked twice: that
    the second answer, or its failure, is there means that everyone has the first.
    """
    agree(strategy, "all are here")
    with contextlib.suppress(tf.errors.OpError):
        agree(strategy, "all know it")


def is_loss_of_worker(error: tf.errors.OpError) -> bool:
    """Whether an error says that another worker is gone, and not that something is wrong here."""
    if isinstance(error, tf.errors.InvalidArgumentError):  # two workers that do not fit together
        return False
    is_lost = isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError))
    return is_lost or "Collective ops is aborted" in str(error)
