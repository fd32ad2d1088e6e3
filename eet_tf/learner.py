"""The training step: embeds a batch, takes the losses term by term, and updates the embedder."""

from __future__ import annotations

import contextlib
import math
import re
import types
import warnings
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from eet_tf import compat, compilation, plans, replicas
from eet_tf.losses.base import MetricLoss, Remembered, entry_of
from eet_tf.memory import CrossBatchMemory


class MetricLearner(keras.Model):
    """Trains an embedder with a metric loss, and its attribute head with another, and logs each of their terms.

    It wraps the embedder and owns nothing else: after training, save or export `learner.embedder`. Any Keras loss of
    labels and embeddings works; one of this package is also logged term by term. A batch is `(images, labels)`, or
    `(images, {"label": labels, "attributes": attributes})`, of which each loss gets what it takes.

    Args:
        embedder: a model from images to embeddings `[B, D]`, or to a dict `{"embedding": [B, D], "attributes":
            [B, A] logits}`, as `build_embedder` makes it.
        memory_size: how many photos of past batches the anchors of a batch meet besides those of the batch, default
            none. Their embeddings are those of the step that saw them; positives and negatives are taken from them
            too, and get no gradient. Much larger than a batch, it gives small batches the choice of large ones, while
            the embedder changes slowly. It needs a loss of this package.
        memory_start: after how many steps the memory is used, default 1,000. [arXiv 1912.06798]

    Attributes:
        memory: the `CrossBatchMemory`, a part of the model's state, or None.

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

    train_function: Callable | None  # of keras.Model

    def __init__(
        self, embedder: keras.Model, memory_size: int = 0, memory_start: int = 1000, name: str = "metric_learner"
    ):
        super().__init__(name=name)
        self.embedder = embedder
        if memory_size < 0:
            raise ValueError(f"`memory_size` must be 0 or more. Received: memory_size={memory_size}.")
        self.memory = _make_memory(memory_size, memory_start, embedder) if memory_size else None
        self._total = keras.metrics.Mean(name="loss")
        # not an attribute of its own, which Keras would lock once the model is built: it may be compiled again
        self._logged = types.SimpleNamespace(means={}, images=None)

    def compile(
        self,
        optimizer="adam",
        loss=None,
        attribute_loss=None,
        attribute_weight: float = 1.0,
        microbatch: int | None = None,
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
            microbatch: how many photos of a replica's batch, of which it must be a divisor, go through the network at
                a time; None: all. The update is that of the whole batch, to rounding: all are embedded, the loss says
                where each embedding should move, and then each piece goes through again, forward and backward. So a
                step takes the activations of one piece, and about 4/3 of the time. Batch normalisation that is not
                frozen normalises each piece by itself and moves its statistics once for each piece. Under Keras 2
                dropout draws anew the second time.
            jit_compile: whether XLA compiles the step: True, False, or `"auto"`, which is with GPUs but not with CPUs
                alone. Under a strategy Keras compiles nothing; here the network and the loss are compiled within each
                replica. The update is the same to rounding. A network that XLA cannot compile is trained without it,
                and a warning names the layer.

        Raises:
            ValueError: if a loss is no Keras loss or does not average over the batch, or if it uses attributes and
                the embedder has no attribute head, or `microbatch` is not a number of photos, or there is a memory
                and the loss is not one of this package, or `jit_compile` is none of these.
        """
        if microbatch is not None and microbatch < 1:
            raise ValueError(f"`microbatch` must be at least 1, or None. Received: microbatch={microbatch}.")
        _check_loss("loss", loss, "EETLoss")
        if attribute_loss is not None:
            _check_loss("attribute_loss", attribute_loss, "AttributeLoss")
            _check_attribute_head("attribute_loss", attribute_loss, self.embedder)
        if attribute_weight < 0:
            raise ValueError(f"`attribute_weight` must be 0 or more. Received: attribute_weight={attribute_weight}.")
        is_ours = isinstance(loss, MetricLoss)
        if is_ours and loss.uses_attributes:
            _check_attribute_head("loss", loss, self.embedder)
        if self.memory is not None and not is_ours:
            raise ValueError(
                f"`loss` must be a loss of this package where `memory_size` is given, e.g. eet_tf.EETLoss(): others "
                f"know no references but the batch. Received: loss={loss!r}."
            )
        if jit_compile not in (True, False, "auto"):
            raise ValueError(f"`jit_compile` must be True, False or 'auto'. Received: jit_compile={jit_compile!r}.")
        compiles = self._can_compile() if jit_compile is True or (jit_compile and plans.has_gpu()) else False
        with self.distribute_strategy.scope():  # that of the learner, whoever compiles it
            has_strategy = tf.distribute.has_strategy()
        super().compile(optimizer=optimizer, jit_compile=compiles and not has_strategy)
        self._compiles_parts = compiles and has_strategy
        shape = compilation.input_shape(self.embedder)
        if self._compiles_parts and not self.built and shape is not None:
            self.build(shape)  # as a call would
        self._metric_loss = loss
        self._attribute_loss = attribute_loss
        self._attribute_weight = attribute_weight
        self._microbatch = microbatch
        names = [
            *(_names_of_terms(loss, self.embedder) if is_ours else ()),
            *(["attributes"] if attribute_loss else ()),
        ]
        self._logged.means = {name: keras.metrics.Mean(name=name) for name in names}

    def _can_compile(self) -> bool:
        """Whether XLA takes the network; warns if not."""
        reason = compilation.refusal(self.embedder)
        if reason is not None:
            warnings.warn(f"XLA cannot compile the network, so it is trained without: {reason}.", stacklevel=3)
        return reason is None

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss and its terms, as running means over an epoch."""
        return [self._total, *self._logged.means.values()]

    def call(self, images, training=None):
        """Images -> embeddings, or the dict of both heads."""
        return self.embedder(images, training=training)

    @property
    def images_shape(self) -> tf.TensorShape | None:
        """The shape of the images that a replica got in the last step, as far as it was known; None before it."""
        return self._logged.images

    @contextlib.contextmanager
    def averaged(self):
        """Within this the embedder has the running averages of its weights, if the optimizer has `use_ema=True`.

        `RetrievalEvaluation` measures them, and a training run saves them.

        Example:

        >>> learner = MetricLearner(keras.Sequential([keras.Input([8]), keras.layers.Dense(4)]))
        >>> learner.compile(keras.optimizers.Adam(use_ema=True, ema_momentum=0.99), EETLoss())
        >>> history = learner.fit(np.eye(8, dtype="float32"), np.array([0, 0, 1, 1, 2, 2, 3, 3]), verbose=0)
        >>> with learner.averaged():
        ...     embeddings = learner.embedder(np.eye(8, dtype="float32"))
        """
        averages = compat.weight_averages(self.optimizer)
        variables = self.embedder.trainable_variables if averages else []
        before = [tf.identity(variable) for variable in variables]
        for variable, average in zip(variables, averages):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(variables, before):
                variable.assign(value)

    def make_train_function(self, force=False):
        """As in Keras; a batch that does not fit into the memory of a device is named as such.

        Raises:
            MemoryError: in the step.
        """
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._with_memory_named(self.train_function)
        return self.train_function

    def _with_memory_named(self, function):
        def step(*args):
            try:
                return function(*args)
            except tf.errors.ResourceExhaustedError as error:
                raise MemoryError(out_of_memory(error, self._logged.images)) from None

        return step

    def train_step(self, data):
        """One update from a batch; returns the running means of the loss and its terms."""
        images, targets = _images_and_targets(data)
        self._logged.images = images.shape
        if self._compiles_parts:
            network = compilation.compiled_training_call(self.embedder)
        else:
            network = self._training_call
        with plans.compiling_parts(self._compiles_parts):
            if self._microbatch is None:
                gradients = self._gradients(network, images, targets)
            else:
                gradients = self._gradients_in_pieces(network, images, targets, self._microbatch)
        # only now: a model without a shape of its images has its weights since its first call
        variables = self.embedder.trainable_variables
        compat.apply_gradients(self.optimizer, self._as_of_one_replica(gradients), variables)
        return {metric.name: metric.result() for metric in self.metrics}

    def _training_call(self, images):
        """The outputs, and the losses of the layers."""
        return self(images, training=True), list(self.embedder.losses)

    def _gradients(self, network, images, targets) -> list[tf.Tensor | None]:
        with tf.GradientTape() as tape:
            outputs, regularization = _with_a_photo(network)(images)
            loss = self._scaled(self._training_loss(targets, outputs) + _sum(regularization))
        return tape.gradient(loss, self.embedder.trainable_variables)

    def _gradients_in_pieces(self, network, images, targets, microbatch: int) -> list[tf.Tensor | None]:
        """The gradient of the whole batch's loss, of which only `microbatch` photos at a time are in the network."""
        pieces = _in_pieces(images, microbatch)
        num_pieces = tf.shape(pieces)[0]
        state = [tf.identity(variable) for variable in compat.raw_state(self.embedder)]
        outputs = self._embedded_in_pieces(network, pieces)
        for variable, before in zip(compat.raw_state(self.embedder), state):
            variable.assign(before)  # so that statistics and dropout are as if the photos had gone through once
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = self._scaled(self._training_loss(targets, outputs))
        slopes = tape.gradient(loss, tf.nest.flatten(outputs))  # None for a head that no loss looks at
        slopes = [None if slope is None else _in_pieces(slope, microbatch) for slope in slopes]
        variables = self.embedder.trainable_variables
        is_reached = [False] * len(variables)

        def one_piece(number, sums):
            with tf.GradientTape() as tape:
                outputs, regularization = network(tf.gather(pieces, number))
                heads = zip(tf.nest.flatten(outputs), slopes)
                aims = [
                    tf.cast(head, tf.float32) * tf.gather(slope, number) for head, slope in heads if slope is not None
                ]
                aim = tf.add_n([tf.reduce_sum(each) for each in aims])
                aim += self._scaled(_sum(regularization)) / tf.cast(num_pieces, tf.float32)
            gradients = tape.gradient(aim, variables)
            for place, gradient in enumerate(gradients):
                is_reached[place] |= gradient is not None
            return number + 1, [total if g is None else total + g for total, g in zip(sums, gradients)]

        nothing = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        _, sums = tf.while_loop(lambda number, _: number < num_pieces, one_piece, (0, nothing), parallel_iterations=1)
        return [total if reached else None for total, reached in zip(sums, is_reached)]

    def _embedded_in_pieces(self, network, pieces: tf.Tensor):
        """All outputs in float32, from `[N, M, ...]`, with nothing kept for a gradient."""
        shapes = compat.output_shape(self.embedder)
        signature = {name: tf.float32 for name in shapes} if isinstance(shapes, Mapping) else tf.float32
        outputs = tf.map_fn(
            lambda piece: tf.nest.map_structure(lambda out: tf.cast(out, tf.float32), network(piece)[0]),
            pieces,
            parallel_iterations=1,
            fn_output_signature=signature,
        )
        return tf.nest.map_structure(lambda rows: tf.reshape(rows, [-1, rows.shape[-1]]), outputs)

    def _as_of_one_replica(self, gradients: list) -> list:
        """What is clipped or tested for overflow becomes the gradient of the whole batch.

        Keras clips and tests what each replica has, and then sums: a longer or a shorter step, and replicas that wait
        for one that has left out its own. So the sum is taken here first, and shared out equally.
        """
        count, limit = replicas.num_replicas(), compat.global_clipnorm(self.optimizer)
        scale = compat.scale_loss(self.optimizer, tf.ones([]))
        if count == 1 or (limit is None and not compat.scales_loss(self.optimizer)):
            return gradients
        sums = [None if each is None else replicas.sum_over(tf.convert_to_tensor(each)) for each in gradients]
        if limit is not None:
            norm = tf.linalg.global_norm([each for each in sums if each is not None])
            shorter = limit * scale / tf.maximum(norm, limit * scale)
            sums = [None if each is None else each * shorter for each in sums]
        return [None if each is None else each / count for each in sums]

    def _scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """This replica's share of the loss, times the loss scale where mixed float16 needs one."""
        return compat.scale_loss(self.optimizer, loss / replicas.num_replicas())

    def test_step(self, data):
        """The loss and its terms on a batch, without an update."""
        images, targets = _images_and_targets(data)
        outputs, _ = _with_a_photo(lambda images: (self(images, training=False), []))(images)
        self._observed_loss(targets, outputs)
        return {metric.name: metric.result() for metric in self.metrics}

    def _training_loss(self, targets, outputs) -> tf.Tensor:
        """As `_observed_loss`, with and then into the memory, if there is one."""
        if self.memory is None:
            return self._observed_loss(targets, outputs)
        targets, outputs = _as_mappings(targets, outputs)
        loss = self._observed_loss(targets, outputs, self.memory.rows())
        self.memory.add(outputs["embedding"], targets["label"], self._metric_loss.graded_by(targets, outputs))
        return loss

    def _observed_loss(self, targets, outputs, memory: Remembered | None = None) -> tf.Tensor:
        """This replica's mean loss; adds the terms to the running means."""
        targets, outputs = _as_mappings(targets, outputs)
        per_anchor, terms = self._metric_terms(targets, outputs, memory)
        if self._attribute_loss is not None:
            attributes, logits = entry_of("y_true", targets, "attributes"), entry_of("y_pred", outputs, "attributes")
            terms["attributes"] = self._attribute_weight * self._attribute_loss.call(attributes, logits)
            per_anchor += terms["attributes"]
        self._total.update_state(per_anchor)
        for name, values in terms.items():
            self._logged.means[name].update_state(values)
        mean = tf.math.divide_no_nan(tf.reduce_sum(per_anchor), tf.cast(tf.size(per_anchor), tf.float32))
        return mean * replicas.share_of(tf.size(per_anchor))  # of the whole batch, however replicas share it

    def _metric_terms(
        self, targets: Mapping, outputs: Mapping, memory: Remembered | None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of each anchor, all the mean where the loss is not one of this package, and the terms by name."""
        labels, embeddings = entry_of("y_true", targets, "label"), entry_of("y_pred", outputs, "embedding")
        if not isinstance(self._metric_loss, MetricLoss):
            mean = compat.mean_loss(self._metric_loss, labels, embeddings, replicas.num_replicas())
            return tf.fill(tf.shape(embeddings)[:1], tf.cast(mean, tf.float32)), {}
        if self._metric_loss.uses_attributes:
            terms = self._metric_loss.terms(targets, outputs, memory)
        else:
            terms = self._metric_loss.terms(labels, embeddings, memory)
        return tf.add_n(list(terms.values())), terms


def out_of_memory(error: tf.errors.ResourceExhaustedError, images: tf.TensorShape | None) -> str:
    """What to say of a step that found too little memory: the batch, the bytes that were missing, and the mend.

    Args:
        error: what TensorFlow or XLA says.
        images: the shape of the images of one replica's batch, as far as it is known.
    """
    shape = list(images) if images is not None and images.rank else []
    photos = f" of {shape[0]:,} photos" if shape and shape[0] else ""
    size = f" of {' x '.join(str(each) for each in shape[1:])}" if shape and None not in shape[1:] else ""
    needed = _bytes_asked_for(str(error))
    return (
        f"A batch{photos}{size} on each device does not fit into its memory"
        f"{f': {needed:,} bytes more could not be had' if needed else ''}. Let fewer photos pass the network at a time "
        "with microbatch (train/main.py: --microbatch=N), whose update is the same, or make the batch smaller."
    )


def _bytes_asked_for(text: str) -> int | None:
    """How much an allocator was asked for: XLA says bytes, TensorFlow the shape and type of a tensor."""
    found = re.search(r"allocate (\d+) ?bytes", text)
    if found:
        return int(found[1])
    found = re.search(r"allocating tensor with shape\[([\d,]*)\] and type (\w+)", text)
    if not found:
        return None
    kinds = {"float": 4, "half": 2, "bfloat16": 2, "double": 8, "int32": 4, "int64": 8, "uint8": 1, "bool": 1}
    return math.prod(int(each) for each in found[1].split(",") if each) * kinds.get(found[2], 4)


def _sum(losses: list[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.zeros([]), *losses])


def _make_memory(size: int, start: int, embedder: keras.Model) -> CrossBatchMemory:
    shapes = compat.output_shape(embedder)
    shapes = shapes if isinstance(shapes, Mapping) else {"embedding": shapes}
    num_attributes = shapes["attributes"][-1] if "attributes" in shapes else 0
    return CrossBatchMemory(size, shapes["embedding"][-1], num_attributes, start)


def _as_mappings(targets, outputs) -> tuple[Mapping, Mapping]:
    """Both as dicts of heads."""
    targets = targets if isinstance(targets, Mapping) else {"label": targets}
    outputs = outputs if isinstance(outputs, Mapping) else {"embedding": outputs}
    return targets, outputs


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


def _in_pieces(rows: tf.Tensor, microbatch: int) -> tf.Tensor:
    """`[B, ...]` -> `[B / microbatch, microbatch, ...]`.

    Raises:
        ValueError: if B is known and `microbatch` does not divide it.
    """
    if rows.shape[0] is not None and rows.shape[0] % microbatch:
        raise ValueError(
            f"`microbatch` must divide the {rows.shape[0]} photos of a replica's batch. Received: "
            f"microbatch={microbatch}."
        )
    return tf.reshape(rows, tf.concat([[-1, microbatch], tf.shape(rows)[1:]], axis=0))


def _images_and_targets(data):
    """The two parts of a batch; `train_on_batch` and `test_on_batch` of Keras 3 add a third, None."""
    if not isinstance(data, tuple) or len(data) < 2 or any(part is not None for part in data[2:]):
        raise ValueError("`fit` must be given batches of (images, labels), without sample weights.")
    return data[:2]


def _names_of_terms(loss: MetricLoss, embedder: keras.Model) -> tuple[str, ...]:
    """The names that `loss.terms` returns, of an embedder that may have no shape before its first call."""
    if compilation.input_shape(embedder) is None:
        return loss.term_names
    shapes = compat.output_shape(embedder)
    shapes = shapes if isinstance(shapes, Mapping) else {"embedding": shapes}
    return loss.names_of_terms(shapes["embedding"][-1], shapes["attributes"][-1] if "attributes" in shapes else 0)


def _with_a_photo(network: Callable) -> Callable:
    """A network that takes an image of zeros where a replica has no photo, and forgets what comes of it.

    Convolutions on CPUs fail without an image, and the statistics of batch normalisation become NaN.

    Args:
        network: images -> (outputs, losses of the layers).
    """

    def call(images):
        if images.shape[0] or replicas.num_replicas() == 1:
            return network(images)
        count = tf.shape(images)[0]
        nothing = tf.zeros(tf.concat([[1], tf.shape(images)[1:]], axis=0), images.dtype)
        shown = tf.cond(count > 0, lambda: images, lambda: nothing)
        outputs, losses = network(tf.ensure_shape(shown, images.shape))
        return tf.nest.map_structure(lambda rows: rows[:count], outputs), losses

    return call
