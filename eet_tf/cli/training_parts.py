"""Flags -> what training is made of: the loss, the optimizer, the learner."""

from __future__ import annotations

import warnings
from typing import Any

from eet_tf.cli.training_flags import ADDONS_LOSSES, ADDONS_OPTIMIZERS, CLASS_LOSSES, FLAGS, LOSSES, losses, margin
from eet_tf.wording import counted


def make_learner(num_steps: int, attributes, num_classes: int):
    """The learner, compiled, for that many steps in all; with an attribute head where attributes are learned."""
    import eet_tf

    embedder = eet_tf.build_embedder(
        FLAGS.backbone,
        FLAGS.embedding_dim,
        FLAGS.image_size,
        None if FLAGS.weights == "none" else FLAGS.weights,
        FLAGS.pooling,
        FLAGS.freeze_batch_norm,
        attributes.names if attributes else (),
        FLAGS.freeze_until,
        FLAGS.pixel_scaling,
        neck=None if FLAGS.neck == "none" else FLAGS.neck,
        fit=FLAGS.fit,
        last_stride=FLAGS.last_stride,
    )
    learner = eet_tf.MetricLearner(embedder, FLAGS.memory_size, FLAGS.memory_start)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.compile(
            optimizer=_optimizer(num_steps),
            loss=_loss(num_classes),
            attribute_loss=eet_tf.AttributeLoss() if attributes else None,
            attribute_weight=FLAGS.attribute_weight,
            microbatch=FLAGS.microbatch,
            jit_compile={"auto": "auto", "on": True, "off": False}[FLAGS.jit],
            trunk_rate=_share(FLAGS.trunk_learning_rate) or 1.0,
            class_vectors_rate=_share(FLAGS.class_learning_rate),
            head_only_steps=FLAGS.head_only_steps,
        )
    for warning in caught:
        print(str(warning.message), flush=True)
    return learner


def make_augmentation() -> tuple:
    """What changes a batch of photos at random, and what draws a box in each before, or None."""
    from eet_tf import data

    crops_photos = FLAGS.photo_crop is not None
    augment = data.augmentation(
        FLAGS.image_size,
        1.0 if crops_photos else FLAGS.crop,
        FLAGS.color,
        FLAGS.cutout,
        FLAGS.seed,
        FLAGS.noise,
        FLAGS.random_erasing,
        FLAGS.rand_augment,
        FLAGS.mirror,
    )
    return augment, data.photo_crop(FLAGS.photo_crop, FLAGS.seed) if crops_photos else None


def begin_as_whitening(embedder, train) -> None:
    """Lets the projection begin as a whitening of the features of the photos to learn from."""
    from eet_tf import data
    from eet_tf.embedder import features
    from eet_tf.evaluation.callback import embed
    from eet_tf.evaluation.postprocessing import Whitening, fit_whitening
    from eet_tf.training.lines import verbosity

    print(f"Learning a whitening from {counted(len(train), 'photo')}.", flush=True)
    photos = data.gallery_dataset(train, FLAGS.image_size, fit=FLAGS.fit)
    whitening = fit_whitening(embed(features.pooled_features(embedder), photos, verbose=verbosity()))
    kept = min(FLAGS.embedding_dim, whitening.dim)
    features.begin_as_whitening(embedder, Whitening(whitening.mean, whitening.projection[:, :kept]))


def _share(rate: float | None) -> float | None:
    """A learning rate as a share of that of the head; None where none was given."""
    return None if rate is None else rate / FLAGS.learning_rate


def _loss(num_classes: int):
    """The loss, on prefixes and with a teacher where they are asked for."""
    import eet_tf

    loss = None if FLAGS.loss == "none" else _plain_loss(num_classes)
    if FLAGS.prefixes and loss is not None:
        loss = eet_tf.PrefixLoss(loss, [int(length) for length in FLAGS.prefixes])
    if FLAGS.teacher is None:
        return loss
    return eet_tf.DistillationLoss(loss, FLAGS.distillation_weight, FLAGS.teacher_references)


def _plain_loss(num_classes: int):
    import eet_tf

    if FLAGS.loss in ADDONS_LOSSES:
        from eet_tf.training.addons import AddonsLoss

        given: dict[str, Any] = {name: FLAGS[name].value for name in ADDONS_LOSSES[FLAGS.loss]}
        return AddonsLoss(FLAGS.loss, **{**given, **({"margin": margin()} if "margin" in given else {})})
    made = [_one_loss(name, num_classes) for name in losses()]
    if len(made) == 1:
        return made[0]
    return eet_tf.CombinedLoss(made, [float(weight) for weight in FLAGS.loss_weights] or None)


def _one_loss(name: str, num_classes: int):
    """One of those that `--loss` adds up."""
    import eet_tf

    loss, arguments = LOSSES[name]
    given = {name: FLAGS[name].value for name in arguments if FLAGS[name].value is not None}
    return getattr(eet_tf, loss)(**given, **({"num_classes": num_classes} if name in CLASS_LOSSES else {}))


def _learning_rate(num_steps: int):
    import keras

    schedules = keras.optimizers.schedules
    if FLAGS.schedule == "step":
        return schedules.PiecewiseConstantDecay(
            [int(FLAGS.drop_at * num_steps)], [FLAGS.learning_rate, FLAGS.learning_rate / 10]
        )
    warmup = {"warmup_target": FLAGS.learning_rate, "warmup_steps": FLAGS.warmup_steps} if FLAGS.warmup_steps else {}
    first = 0.0 if warmup else FLAGS.learning_rate
    return schedules.CosineDecay(first, max(num_steps - FLAGS.warmup_steps, 1), alpha=0.01, **warmup)


def _optimizer(num_steps: int):
    import keras

    rate, common = _learning_rate(num_steps), {"global_clipnorm": FLAGS.clip_norm}
    if FLAGS.optimizer in ADDONS_OPTIMIZERS:
        from eet_tf.training.addons import make_optimizer

        return make_optimizer(FLAGS.optimizer, rate, FLAGS.weight_decay, **common)
    if FLAGS.ema:
        common |= {"use_ema": True, "ema_momentum": FLAGS.ema}
    if FLAGS.optimizer == "sgd":
        decay = FLAGS.weight_decay or None
        return keras.optimizers.SGD(rate, momentum=FLAGS.momentum, nesterov=True, weight_decay=decay, **common)
    if FLAGS.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=FLAGS.weight_decay, **common)
    return keras.optimizers.Adam(rate, **common)
