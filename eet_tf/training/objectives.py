"""What a training lowers and measures: losses and metrics, in the forms in which Keras takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from eet_tf.losses.base import MetricLoss


class FunctionLoss(keras.losses.Loss):
    """A function of labels and embeddings as a loss. Labels reach it as they are, never as floating-point numbers.

    Args:
        function: labels `[B]` and embeddings `[B, D]` -> the loss of each photo `[B]`, or their mean.
    """

    def __init__(self, function: Callable):
        super().__init__(name="function_loss")
        self.function = function

    def call(self, y_true, y_pred) -> tf.Tensor:
        """What the function returns."""
        return self.function(y_true, y_pred)


def as_loss(argument: str, loss, example: str) -> keras.losses.Loss:
    """The loss that was given as one, as a function, or as the name of one of Keras.

    Args:
        argument: the name of the argument, for the message.
        loss: what was given.
        example: a class of this package that would do.

    Raises:
        ValueError: if it is none of these, or does not average over the batch.
    """
    found = loss
    if isinstance(loss, str):
        try:
            found = keras.losses.get(loss)
        except ValueError:
            found = None
    if not isinstance(found, keras.losses.Loss) and callable(found) and not isinstance(found, type):
        return FunctionLoss(found)
    if not isinstance(found, keras.losses.Loss):
        received = f"the class {loss.__name__}; write {loss.__name__}()" if isinstance(loss, type) else repr(loss)
        raise ValueError(
            f"`{argument}` must be a Keras loss, e.g. eet_tf.{example}(), a function of labels and embeddings, or the "
            f"name of a loss of Keras. Received: {argument}={received}."
        )
    if found.reduction not in ("sum_over_batch_size", "auto"):  # "auto" is Keras 2's name for it
        raise ValueError(
            f"`{argument}` must have reduction='sum_over_batch_size', so that the update does not depend on the number "
            f"of replicas. Received: reduction={found.reduction!r}."
        )
    return found


class Measurement:
    """A metric of labels and embeddings, or the mean of a function of them.

    Args:
        metric: whose state is kept, a Keras metric.
        function: labels and embeddings -> numbers, of which `metric` is the mean; None: `metric` takes both itself.
    """

    def __init__(self, metric: keras.metrics.Metric, function: Callable | None = None):
        self.metric = metric
        self._function = function

    def update(self, labels, embeddings) -> None:
        """Takes a batch."""
        if self._function is None:
            self.metric.update_state(labels, embeddings)
            return
        values = tf.convert_to_tensor(self._function(labels, embeddings))
        if not values.shape.rank:  # a mean counts for each photo, and of no photos for nothing
            values = tf.fill(tf.shape(embeddings)[:1], values)
        self.metric.update_state(values)


def as_measurements(argument: str, metrics: Sequence | None, taken: Sequence[str]) -> list[Measurement]:
    """Metrics, functions and names of metrics of Keras, as what can be updated.

    Args:
        argument: the name of the argument, for the message.
        metrics: what was given, or None.
        taken: names of other figures in the log.

    Raises:
        ValueError: if one is none of these, or two have one name.
    """
    if not isinstance(metrics, (list, tuple, type(None))):
        raise _no_metric(argument, metrics)
    found = [_measurement(argument, metric) for metric in metrics or ()]
    names = [*taken, *[each.metric.name for each in found]]
    for name in names[len(taken) :]:
        if names.count(name) > 1:
            raise ValueError(f"`{argument}` must have names of their own in the log. Received: a second {name!r}.")
    return found


def _measurement(argument: str, metric) -> Measurement:
    found = metric
    if isinstance(metric, str):
        try:
            found = keras.metrics.get(metric)
        except ValueError:
            raise _no_metric(argument, metric) from None
    if isinstance(found, keras.metrics.Metric):
        return Measurement(found)
    if isinstance(found, keras.losses.Loss):
        return Measurement(keras.metrics.Mean(name=found.name), found.call)  # a call divides by the replicas
    if not callable(found) or isinstance(found, type):
        raise _no_metric(argument, metric)
    name = metric if isinstance(metric, str) else getattr(found, "__name__", type(found).__name__)
    return Measurement(keras.metrics.Mean(name=name), found)


def _no_metric(argument: str, received) -> ValueError:
    shown = f"the class {received.__name__}" if isinstance(received, type) else repr(received)
    return ValueError(
        f"`{argument}` must be a list of Keras metrics, functions of labels and embeddings, or names of metrics of "
        f"Keras. Received: {shown}."
    )


def seen_by(loss: keras.losses.Loss, outputs: Mapping) -> Mapping:
    """The outputs as a loss sees them: of an embedder with a neck the vectors before it, unless it looks after it.

    Those after the neck are then `"after_neck"`, for the parts of a sum that look at them.
    """
    if "before_neck" not in outputs or (isinstance(loss, MetricLoss) and loss.looks_after_neck):
        return outputs
    # nothing is added but a gradient of zeros for the neck's weights: without one Keras warns at every start
    before = outputs["before_neck"] + 0.0 * outputs["embedding"]
    return {**outputs, "embedding": before, "after_neck": outputs["embedding"]}
