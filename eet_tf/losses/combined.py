"""A sum of losses, each with a weight and all its terms."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Remembered
from eet_tf.losses.checks import check_numbers, entry_of


@keras.saving.register_keras_serializable(package="eet_tf")
class CombinedLoss(MetricLoss):
    """Computes the weighted sum of several losses of this package, and logs the terms of each.

    - A term keeps its name where no other loss has it, and else gets that of its loss before it: `triplet_loss_margin`.
    - Losses with class vectors each have their own. Those that compare photos also meet the memory of past batches.
    - A loss that uses attributes makes the sum one that does; the others take labels and embeddings alone.
    - Of an embedder with a neck, losses of pairs see the vectors before it, those with class vectors the ones after it.

    Args:
        losses: losses of this package or derived from `MetricLoss`, at least one, of which at most one uses attributes.
            Their own `reduction` is not used. Two of one name must be given names, e.g. `TripletLoss(name="near")`.
        weights: what each loss is multiplied by, 0 or more; default: 1 each.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if one of `losses` is no such loss, two have one name, two use attributes, or the weights do not
            fit.

    Example:

    >>> loss = CombinedLoss([EETLoss(), TripletLoss(distance="cosine")], weights=[1.0, 0.5])
    >>> sorted(loss.terms([0, 0, 1, 1], [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]))
    ['eet_loss_margin', 'equal_minima', 'equidistant', 'max_min', 'triplet_loss_margin']

    With class vectors it needs `MetricLearner`:

    >>> import keras
    >>> learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4)]))
    >>> learner.compile("adam", CombinedLoss([EETLoss(), NormalizedSoftmaxLoss(num_classes=4)], weights=[1.0, 0.5]))
    >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0).history
    >>> sorted(history)
    ['equal_minima', 'equidistant', 'loss', 'margin', 'max_min', 'normalized_softmax']
    """

    def __init__(
        self,
        losses: Sequence[MetricLoss],
        weights: Sequence[float] | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "combined_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        self.losses = _made(losses)
        self.weights = _checked_weights(weights, len(self.losses))
        self.uses_attributes = any(loss.uses_attributes for loss in self.losses)
        self.uses_teacher = any(loss.uses_teacher for loss in self.losses)
        self.looks_after_neck = all(loss.looks_after_neck for loss in self.losses)
        self.compares_photos = any(loss.compares_photos for loss in self.losses)

    def class_vectors_rates(self) -> dict[str, float]:
        """Those of its losses, each under the name of its own vectors."""
        return {
            self._vectors_name(loss, name): rate
            for loss in self.losses
            for name, rate in loss.class_vectors_rates().items()
        }

    def class_vectors_shapes(self, embedding_dim: int) -> dict[str, tuple[int, ...]]:
        """Those of its losses, each under the name of its own vectors."""
        return {
            self._vectors_name(loss, name): shape
            for loss in self.losses
            for name, shape in loss.class_vectors_shapes(embedding_dim).items()
        }

    def terms(
        self, labels, embeddings, memory: Remembered | None = None, class_vectors: Mapping | None = None
    ) -> dict[str, tf.Tensor]:
        """The weighted terms of all losses by name, each `[B]`; dicts of heads where a loss takes them."""
        of_losses = []
        for loss, weight in zip(self.losses, self.weights):
            targets, outputs = self._seen_by(loss, labels, embeddings)
            found = loss.terms(targets, outputs, memory, **self._own_vectors(loss, class_vectors))
            of_losses.append({name: weight * values for name, values in found.items()})
        names = list(itertools.chain(*of_losses))
        return {
            name if names.count(name) == 1 else f"{loss.name}_{name}": values
            for loss, found in zip(self.losses, of_losses)
            for name, values in found.items()
        }

    def _seen_by(self, loss: MetricLoss, labels, embeddings) -> tuple:
        """What one of the losses takes of what the sum is given."""
        if isinstance(embeddings, Mapping) and loss.looks_after_neck and "after_neck" in embeddings:
            embeddings = {**embeddings, "embedding": embeddings["after_neck"]}
        if loss.takes_dicts or not (self.takes_dicts or isinstance(embeddings, Mapping)):
            return labels, embeddings
        return entry_of("y_true", labels, "label"), entry_of("y_pred", embeddings, "embedding")

    def _own_vectors(self, loss: MetricLoss, class_vectors: Mapping | None) -> dict:
        """What a loss is given besides labels, embeddings and memory."""
        names = loss.class_vectors_shapes(embedding_dim=1)
        if not names or class_vectors is None:
            return {}
        return {"class_vectors": {name: class_vectors[self._vectors_name(loss, name)] for name in names}}

    def _vectors_name(self, loss: MetricLoss, name: str) -> str:
        same = [each for each in self.losses if name in each.class_vectors_shapes(embedding_dim=1)]
        return name if len(same) == 1 else f"{loss.name}_{name}"

    def graded_by(self, targets, outputs) -> tf.Tensor | None:
        """The attributes of the one loss that weighs pairs by them; None where there is none."""
        found = [loss.graded_by(targets, outputs) for loss in self.losses if loss.uses_attributes]
        return found[0] if found else None

    def get_config(self) -> dict:
        """The constructor's arguments, the losses as Keras serializes them."""
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        return {"losses": losses, "weights": list(self.weights), **super().get_config()}


def _made(losses: Sequence) -> tuple[MetricLoss, ...]:
    """The losses, those too that come from a configuration."""
    if not isinstance(losses, (list, tuple)) or not losses:
        raise ValueError(f"`losses` must be a list of losses, at least one. Received: losses={losses!r}.")
    made = [keras.saving.deserialize_keras_object(each) if isinstance(each, Mapping) else each for each in losses]
    for each in made:
        if not isinstance(each, MetricLoss):
            received = f"the class {each.__name__}; write {each.__name__}()" if isinstance(each, type) else repr(each)
            raise ValueError(
                "`losses` must be losses of this package, e.g. eet_tf.EETLoss(), or derived from eet_tf.MetricLoss. "
                f"Received: {received}."
            )
    names = [each.name for each in made]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"`losses` must have names of their own, which the log tells them apart by. Received: {name!r} twice. "
                f"Write {type(made[names.index(name)]).__name__}(..., name='another')."
            )
    count = sum(each.uses_attributes for each in made)
    if count > 1:
        raise ValueError(f"`losses` must hold at most one loss that uses attributes. Received: {count} of them.")
    return tuple(made)


def _checked_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * count
    if not isinstance(weights, (list, tuple)) or len(weights) != count:
        raise ValueError(f"`weights` must be a number for each of the {count} losses. Received: weights={weights!r}.")
    for weight in weights:
        check_numbers({"weights": weight})
    return tuple(weights)
