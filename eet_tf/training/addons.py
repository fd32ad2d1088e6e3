"""Losses and optimizers of TensorFlow Addons, for trainings that began with them; TensorFlow 2.15 alone has them.

TensorFlow Addons ended in May 2024 and works with Keras 2 only. What replaces each of its names is in
docs/from_tensorflow_addons.md.
"""

from __future__ import annotations

import warnings

import keras
import tensorflow as tf

from eet_tf import compat
from eet_tf.losses.base import BatchLoss
from eet_tf.losses.batch import make_batch
from eet_tf.losses.checks import check_choice
from eet_tf.pairs import mining, pairwise

# Each loss, and the flags of `eet train` that come nearest without Addons
LOSSES = {
    "tfa_triplet_semihard": "--loss=triplet --positives=all --negatives=semi_hard, which is the same loss",
    "tfa_triplet_hard": "--loss=triplet, which is the same loss",
    "tfa_lifted": "--loss=triplet --positives=all --negatives=all, which also weighs all pairs",
    "tfa_npairs": "--loss=binomial_deviance, which also weighs all pairs",
    "tfa_contrastive": "--loss=binomial_deviance, which also parts all pairs by a threshold",
}
# Each optimizer: its class, whether it takes a weight decay, what else it is given, and the flags that come nearest
OPTIMIZERS = {
    "tfa_adabelief": ("AdaBelief", True, {}, "--optimizer=adam"),
    "tfa_adamw": ("AdamW", True, {}, "--optimizer=adamw, with --weight_decay divided by the learning rate"),
    "tfa_lamb": ("LAMB", True, {}, "--optimizer=adamw, or keras.optimizers.Lamb in code of your own"),
    "tfa_lazyadam": ("LazyAdam", False, {}, "--optimizer=adam, which is the same for dense gradients"),
    "tfa_novograd": ("NovoGrad", True, {}, "--optimizer=adam"),
    "tfa_radam": ("RectifiedAdam", True, {}, "--optimizer=adam --warmup_steps=1000, to the same end"),
    "tfa_sgdw": (
        "SGDW",
        True,
        {"momentum": 0.9, "nesterov": True},
        "--optimizer=sgd, with --weight_decay divided by the learning rate",
    ),
    "tfa_yogi": ("Yogi", False, {}, "--optimizer=adam"),
}
_DISTANCES = {"euclidean": "L2", "squared": "squared-L2", "cosine": "angular"}


def check_available(flag: str, name: str) -> None:
    """Refuses a name of Addons where Addons is not, before anything takes long.

    Args:
        flag: `"loss"` or `"optimizer"`, for the message.
        name: one of `LOSSES` or of `OPTIMIZERS`; any other name is let through.

    Raises:
        ValueError: if it is one of Addons and Addons cannot be imported; it says what to install, and what to use
            instead.

    Example:

    >>> check_available("loss", "triplet")
    """
    if name not in LOSSES and name not in OPTIMIZERS:
        return
    try:
        _addons()
    except ImportError as error:
        instead = LOSSES[name] if name in LOSSES else OPTIMIZERS[name][-1]
        raise ValueError(
            f"`{flag}` must not be one of tensorflow-addons here: {error}. Received: {flag}={name}. Run this in an "
            "environment of its own, Python 3.10 or 3.11, with pip install 'eet-tf[addons]' (TensorFlow 2.15). Or "
            f"take {instead}."
        ) from error


def _addons():
    """The package `tensorflow_addons`, which on import announces the end of its life and doubts TensorFlow 2.15.

    Raises:
        ImportError: if it is not installed, or Keras is not 2.
    """
    if not compat.KERAS_2:
        raise ImportError(f"it needs Keras 2, and this is Keras {keras.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons

        return tensorflow_addons


@keras.saving.register_keras_serializable(package="eet_tf")
class AddonsLoss(BatchLoss):
    """A loss of TensorFlow Addons, fed with labels `[B]` and embeddings `[B, D]` as the losses of this package are.

    | `kind` | of Addons | what it is given |
    |---|---|---|
    | `"tfa_triplet_semihard"` | `TripletSemiHardLoss` | labels and embeddings |
    | `"tfa_triplet_hard"` | `TripletHardLoss` | labels and embeddings |
    | `"tfa_lifted"` | `LiftedStructLoss` | labels and embeddings |
    | `"tfa_npairs"` | `NpairsLoss` | inner products of photos at even places with those at odd places |
    | `"tfa_contrastive"` | `ContrastiveLoss` | the Euclidean distance of every two photos |

    - Embeddings are taken as they are; those of `build_embedder` have length 1. Addons made its lifted and its n-pairs
      loss for vectors of any length: with length 1 the logits of n-pairs lie between -1 and 1, and its loss far from 0.
    - N-pairs needs batches of pairs: each photo at an even place is followed by one of its class. `PKSampler` with an
      even `examples_per_class` makes them. Where more than one pair is of a class, they share the target.
    - Addons returns one number for a batch. Here each anchor gets that number, and a strategy's replicas each
      calculate it for the whole batch: one update, however many replicas. By itself, Addons mines within each
      replica's slice, and Keras adds up the replicas' updates: on two, twice the update of one.

    Args:
        kind: one of `LOSSES`.
        margin: default 1.0, that of Addons; n-pairs has none. In `eet train` it is `--margin`, default 0.3.
        distance: of triplets, as in `TripletLoss`: `"euclidean"` (Addons' `"L2"`, its default), `"squared"` or
            `"cosine"` (`"angular"`).
        soft_margin: of `"tfa_triplet_hard"` alone, as in `TripletLoss`.
        reduction: as in every Keras loss.
        name: name of the loss.
        dtype: as in every Keras loss; the arithmetic is float32 whatever it is.

    Raises:
        ValueError: for an unknown kind or distance, a distance or a soft margin where the kind has none; shapes that
            are not `[B]` and `[B, D]`; n-pairs of an odd number of photos.
        ImportError: if tensorflow-addons cannot be imported.
        tf.errors.InvalidArgumentError: if the photos of n-pairs are not in pairs.

    Example:

    >>> loss = AddonsLoss("tfa_triplet_hard", margin=0.3)
    >>> x = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    >>> round(float(loss([0, 0, 1, 1], x)), 4)  # nearest positive and nearest negative at the same distance
    0.3
    """

    def __init__(
        self,
        kind: str,
        margin: float = 1.0,
        distance: str = "euclidean",
        soft_margin: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "addons_loss",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        check_choice("kind", kind, tuple(LOSSES))
        check_choice("distance", distance, pairwise.DISTANCES)
        if distance != "euclidean" and not kind.startswith("tfa_triplet"):
            raise ValueError(f"`distance` must be 'euclidean' for {kind}. Received: distance={distance!r}.")
        if soft_margin and kind != "tfa_triplet_hard":
            raise ValueError(f"`soft_margin` must be False for {kind}: Addons has none. Received: soft_margin=True.")
        self._losses = _addons().losses
        self.kind = kind
        self.margin = margin
        self.distance = distance
        self.soft_margin = soft_margin

    def call(self, y_true, y_pred) -> tf.Tensor:
        """Labels `[B]` or `[B, 1]`, embeddings `[B, D]` -> `[B]`, the loss of the whole batch again and again."""
        batch = make_batch(y_true, y_pred, from_normalized=True)
        labels = mining.find_classes(batch.reference_labels).of_row  # Addons compares some labels as float32
        references = batch.references
        if tf.convert_to_tensor(y_pred).shape[0] == 0:  # the row that stands for no photo is none of a pair
            labels, references = tf.repeat(labels, 2, axis=0), tf.repeat(references, 2, axis=0)
        value = {
            "tfa_triplet_semihard": self._triplets,
            "tfa_triplet_hard": self._triplets,
            "tfa_lifted": self._lifted,
            "tfa_npairs": self._npairs,
            "tfa_contrastive": self._contrastive,
        }[self.kind](labels, references)
        return batch.of_photos(tf.fill(tf.shape(batch.anchor_labels), value + batch.flaw))

    def _triplets(self, labels, embeddings):
        metric = _DISTANCES[self.distance]
        if self.kind == "tfa_triplet_hard":
            return self._losses.triplet_hard_loss(labels, embeddings, self.margin, self.soft_margin, metric)
        return self._losses.triplet_semihard_loss(labels, embeddings, self.margin, metric)

    def _lifted(self, labels, embeddings):
        return self._losses.lifted_struct_loss(labels, embeddings, self.margin)

    def _npairs(self, labels, embeddings):
        if labels.shape[0] is not None and labels.shape[0] % 2:
            raise ValueError(f"`y_true` must be labels of pairs for tfa_npairs. Received: {labels.shape[0]} labels.")
        tf.debugging.assert_equal(
            labels[0::2], labels[1::2], "tfa_npairs needs each photo at an even place followed by one of its class"
        )
        products = tf.matmul(embeddings[0::2], embeddings[1::2], transpose_b=True)
        return self._losses.npairs_loss(labels[0::2], products)

    def _contrastive(self, labels, embeddings):
        distances = self._losses.metric_learning.pairwise_distance(embeddings)
        rows = tf.range(tf.size(labels))
        is_pair = rows[:, tf.newaxis] < rows[tf.newaxis, :]
        is_same = tf.equal(labels[:, tf.newaxis], labels[tf.newaxis, :])
        # of all, and then those that count: how many a mask picks is known only at run time, which XLA does not take
        each = self._losses.contrastive_loss(tf.reshape(is_same, [-1]), tf.reshape(distances, [-1]), self.margin)
        is_pair = tf.reshape(is_pair, [-1])
        count = tf.reduce_sum(tf.cast(is_pair, tf.float32))
        return tf.math.divide_no_nan(tf.reduce_sum(tf.where(is_pair, each, 0.0)), count)  # one photo makes no pair

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {
            "kind": self.kind,
            "margin": self.margin,
            "distance": self.distance,
            "soft_margin": self.soft_margin,
        }
        return {**own, **super().get_config()}


def make_optimizer(name: str, learning_rate, weight_decay: float = 0.0, global_clipnorm: float | None = None):
    """An optimizer of TensorFlow Addons, with what `eet train` sets.

    - `weight_decay` of AdamW and SGDW is the share of a weight taken off in each step. Keras multiplies its own by the
      learning rate first: `keras.optimizers.AdamW(rate, weight_decay=decay / rate)` is the same at a constant rate.
    - They have no running average of the weights (`use_ema`); it is `tfa.optimizers.MovingAverage` around them.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: a number or a Keras schedule.
        weight_decay: in the optimizer's own sense. LazyAdam and Yogi have none.
        global_clipnorm: as in every Keras optimizer.

    Raises:
        ValueError: for an unknown name, or a weight decay where there is none.
        ImportError: if tensorflow-addons cannot be imported.

    Example:

    >>> make_optimizer("tfa_lamb", 1e-3, weight_decay=1e-2).get_config()["weight_decay"]
    0.01
    """
    check_choice("name", name, tuple(OPTIMIZERS))
    optimizer, takes_decay, arguments, _ = OPTIMIZERS[name]
    if takes_decay:
        arguments = {**arguments, "weight_decay": weight_decay}
    elif weight_decay:
        raise ValueError(f"`weight_decay` must be 0 for {name}. Received: weight_decay={weight_decay}.")
    return getattr(_addons().optimizers, optimizer)(
        learning_rate=learning_rate, global_clipnorm=global_clipnorm, **arguments
    )
