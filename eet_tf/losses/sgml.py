"""SGML: attributes, learnt beside the embedding, say how much each pair of a binomial deviance has to teach."""

from __future__ import annotations

import keras
import tensorflow as tf

from eet_tf.losses.attributes import values_and_known
from eet_tf.losses.batch import Remembered, flaw_of, gathered, make_batch
from eet_tf.losses.binomial import DevianceLoss, deviance_terms
from eet_tf.losses.checks import check_choice, entry_of
from eet_tf.pairs import precision

_WEIGHTINGS = ("informativeness", "preserving")
_GRANULARITIES = ("labels", "predictions")


def semantic_granularity(attributes, reference_attributes) -> tf.Tensor:
    """How alike photos are in their attributes: g, the cosine over those known of both, in [0, 1].

    Args:
        attributes: `[R, A]` in {1, 0, -1 = unknown}, or probabilities.
        reference_attributes: `[B, A]`, likewise.

    Returns:
        `[R, B]` float32; 0 where one of the two has nothing among what is known of both.

    Example:

    >>> g = semantic_granularity([[1.0, 1.0, 0.0]], [[1.0, 0.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> np.round(g, 4)  # 1 / sqrt(2); the second attribute is not known of the second photo; nothing in common
    array([[0.7071, 1.    , 0.    ]], dtype=float32)
    """
    values, known = values_and_known(attributes)
    reference_values, reference_known = values_and_known(reference_attributes)
    alike = precision.matmul(values, reference_values, transpose_b=True)
    # squared lengths, each over what the other one knows
    lengths = precision.matmul(tf.square(values), reference_known, transpose_b=True)
    reference_lengths = precision.matmul(known, tf.square(reference_values), transpose_b=True)
    return tf.minimum(tf.math.divide_no_nan(alike, tf.sqrt(lengths * reference_lengths)), 1.0)


def _pair_weights(granularity: tf.Tensor, weighting: str, preserved_share: float) -> tuple:
    """The weights of positive and of negative pairs, not yet brought to mean 1."""
    if weighting == "informativeness":
        return 2.0 - granularity, 1.0 + granularity
    return 1.0, 1.0 - preserved_share * granularity


def soft_binomial_deviance_terms(
    labels,
    embeddings,
    attributes,
    *,
    alpha: float = 2.0,
    beta: float = 0.5,
    negative_cost: float = 25.0,
    weighting: str = "informativeness",
    preserved_share: float = 0.5,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> dict[str, tf.Tensor]:
    """The terms of `SoftBinomialDevianceLoss` by name, each `[B]`; `attributes` as in `soft_binomial_deviance`."""
    _check_weights(weighting, preserved_share)
    embeddings, attributes = tf.convert_to_tensor(embeddings), tf.convert_to_tensor(attributes)
    batch = make_batch(labels, embeddings, from_normalized, memory)
    if attributes.shape.rank != 2 or not attributes.shape[:1].is_compatible_with(embeddings.shape[:1]):
        raise ValueError(
            "`attributes` must have the shape [batch, num_attributes], a row for each embedding. "
            f"Received: shape {attributes.shape} for {embeddings.shape[0]} embeddings."
        )
    (attributes,), (reference_attributes,) = gathered(tf.stop_gradient(tf.cast(attributes, tf.float32)))
    if memory is not None:
        if memory.attributes is None:
            raise ValueError("`memory` must have attributes for a loss that weighs pairs by them. Received: None.")
        reference_attributes = tf.concat([reference_attributes, memory.attributes], axis=0)
    batch = batch._replace(flaw=batch.flaw + flaw_of(reference_attributes, batch.is_present))

    def weigh(attributes_of_block):
        granularity = semantic_granularity(attributes_of_block, reference_attributes)
        return _pair_weights(granularity, weighting, preserved_share)

    return deviance_terms(batch, weigh, [attributes], alpha=alpha, beta=beta, negative_cost=negative_cost)


def soft_binomial_deviance(
    labels,
    embeddings,
    attributes,
    *,
    alpha: float = 2.0,
    beta: float = 0.5,
    negative_cost: float = 25.0,
    weighting: str = "informativeness",
    preserved_share: float = 0.5,
    from_normalized: bool = False,
    memory: Remembered | None = None,
) -> tf.Tensor:
    """Soft binomial deviance of each anchor, whose mean is the formula's value; the maths as in the class.

    Args:
        labels: `[B]` or `[B, 1]` class numbers.
        embeddings: `[B, D]`.
        attributes: `[B, A]` what pairs are weighted by: the truth in {1, 0, -1 = unknown}, or probabilities. No
            gradient flows through them.
        alpha: as in `SoftBinomialDevianceLoss`.
        beta: as in `SoftBinomialDevianceLoss`.
        negative_cost: as in `SoftBinomialDevianceLoss`.
        weighting: as in `SoftBinomialDevianceLoss`.
        preserved_share: as in `SoftBinomialDevianceLoss`.
        from_normalized: whether the embeddings already have unit length.
        memory: photos of past batches that anchors also make pairs with; with attributes.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: as `SoftBinomialDevianceLoss`, or if `attributes` is not `[B, A]`.

    Example:

    >>> embeddings, attributes = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [[1, 0], [1, -1], [0, 1]]
    >>> soft_binomial_deviance([0, 0, 1], embeddings, attributes).shape
    TensorShape([3])
    """
    terms = soft_binomial_deviance_terms(
        labels,
        embeddings,
        attributes,
        alpha=alpha,
        beta=beta,
        negative_cost=negative_cost,
        weighting=weighting,
        preserved_share=preserved_share,
        from_normalized=from_normalized,
        memory=memory,
    )
    return tf.add_n(list(terms.values()))


@keras.saving.register_keras_serializable(package="eet_tf")
class SoftBinomialDevianceLoss(DevianceLoss):
    """Computes the binomial deviance with pairs weighted by the similarity of their attributes.

    With s the cosine of two embeddings and g that of their attributes, over what is known of both photos:

    ```
    positive_pairs   mean over positive pairs of w+ * log(1 + exp(-alpha (s - beta)))
    negative_pairs   mean over negative pairs of w- * log(1 + exp(alpha * negative_cost * (s - beta)))
    loss             positive_pairs + negative_pairs

    informativeness  w+ = 2 - g   w- = 1 + g                     unlike positives and alike negatives teach most
    preserving       w+ = 1       w- = 1 - preserved_share * g   alike negatives are pushed less
    ```

    - w+ and w- are scaled to mean 1 over the positive (negative) pairs of the global batch; with equal weights it is
      `BinomialDevianceLoss`. Where all weights of a term are 0, or it has no pairs, it contributes exactly 0.
    - No gradient flows through g.
    - Where attributes belong to the product, g of the truth is 1 for every positive pair, and only predictions tell
      positives apart.
    - Everything `BinomialDevianceLoss` says of pairs, strategies and memory holds here.

    The loss needs two heads at once, so it takes dicts: `y_true = {"label": [B], "attributes": [B, A]}`, in
    {1, 0, -1 = unknown}, and `y_pred = {"embedding": [B, D], "attributes": [B, A]}`, logits. Keras's own `compile`
    gives a loss one output at a time; `MetricLearner` gives it both.

    Args:
        alpha: steepness, default 2. [base]
        beta: cosine at which pulling and pushing turn, default 0.5. [base]
        negative_cost: C, how much steeper negative pairs are, default 25. [base]
        weighting: `"informativeness"` or `"preserving"`. [ours]
        granularity: what g is taken from: `"labels"`, the attributes in `y_true`, or `"predictions"`, the sigmoid of
            those in `y_pred`. [ours]
        preserved_share: lambda of `"preserving"`, in [0, 1], default 0.5. [ours] 0 treats all negatives alike; 1
            leaves negatives with the same attributes where they are.
        from_normalized: whether the embedding already has unit length; otherwise it is normalised here.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: if an argument is out of its range, or what the loss is given are no such dicts.

    Example:

    >>> loss = SoftBinomialDevianceLoss()
    >>> y_true = {"label": [0, 0, 1], "attributes": [[1, 0], [1, -1], [0, 1]]}
    >>> y_pred = {"embedding": [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], "attributes": [[9.0, -9.0]] * 3}
    >>> round(float(loss(y_true, y_pred)), 4)  # the only positive pair, at s = 0: log(1 + exp(1))
    1.3133

    Reference: Manandhar, Bastan, Yap, "Semantic Granularity Metric Learning for Visual Search", arXiv 1911.06047. Its
        full text could not be had: the deviance is [base], the weights and g are reconstructed [ours].
    """

    uses_attributes = True

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 0.5,
        negative_cost: float = 25.0,
        weighting: str = "informativeness",
        granularity: str = "labels",
        preserved_share: float = 0.5,
        from_normalized: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "soft_binomial_deviance_loss",
        dtype=None,
    ):
        super().__init__(alpha, beta, negative_cost, from_normalized, reduction, name, dtype)
        _check_weights(weighting, preserved_share)
        check_choice("granularity", granularity, _GRANULARITIES)
        self.weighting = weighting
        self.granularity = granularity
        self.preserved_share = preserved_share

    def _arguments(self) -> dict:
        return {
            **super()._arguments(),
            "weighting": self.weighting,
            "preserved_share": self.preserved_share,
        }

    def terms(self, targets, outputs, memory: Remembered | None = None) -> dict[str, tf.Tensor]:
        """Both terms by name, each `[B]`, from the dicts of labels and of outputs."""
        labels, embeddings = entry_of("y_true", targets, "label"), entry_of("y_pred", outputs, "embedding")
        attributes = self.graded_by(targets, outputs)
        return soft_binomial_deviance_terms(labels, embeddings, attributes, **self._arguments(), memory=memory)

    def graded_by(self, targets, outputs) -> tf.Tensor:
        """Returns the attributes `[B, A]` that weight the pairs."""
        if self.granularity == "predictions":
            return tf.sigmoid(tf.cast(entry_of("y_pred", outputs, "attributes"), tf.float32))
        return entry_of("y_true", targets, "attributes")

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"granularity": self.granularity, **super().get_config()}


def _check_weights(weighting: str, preserved_share: float) -> None:
    check_choice("weighting", weighting, _WEIGHTINGS)
    if not 0 <= preserved_share <= 1:
        raise ValueError(f"`preserved_share` must be in [0, 1]. Received: preserved_share={preserved_share}.")
