"""Where Keras 2 (TensorFlow 2.15) and Keras 3 differ: one named function for each difference, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

KERAS_2 = keras.__version__.startswith("2.")


class Loss(keras.losses.Loss):
    """`keras.losses.Loss` with Keras 3's constructor under both, and Keras 2's way with `y_true` under both.

    Keras 2 losses have no dtype and ignore it. They get `y_true` as it is; Keras 3 first casts it to the dtype of the
    loss, and float32 does not tell integers above 2^24 apart.
    """

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = None, dtype=None):
        if KERAS_2:
            super().__init__(reduction=reduction, name=name)
        else:
            super().__init__(reduction=reduction, name=name, dtype=dtype)
        self._dtype_argument = dtype

    def __call__(self, y_true, y_pred, sample_weight=None):
        """As in every Keras loss; `y_true` reaches `call` as it is given."""
        if KERAS_2:
            return super().__call__(y_true, y_pred, sample_weight)
        return _OneCall(self, y_true)((), y_pred, sample_weight)

    def get_config(self) -> dict:
        """The three arguments every loss has."""
        config = super().get_config()
        return {"reduction": config["reduction"], "name": config["name"], "dtype": self._dtype_argument}


class _OneCall(keras.losses.Loss):
    """One call of a loss of Keras 3, to which Keras does everything but cast `y_true`: it sees none."""

    def __init__(self, loss: Loss, y_true):
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self._loss = loss
        self._y_true = y_true

    def call(self, y_true, y_pred):
        """What the loss makes of its own `y_true`."""
        return self._loss.call(self._y_true, y_pred)


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers of a model, those within its layers too; both versions list them, under a name that is not public."""
    return list(model._flatten_layers())


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


def weights_as_tensors(model: keras.Model) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The values of a model's trainable weights and of its state; none with Keras 2, whose model reads them itself."""
    if KERAS_2:
        return [], []
    return [tf.convert_to_tensor(v.value) for v in model.trainable_variables], [
        tf.convert_to_tensor(v.value) for v in model.non_trainable_variables
    ]


def stateless_training_call(model: keras.Model) -> Callable:
    """A function `(images, trainable, state) -> (outputs, losses, changed)` of a model in training.

    In Keras 3 it reads and writes no variable: `trainable` and `state` are those of `weights_as_tensors`, `changed` is
    `{place in the state: new value}`. Keras 2 has no such call: there the model itself reads and writes.
    """

    def of_keras_2(images, trainable, state):
        return model(images, training=True), list(model.losses), {}

    def of_keras_3(images, trainable, state):
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        with keras.StatelessScope(
            state_mapping=list(zip(variables, [*trainable, *state])), collect_losses=True
        ) as scope:
            outputs, losses = model(images, training=True), list(model.losses)
        after = [scope.get_current_value(variable) for variable in model.non_trainable_variables]
        return outputs, losses, {str(n): new for n, (new, old) in enumerate(zip(after, state)) if new is not old}

    return of_keras_2 if KERAS_2 else of_keras_3


def assign_state(model: keras.Model, changed: Mapping[str, tf.Tensor]) -> None:
    """Assigns what `stateless_training_call` says has changed."""
    variables = model.non_trainable_variables
    for place, value in changed.items():
        variables[int(place)].assign(value)


def add_state(layer: keras.layers.Layer, name: str, shape: list[int], dtype: str):
    """A weight full of zeros that training does not learn and every replica writes alike."""
    common = {"name": name, "shape": shape, "dtype": dtype, "initializer": "zeros", "trainable": False}
    if KERAS_2:
        alike = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return layer.add_weight(**common, aggregation=alike, experimental_autocast=False)
    return layer.add_weight(**common, aggregation="only_first_replica", autocast=False)


def add_trained(layer: keras.layers.Layer, name: str, shape, initializer):
    """A float32 weight that training learns, whatever the layers compute in."""
    common = {"name": name, "shape": shape, "dtype": "float32", "initializer": initializer, "trainable": True}
    if KERAS_2:
        return layer.add_weight(**common, experimental_autocast=False)
    return layer.add_weight(**common, autocast=False)


def raw(variable) -> tf.Variable:
    """The `tf.Variable` that a weight is or, in Keras 3, holds."""
    return variable.value if not KERAS_2 and isinstance(variable, keras.Variable) else variable


def assign_on_replicas(updates: Sequence[tuple[tf.Variable, tf.Tensor]]) -> None:
    """Assigns values that are the same on all replicas; plain assignment would exchange them first."""

    def assign_all(strategy, updates):
        for variable, value in updates:
            strategy.extended.update(variable, lambda own, value: own.assign(value), args=(value,), group=False)

    if tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context():
        tf.distribute.get_replica_context().merge_call(assign_all, args=(updates,))
        return
    for variable, value in updates:
        variable.assign(value)


def scatter(weight, rows: tf.Tensor, values: tf.Tensor) -> None:
    """Replaces rows of what `add_state` made."""
    variable = weight if KERAS_2 else weight.value
    variable.scatter_update(tf.IndexedSlices(values, rows))


def weight_averages(optimizer) -> list:
    """The running averages of the trainable weights, in their order; empty unless `optimizer` has `use_ema=True`."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    # before the first step Keras 3 has none yet
    return list(getattr(inner, "_model_variables_moving_average", ())) if getattr(inner, "use_ema", False) else []


def _inner(optimizer):
    """The optimizer within a LossScaleOptimizer; any other is one itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def steps_of(optimizer) -> tf.Tensor:
    """How many steps an optimizer has taken."""
    return tf.convert_to_tensor(_inner(optimizer).iterations)


def ema_momentum(optimizer) -> tf.Tensor:
    """How much of the running averages the coming step keeps; 1 without averages. Keras 3 keeps nothing at first."""
    inner = _inner(optimizer)
    if not getattr(inner, "use_ema", False):
        return tf.ones([])
    momentum = tf.constant(inner.ema_momentum, tf.float32)
    return momentum if KERAS_2 else tf.where(steps_of(optimizer) > 0, momentum, 0.0)


def overwrites_weights(optimizer) -> bool:
    """Whether an optimizer puts the running averages in the weights' place while it trains."""
    inner = _inner(optimizer)
    return bool(getattr(inner, "use_ema", False) and getattr(inner, "ema_overwrite_frequency", None))


def build_optimizer(optimizer, variables) -> None:
    """Makes the state of an optimizer; the old kind, which TensorFlow Addons is made of, does so in its first step."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    if not (KERAS_2 and isinstance(inner, keras.optimizers.legacy.Optimizer)):
        optimizer.build(variables)


def output_shape(model: keras.Model):
    """The shape of a model's output, or a dict of shapes if its outputs have names (Keras 3 lists them without)."""
    return model.output_shape if KERAS_2 else model.compute_output_shape(model.input_shape)


def layers_of_applications() -> dict[str, type]:
    """Layers of ConvNeXt by their names, which Keras 2 does not find by itself when it opens a file."""
    if not KERAS_2:
        return {}
    convnext = sys.modules[keras.applications.ConvNeXtTiny.__module__]
    return {name: getattr(convnext, name) for name in ("LayerScale", "StochasticDepth")}


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
