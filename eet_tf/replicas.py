"""Strategies by name, and what a loss needs to see the whole batch from one replica's slice of it."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

import tensorflow as tf

from eet_tf.wording import counted

STRATEGIES = ("default", "one_device", "mirrored", "multi_worker")


def make_strategy(name: str = "default") -> tf.distribute.Strategy:
    """Makes a `tf.distribute` strategy by name.

    Args:
        name: `"default"` (no distribution), `"one_device"` (the first GPU, or the CPU), `"mirrored"` (all GPUs of
            this machine, or all logical CPUs) or `"multi_worker"` (`TF_CONFIG` names the machines).

    Raises:
        ValueError: if there is no such strategy.

    Example:

    >>> make_strategy("one_device").num_replicas_in_sync
    1
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/gpu:0" if tf.config.list_logical_devices("GPU") else "/cpu:0")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_local_devices())
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    raise ValueError(f"`name` must be one of {', '.join(STRATEGIES)}. Received: name={name!r}.")


def _local_devices() -> list[str]:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


class Cluster(NamedTuple):
    """What `TF_CONFIG` says: the address of this worker, and those of all, the chief first; `("", [])` without it."""

    own: str
    workers: list[str]

    @property
    def others(self) -> list[str]:
        """The addresses of all but this one."""
        return [address for address in self.workers if address != self.own]

    @property
    def is_chief(self) -> bool:
        """Whether this process writes for all: the chief that `TF_CONFIG` names, or else worker 0; true without it."""
        return self.own == (self.workers or [""])[0]


def read_cluster() -> Cluster:
    """Who trains together, from the environment variable `TF_CONFIG`.

    Raises:
        ValueError: if it is set and is not understood.

    Example:

    >>> cluster = {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 1}}
    >>> os.environ["TF_CONFIG"] = json.dumps(cluster)
    >>> read_cluster().own, read_cluster().is_chief
    ('10.0.0.2:2222', False)
    >>> del os.environ["TF_CONFIG"]
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return Cluster("", [])
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        own = jobs[task["type"]][int(task["index"])]
        workers = [address for job in ("chief", "worker") for address in jobs.get(job, ())]
        is_worker = (
            own in workers and int(task["index"]) >= 0 and all(int(address.rpartition(":")[2]) for address in workers)
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        is_worker = False
    if not is_worker or len(set(workers)) < len(workers):
        raise ValueError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", '
            f'"index": 0}}}}, with the task a chief or worker of the cluster. Received: TF_CONFIG={text!r}.'
        )
    return Cluster(own, workers)


def split_cpu(num_devices: int) -> None:
    """Makes the CPU appear as several devices, so that `"mirrored"` is real without GPUs. Call it first of all.

    Raises:
        ValueError: if TensorFlow has started already.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == num_devices:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)
    except RuntimeError as error:
        raise ValueError(f"`split_cpu` must be called before TensorFlow is used: {error}") from error


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy, microbatch: int | None = None) -> None:
    """Raises `ValueError` unless the replicas can share `batch_size` equally, and each in whole microbatches."""
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise ValueError(
            f"`batch_size` must be a multiple of the {counted(count, 'replica')}. Received: batch_size={batch_size}. "
            f"Change classes_per_batch x examples_per_class, e.g. to {batch_size // count * count or count}."
        )
    share = batch_size // count
    if microbatch is not None and (microbatch < 1 or share % microbatch):
        raise ValueError(
            f"`microbatch` must divide the {share} photos that each of {counted(count, 'replica')} gets of a batch. "
            f"Received: microbatch={microbatch}."
        )


def num_replicas() -> int:
    """How many replicas share the batch here: 1 outside a replica context."""
    if not tf.distribute.in_cross_replica_context() and tf.distribute.has_strategy():
        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1


def gather(tensor: tf.Tensor) -> tf.Tensor:
    """All replicas' rows in replica order, differentiable; on one replica the tensor itself."""
    if num_replicas() == 1:
        return tensor
    return dense_gradient(tf.distribute.get_replica_context().all_gather(tensor, axis=0))


def sum_over(tensor: tf.Tensor) -> tf.Tensor:
    """The sum of what the replicas have, on each of them."""
    if num_replicas() == 1:
        return tensor
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def share_of(num_rows: tf.Tensor) -> tf.Tensor:
    """The rows of this replica over those of a replica if all had as many: float32, 1 on one replica."""
    if num_replicas() == 1:
        return tf.ones([])
    num_rows = tf.cast(num_rows, tf.float32)
    return num_replicas() * num_rows / tf.maximum(sum_over(num_rows), 1.0)


def weighed_by_share(value: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
    """The mean over a replica's rows itself, with a gradient that counts each row of all replicas equally.

    Args:
        value: scalar, which Keras will divide by the number of replicas and add up.
        num_rows: scalar, how many rows it is the mean of.
    """
    share = share_of(num_rows)

    @tf.custom_gradient
    def weighed(value):
        return tf.identity(value), lambda upstream: upstream * tf.cast(share, upstream.dtype)

    return weighed(value)


@tf.custom_gradient
def dense_gradient(tensor: tf.Tensor):
    """Itself. `tf.gather` of it has a sparse gradient, which `all_gather` cannot take; and `tf.concat` would look for
    the rows of each part in it, as many as there happen to be."""
    return tf.identity(tensor), tf.convert_to_tensor


def global_rows(num_local_rows: tf.Tensor) -> tf.Tensor:
    """Where this replica's rows stand in what `gather` returns: `[num_local_rows]` int32; `[0]` if it has none."""
    local = tf.range(tf.maximum(num_local_rows, 1))
    if num_replicas() == 1:
        return local
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    sizes = gather(tf.reshape(num_local_rows, [1]))
    is_before = (tf.range(tf.size(sizes)) < replica) & (num_local_rows > 0)
    return local + tf.reduce_sum(tf.where(is_before, sizes, tf.zeros_like(sizes)))
