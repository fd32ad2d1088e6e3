"""Which of two plans suits where a loss runs: lookups in small blocks for a CPU's caches, or few large operations.

On a CPU TensorFlow's kernels look up and scatter fast, and a block of 8 MB stays in the caches. XLA and GPUs do best
with masks over whole matrices: XLA fuses them, and a GPU starts few kernels. What XLA compiles has no shape that is
known only at run time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

_compiles_parts = ContextVar("compiles_parts", default=False)
_traced_for_xla: ContextVar[bool | None] = ContextVar("traced_for_xla", default=None)


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def is_compiled() -> bool:
    """Whether the graph that is being traced is one that XLA compiles, as of `tf.function(jit_compile=True)`."""
    known = _traced_for_xla.get()
    if known is not None:
        return known
    # TensorFlow has no public name for it
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


@contextlib.contextmanager
def as_in_forward_pass(is_compiled: bool) -> Iterator[None]:
    """Within this `is_compiled` answers as it did in the forward pass.

    The gradient of a compiled function is compiled too, but traced later, in a graph that knows nothing of XLA.
    """
    token = _traced_for_xla.set(is_compiled)
    try:
        yield
    finally:
        _traced_for_xla.reset(token)


@contextlib.contextmanager
def compiling_parts(enabled: bool) -> Iterator[None]:
    """Within this, what is wrapped in `part` is compiled, if `enabled`: in the step of one replica of a strategy.

    XLA cannot compile the step as a whole there, since replicas exchange what they have between its parts.
    """
    token = _compiles_parts.set(enabled)
    try:
        yield
    finally:
        _compiles_parts.reset(token)


def part(function: Callable) -> Callable:
    """A function of tensors in which replicas exchange nothing, compiled by XLA within `compiling_parts`."""
    if is_compiled() or not _compiles_parts.get():
        return function
    return tf.function(function, jit_compile=True)


def uses_masks() -> bool:
    """Whether few operations over whole matrices are to be preferred to lookups in blocks."""
    return is_compiled() or has_gpu()


def block_limits() -> tuple[int, int]:
    """How large a block of a matrix of all pairs may be: its rows, and its numbers of float32."""
    if has_gpu():
        return 2**15, 2**28  # 1 GB: all pairs of 16,384 rows at once
    if is_compiled():
        return 2**12, 2**24  # 64 MB: all pairs of 4,096 rows
    return 512, 2**21  # 8 MB, which caches hold
