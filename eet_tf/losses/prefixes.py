"""Matryoshka embeddings: any loss of this package, taken on several prefixes of the embedding at once."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from eet_tf.losses.base import MetricLoss, check_metric_loss
from eet_tf.losses.batch import Remembered
from eet_tf.losses.checks import entry_of
from eet_tf.losses.eet import EETLoss
from eet_tf.pairs import pairwise

_SHORTEST = 8  # of the prefixes that are chosen by halving


@keras.saving.register_keras_serializable(package="eet_tf")
class PrefixLoss(MetricLoss):
    """Computes another loss on prefixes of the embedding, so that each of them can be searched with alone (Matryoshka).

    With `f[:m]` the first m dimensions of the embeddings, each brought to length 1 by itself, and c_m their weights:

    ```
    loss = sum_m c_m * L(f[:m]) / sum_m c_m
    ```

    The paper adds the losses up, with all c_m = 1; this is their mean, which is as large as the loss itself, so that a
    learning rate, a norm that gradients are clipped to and the weight of an attribute loss stay what they were.

    - The terms are those of the loss by their names, each the mean over the prefixes.
    - Dimensions behind the longest prefix are not trained: let the last one be the whole embedding.
    - Photos that `MetricLearner` remembers, and the vectors of a teacher, are cut to the same prefix and brought to
      length 1 too.
    - Everything that the loss says of pairs, strategies and labels holds here. A step takes the loss once for each
      prefix; the network is run once.

    Args:
        loss: a loss of this package, default `EETLoss()`. It must normalise what it is given
            (`from_normalized=False`), since a prefix of a unit vector is shorter than 1.
        prefixes: how many leading dimensions each prefix has, in ascending order; at most those of the embedding. By
            default all, half of them, a quarter, ... down to 8. [2205.13147]
        weights: c_m of each prefix, 0 or more; by default all alike. [2205.13147]
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `loss` is none of this package or has `from_normalized=True`, `prefixes` are no ascending
            positive integers, or longer than the embedding, or there is not one weight for each.

    Example:

    >>> loss = PrefixLoss(TripletLoss(), prefixes=[2, 4])
    >>> embeddings = np.random.default_rng(0).normal(size=[6, 4]).astype("float32")
    >>> short, whole = (TripletLoss()([0, 0, 1, 1, 2, 2], embeddings[:, :length]) for length in (2, 4))
    >>> bool(np.isclose(loss([0, 0, 1, 1, 2, 2], embeddings), (short + whole) / 2))
    True

    Reference: Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, arXiv 2205.13147, equation 1.
    """

    def __init__(
        self,
        loss: MetricLoss | None = None,
        prefixes: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "prefix_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        self.loss = EETLoss() if loss is None else loss
        _check_loss(self.loss)
        self.prefixes = None if prefixes is None else checked_prefixes(prefixes)
        self.weights = None if weights is None else _checked_weights(weights, self.prefixes)

    @property
    def uses_attributes(self) -> bool:  # type: ignore[override]
        """Whether the loss does."""
        return self.loss.uses_attributes

    @property
    def uses_teacher(self) -> bool:  # type: ignore[override]
        """Whether the loss does."""
        return self.loss.uses_teacher

    @property
    def compares_photos(self) -> bool:  # type: ignore[override]
        """Whether the loss does."""
        return self.loss.compares_photos

    @property
    def looks_after_neck(self) -> bool:  # type: ignore[override]
        """Whether the loss does."""
        return self.loss.looks_after_neck

    @property
    def needs_partners(self) -> bool:
        """Whether the loss does."""
        return self.loss.needs_partners

    def class_vectors_rates(self) -> dict[str, float]:
        """Those of the loss."""
        return self.loss.class_vectors_rates()

    def class_vectors_shapes(self, embedding_dim: int) -> dict[str, tuple[int, ...]]:
        """Those of the loss for the whole embedding: a prefix of it meets the same prefix of the class vectors."""
        return self.loss.class_vectors_shapes(embedding_dim)

    @property
    def term_names(self) -> tuple[str, ...]:
        """Those of the loss."""
        return self.loss.term_names

    def terms(
        self, labels, embeddings, memory: Remembered | None = None, class_vectors: Mapping | None = None
    ) -> dict[str, tf.Tensor]:
        """Returns the means of the loss's terms by name, each `[B]`; of dicts, where the loss takes them."""
        given = entry_of("y_pred", embeddings, "embedding") if self.takes_dicts else embeddings
        lengths = self._lengths(tf.convert_to_tensor(given).shape)
        weights = self.weights or [1.0] * len(lengths)
        means: dict[str, tf.Tensor] = {}
        for length, weight in zip(lengths, weights):
            more: Any = {"class_vectors": _shorter(class_vectors, length)} if class_vectors else {}
            for name, values in self.loss.terms(*_cut(length, labels, embeddings, memory), **more).items():
                means[name] = means.get(name, 0.0) + weight / sum(weights) * values
        return means

    def _lengths(self, shape: tf.TensorShape) -> tuple[int, ...]:
        """The prefixes of embeddings of a shape."""
        if shape.rank != 2 or shape[1] is None:
            raise ValueError(
                f"`y_pred` must be embeddings [batch, dim] whose dim is known. Received: shape {shape}. End the model "
                "in one vector per photo."
            )
        if self.prefixes is None:
            halves = [shape[1] >> times for times in range(shape[1].bit_length())]
            return tuple(sorted(each for each in halves if each >= min(_SHORTEST, shape[1])))
        if self.prefixes[-1] > shape[1]:
            raise ValueError(
                f"`prefixes` must be at most the embedding's {shape[1]} dimensions. Received: prefixes={self.prefixes}."
            )
        return self.prefixes

    def graded_by(self, targets, outputs) -> tf.Tensor | None:
        """What the loss weights pairs by."""
        return self.loss.graded_by(targets, outputs)

    def get_config(self) -> dict:
        """The constructor's arguments; the loss as Keras describes it."""
        own = {"prefixes": self.prefixes, "weights": self.weights}
        return {"loss": keras.saving.serialize_keras_object(self.loss), **own, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict) -> PrefixLoss:
        """Makes a loss from `get_config`."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def _cut(length: int, targets, outputs, memory: Remembered | None) -> tuple:
    """What a loss takes, on a prefix: everything that has the dimensions of the embedding is cut here, and only here.

    The loss itself brings embeddings to length 1.
    """
    if isinstance(outputs, Mapping):
        outputs = {**outputs, "embedding": tf.convert_to_tensor(outputs["embedding"])[:, :length]}
    else:
        outputs = tf.convert_to_tensor(outputs)[:, :length]
    if isinstance(targets, Mapping) and "teacher" in targets:
        targets = {**targets, "teacher": tf.convert_to_tensor(targets["teacher"])[:, :length]}
    if memory is not None:
        rows = tf.cast(memory.embeddings, tf.float32)[:, :length]
        memory = memory._replace(embeddings=pairwise.unit_rows(rows))
    return targets, outputs, memory


def _shorter(class_vectors: Mapping, length: int) -> dict[str, tf.Tensor]:
    """Class vectors `[..., D]` to the same prefix; the loss brings them to length 1."""
    return {name: tf.convert_to_tensor(vectors)[..., :length] for name, vectors in class_vectors.items()}


def checked_prefixes(prefixes) -> tuple[int, ...]:
    """Ascending positive integers, as a tuple.

    Raises:
        ValueError: if they are none.

    Example:

    >>> checked_prefixes([32, 64])
    (32, 64)
    """
    given = list(prefixes) if isinstance(prefixes, (list, tuple)) else []
    are_integers = all(isinstance(each, numbers.Integral) and not isinstance(each, bool) for each in given)
    if not given or not are_integers or given[0] < 1 or any(b <= a for a, b in zip(given, given[1:])):
        raise ValueError(
            "`prefixes` must be positive integers in ascending order, e.g. (32, 64, 128). Received: "
            f"prefixes={prefixes!r}."
        )
    return tuple(map(int, given))


def _checked_weights(weights, prefixes: tuple[int, ...] | None) -> tuple[float, ...]:
    given = list(weights) if isinstance(weights, (list, tuple)) else []
    are_numbers = all(isinstance(each, numbers.Real) and not isinstance(each, bool) for each in given)
    if prefixes is None or len(given) != len(prefixes) or not are_numbers or not min(given) >= 0 or not sum(given) > 0:
        raise ValueError(
            f"`weights` must be a number of 0 or more for each of `prefixes`, {prefixes}, not all 0. Received: "
            f"weights={weights!r}."
        )
    return tuple(map(float, given))


def _check_loss(loss) -> None:
    check_metric_loss(loss)
    if getattr(loss, "from_normalized", False):
        raise ValueError(
            "`loss` must have from_normalized=False: a prefix of a unit vector is shorter than 1. Received: "
            f"{type(loss).__name__}(from_normalized=True)."
        )
