"""Where Keras 2 (TensorFlow 2.15) and Keras 3 differ: one named function for each difference, and nowhere else."""

from __future__ import annotations

import keras
import tensorflow as tf

KERAS_2 = keras.__version__.startswith("2.")


class Loss(keras.losses.Loss):
    """`keras.losses.Loss` with Keras 3's constructor under both; Keras 2 losses have no dtype and ignore it."""

    def __init__(self, reduction: str, name: str, dtype):
        if KERAS_2:
            super().__init__(reduction=reduction, name=name)
        else:
            super().__init__(reduction=reduction, name=name, dtype=dtype)
        self._dtype_argument = dtype

    def get_config(self) -> dict:
        """The three arguments every loss has."""
        config = super().get_config()
        return {"reduction": config["reduction"], "name": config["name"], "dtype": self._dtype_argument}


def number_classes(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Dense class numbers of a batch: (`[B]` int32 in `[0, num_classes)`, the scalar `num_classes`).

    XLA in TensorFlow 2.15 cannot carry a number of classes it learns at run time, so there `num_classes` is the
    batch size: an upper bound, with the classes past the last one empty.
    """
    if not KERAS_2:
        distinct, numbers = tf.unique(labels)
        return numbers, tf.size(distinct)
    order = tf.argsort(labels, stable=True)
    sorted_labels = tf.gather(labels, order)
    is_first = tf.concat([[False], tf.not_equal(sorted_labels[1:], sorted_labels[:-1])], axis=0)
    sorted_numbers = tf.cumsum(tf.cast(is_first, tf.int32))
    numbers = tf.gather(sorted_numbers, tf.argsort(order))
    return numbers, tf.shape(labels)[0]


def raw_variables(model: keras.Model) -> list[tf.Variable]:
    """The `tf.Variable`s that hold a model's weights (Keras 3 wraps them)."""
    if KERAS_2:
        return list(model.variables)
    return [variable.value for variable in model.variables]


def raw_state(model: keras.Model) -> list[tf.Variable]:
    """The `tf.Variable`s a model changes by itself: moving statistics and, in Keras 3, states of random numbers."""
    if KERAS_2:
        return list(model.non_trainable_variables)
    return [variable.value for variable in model.non_trainable_variables]


def add_state(layer: keras.layers.Layer, name: str, shape: list[int], dtype: str):
    """A weight full of zeros that training does not learn and every replica writes alike."""
    common = {"name": name, "shape": shape, "dtype": dtype, "initializer": "zeros", "trainable": False}
    if KERAS_2:
        alike = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return layer.add_weight(**common, aggregation=alike, experimental_autocast=False)
    return layer.add_weight(**common, aggregation="only_first_replica", autocast=False)


def scatter(weight, rows: tf.Tensor, values: tf.Tensor) -> None:
    """Replaces rows of what `add_state` made."""
    variable = weight if KERAS_2 else weight.value
    variable.scatter_update(tf.IndexedSlices(values, rows))


def weight_averages(optimizer) -> list:
    """The running averages of the trainable weights, in their order; empty unless `optimizer` has `use_ema=True`."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    # before the first step Keras 3 has none yet
    return list(getattr(inner, "_model_variables_moving_average", ())) if getattr(inner, "use_ema", False) else []


def build_optimizer(optimizer, variables) -> None:
    """Makes the state of an optimizer; the old kind, which TensorFlow Addons is made of, does so in its first step."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    if not (KERAS_2 and isinstance(inner, keras.optimizers.legacy.Optimizer)):
        optimizer.build(variables)


def output_shape(model: keras.Model):
    """The shape of a model's output, or a dict of shapes if its outputs have names (Keras 3 lists them without)."""
    return model.output_shape if KERAS_2 else model.compute_output_shape(model.input_shape)


def jit_compile_argument(jit_compile):
    """What `compile` takes for `jit_compile`: Keras 2 says "decide yourself" with None, not with "auto"."""
    return None if KERAS_2 and jit_compile == "auto" else jit_compile


def scales_loss(optimizer) -> bool:
    """Whether an optimizer takes a scaled loss, as mixed float16 needs it."""
    return isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)


def global_clipnorm(optimizer) -> float | None:
    """The longest an optimizer lets the gradient of all weights together be, or None."""
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "global_clipnorm", None)


def scale_loss(optimizer, loss: tf.Tensor) -> tf.Tensor:
    """The loss times the loss scale, where mixed float16 needs one."""
    if not KERAS_2:
        return optimizer.scale_loss(loss)
    return optimizer.get_scaled_loss(loss) if scales_loss(optimizer) else loss


def apply_gradients(optimizer, gradients, variables) -> None:
    """Updates `variables`, undoing `scale_loss`; gradients of None are passed over."""
    if KERAS_2 and scales_loss(optimizer):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables))


def mean_loss(loss: keras.losses.Loss, labels: tf.Tensor, embeddings: tf.Tensor, num_replicas: int) -> tf.Tensor:
    """A Keras loss averaged over this replica's batch.

    Keras 3 averages by calling the loss, which knows which anchors count, and divides by the number of replicas. A
    loss of Keras 2 refuses to be called in a training step of one's own.
    """
    if KERAS_2:
        return tf.reduce_mean(loss.call(labels, embeddings))
    return loss(labels, embeddings) * num_replicas
