"""What every metric loss shares: the update of the whole batch, and named terms, each a vector."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from eet_tf import compat, replicas
from eet_tf.losses.batch import Remembered

_MEANS = ("sum_over_batch_size", "mean", "auto")  # "auto" is Keras 2's name for the first


class BatchLoss(compat.Loss):
    """A loss whose update is that of the whole batch, however unequally replicas share it.

    Keras takes the mean over each replica's photos, and then over the replicas: of a last batch of 3 photos on 2
    replicas one would count as much as the two others. The value is Keras's, which adds up rightly in its logs.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        """As in every Keras loss; `y_true` reaches `call` as it is given, integers exactly."""
        value = super().__call__(y_true, y_pred, sample_weight)
        if self.reduction in (None, "none"):
            return value
        if value.shape.rank:
            value = tf.reduce_sum(value)  # of no photos: Keras 3 returns a vector without numbers
        if self.reduction not in _MEANS or replicas.num_replicas() == 1:
            return value
        return replicas.weighed_by_share(value, tf.shape(tf.nest.flatten(y_pred)[0])[0])


class MetricLoss(BatchLoss):
    """Base of every loss over pairs within a batch: the sum of named terms, each a vector with a value for each photo.

    For a loss of one's own, define `terms`: make a `Batch` of what it is given, and return the weighted terms by name.
    Then it works in any Keras model and under any strategy, and `MetricLearner` logs its terms one by one and hands it
    what is remembered of past batches. A loss with arguments stores them in `__init__` and lists them in `get_config`;
    one that is to be saved with a model is registered with `keras.saving.register_keras_serializable`.

    - `terms` returns vectors `[B]`, of which Keras takes the mean: a scalar would be counted once for each replica.
    - No shape in it may depend on the labels (`tf.unique`, `tf.where` of one argument, boolean masks): XLA refuses it.
    - Another loss of this package is extended in the same way: `{**super().terms(...), "length": ...}`.

    Args:
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss.

    Attributes:
        uses_attributes: whether `terms` takes, in place of labels and embeddings, the dicts `{"label": [B],
            "attributes": [B, A]}` and `{"embedding": [B, D], "attributes": [B, A]}`.
        uses_teacher: whether `terms` takes such dicts, with the vectors of a teacher, `"teacher": [B, D]`, in the
            first.
        compares_photos: whether photos are compared with each other. A loss that compares them with class vectors alone
            needs no positives in a batch, and no memory.
        looks_after_neck: whether `MetricLearner` gives it the vectors after an embedder's neck, those that are searched
            (`build_embedder(neck=...)`), as losses with vectors of classes want it. By default those before it, as
            losses of pairs do (arXiv 1903.07071).

    Example:

    >>> import keras
    >>> class ContrastiveLoss(MetricLoss):
    ...     def terms(self, labels, embeddings, memory=None):
    ...         batch = make_batch(labels, embeddings, memory=memory)
    ...         is_positive, is_negative = batch.pair_masks()
    ...         distances = batch.distances("euclidean")
    ...         pull = tf.where(is_positive, tf.square(distances), 0.0)
    ...         push = tf.where(is_negative, tf.square(tf.nn.relu(0.5 - distances)), 0.0)
    ...         means = {"pull": tf.reduce_mean(pull, axis=1), "push": tf.reduce_mean(push, axis=1)}
    ...         return {name: batch.loss_of_photos(values) for name, values in means.items()}
    >>> learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4)]))
    >>> learner.compile("sgd", loss=ContrastiveLoss())
    >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0).history
    >>> sorted(history)
    ['loss', 'pull', 'push']

    In a model of one's own it is a Keras loss like any other:

    >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(4)])
    >>> model.compile("sgd", loss=ContrastiveLoss())
    >>> history = model.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0)
    """

    uses_attributes = False
    uses_teacher = False
    compares_photos = True
    looks_after_neck = False

    @property
    def needs_partners(self) -> bool:
        """Whether a photo without another one of its class in the batch teaches nothing."""
        return self.compares_photos

    @property
    def takes_dicts(self) -> bool:
        """Whether `terms` takes dicts of targets and of outputs in place of labels and embeddings."""
        return self.uses_attributes or self.uses_teacher

    @property
    def term_names(self) -> tuple[str, ...]:
        """The names that `terms` returns, where they do not depend on the embeddings' dimension."""
        return self.names_of_terms(embedding_dim=2, num_attributes=1)

    def terms(self, labels, embeddings, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """Returns the weighted terms by name, each `[B]`; the loss is their sum.

        Args:
            labels: `[B]` or `[B, 1]`.
            embeddings: `[B, D]` of any length.
            memory: what `MetricLearner` remembers of past batches, for `make_batch`; None without a memory.

        A loss with class vectors takes a further argument, `class_vectors`; see `class_vectors_shapes`.
        """
        raise TypeError(f"{type(self).__name__} must define `terms`.")

    def class_vectors_shapes(self, embedding_dim: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the class vectors that the loss learns with the embedder, by name; none by default.

        Where there are any, `MetricLearner` makes them, trains them, and hands them to `terms` as `class_vectors`, a
        dict of the same names.

        Example:

        >>> from eet_tf import NormalizedSoftmaxLoss
        >>> NormalizedSoftmaxLoss(num_classes=10).class_vectors_shapes(embedding_dim=4)
        {'normalized_softmax': (10, 4)}
        """
        return {}

    def class_vectors_rates(self) -> dict[str, float]:
        """How fast class vectors learn unless `MetricLearner.compile` says otherwise, by name; 1 where none is named.

        They are shares of the optimizer's learning rate.
        """
        return {}

    def names_of_terms(self, embedding_dim: int, num_attributes: int = 0) -> tuple[str, ...]:
        """The names that `terms` returns, found by calling it with two photos of a class.

        Example:

        >>> from eet_tf import TripletLoss
        >>> TripletLoss().names_of_terms(embedding_dim=2)
        ('margin',)
        """
        targets, outputs = tf.constant([0, 0]), tf.zeros([2, embedding_dim])
        if self.takes_dicts:
            attributes = {"attributes": tf.zeros([2, num_attributes])} if self.uses_attributes else {}
            teacher = {"teacher": outputs} if self.uses_teacher else {}
            targets, outputs = {"label": targets, **attributes, **teacher}, {"embedding": outputs, **attributes}
        shapes = self.class_vectors_shapes(embedding_dim)
        if not shapes:
            return tuple(self.terms(targets, outputs))
        names: list[str] = []

        def call(class_vectors):  # traced, not called: a million vectors would take gigabytes
            more: Any = {"class_vectors": class_vectors}
            names.extend(self.terms(targets, outputs, **more))

        tf.function(call).get_concrete_function({name: tf.TensorSpec(shape) for name, shape in shapes.items()})
        return tuple(names)

    def graded_by(self, targets, outputs) -> tf.Tensor | None:
        """The attributes `[B, A]` that pairs are weighted by; None where the loss uses none."""
        return None

    def call(self, y_true, y_pred) -> tf.Tensor:
        """Labels `[B]` or `[B, 1]`, embeddings `[B, D]` -> the loss of each anchor `[B]`."""
        return tf.add_n(list(self.terms(y_true, y_pred).values()))


def check_metric_loss(loss) -> None:
    """Raises `ValueError` unless another loss may be built on `loss`: one of this package over embeddings."""
    if not isinstance(loss, MetricLoss):
        received = repr(loss)
        if isinstance(loss, type):
            received = f"the class {loss.__name__}; write {loss.__name__}()"
        elif isinstance(loss, compat.Loss):
            received = f"{type(loss).__name__}(...)"
        raise ValueError(
            f"`loss` must be a loss of this package over embeddings, e.g. eet_tf.EETLoss(). Received: loss={received}."
        )
