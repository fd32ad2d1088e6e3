"""Signs of a training that goes wrong, and what to change then: one line for each, once."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

COLLAPSED = 0.98  # mean cosine of a batch's photos, above which nothing tells products apart
EASY = 0.99  # share of photos without loss, above which a batch teaches next to nothing
MANY = 1000  # photos of an epoch; fewer may well be learned by heart
RISEN = 1.25  # loss of an epoch, as a multiple of the lowest before it


class Signs:
    """Keeps what a batch says of a training, as means over an epoch: how alike photos are, and how many have no loss.

    A part of `MetricLearner`, which makes it in the scope of its strategy.
    """

    def __init__(self):
        self.cosine = keras.metrics.Mean(name="mean_cosine")
        self.share_without_loss = keras.metrics.Mean(name="share_without_loss")

    def update(self, embeddings: tf.Tensor, terms: Mapping[str, tf.Tensor]) -> None:
        """Adds a batch: embeddings `[B, D]` of any length, and the terms of a loss, `[B]` each; none of a foreign one.

        A loss with a term `margin` also has others that never end; of these, the margin tells whether a photo has a
        negative that is too near.
        """
        vectors = tf.math.l2_normalize(tf.cast(tf.stop_gradient(embeddings), tf.float32), axis=-1)
        count = tf.cast(tf.shape(vectors)[0], tf.float32)
        pairs = tf.reduce_sum(tf.square(tf.reduce_sum(vectors, axis=0))) - count  # cosines of all with all others
        self.cosine.update_state(tf.math.divide_no_nan(pairs, count * (count - 1)), tf.cast(count > 1, tf.float32))
        if terms:
            of_photos = terms.get("margin", tf.add_n(list(terms.values())))
            self.share_without_loss.update_state(tf.cast(tf.equal(of_photos, 0), tf.float32))

    def read(self) -> dict[str, float]:
        """The means since the last call, of what there were batches, and `num_photos`; begins anew."""
        found = {"num_photos": float(tf.convert_to_tensor(self.share_without_loss.count))}
        for metric in (self.cosine, self.share_without_loss):
            if float(tf.convert_to_tensor(metric.count)) > 0:
                found[metric.name] = float(metric.result())
            metric.reset_state()
        return found


class TrainingAdvice(keras.callbacks.Callback):
    """Says what goes wrong with the training of a `MetricLearner`, and what to change: one line for each, once.

    `MetricLearner.fit` has one of its own, unless it is given another. After each epoch it looks at the batches of the
    epoch:

    - all photos look alike: the mean cosine between photos of a batch is above 0.98 after the first epoch, and either
      the loss has not fallen by a tenth or the cosine is less than half as far from 1 as in the first epoch;
    - the loss has risen to 1.25 times the lowest of an earlier epoch, without a memory of past batches, whose beginning
      raises it;
    - batches are too easy: of 99 % of photos the loss, or its term `margin`, is 0, in an epoch of 1,000 photos or more.

    The limits are this package's own choice. A loss that is no number ends `eet train`, and a batch without a positive
    pair is warned of in the first step.

    Args:
        say: takes the line; by default it becomes a warning.

    Example:

    >>> learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4)]))
    >>> learner.compile("sgd", TripletLoss(margin=0.0))
    >>> labels = np.arange(1000) % 8
    >>> callbacks = [TrainingAdvice(print)]
    >>> history = learner.fit(np.eye(8)[labels], labels, batch_size=50, callbacks=callbacks, verbose=0)
    100 % of the photos have no negative within the margin: batches are too easy to learn from. Put more products into \
a batch, draw batches from one category at a time, or raise the margin.
    """

    def __init__(self, say: Callable[[str], None] | None = None):
        super().__init__()
        self._say = say or (lambda line: warnings.warn(line, stacklevel=2))
        self._said: set[str] = set()
        self._losses: list[float] = []
        self._first_cosine = 0.0

    def on_train_begin(self, logs=None):
        """Forgets what was before."""
        self._losses = []
        self.model.signs.read()

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the epoch."""
        signs, loss, before = self.model.signs.read(), float((logs or {}).get("loss", 0.0)), self._losses
        cosine, without_loss = signs.get("mean_cosine", 0.0), signs.get("share_without_loss", 0.0)
        lowest = min(before, default=loss)
        if not before:
            self._first_cosine = cosine
        nearer = 1 - cosine < 0.5 * (1 - self._first_cosine)
        if before and cosine > COLLAPSED and (nearer or loss > 0.9 * before[0]):
            self._once(
                "collapse",
                f"All photos look alike to the embedder: the mean cosine between photos of a batch is {cosine:.3f}, "
                f"and the loss is {loss:.3g}, {before[0]:.3g} at first. Lower the learning rate to a third, or warm it "
                "up over the first 100 steps, or begin with semi-hard negatives or another loss than one of the "
                "hardest triplets.",
            )
        elif self.model.memory is None and loss > RISEN * lowest > 0:
            self._once(
                "rise",
                f"The loss has risen from {lowest:.3g} to {loss:.3g}: the learning rate is probably too high. Lower it "
                "to a third, or warm it up over the first 100 steps.",
            )
        elif without_loss >= EASY and signs["num_photos"] >= MANY:
            self._once(
                "easy",
                f"{100 * without_loss:.0f} % of the photos have no negative within the margin: batches are too easy to "
                "learn from. Put more products into a batch, draw batches from one category at a time, or raise the "
                "margin.",
            )
        self._losses.append(loss)

    def _once(self, kind: str, line: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._say(line)


def advised(fit: Callable) -> Callable:
    """A method `fit` with a `TrainingAdvice` among its callbacks, unless it is given one."""
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def _with_advice(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs)
        callbacks = given.arguments.get("callbacks")
        if callbacks is None or isinstance(callbacks, (list, tuple, keras.callbacks.Callback)):
            callbacks = tf.nest.flatten([] if callbacks is None else callbacks)
            if not any(isinstance(each, TrainingAdvice) for each in callbacks):
                callbacks = [*callbacks, TrainingAdvice()]
            given.arguments["callbacks"] = callbacks
        return fit(*given.args, **given.kwargs)

    return _with_advice
