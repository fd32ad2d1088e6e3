"""Strategies by name, and what a loss needs to see the whole batch from one replica's slice of it."""

from __future__ import annotations

import tensorflow as tf

STRATEGIES = ("default", "one_device", "mirrored", "multi_worker")


def make_strategy(name: str = "default") -> tf.distribute.Strategy:
    """A `tf.distribute` strategy by name.

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


def num_workers() -> int:
    """How many machines `TF_CONFIG` names; 1 without it."""
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    return max(1, len(cluster.get("worker", ())) + len(cluster.get("chief", ())))


def worker_addresses() -> tuple[str, list[str]]:
    """The address of this worker in `TF_CONFIG`, and those of the others; `("", [])` without it."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster = resolver.cluster_spec().as_dict()
    if not cluster:
        return "", []
    own = cluster[resolver.task_type][resolver.task_id]
    return own, [address for job in ("chief", "worker") for address in cluster.get(job, ()) if address != own]


def is_chief() -> bool:
    """Whether this process writes for all: the chief that `TF_CONFIG` names, or else worker 0; true without it."""
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if num_workers() == 1:
        return True
    return cluster.task_type == "chief" or (cluster.task_id == 0 and "chief" not in cluster.cluster_spec().as_dict())


def split_cpu(num_devices: int) -> None:
    """Makes the CPU appear as several devices, so that `"mirrored"` is real without GPUs. Call it first of all.

    Raises:
        ValueError: if TensorFlow has started already.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)
    except RuntimeError as error:
        raise ValueError(f"`split_cpu` must be called before TensorFlow is used: {error}") from error


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy, microbatch: int | None = None) -> None:
    """Raises `ValueError` unless the replicas can share `batch_size` equally, and each in whole microbatches."""
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise ValueError(
            f"`batch_size` must be a multiple of the {count} replicas. Received: batch_size={batch_size}. "
            f"Change classes_per_batch x examples_per_class, e.g. to {batch_size // count * count or count}."
        )
    share = batch_size // count
    if microbatch is not None and (microbatch < 1 or share % microbatch):
        raise ValueError(
            f"`microbatch` must divide the {share} photos that each of {count} replicas gets of a batch. "
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
    return _dense_gradient(tf.distribute.get_replica_context().all_gather(tensor, axis=0))


def sum_over(tensor: tf.Tensor) -> tf.Tensor:
    """The sum of what the replicas have, on each of them."""
    if num_replicas() == 1:
        return tensor
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)


@tf.custom_gradient
def _dense_gradient(tensor: tf.Tensor):
    """Itself; `all_gather` cannot take the sparse gradient that `tf.gather` of its result has."""
    return tf.identity(tensor), tf.convert_to_tensor


def global_rows(num_local_rows: tf.Tensor) -> tf.Tensor:
    """Where this replica's rows stand in what `gather` returns: `[num_local_rows]` int32."""
    local = tf.range(num_local_rows)
    if num_replicas() == 1:
        return local
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    sizes = gather(tf.reshape(num_local_rows, [1]))
    return local + tf.reduce_sum(tf.where(tf.range(tf.size(sizes)) < replica, sizes, tf.zeros_like(sizes)))
