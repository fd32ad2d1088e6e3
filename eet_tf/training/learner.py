"""The training step: embeds a batch, takes the losses term by term, and updates the embedder."""

from __future__ import annotations

import contextlib
import functools
import itertools
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from eet_tf import compat, plans, replicas
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Remembered, can_look, has_partner, warn_of_no_partner
from eet_tf.losses.checks import entry_of
from eet_tf.losses.combined import CombinedLoss
from eet_tf.losses.labels import class_numbers
from eet_tf.training import checks, compilation, pieces, statistics
from eet_tf.training.advice import Signs, advised
from eet_tf.training.batches import as_mappings, checked, images_and_targets, out_of_memory, with_a_photo
from eet_tf.training.class_vectors import ClassVectors
from eet_tf.training.keras_methods import of_datasets, of_the_embedder, to_a_keras_file
from eet_tf.training.objectives import as_loss, as_measurements, seen_by
from eet_tf.training.rates import checked_rates


@keras.saving.register_keras_serializable(package="eet_tf")
class MetricLearner(keras.Model):
    """Trains an embedder with a metric loss, and its attribute head with another, and logs each of their terms.

    It wraps the embedder and owns nothing else. Any Keras loss of labels and embeddings works; one of this package is
    also logged term by term. A batch is `(images, labels)`, or `(images, {"label": labels, "attributes":
    attributes})`, of which each loss gets what it takes.

    What to keep of it:

    - `learner.embedder.save("embedder.keras")` saves what photos are embedded with; `load_embedder` opens it.
    - `learner.save("learner.keras")`, as `keras.callbacks.ModelCheckpoint` does it, saves all that training goes on
      with: the embedder, the memory, the losses and the optimizer. `keras.models.load_model` opens it, and
      `load_embedder` takes the embedder out of it. A loss of one's own must be registered with
      `keras.saving.register_keras_serializable`; without it `keras.models.load_model(path, compile=False)` still opens
      the file, and so does `load_embedder`.
    - `export_embedder(learner, folder)` writes what a server runs on the bytes of photos; `learner.export(folder)` is
      Keras's own, of the embedder.

    Args:
        embedder: a model from images to embeddings `[B, D]`, or to a dict `{"embedding": [B, D], "attributes":
            [B, A] logits}`, as `build_embedder` makes it. Of one with a neck, a loss sees the output `"before_neck"` in
            place of the embedding unless it `looks_after_neck`; metrics see the embedding.
        memory_size: how many photos of past batches the anchors of a batch meet besides those of the batch, default
            none. Their embeddings are those of the step that saw them; positives and negatives are taken from them
            too, and get no gradient. Much larger than a batch, it gives small batches the choice of large ones, while
            the embedder changes slowly. It needs a loss of this package.
        memory_start: after how many steps the memory is used, default 1,000. [arXiv 1912.06798]

    Attributes:
        memory: the `CrossBatchMemory`, a part of the model's state, or None.
        signs: what `TrainingAdvice` reads of the batches.
        class_vectors: the vectors of classes that the loss has learned, `class_vectors.by_name()`; none for most
            losses. They are made by the first `compile`, and part of the learner's weights, not of the embedder's.

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
    fit = checked(of_datasets(advised(keras.Model.fit)))
    evaluate = checked(keras.Model.evaluate)
    train_on_batch = checked(keras.Model.train_on_batch)
    test_on_batch = checked(keras.Model.test_on_batch)
    save = to_a_keras_file(keras.Model.save)
    export = of_the_embedder(keras.Model.export)

    def __init__(
        self, embedder: keras.Model, memory_size: int = 0, memory_start: int = 1000, name: str = "metric_learner"
    ):
        super().__init__(name=name)
        if not isinstance(embedder, keras.layers.Layer):
            raise ValueError(f"`embedder` must be a Keras model. Received: embedder={embedder!r}.")
        self.embedder = embedder
        if memory_size < 0:
            raise ValueError(f"`memory_size` must be 0 or more. Received: memory_size={memory_size}.")
        self.memory = checks.make_memory(memory_size, memory_start, embedder) if memory_size else None
        self._memory_start = memory_start
        self.class_vectors = ClassVectors()
        self._total = keras.metrics.Mean(name="loss")
        self.signs = Signs()
        # not attributes of its own, which Keras would lock once the model is built: it may be compiled again
        self._logged = types.SimpleNamespace(means={}, measurements=[], images=None, compiled_with=None)
        self.built = embedder.built

    def compile(
        self,
        optimizer="adam",
        loss=None,
        attribute_loss=None,
        attribute_weight: float = 1.0,
        microbatch: int | None = None,
        jit_compile="auto",
        metrics: Sequence | None = None,
        weighted_metrics: Sequence | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        trunk_rate: float = 1.0,
        class_vectors_rate: float | None = None,
        head_only_steps: int = 0,
    ):
        """Compiles the learner as `keras.Model.compile`, with a loss for the embedding and one for the attribute head.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a loss of labels `[B]` and embeddings `[B, D]`, e.g. `EETLoss()`, or of both heads,
                `SoftBinomialDevianceLoss()`; or a function of them that returns the loss of each photo `[B]` or their
                mean, or the name of a loss of Keras. Where replicas share a batch, a function may get no photos at all,
                and must ask a Keras loss by its `call(labels, embeddings)`: calling it as a function divides by the
                number of replicas.
            attribute_loss: a loss of attributes and logits, `[B, A]` each, e.g. `AttributeLoss()`. It is added to the
                loss and logged as `attributes`. Without one an attribute head stays as it is, and Keras warns of it.
            attribute_weight: what `attribute_loss` is multiplied by, default 1. [base]
            microbatch: how many photos of a replica's batch go through the network at a time; None: all. The update is
                that of the whole batch, to rounding: all are embedded, the loss says where each embedding should move,
                and then each piece goes through again, forward and backward. So a step takes the activations of one
                piece, and about 4/3 of the time. Where it does not divide the batch, the first photos fill up the last
                piece and the loss does not see them twice. Batch normalisation that is not frozen normalises each piece
                by itself and moves its statistics once for each piece. Under Keras 2 dropout draws anew the second
                time.
            jit_compile: whether XLA compiles the step: True, False, or `"auto"`, which is with GPUs but not with CPUs
                alone. Under a strategy Keras compiles nothing; here the network and the loss are compiled within each
                replica. The update is the same to rounding. A network that XLA cannot compile is trained without it,
                and a warning names the layer.
            metrics: Keras metrics, functions, or names of metrics of Keras, of labels and embeddings, that are logged
                beside the loss. Of a function the mean is logged.
            weighted_metrics: as `metrics`; there are no weights, so that both mean the same.
            run_eagerly: whether each step runs as plain Python, to look into it; nothing is compiled then.
            steps_per_execution: how many steps run in one call. Callbacks hear of the last of them. 1 under a strategy
                of several replicas.
            trunk_rate: how far the backbone moves, as a share of the optimizer's learning rate, default 1; 0.1 is usual
                for one with pretrained weights. The backbone is every model among the embedder's layers; what else
                there is, such as the projection, is the head. Weight decay and running averages follow.
            class_vectors_rate: as `trunk_rate`, of the class vectors of a loss that has some. None: what the loss says,
                1, or 100 for `ProxyAnchorLoss`. [authors]
            head_only_steps: for so many steps of the optimizer the weights of the backbone stay, default 0. Its moving
                statistics go on, as does what the optimizer knows of its gradients.

        Raises:
            ValueError: if a loss or a metric is none or a loss does not average over the batch, or if it uses
                attributes and the embedder has no attribute head, or `microbatch` is not a number of photos, or there
                is a memory and the loss is not one of this package, or another argument is none of these.
        """
        checks.check_numbers(self, attribute_weight, microbatch, jit_compile, run_eagerly, steps_per_execution)
        given = {"loss": loss, "attribute_loss": attribute_loss, "attribute_weight": attribute_weight}
        given |= {"microbatch": microbatch, "jit_compile": jit_compile, "metrics": metrics}
        given |= {"weighted_metrics": weighted_metrics}
        given |= {"run_eagerly": run_eagerly, "steps_per_execution": steps_per_execution, "trunk_rate": trunk_rate}
        given |= {"class_vectors_rate": class_vectors_rate, "head_only_steps": head_only_steps}
        loss = as_loss("loss", loss, "EETLoss")
        if attribute_loss is not None:
            attribute_loss = as_loss("attribute_loss", attribute_loss, "AttributeLoss")
            checks.check_attribute_head("attribute_loss", attribute_loss, self.embedder)
        is_ours = isinstance(loss, MetricLoss)
        if is_ours and loss.uses_attributes:
            checks.check_attribute_head("loss", loss, self.embedder)
        if self.memory is not None:
            checks.check_memory(loss, given["loss"])
        shapes = checks.class_vectors_shapes(loss, self.embedder)
        self.class_vectors.check(shapes)
        shares = {name: 1.0 for name in shapes} | (loss.class_vectors_rates() if shapes else {})
        rates = checked_rates(trunk_rate, class_vectors_rate, head_only_steps, shares, self.embedder, optimizer)
        names = list(checks.names_of_terms(loss, self.embedder)) if isinstance(loss, MetricLoss) else []
        names += ["attributes"] if attribute_loss else []
        with self.distribute_strategy.scope():  # that of the learner, whoever compiles it
            has_strategy = tf.distribute.has_strategy()
            means = {name: keras.metrics.Mean(name=name) for name in names}
            self._logged.partners = keras.metrics.Mean(name="partners")
            measurements = as_measurements("metrics", metrics, ["loss", *names])
            taken = ["loss", *names, *[each.metric.name for each in measurements]]
            measurements += as_measurements("weighted_metrics", weighted_metrics, taken)
        wants_xla = jit_compile is True or (jit_compile and plans.has_gpu() and not run_eagerly)
        compiles = self._can_compile() if wants_xla else False
        super().compile(
            optimizer=optimizer,
            jit_compile=compiles and not has_strategy,
            run_eagerly=run_eagerly or None,  # so that Keras 2 still heeds tf.config.run_functions_eagerly
            steps_per_execution=steps_per_execution,
        )
        with self.distribute_strategy.scope():
            self.class_vectors.make(shapes)
        self._compiles_parts = compiles and has_strategy
        self.built = self.built or self.embedder.built
        self._metric_loss = loss
        self._attribute_loss = attribute_loss
        self._attribute_weight = attribute_weight
        self._microbatch = microbatch
        self._rates = rates
        self._logged.means, self._logged.measurements, self._logged.compiled_with = means, measurements, given

    def get_config(self) -> dict:
        """The constructor's arguments, the embedder with all its layers, and the shapes of class vectors."""
        config = {
            "embedder": keras.saving.serialize_keras_object(self.embedder),
            "memory_size": self.memory.size if self.memory else 0,
            "memory_start": self._memory_start,
            "name": self.name,
        }
        shapes = self.class_vectors.shapes()
        return {**config, "class_vectors": shapes} if shapes else config

    @classmethod
    def from_config(cls, config: dict, custom_objects: Mapping | None = None) -> MetricLearner:
        """Makes a learner from `get_config`."""
        embedder = keras.saving.deserialize_keras_object(config["embedder"], custom_objects=custom_objects)
        shapes = config.get("class_vectors", {})
        arguments = {name: value for name, value in config.items() if name != "class_vectors"}
        learner = cls(**{**arguments, "embedder": embedder})
        learner.class_vectors.make(shapes)
        return learner

    def get_compile_config(self) -> dict | None:
        """The arguments of `compile`; None before it."""
        given = self._logged.compiled_with
        if given is None:
            return None
        arguments = {"optimizer": self.optimizer, **given}
        return {name: keras.saving.serialize_keras_object(value) for name, value in arguments.items()}

    def compile_from_config(self, config: dict) -> None:
        """Compiles as the learner was that `get_compile_config` is of."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            compat.build_optimizer(self.optimizer, self.trainable_variables)

    def _can_compile(self) -> bool:
        """Whether XLA takes the network; warns if not."""
        reason = compilation.refusal(self.embedder)
        if reason is not None:
            warnings.warn(f"XLA cannot compile the network, so it is trained without: {reason}.", stacklevel=3)
        return reason is None

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss and its terms, as running means over an epoch, and the metrics that `compile` was given."""
        return [self._total, *self._logged.means.values(), *[each.metric for each in self._logged.measurements]]

    @property
    def measures_more(self) -> bool:
        """Whether `compile` was given metrics."""
        return bool(self._logged.measurements)

    def _results(self) -> dict:
        """What a step returns."""
        found: dict = {}
        for metric in self.metrics:
            result = metric.result()
            found.update(result if isinstance(result, Mapping) else {metric.name: result})
        return found

    def call(self, images, training=None):
        """Images -> embeddings, or the dict of both heads."""
        return self.embedder(images, training=training)

    @property
    def images_shape(self) -> tf.TensorShape | None:
        """The shape of the images that a replica got in the last step, as far as it was known; None before it."""
        return self._logged.images

    @contextlib.contextmanager
    def averaged(self):
        """Gives the embedder the running averages of its weights within a `with`, if the optimizer has `use_ema=True`.

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
            self.train_function = self._with_partners_looked_for(self._with_memory_named(self.train_function))
        return self.train_function

    def _with_memory_named(self, function):
        def step(*args):
            try:
                return function(*args)
            except tf.errors.ResourceExhaustedError as error:
                raise MemoryError(out_of_memory(error, self._logged.images)) from None

        return step

    def _with_partners_looked_for(self, function):
        """Warns after the first step if no label was there twice, where the loss itself could not look."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return function

        places = itertools.count()

        def step(*args):
            result = function(*args)
            partners = self._logged.partners
            if next(places) == 0 and float(tf.convert_to_tensor(partners.count)) > 0 and float(partners.result()) == 0:
                warn_of_no_partner()
            return result

        return step

    def train_step(self, data):
        """Updates the weights from a batch, and returns the running means of the loss and its terms."""
        images, targets = images_and_targets(data)
        self._logged.images = images.shape
        if self._compiles_parts:
            network = compilation.compiled_training_call(self.embedder)
        else:
            network = self._training_call
        with plans.compiling_parts(self._compiles_parts):
            if self._microbatch is None:
                gradients = self._gradients(network, images, targets)
            else:
                loss = functools.partial(self._training_loss, targets)
                of_loss = self.class_vectors.trainable_variables
                gradients = pieces.gradients(
                    self.embedder, network, images, loss, self._scaled, self._microbatch, of_loss
                )
        gradients = self._as_of_one_replica(gradients)
        # only now: a model without a shape of its images has its weights since its first call
        variables = self._trained_variables()
        self._rates.apply(self.optimizer, gradients, variables, self.embedder, self.class_vectors.by_name())
        statistics.share(self.embedder)
        return self._results()

    def _training_call(self, images):
        """The outputs, and the losses of the layers."""
        return self(images, training=True), list(self.embedder.losses)

    def _gradients(self, network, images, targets) -> list[tf.Tensor | None]:
        with tf.GradientTape() as tape:
            outputs, regularization = with_a_photo(network)(images)
            loss = self._scaled(self._training_loss(targets, outputs) + _sum(regularization))
        return tape.gradient(loss, self._trained_variables())

    def _trained_variables(self) -> list:
        """Those of the embedder, and then the class vectors."""
        return [*self.embedder.trainable_variables, *self.class_vectors.trainable_variables]

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
        """Computes the loss and its terms on a batch without an update."""
        images, targets = images_and_targets(data)
        outputs, _ = with_a_photo(lambda images: (self(images, training=False), []))(images)
        self._observed_loss(targets, outputs)
        return self._results()

    def _training_loss(self, targets, outputs) -> tf.Tensor:
        """As `_observed_loss`, with and then into the memory, if there is one."""
        if self.memory is None:
            return self._observed_loss(targets, outputs, self.signs)
        targets, outputs = as_mappings(targets, outputs)
        loss = self._observed_loss(targets, outputs, self.signs, self.memory.rows())
        seen = seen_by(self._metric_loss, outputs)
        self.memory.add(seen["embedding"], targets["label"], self._metric_loss.graded_by(targets, seen))
        return loss

    def _observed_loss(
        self, targets, outputs, signs: Signs | None = None, memory: Remembered | None = None
    ) -> tf.Tensor:
        """This replica's mean loss; adds the terms to the running means, and in training to the signs."""
        targets, outputs = as_mappings(targets, outputs)
        per_anchor, terms = self._metric_terms(targets, outputs, memory)
        if signs is not None:
            signs.update(outputs["embedding"], terms)
        if isinstance(self._metric_loss, MetricLoss) and self._metric_loss.needs_partners and memory is None:
            self._look_for_partners(targets["label"])
        if self._attribute_loss is not None:
            attributes, logits = entry_of("y_true", targets, "attributes"), entry_of("y_pred", outputs, "attributes")
            values = self._attribute_weight * self._attribute_loss.call(attributes, logits)
            terms["attributes"] = _of_photos(values, outputs["embedding"])
            per_anchor += terms["attributes"]
        self._total.update_state(per_anchor)
        for name, values in terms.items():
            self._logged.means[name].update_state(values)
        for each in self._logged.measurements:
            each.update(targets["label"], outputs["embedding"])
        mean = tf.math.divide_no_nan(tf.reduce_sum(per_anchor), tf.cast(tf.size(per_anchor), tf.float32))
        return mean * replicas.share_of(tf.size(per_anchor))  # of the whole batch, however replicas share it

    def _look_for_partners(self, labels) -> None:
        """Keeps whether a label was there twice, on the device, where the loss cannot look."""
        if not can_look() and replicas.num_replicas() == 1:
            numbers, _ = class_numbers(labels)
            self._logged.partners.update_state(tf.cast(has_partner(tf.reshape(numbers, [-1])), tf.float32))

    def _metric_terms(
        self, targets: Mapping, outputs: Mapping, memory: Remembered | None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of each anchor, all the mean where the loss is not one of this package, and the terms by name."""
        outputs = seen_by(self._metric_loss, outputs)
        labels, embeddings = entry_of("y_true", targets, "label"), entry_of("y_pred", outputs, "embedding")
        if not isinstance(self._metric_loss, MetricLoss):
            # `call`: calling it rounds labels to float32 and divides a vector by the replicas (Keras 3), or is
            # refused in a training step of one's own (Keras 2)
            return _of_photos(self._metric_loss.call(labels, embeddings), embeddings), {}
        vectors = self.class_vectors.by_name()
        if self._metric_loss.takes_dicts or isinstance(self._metric_loss, CombinedLoss):
            labels, embeddings = targets, outputs
        more: Any = {"class_vectors": vectors} if vectors else {}  # a loss of one's own need not know of them
        terms = self._metric_loss.terms(labels, embeddings, memory, **more)
        return tf.add_n(list(terms.values())), terms


def _sum(losses: list[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.zeros([]), *losses])


def _of_photos(values: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """A loss of each photo as it is, `[B]`; a mean over them as that of each, so that no photos give no number."""
    values = tf.cast(values, tf.float32)
    values = tf.reduce_mean(values, axis=list(range(1, values.shape.rank))) if values.shape.rank else values
    return tf.broadcast_to(values, tf.shape(embeddings)[:1])
