"""Distillation: a small model learns vectors with which a large one's index can be searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from eet_tf.losses.base import MetricLoss, check_metric_loss
from eet_tf.losses.batch import Batch, Remembered, batch_of_step, flaw_of, gathered
from eet_tf.losses.checks import check_numbers, entry_of
from eet_tf.pairs import pairwise


@keras.saving.register_keras_serializable(package="eet_tf")
class DistillationLoss(MetricLoss):
    """Computes how far each embedding is from that of a teacher, alone or beside another loss.

    With f the embedding of the model that is trained, the student, and g the teacher's vector of the same photo:

    ```
    distillation   weight * mean_i (1 - cos(f_i, g_i))
    loss           distillation + the terms of another loss, if there is one
    ```

    A student that reaches its teacher's vectors can search the teacher's index: the small model embeds queries, the
    large one has embedded the gallery.

    - The loss takes `y_true = {"label": [B], "teacher": [B, D]}` and `y_pred = {"embedding": [B, D]}`; Keras's own
      `compile` gives a loss one output at a time, `MetricLearner` gives it both.
    - Both vectors are brought to length 1. No gradient flows through the teacher's.
    - The teacher's vector is usually that of the plain photo, and the student sees it augmented: so it learns to
      answer a changed photo with the vector of the plain one.

    Args:
        loss: another loss of this package that is added; None: the distillation alone.
        weight: of the distillation, default 1. [ours]
        teacher_references: whether the anchors of `loss` also meet the teacher's vectors of the batch, as references
            beside the student's own, by which the loss sees the space that will be searched. An anchor's own photo is
            then a positive too, by its teacher's vector. Default False. [ours, after 2006.16331]
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if `loss` is none of this package, `weight` is negative, `teacher_references` comes without a loss,
            or the teacher's vectors are not as many and as long as the embeddings.

    Example:

    >>> loss = DistillationLoss()
    >>> y_true = {"label": [0, 0, 1], "teacher": [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]}
    >>> values = loss.terms(y_true, {"embedding": [[5.0, 0.0], [1.0, 0.0], [1.0, 0.0]]})
    >>> np.round(values["distillation"], 4)
    array([0. , 0.4, 1. ], dtype=float32)

    Reference: Budnik, Avrithis, "Asymmetric Metric Learning for Knowledge Transfer", CVPR 2021, arXiv 2006.16331, of
        which it is the regression; the sum with another loss is [ours].
    """

    uses_teacher = True
    looks_after_neck = True  # a student is searched with what stands there

    def __init__(
        self,
        loss: MetricLoss | None = None,
        weight: float = 1.0,
        teacher_references: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "distillation_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        check_numbers({"weight": weight})
        _check_loss(loss, teacher_references)
        self.loss = loss
        self.weight = weight
        self.teacher_references = teacher_references

    @property
    def uses_attributes(self) -> bool:  # type: ignore[override]
        """Whether the other loss does."""
        return self.loss is not None and self.loss.uses_attributes

    @property
    def compares_photos(self) -> bool:  # type: ignore[override]
        """Whether the other loss does."""
        return self.loss is not None and self.loss.compares_photos

    @property
    def needs_partners(self) -> bool:
        """Whether the other loss does, and has no references but the batch."""
        return self.loss is not None and self.loss.needs_partners and not self.teacher_references

    def class_vectors_rates(self) -> dict[str, float]:
        """Those of the other loss."""
        return {} if self.loss is None else self.loss.class_vectors_rates()

    def class_vectors_shapes(self, embedding_dim: int) -> dict[str, tuple[int, ...]]:
        """Those of the other loss."""
        return {} if self.loss is None else self.loss.class_vectors_shapes(embedding_dim)

    def terms(
        self, targets, outputs, memory: Remembered | None = None, class_vectors: Mapping | None = None
    ) -> dict[str, tf.Tensor]:
        """Returns the other loss's terms and `distillation` by name, each `[B]`, from dicts of targets and outputs."""
        labels, embeddings = entry_of("y_true", targets, "label"), entry_of("y_pred", outputs, "embedding")
        teacher = tf.stop_gradient(_teacher_of(targets, tf.convert_to_tensor(embeddings)))
        batch = batch_of_step(labels, embeddings, from_normalized=False)
        (own,), (everyone,) = gathered(pairwise.unit_rows(teacher))
        distances = 1.0 - tf.reduce_sum(batch.anchors * own, axis=1)
        distillation = self.weight * batch.loss_of_photos(distances) + flaw_of(everyone)
        if self.loss is None:
            return {"distillation": distillation}
        if self.teacher_references:
            memory = _joined(self._as_memory(batch, everyone, targets, outputs), memory)
        given = (targets, outputs) if self.loss.takes_dicts else (labels, embeddings)
        more: Any = {"class_vectors": class_vectors} if class_vectors else {}
        return {**self.loss.terms(*given, memory, **more), "distillation": distillation}

    def _as_memory(self, batch: Batch, teacher: tf.Tensor, targets, outputs) -> Remembered:
        """The teacher's vectors of the whole batch, as references without a gradient."""
        graded_by = self.graded_by(targets, outputs)
        attributes = None
        if graded_by is not None:
            _, (attributes,) = gathered(tf.stop_gradient(tf.cast(graded_by, tf.float32)))
        return Remembered(teacher, batch.reference_labels, attributes)

    def graded_by(self, targets, outputs) -> tf.Tensor | None:
        """What the other loss weights pairs by."""
        return None if self.loss is None else self.loss.graded_by(targets, outputs)

    def get_config(self) -> dict:
        """The constructor's arguments; the other loss as Keras describes it."""
        loss = None if self.loss is None else keras.saving.serialize_keras_object(self.loss)
        own = {"weight": self.weight, "teacher_references": self.teacher_references}
        return {"loss": loss, **own, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict) -> DistillationLoss:
        """Makes a loss from `get_config`."""
        loss = config["loss"]
        return cls(**{**config, "loss": None if loss is None else keras.saving.deserialize_keras_object(loss)})


def _joined(rows: Remembered, memory: Remembered | None) -> Remembered:
    """Rows that are all there, and behind them those of a memory."""
    if memory is None:
        return rows
    is_filled = None
    if memory.is_filled is not None:
        is_filled = tf.concat([tf.ones_like(rows.labels, tf.bool), memory.is_filled], axis=0)
    attributes = None
    if rows.attributes is not None:
        attributes = tf.concat([rows.attributes, memory.attributes], axis=0)
    embeddings = tf.concat([rows.embeddings, tf.cast(memory.embeddings, tf.float32)], axis=0)
    labels = tf.concat([rows.labels, tf.cast(memory.labels, rows.labels.dtype)], axis=0)
    return Remembered(embeddings, labels, attributes, is_filled)


def _teacher_of(targets, embeddings: tf.Tensor) -> tf.Tensor:
    if not isinstance(targets, Mapping) or "teacher" not in targets:
        received = f"a dict of {', '.join(sorted(targets))}" if isinstance(targets, Mapping) else "no dict"
        raise ValueError(
            f"`y_true` must be a dict with 'teacher', the teacher's vectors [batch, dim]. Received: y_true is "
            f"{received}. Make batches of (images, {{'label': [batch], 'teacher': [batch, dim]}}), e.g. with "
            "eet_tf.data.training_dataset(..., teacher=vectors)."
        )
    teacher = tf.cast(tf.convert_to_tensor(targets["teacher"]), tf.float32)
    if teacher.shape.rank != 2 or not teacher.shape.is_compatible_with(embeddings.shape):
        raise ValueError(
            f"`teacher` must have a vector for each embedding, of as many dimensions. Received: shape {teacher.shape} "
            f"for embeddings of shape {embeddings.shape}. Build the embedder with the teacher's embedding_dim."
        )
    return teacher


def _check_loss(loss, teacher_references: bool) -> None:
    if loss is not None:
        check_metric_loss(loss)
    if teacher_references and loss is None:
        raise ValueError(
            "`teacher_references` must be False without a loss, whose references they would be. Received: "
            "teacher_references=True, loss=None."
        )
