"""The vectors of classes that a loss compares photos with: weights of the learner, which no embedder has."""

from __future__ import annotations

import types
from collections.abc import Mapping

import keras

from eet_tf import compat


class ClassVectors(keras.layers.Layer):
    """Holds the class vectors that the losses of a `MetricLearner` want, trained and saved with it.

    Example:

    >>> vectors = ClassVectors()
    >>> vectors.make({"arcface": (10, 4)})
    >>> vectors.by_name()["arcface"].shape
    TensorShape([10, 4])

    Each number is drawn from a normal distribution with standard deviation `1 / sqrt(D)`, so that a vector is about as
    long as an embedding. [ours]
    """

    def __init__(self, name: str = "class_vectors"):
        super().__init__(name=name)
        self._held = types.SimpleNamespace(shapes={})  # which Keras would wrap
        self.built = True

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises `ValueError` if there are vectors already, and not of these shapes."""
        held = self._held.shapes
        if held and _as_tuples(shapes) != held:
            raise ValueError(
                f"`loss` must be one whose class vectors are those that this learner has, {_described(held)}. "
                f"Received: one with {_described(shapes)}. Make another learner, "
                "eet_tf.MetricLearner(learner.embedder), which keeps what the embedder has learned."
            )

    def make(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Makes vectors of these shapes, in the scope of a strategy, unless they are there.

        Raises:
            ValueError: if others are there.
        """
        self.check(shapes)
        shapes = _as_tuples(shapes)
        if self._held.shapes:
            return
        for number, shape in enumerate(shapes.values()):
            initializer = keras.initializers.RandomNormal(stddev=shape[-1] ** -0.5)
            # an attribute, so that checkpoints of TensorFlow find it
            setattr(self, f"vectors_{number}", compat.add_trained(self, f"vectors_{number}", shape, initializer))
        self._held.shapes = shapes

    def by_name(self) -> dict:
        """The vectors, by the names that the loss gives them."""
        names = self._held.shapes
        return {name: compat.raw(getattr(self, f"vectors_{number}")) for number, name in enumerate(names)}

    def shapes(self) -> dict[str, list[int]]:
        """What they were made with."""
        return {name: list(shape) for name, shape in self._held.shapes.items()}


def _as_tuples(shapes: Mapping) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in shapes.items()}


def _described(shapes: Mapping) -> str:
    """E.g. `arcface [10, 4]`."""
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none"
