"""What a learner refuses to be made with and to be compiled with, and what it asks a loss for."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import keras

from eet_tf import compat
from eet_tf.arguments import check_integer
from eet_tf.losses.base import MetricLoss
from eet_tf.training import compilation
from eet_tf.training.memory import CrossBatchMemory


def check_numbers(
    learner: keras.Model, attribute_weight, microbatch, jit_compile, run_eagerly, steps_per_execution
) -> None:
    """Refuses arguments of `compile` that are neither losses nor metrics."""
    if microbatch is not None and (not isinstance(microbatch, numbers.Integral) or microbatch < 1):
        raise ValueError(f"`microbatch` must be at least 1, or None. Received: microbatch={microbatch}.")
    if microbatch is not None and compilation.input_shape(learner.embedder) is None:
        raise ValueError(
            "`microbatch` must be None where the embedder does not know the shape of its images: make it a "
            f"functional model. Received: microbatch={microbatch}."
        )
    if not attribute_weight >= 0:
        raise ValueError(f"`attribute_weight` must be 0 or more. Received: attribute_weight={attribute_weight}.")
    if jit_compile not in (True, False, "auto"):
        raise ValueError(f"`jit_compile` must be True, False or 'auto'. Received: jit_compile={jit_compile!r}.")
    if run_eagerly and jit_compile is True:
        raise ValueError("`jit_compile` must not be True where `run_eagerly` is. Received: both True.")
    if not isinstance(steps_per_execution, int) or steps_per_execution < 1:
        raise ValueError(
            f"`steps_per_execution` must be a positive integer. Received: steps_per_execution={steps_per_execution!r}."
        )
    if steps_per_execution > 1 and learner.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "`steps_per_execution` must be 1 where replicas share a batch: in a loop over steps TensorFlow mixes "
            f"up what they tell each other. Received: steps_per_execution={steps_per_execution}."
        )


def make_memory(size: int, start: int, embedder: keras.Model) -> CrossBatchMemory:
    """The memory of a learner of this embedder."""
    check_integer("memory_start", start, 0)
    if compilation.input_shape(embedder) is None:
        raise ValueError(
            "`memory_size` must be 0 where the embedder does not know the shape of its images: make it a functional "
            f"model. Received: memory_size={size}."
        )
    shapes = compat.output_shape(embedder)
    shapes = shapes if isinstance(shapes, Mapping) else {"embedding": shapes}
    num_attributes = shapes["attributes"][-1] if "attributes" in shapes else 0
    return CrossBatchMemory(size, shapes["embedding"][-1], num_attributes, start)


def check_memory(loss: keras.losses.Loss, given) -> None:
    """Refuses a loss that a memory of past batches would be of no use to."""
    if not isinstance(loss, MetricLoss):
        raise ValueError(
            f"`loss` must be a loss of this package where `memory_size` is given, e.g. eet_tf.EETLoss(): others "
            f"know no references but the batch. Received: loss={given!r}."
        )
    if not loss.compares_photos:
        raise ValueError(
            "`loss` must compare photos with each other where `memory_size` is given, e.g. eet_tf.EETLoss(). Received: "
            f"{type(loss).__name__}, which compares them with vectors of all classes. Leave the memory out, or add a "
            "loss with eet_tf.CombinedLoss."
        )


def check_attribute_head(argument: str, loss: keras.losses.Loss, embedder: keras.Model) -> None:
    """Refuses a loss of attributes where the embedder predicts none."""
    shapes = compat.output_shape(embedder)
    if not isinstance(shapes, Mapping) or "attributes" not in shapes:
        raise ValueError(
            f"`{argument}` must not use attributes where the embedder predicts none. Received: {argument}="
            f"{type(loss).__name__}. Build the embedder with build_embedder(..., attribute_names=[...])."
        )


def names_of_terms(loss: MetricLoss, embedder: keras.Model) -> tuple[str, ...]:
    """The names that `loss.terms` returns, of an embedder that may have no shape before its first call."""
    if compilation.input_shape(embedder) is None:
        return loss.term_names
    shapes = compat.output_shape(embedder)
    shapes = shapes if isinstance(shapes, Mapping) else {"embedding": shapes}
    return loss.names_of_terms(shapes["embedding"][-1], shapes["attributes"][-1] if "attributes" in shapes else 0)


def class_vectors_shapes(loss: keras.losses.Loss, embedder: keras.Model) -> dict[str, tuple[int, ...]]:
    """The class vectors that a loss wants, `{}` for most.

    Raises:
        ValueError: if it wants some, and nobody knows yet how long an embedding is.
    """
    if not isinstance(loss, MetricLoss) or not loss.class_vectors_shapes(embedding_dim=1):
        return {}
    if compilation.input_shape(embedder) is None:
        raise ValueError(
            "`loss` must have no class vectors where the embedder does not know the shape of its images: make it a "
            f"functional model, or begin it with keras.Input. Received: loss={type(loss).__name__}, which has some."
        )
    shapes = compat.output_shape(embedder)
    return loss.class_vectors_shapes((shapes["embedding"] if isinstance(shapes, Mapping) else shapes)[-1])
