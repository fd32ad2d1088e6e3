"""The training step: embeds a batch, takes the loss term by term, and updates the embedder."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf import compat, replicas
from eet_tf.losses.base import MetricLoss


class MetricLearner(keras.Model):
    """Trains an embedder with a metric loss and logs each of its terms.

    It wraps the embedder and owns nothing else: after training, save or export `learner.embedder`. Any Keras loss of
    labels and embeddings works; one of this package is also logged term by term.

    Args:
        embedder: a model from images to embeddings `[B, D]`.

    Example:

    >>> embedder = keras.Sequential([keras.Input([8]), keras.layers.Dense(4)])
    >>> learner = MetricLearner(embedder)
    >>> learner.compile(optimizer="sgd", loss=EETLoss())
    >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0)
    >>> sorted(history.history)
    ['equal_minima', 'equidistant', 'loss', 'margin', 'max_min']
    """

    def __init__(self, embedder: keras.Model, name: str = "metric_learner"):
        super().__init__(name=name)
        self.embedder = embedder
        self._total = keras.metrics.Mean(name="loss")
        self._means: dict[str, keras.metrics.Mean] = {}

    def compile(self, optimizer="adam", loss=None, jit_compile="auto"):
        """As `keras.Model.compile`, with the one loss.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a loss of labels `[B]` and embeddings `[B, D]`, e.g. `EETLoss()`.
            jit_compile: as in Keras.

        Raises:
            ValueError: if `loss` is no Keras loss or does not average over the batch.
        """
        if not isinstance(loss, keras.losses.Loss):
            raise ValueError(f"`loss` must be a Keras loss, e.g. eet_tf.EETLoss(). Received: loss={loss!r}.")
        if loss.reduction not in ("sum_over_batch_size", "auto"):  # "auto" is Keras 2's name for it
            raise ValueError(
                "`loss` must have reduction='sum_over_batch_size', so that the update does not depend on the number of "
                f"replicas. Received: reduction={loss.reduction!r}."
            )
        super().compile(optimizer=optimizer, jit_compile=compat.jit_compile_argument(jit_compile))
        self._metric_loss = loss
        names = loss.term_names if isinstance(loss, MetricLoss) else ()
        self._means = {name: keras.metrics.Mean(name=name) for name in names}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss and its terms, as running means over an epoch."""
        return [self._total, *self._means.values()]

    def call(self, images, training=None):
        """Images -> embeddings."""
        return self.embedder(images, training=training)

    def train_step(self, data):
        """One update from a batch `(images, labels)`; returns the running means of the loss and its terms."""
        images, labels = _images_and_labels(data)
        variables = self.embedder.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._observed_loss(labels, self(images, training=True))
            loss = compat.scale_loss(self.optimizer, loss / replicas.num_replicas())
        compat.apply_gradients(self.optimizer, tape.gradient(loss, variables), variables)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data):
        """The loss and its terms on a batch, without an update."""
        images, labels = _images_and_labels(data)
        self._observed_loss(labels, self(images, training=False))
        return {metric.name: metric.result() for metric in self.metrics}

    def _observed_loss(self, labels, embeddings) -> tf.Tensor:
        """This replica's mean loss plus the embedder's regularisation; adds the terms to the running means."""
        if isinstance(self._metric_loss, MetricLoss):
            terms = self._metric_loss.terms(labels, embeddings)
            per_anchor = tf.add_n(list(terms.values()))
        else:
            terms = {}
            per_anchor = compat.mean_loss(self._metric_loss, labels, embeddings, replicas.num_replicas())
        self._total.update_state(per_anchor)
        for name, values in terms.items():
            self._means[name].update_state(values)
        return tf.reduce_mean(per_anchor) + tf.add_n([tf.zeros([]), *self.embedder.losses])


def _images_and_labels(data):
    if not isinstance(data, tuple) or len(data) != 2:
        raise ValueError("`fit` must be given batches of (images, labels), without sample weights.")
    return data
