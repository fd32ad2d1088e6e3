"""The training step: embeds a batch, takes the losses term by term, and updates the embedder."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from eet_tf import compat, replicas
from eet_tf.losses.base import MetricLoss, entry_of


class MetricLearner(keras.Model):
    """Trains an embedder with a metric loss, and its attribute head with another, and logs each of their terms.

    It wraps the embedder and owns nothing else: after training, save or export `learner.embedder`. Any Keras loss of
    labels and embeddings works; one of this package is also logged term by term. A batch is `(images, labels)`, or
    `(images, {"label": labels, "attributes": attributes})`, of which each loss gets what it takes.

    Args:
        embedder: a model from images to embeddings `[B, D]`, or to a dict `{"embedding": [B, D], "attributes":
            [B, A] logits}`, as `build_embedder` makes it.

    Example:

    >>> embedder = keras.Sequential([keras.Input([8]), keras.layers.Dense(4)])
    >>> learner = MetricLearner(embedder)
    >>> learner.compile(optimizer="sgd", loss=EETLoss())
    >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0)
    >>> sorted(history.history)
    ['equal_minima', 'equidistant', 'loss', 'margin', 'max_min']

    Two heads:

    >>> learner = MetricLearner(build_embedder("small_cnn", 8, image_size=32, attribute_names=["striped", "red"]))
    >>> learner.compile("sgd", SoftBinomialDevianceLoss(granularity="predictions"), AttributeLoss())
    >>> targets = {"label": np.array([0, 0, 1, 1]), "attributes": np.array([[1, 0], [1, -1], [0, 0], [0, 1]])}
    >>> history = learner.fit(np.zeros([4, 32, 32, 3], "float32"), targets, verbose=0)
    >>> sorted(history.history)
    ['attributes', 'loss', 'negative_pairs', 'positive_pairs']
    """

    def __init__(self, embedder: keras.Model, name: str = "metric_learner"):
        super().__init__(name=name)
        self.embedder = embedder
        self._total = keras.metrics.Mean(name="loss")
        self._means: dict[str, keras.metrics.Mean] = {}

    def compile(
        self,
        optimizer="adam",
        loss=None,
        attribute_loss=None,
        attribute_weight: float = 1.0,
        jit_compile="auto",
    ):
        """As `keras.Model.compile`, with one loss for the embedding and one for the attribute head.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a loss of labels `[B]` and embeddings `[B, D]`, e.g. `EETLoss()`, or of both heads,
                `SoftBinomialDevianceLoss()`.
            attribute_loss: a loss of attributes and logits, `[B, A]` each, e.g. `AttributeLoss()`. It is added to the
                loss and logged as `attributes`. Without one an attribute head stays as it is, and Keras warns of it.
            attribute_weight: what `attribute_loss` is multiplied by, default 1. [base]
            jit_compile: as in Keras.

        Raises:
            ValueError: if a loss is no Keras loss or does not average over the batch, or if it uses attributes and
                the embedder has no attribute head.
        """
        _check_loss("loss", loss, "EETLoss")
        if attribute_loss is not None:
            _check_loss("attribute_loss", attribute_loss, "AttributeLoss")
            _check_attribute_head("attribute_loss", attribute_loss, self.embedder)
        if attribute_weight < 0:
            raise ValueError(f"`attribute_weight` must be 0 or more. Received: attribute_weight={attribute_weight}.")
        is_ours = isinstance(loss, MetricLoss)
        if is_ours and loss.uses_attributes:
            _check_attribute_head("loss", loss, self.embedder)
        super().compile(optimizer=optimizer, jit_compile=compat.jit_compile_argument(jit_compile))
        self._metric_loss = loss
        self._attribute_loss = attribute_loss
        self._attribute_weight = attribute_weight
        names = [*(loss.term_names if is_ours else ()), *(["attributes"] if attribute_loss else ())]
        self._means = {name: keras.metrics.Mean(name=name) for name in names}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss and its terms, as running means over an epoch."""
        return [self._total, *self._means.values()]

    def call(self, images, training=None):
        """Images -> embeddings, or the dict of both heads."""
        return self.embedder(images, training=training)

    def train_step(self, data):
        """One update from a batch; returns the running means of the loss and its terms."""
        images, targets = _images_and_targets(data)
        variables = self.embedder.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._observed_loss(targets, self(images, training=True))
            loss = compat.scale_loss(self.optimizer, loss / replicas.num_replicas())
        compat.apply_gradients(self.optimizer, tape.gradient(loss, variables), variables)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data):
        """The loss and its terms on a batch, without an update."""
        images, targets = _images_and_targets(data)
        self._observed_loss(targets, self(images, training=False))
        return {metric.name: metric.result() for metric in self.metrics}

    def _observed_loss(self, targets, outputs) -> tf.Tensor:
        """This replica's mean loss plus the embedder's regularisation; adds the terms to the running means."""
        targets = targets if isinstance(targets, Mapping) else {"label": targets}
        outputs = outputs if isinstance(outputs, Mapping) else {"embedding": outputs}
        per_anchor, terms = self._metric_terms(targets, outputs)
        if self._attribute_loss is not None:
            attributes, logits = entry_of("y_true", targets, "attributes"), entry_of("y_pred", outputs, "attributes")
            terms["attributes"] = self._attribute_weight * self._attribute_loss.call(attributes, logits)
            per_anchor += terms["attributes"]
        self._total.update_state(per_anchor)
        for name, values in terms.items():
            self._means[name].update_state(values)
        return tf.reduce_mean(per_anchor) + tf.add_n([tf.zeros([]), *self.embedder.losses])

    def _metric_terms(self, targets: Mapping, outputs: Mapping) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of each anchor, or its mean where the loss is not one of this package, and the terms by name."""
        labels, embeddings = entry_of("y_true", targets, "label"), entry_of("y_pred", outputs, "embedding")
        if not isinstance(self._metric_loss, MetricLoss):
            return compat.mean_loss(self._metric_loss, labels, embeddings, replicas.num_replicas()), {}
        given = (targets, outputs) if self._metric_loss.uses_attributes else (labels, embeddings)
        terms = self._metric_loss.terms(*given)
        return tf.add_n(list(terms.values())), terms


def _check_loss(argument: str, loss, example: str) -> None:
    if not isinstance(loss, keras.losses.Loss):
        raise ValueError(f"`{argument}` must be a Keras loss, e.g. eet_tf.{example}(). Received: {argument}={loss!r}.")
    if loss.reduction not in ("sum_over_batch_size", "auto"):  # "auto" is Keras 2's name for it
        raise ValueError(
            f"`{argument}` must have reduction='sum_over_batch_size', so that the update does not depend on the number "
            f"of replicas. Received: reduction={loss.reduction!r}."
        )


def _check_attribute_head(argument: str, loss: keras.losses.Loss, embedder: keras.Model) -> None:
    shapes = compat.output_shape(embedder)
    if not isinstance(shapes, Mapping) or "attributes" not in shapes:
        raise ValueError(
            f"`{argument}` must not use attributes where the embedder predicts none. Received: {argument}="
            f"{type(loss).__name__}. Build the embedder with build_embedder(..., attribute_names=[...])."
        )


def _images_and_targets(data):
    """The two parts of a batch; `train_on_batch` and `test_on_batch` of Keras 3 add a third, None."""
    if not isinstance(data, tuple) or len(data) < 2 or any(part is not None for part in data[2:]):
        raise ValueError("`fit` must be given batches of (images, labels), without sample weights.")
    return data[:2]
