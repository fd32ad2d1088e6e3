"""What `MetricLearner` adds to Keras's methods: batches in order, a format that holds it, its embedder's export."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import tensorflow as tf


def of_datasets(method: Callable) -> Callable:
    """A method `fit` that takes batches as a dataset gives them, without a warning that it does not shuffle them."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def _in_order(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        if isinstance(given.get("x"), tf.data.Dataset):
            is_endless = given["x"].cardinality() == tf.data.INFINITE_CARDINALITY
            if is_endless and given.get("steps_per_epoch") is None:
                raise ValueError(
                    "`steps_per_epoch` must be given for a dataset without end, e.g. sampler.steps_per_epoch. "
                    "Received: steps_per_epoch=None."
                )
            kwargs |= {} if "shuffle" in given else {"shuffle": False}
        return method(self, *args, **kwargs)

    return _in_order


def to_a_keras_file(method: Callable) -> Callable:
    """A method `save` that refuses formats which do not hold a learner, before anything is written."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def _checked(self, *args, **kwargs):
        path = str(signature.bind(self, *args, **kwargs).arguments["filepath"])
        if not path.endswith(".keras") and not path.startswith("hf://"):
            raise ValueError(
                f"`filepath` must end in .keras. Received: filepath={path!r}. Only this format holds a learner with "
                "its losses and its memory. Save the embedder alone with learner.embedder.save(path), or write what a "
                "server runs with eet_tf.export_embedder(learner, folder)."
            )
        return method(self, *args, **kwargs)

    return _checked


def of_the_embedder(method: Callable) -> Callable:
    """A method that is the embedder's."""

    @functools.wraps(method)
    def _asked_of_it(self, *args, **kwargs):
        return getattr(self.embedder, method.__name__)(*args, **kwargs)

    return _asked_of_it
