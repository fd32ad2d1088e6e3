"""Learning rates apart: how far the trunk and the class vectors move for each step of the optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from eet_tf import compat
from eet_tf.arguments import check_integer, check_number


@dataclasses.dataclass(frozen=True)
class Rates:
    """What shares of the optimizer's learning rate the weights have that are not the head's.

    An optimizer's step is a multiple of its rate, weight decay included. So a weight is moved by its share of what
    the optimizer has moved it by; that works with every optimizer, schedule and strategy, and leaves all that the
    optimizer keeps as it is.

    Args:
        trunk: of the weights of the backbone.
        class_vectors: of the class vectors, by name.
        head_only_steps: for so many steps the trunk stays.
    """

    trunk: float = 1.0
    class_vectors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    head_only_steps: int = 0

    def apply(self, optimizer, gradients: Sequence, variables: Sequence, embedder, class_vectors: Mapping) -> None:
        """Updates `variables`, each by its share."""
        factors = self._factors(optimizer, embedder, class_vectors)
        places = [place for place, variable in enumerate(variables) if _key(variable) in factors]
        chosen = [compat.raw(variables[place]) for place in places]
        before = [tf.identity(variable) for variable in chosen]
        momentum = compat.ema_momentum(optimizer)
        compat.apply_gradients(optimizer, gradients, variables)
        if not chosen:
            return
        updates = []
        averages = compat.weight_averages(optimizer)
        for place, variable, old in zip(places, chosen, before):
            after, factor = tf.identity(variable), factors[_key(variables[place])]
            new = tf.where(tf.equal(factor, 0.0), old, old + factor * (after - old))
            updates.append((variable, new))
            if averages:  # the optimizer's average has taken its own step for the weight's
                average = compat.raw(averages[place])
                updates.append((average, average + (1.0 - momentum) * (new - after)))
        compat.assign_on_replicas(updates)

    def _factors(self, optimizer, embedder, class_vectors: Mapping) -> dict:
        """The share of each weight that has one other than 1, by `_key`."""
        found: dict[int, tf.Tensor] = {}
        if self.trunk != 1 or self.head_only_steps:
            trunk = tf.constant(self.trunk, tf.float32)
            if self.head_only_steps:
                trunk = tf.where(compat.steps_of(optimizer) < self.head_only_steps, 0.0, trunk)
            found |= {_key(variable): trunk for variable in trunk_of(embedder)}
        others = {name: rate for name, rate in self.class_vectors.items() if rate != 1}
        return found | {_key(class_vectors[name]): tf.constant(rate, tf.float32) for name, rate in others.items()}


def trunk_of(embedder: keras.Model) -> list:
    """The trainable weights of an embedder's backbone: of the models among its layers."""
    layers = [layer for layer in getattr(embedder, "layers", ()) if isinstance(layer, keras.Model)]
    return [variable for layer in layers for variable in layer.trainable_variables]


def _key(variable) -> int:
    return id(compat.raw(variable))


def checked_rates(
    trunk_rate: float,
    class_vectors_rate: float | None,
    head_only_steps: int,
    shares: Mapping[str, float],
    embedder: keras.Model,
    optimizer,
) -> Rates:
    """The rates that `MetricLearner.compile` was given.

    Args:
        trunk_rate: as there, and so are the next two.
        class_vectors_rate: as there.
        head_only_steps: as there.
        shares: what the loss says of each of its class vectors.
        embedder: the learner's.
        optimizer: as there.

    Raises:
        ValueError: if one is out of its range, or there is nothing that it could be the rate of.
    """
    check_number("trunk_rate", trunk_rate, 0)
    check_integer("head_only_steps", head_only_steps, 0)
    is_apart = trunk_rate != 1 or head_only_steps > 0
    if is_apart and not trunk_of(embedder):
        raise ValueError(
            "`trunk_rate` must be 1 and `head_only_steps` 0 where the embedder has no backbone with weights to train: "
            "a model among its layers, as build_embedder makes it. "
            f"Received: trunk_rate={trunk_rate}, head_only_steps={head_only_steps}."
        )
    if class_vectors_rate is not None:
        check_number("class_vectors_rate", class_vectors_rate, 0)
        if not shares:
            raise ValueError(
                "`class_vectors_rate` must be None where the loss has no class vectors. Received: class_vectors_rate="
                f"{class_vectors_rate}."
            )
        shares = dict.fromkeys(shares, float(class_vectors_rate))
    is_apart = is_apart or any(share != 1 for share in shares.values())
    if is_apart and compat.overwrites_weights(optimizer):
        raise ValueError(
            "`optimizer` must have ema_overwrite_frequency=None where weights have learning rates of their own. "
            "Received: an optimizer that overwrites the weights with their averages while it trains."
        )
    return Rates(float(trunk_rate), shares, int(head_only_steps))
