"""Normalised softmax: cross-entropy of a photo's class, by the cosines with one learnt vector for each class."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf.losses.checks import check_numbers
from eet_tf.losses.class_vectors import ClassVectorLoss, check_sampled, check_smoothing, class_batch, cross_entropy


def normalized_softmax_loss(
    labels,
    embeddings,
    class_vectors,
    *,
    temperature: float = 0.05,
    label_smoothing: float = 0.0,
    sampled_classes: int | None = None,
    from_normalized: bool = False,
) -> tf.Tensor:
    """Computes the normalised softmax loss of each photo, whose mean is the paper's value.

    Args:
        labels: `[B]` or `[B, 1]` class numbers, from 0 to C - 1.
        embeddings: `[B, D]`.
        class_vectors: `[C, D]` of any length.
        temperature: as in `NormalizedSoftmaxLoss`, and so are the next two.
        label_smoothing: as above.
        sampled_classes: as above.
        from_normalized: whether the embeddings already have unit length.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `NormalizedSoftmaxLoss`, or if `class_vectors` is not `[C, D]`.

    Example:

    >>> normalized_softmax_loss([0, 1], [[1.0, 0.0], [1.0, 0.0]], np.eye(2), temperature=0.5).numpy().round(4)
    array([0.1269, 2.1269], dtype=float32)
    """
    _check(temperature, label_smoothing, sampled_classes)
    found = class_batch(labels, embeddings, class_vectors, sampled_classes, from_normalized)
    values = found.over_classes(lambda cosines, targets: cross_entropy(cosines / temperature, targets, label_smoothing))
    return found.batch.loss_of_photos(values)


@keras.saving.register_keras_serializable(package="eet_tf")
class NormalizedSoftmaxLoss(ClassVectorLoss):
    """Computes the normalised softmax loss: classifies each photo among all classes, by cosines.

    With s_c the cosine of an embedding and the vector of class c, and y the photo's class:

    ```
    normalized_softmax   mean over photos of  -log( exp(s_y / temperature) / sum over c of exp(s_c / temperature) )
    ```

    - The class vectors are weights that are learnt, so the loss needs `MetricLearner`, which makes, trains and saves
      them. The embedder and what is exported have none.
    - A batch needs no two photos of a class. `MetricLearner`'s memory of past batches is of no use to it.
    - Labels are 0 to `num_classes` - 1. Others are refused outside a graph; in a graph they make the loss NaN.
    - Above 100,000 classes a batch is compared with its own classes and a uniform sample of the others. [arXiv
      2203.15565] The sample follows from the batch's labels: every replica and a resumed training draw the same.
    - On a CPU logits are made in blocks of 8 MB, for the gradient too.

    Args:
        num_classes: C, the number of classes that are trained on, at least 2.
        temperature: default 0.05. [authors]
        label_smoothing: share of the target that all classes get alike, in [0, 1], default 0.
        sampled_classes: how many classes a batch is compared with, its own among them. Default: all up to 100,000,
            above that 100,000 or a tenth, whichever is more (the paper of the sample trains with a tenth). At least
            the number of classes in a batch.
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if an argument is out of its range, a label is no class, or it is compiled without `MetricLearner`.

    Example:

    >>> import keras
    >>> learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4)]))
    >>> learner.compile("adam", loss=NormalizedSoftmaxLoss(num_classes=4))
    >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0).history
    >>> sorted(history)
    ['loss', 'normalized_softmax']

    Reference: Zhai, Wu, "Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019, arXiv 1811.12649,
        eq. 3; the temperature is that of the authors' code. An et al., "Killing Two Birds with One Stone: Efficient
        and Robust Training of Face Recognition CNNs by Partial FC", CVPR 2022, arXiv 2203.15565: the sample.
    """

    vectors_name = "normalized_softmax"

    def __init__(
        self,
        num_classes: int,
        temperature: float = 0.05,
        label_smoothing: float = 0.0,
        sampled_classes: int | None = None,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "normalized_softmax_loss",
        dtype=None,
    ):
        super().__init__(num_classes, sampled_classes, from_normalized, reduction, name, dtype)
        _check(temperature, label_smoothing, sampled_classes)
        self.temperature = temperature
        self.label_smoothing = label_smoothing

    def of_photos(self, labels, embeddings, class_vectors) -> tf.Tensor:
        """The loss of each photo, `[B]`."""
        return normalized_softmax_loss(
            labels,
            embeddings,
            class_vectors,
            temperature=self.temperature,
            label_smoothing=self.label_smoothing,
            sampled_classes=self.sampled_classes,
            from_normalized=self.from_normalized,
        )

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"temperature": self.temperature, "label_smoothing": self.label_smoothing, **super().get_config()}


def _check(temperature: float, label_smoothing: float, sampled_classes: int | None) -> None:
    check_numbers({"temperature": temperature}, above_zero=True)
    check_smoothing(label_smoothing)
    check_sampled(sampled_classes)
