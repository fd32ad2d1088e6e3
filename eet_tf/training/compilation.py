"""The network as a function that XLA compiles, where Keras does not: inside one replica of a strategy."""

from __future__ import annotations

import re
from collections.abc import Callable

import keras
import tensorflow as tf

from eet_tf import compat


def compiled_training_call(model: keras.Model) -> Callable:
    """A function of images that returns what `model(images, training=True)` does, and the losses of its layers.

    It is one compiled function forward and, when a gradient is asked for, one backward. XLA has no variables that
    replicas keep in step, so weights go in as tensors, and what the network changes of its state comes out and is
    assigned outside.

    Args:
        model: a model from images to a tensor or a dict of tensors.

    Returns:
        A function `images -> (outputs, losses)`, for one trace of a step.
    """
    function = tf.function(compat.stateless_training_call(model), jit_compile=True)

    def call(images):
        trainable, state = compat.weights_as_tensors(model)
        outputs, losses, changed = function(images, trainable, state)
        compat.assign_state(model, changed)
        return outputs, losses

    return call


def refusal(embedder: keras.Model) -> str | None:
    """Why XLA cannot compile a network's training, naming the layer; None if it can, as far as can be told beforehand.

    It goes through the whole network, forward and backward, for two images, and takes some seconds for a large one.

    Args:
        embedder: a model with a known shape of its images.

    Example:

    >>> embedder = keras.Sequential([keras.Input([8]), keras.layers.Dense(4)])
    >>> refusal(embedder)
    """
    shape = input_shape(embedder)
    if shape is None or None in shape[1:]:
        return None
    call = compat.stateless_training_call(embedder)
    weights = compat.weights_as_tensors(embedder)

    def forward_and_backward(images, trainable, state):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs, losses, changed = call(images, trainable, state)
            total = tf.add_n([tf.reduce_sum(tf.cast(each, tf.float32)) for each in tf.nest.flatten(outputs)])
        return tape.gradient(total, trainable), losses, changed

    images = tf.zeros([2, *shape[1:]])
    try:
        tf.function(forward_and_backward, jit_compile=True).experimental_get_compiler_ir(images, *weights)(stage="hlo")
    except (tf.errors.OpError, ValueError, TypeError) as error:
        # the variable of another replica, which Keras 2 reads where no replica is at work: no word on the network
        return None if "Trying to access resource" in str(error) else _reason(error, embedder)
    return None


def input_shape(embedder: keras.Model) -> tuple | None:
    """The shape of a model's images, or None where it has none before its first call or several inputs."""
    shape = getattr(embedder, "input_shape", None)
    return tuple(shape) if isinstance(shape, (tuple, list)) and not isinstance(shape[0], (tuple, list)) else None


def _reason(error: Exception, embedder: keras.Model) -> str:
    """One line of what XLA says, which names operations as `model/layer/operation`, a layer maybe with a number."""
    nodes = re.findall(r"\{\{node ([^}]*)\}\}", str(error))
    names = {layer.name for layer in compat.all_layers(embedder)}
    found = [name for node in nodes for part in node.split("/") for name in (part, re.sub(r"_\d+$", "", part))]
    layers = [name for name in found if name in names]
    what = f"the operation {nodes[0].split('/')[-1]}" if nodes else str(error).strip().splitlines()[0]
    return f"layer {layers[-1]!r}, {what}" if layers else what
