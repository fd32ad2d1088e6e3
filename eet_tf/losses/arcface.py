"""ArcFace: a softmax over classes in which a photo must be nearer to its class by an angle."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from eet_tf.arguments import check_integer, check_number
from eet_tf.losses.checks import check_numbers
from eet_tf.losses.class_vectors import ClassVectorLoss, check_sampled, check_smoothing, class_batch, cross_entropy

_LEAST_SQUARED_SINE = 1e-6  # below it the cosine's float32 says little of the angle, whose slope is infinite at 0


def arcface_loss(
    labels,
    embeddings,
    class_vectors,
    *,
    margin: float = 0.5,
    scale: float = 64.0,
    label_smoothing: float = 0.0,
    sampled_classes: int | None = None,
    from_normalized: bool = False,
) -> tf.Tensor:
    """Computes the ArcFace loss of each photo, whose mean is the paper's value.

    Args:
        labels: `[B]` or `[B, 1]` class numbers, from 0 to C - 1.
        embeddings: `[B, D]`.
        class_vectors: `[C, D]`, or `[C, K, D]` with K sub-centres of each class, of any length.
        margin: as in `ArcFaceLoss`, and so are the next three.
        scale: as above.
        label_smoothing: as above.
        sampled_classes: as above.
        from_normalized: whether the embeddings already have unit length.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `ArcFaceLoss`, or if `class_vectors` is neither `[C, D]` nor `[C, K, D]`.

    Example:

    >>> arcface_loss([0, 1], [[0.6, 0.8], [0.6, 0.8]], np.eye(2), margin=0.5, scale=2.0).numpy().round(4)
    array([1.552 , 0.8959], dtype=float32)
    """
    _check(margin, scale, label_smoothing, sampled_classes)
    found = class_batch(labels, embeddings, class_vectors, sampled_classes, from_normalized, takes_subcenters=True)

    def loss_of_anchors(cosines, targets):
        is_own = tf.equal(tf.range(cosines.shape[1])[tf.newaxis], targets[:, tf.newaxis])
        own = _with_margin(tf.gather(cosines, targets, batch_dims=1), margin)
        return cross_entropy(scale * tf.where(is_own, own[:, tf.newaxis], cosines), targets, label_smoothing)

    return found.batch.loss_of_photos(found.over_classes(loss_of_anchors))


def _with_margin(cosines: tf.Tensor, margin: float) -> tf.Tensor:
    """cos(angle + margin); where that would be beyond a half turn, a line that goes on falling. [authors]"""
    squared = 1.0 - tf.square(cosines)
    is_small = squared < _LEAST_SQUARED_SINE
    sines = tf.sqrt(tf.where(is_small, _LEAST_SQUARED_SINE, squared))
    turned = cosines * math.cos(margin) - sines * math.sin(margin)
    return tf.where(cosines > math.cos(math.pi - margin), turned, cosines - margin * math.sin(margin))


@keras.saving.register_keras_serializable(package="eet_tf")
class ArcFaceLoss(ClassVectorLoss):
    """Computes the additive angular margin loss (ArcFace), with sub-centres if they are asked for.

    With s_c the cosine of an embedding and the vector of class c, of K vectors of the class the nearest, y the photo's
    class, and the angle of y made larger by a margin:

    ```
    s'_y       cos(angle of s_y + margin)
    arcface    mean over photos of  -log( exp(scale s'_y) / (exp(scale s'_y) + sum over other c of exp(scale s_c)) )
    ```

    - Beyond a half turn, where the cosine would rise again, s'_y is `s_y - margin sin(margin)`. [authors: their code]
    - Sub-centres let a class have several looks, or keep wrongly labelled photos apart from it: 3 for noisy labels.
    - Class vectors, labels, samples of classes and memory are as in `NormalizedSoftmaxLoss`.

    Args:
        num_classes: C, the number of classes that are trained on, at least 2.
        margin: in radians, in [0, 3.14], default 0.5. [authors]
        scale: of the cosines, default 64. [authors: for faces] With some hundred classes, smaller ones, about 30, lose
            less to rounding of already sure photos. [ours]
        subcenters: K, vectors for each class, default 1.
        label_smoothing: share of the target that all classes get alike, in [0, 1], default 0.
        sampled_classes: as in `NormalizedSoftmaxLoss`.
        from_normalized: whether `y_pred` already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if an argument is out of its range, a label is no class, or it is compiled without `MetricLearner`.

    Example:

    >>> import keras
    >>> learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4)]))
    >>> learner.compile("adam", loss=ArcFaceLoss(num_classes=4, subcenters=3))
    >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0)
    >>> learner.class_vectors.by_name()["arcface"].shape
    TensorShape([4, 3, 4])

    Reference: Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019,
        arXiv 1801.07698, eq. 3; Deng, Guo, Liu, Gong, Zafeiriou, "Sub-center ArcFace: Boosting Face Recognition by
        Large-Scale Noisy Web Faces", ECCV 2020.
    """

    vectors_name = "arcface"

    def __init__(
        self,
        num_classes: int,
        margin: float = 0.5,
        scale: float = 64.0,
        subcenters: int = 1,
        label_smoothing: float = 0.0,
        sampled_classes: int | None = None,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "arcface_loss",
        dtype=None,
    ):
        super().__init__(num_classes, sampled_classes, from_normalized, reduction, name, dtype)
        _check(margin, scale, label_smoothing, sampled_classes)
        check_integer("subcenters", subcenters, 1)
        self.margin = margin
        self.scale = scale
        self.subcenters = subcenters
        self.label_smoothing = label_smoothing

    def class_vectors_shapes(self, embedding_dim: int) -> dict[str, tuple[int, ...]]:
        """`[C, D]`, or `[C, K, D]` with sub-centres."""
        centers = (self.subcenters,) if self.subcenters > 1 else ()
        return {self.vectors_name: (self.num_classes, *centers, embedding_dim)}

    def of_photos(self, labels, embeddings, class_vectors) -> tf.Tensor:
        """The loss of each photo, `[B]`."""
        return arcface_loss(
            labels,
            embeddings,
            class_vectors,
            margin=self.margin,
            scale=self.scale,
            label_smoothing=self.label_smoothing,
            sampled_classes=self.sampled_classes,
            from_normalized=self.from_normalized,
        )

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"margin": self.margin, "scale": self.scale, "subcenters": self.subcenters}
        return {**own, "label_smoothing": self.label_smoothing, **super().get_config()}


def _check(margin: float, scale: float, label_smoothing: float, sampled_classes: int | None) -> None:
    check_number("margin", margin, 0, 3.14)
    check_numbers({"scale": scale}, above_zero=True)
    check_smoothing(label_smoothing)
    check_sampled(sampled_classes)
