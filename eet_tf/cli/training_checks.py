"""What training refuses before its long work, all at once; and what it trains on."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

from eet_tf.cli import catalogs, teachers
from eet_tf.cli.complaints import Complaints
from eet_tf.cli.flag_uses import check_together
from eet_tf.cli.loss_checks import check_sample
from eet_tf.cli.recipe import apply_recipe, go_on
from eet_tf.cli.training_flags import (
    ADDONS_LOSSES,
    ADDONS_OPTIMIZERS,
    FLAGS,
    RANGES,
    is_shared,
    losses,
    margin,
    settings,
)
from eet_tf.training.settings import settings_of_begun

_CLASSES_PER_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained on and measured on.

    Args:
        layout: of the photos, as it was recognised.
        train: the photos to learn from.
        validation: the photos that choose the best epoch, or None.
        test: the photos that the final figures come from, or None.
        sampler: draws the batches.
        attributes: what the attribute head learns, or None.
    """

    layout: str
    train: Any
    validation: Any
    test: Any
    sampler: Any
    attributes: Any

    @property
    def settings(self) -> dict[str, str]:
        """What `flags.txt` holds: every flag, with what was chosen for those that were not given."""
        chosen = {"dataset": self.layout, "classes_per_batch": str(self.sampler.classes_per_batch)}
        chosen |= {} if margin() is None else {"margin": str(margin())}
        return settings({**chosen, "model_dir": model_dir()})

    @property
    def measured_on(self):
        """The photos that figures come from, or None."""
        return self.test or self.validation

    @property
    def with_vectors(self) -> list:
        """The catalogues whose photos need a teacher's vector."""
        return _with_vectors(self.train, self.validation, self.test)

    @property
    def searched_besides(self) -> list:
        """The catalogues that with `measured_on` make the whole one."""
        return [catalog for catalog in self.catalogs if catalog is not self.measured_on]

    @property
    def catalogs(self) -> list:
        """All of its catalogues."""
        return [catalog for catalog in (self.train, self.validation, self.test) if catalog is not None]


def checked_task() -> Task:
    """The catalogues, the sampler and the attributes; refuses in one go what flags and data cannot do together."""
    from eet_tf import replicas
    from eet_tf.data.answers import check_answers

    complaints = Complaints()
    begun = settings_of_begun(model_dir())
    if begun is not None:
        go_on(begun)
    _choose_length()
    _check_flags(complaints)
    layout = complaints.check(catalogs.layout_of, FLAGS)
    is_cut = 0 <= FLAGS.seed < 2**32 and 0 <= FLAGS.hold_out < 1  # else what is held out is not known
    is_there = complaints.are_none or FLAGS.dataset != "synthetic"  # photos are not drawn for nothing
    parts: Any = complaints.check(_catalogs) if layout and is_cut and is_there else None
    recipe = sampler = attributes = None
    if parts is not None and complaints.are_none:
        if FLAGS.virtual_devices:  # which there must be before TensorFlow does anything
            replicas.split_cpu(FLAGS.virtual_devices)
        recipe = None if begun is not None else complaints.check(apply_recipe, parts[0], is_pretrained())
    if begun is None:  # what has begun was checked then, and what differs from it is told by the run's folder
        check_together(complaints, is_settled=recipe is not None)
    if parts is not None:
        sampler = complaints.check(_sampler, parts[0])
        attributes = complaints.given("attributes", ",".join(FLAGS.attributes), lambda _: _attributes(parts[0]))
        for catalog, name in zip(parts[1:], ("what chooses the best epoch", "the split 'test'")):
            if catalog is not None:
                complaints.check(check_answers, catalog, name)
        if FLAGS.teacher is not None:
            complaints.check(teachers.check_teacher, _with_vectors(*parts))
    _check_network(complaints)
    if recipe and not complaints.are_none:
        complaints.add(recipe)  # which has set what was not given
    complaints.end()
    catalogs.tell_notes(parts[0])
    if recipe:
        print(recipe, flush=True)
    train, validation, test = parts
    return Task(layout, train, validation, test, sampler, attributes)


def _with_vectors(train, validation, test) -> list:
    """The catalogues whose photos need a teacher's vector: those to learn from, and those that figures come from."""
    return [catalog for catalog in (train, test or validation) if catalog is not None]


def model_dir() -> str:
    """The folder that training writes: that of the flag, or `runs/NAME` after the photos."""
    if FLAGS.model_dir is not None:
        return FLAGS.model_dir
    return os.path.join("runs", "synthetic" if FLAGS.dataset == "synthetic" else catalogs.name_of(FLAGS.data or ""))


def _choose_length() -> None:
    """The last prefix is the whole embedding, unless its length is given, or is a teacher's."""
    is_free = FLAGS.teacher is None and not FLAGS["embedding_dim"].present
    last = FLAGS.prefixes[-1] if FLAGS.prefixes and is_free else ""
    if last.isdecimal() and int(last) <= RANGES["embedding_dim"][1]:
        FLAGS["embedding_dim"].value = int(last)


def _check_flags(complaints: Complaints) -> None:
    """Complains about what is wrong with the flags, as far as they alone tell."""
    complaints.folder("model_dir", model_dir())
    complaints.folder("photo_cache", FLAGS.photo_cache)
    if FLAGS.ks is not None:
        complaints.whole_numbers("ks", FLAGS.ks)
    for name, (least, most) in RANGES.items():
        complaints.number(name, FLAGS[name].value, least, most)
    if FLAGS.weights not in (None, "none", "imagenet") and not os.path.isfile(FLAGS.weights):
        complaints.add(
            "--weights must be none, imagenet or the path of a backbone's weights. "
            f"Received: --weights={FLAGS.weights}."
        )
    for name in ("learning_rate", "trunk_learning_rate", "class_learning_rate"):
        complaints.above(name, FLAGS[name].value, 0)
    for name in ("positive_scale", "negative_scale", "temperature", "scale"):
        complaints.above(name, FLAGS[name].value, 0)
    complaints.above("clip_norm", FLAGS.clip_norm, 0)
    complaints.check(_check_addons)


def _check_network(complaints: Complaints) -> None:
    """Complains about a backbone that there is not, and about what it cannot do."""
    from eet_tf.embedder.strides import check_last_stride

    complaints.check(_check_name)
    complaints.given("last_stride", FLAGS.last_stride, lambda stride: check_last_stride(FLAGS.backbone, stride))
    if complaints.are_none:
        complaints.check(_check_backbone)


def _check_name() -> None:
    """Refuses a backbone that is none of the list, no file and no preset."""
    from eet_tf.embedder.build import check_name, has_weights_of_its_own

    if not has_weights_of_its_own(FLAGS.backbone):
        check_name(FLAGS.backbone)


def is_pretrained() -> bool:
    """Whether the backbone starts from weights that were trained."""
    from eet_tf.embedder.build import has_weights_of_its_own

    return FLAGS.weights not in (None, "none") or has_weights_of_its_own(FLAGS.backbone)


def _check_backbone() -> None:
    """Refuses a model that is no backbone, or a layer that it has not; and chooses the pooling that was not given.

    A chosen pooling is then as if it had been given: flags.txt has it, and the same flags train the same thing.
    """
    from eet_tf.embedder import backbones
    from eet_tf.embedder.build import find_backbone, has_weights_of_its_own

    is_new, is_given = has_weights_of_its_own(FLAGS.backbone), bool(FLAGS["pooling"].present)
    if is_shared() and is_new and not is_given:  # its strategy must be made before any model
        raise ValueError(
            "--pooling must be given with --strategy=multi_worker for a backbone that is not in the list. Received: "
            f"none, and --backbone={FLAGS.backbone}."
        )
    if FLAGS.backbone.startswith("convnext_") and not is_given:
        FLAGS["pooling"].value = "avg"
    if is_shared() or not (is_new or FLAGS.freeze_until is not None):
        return
    weights = None if FLAGS.weights == "none" else FLAGS.weights
    found = find_backbone(FLAGS.backbone, FLAGS.image_size, weights if is_new else None, FLAGS.pixel_scaling)
    if is_new and not is_given:
        FLAGS["pooling"].value = found.pooling
    if FLAGS.freeze_until is not None:
        backbones.freeze_until(found.network, FLAGS.freeze_until)


def _catalogs() -> tuple:
    """What to learn from, what chooses the best epoch, what the final figures come from; the last two may be None."""
    from eet_tf import data

    catalog = catalogs.load(FLAGS)
    if FLAGS.skip_unreadable:
        catalog = catalogs.readable_part(catalog, FLAGS, model_dir())
    if FLAGS.category_column:
        catalog = catalog.categorized_by(FLAGS.category_column)
    train, validation, test = data.parts_of(catalog)
    if FLAGS.drop_singles:
        train = train.without_singles()
    if FLAGS.loss != "none":
        train.check_trainable()
    if FLAGS.hold_out and validation is None:
        train, validation = train.hold_out(FLAGS.hold_out, FLAGS.seed)
    return train, validation, test


def _sampler(train):
    import numpy as np

    from eet_tf import data

    if FLAGS.category_probability and train.categories is None:
        raise ValueError(
            f"--category_probability needs categories, and {train.source} has none. "
            f"Name a column with --category_column; there are {sorted(train.attributes) or 'none'}."
        )
    labels = train.labels
    if FLAGS.loss == "none" and not FLAGS.category_probability:  # a teacher's vectors alone make no use of products
        at_least = min(FLAGS.classes_per_batch or _CLASSES_PER_BATCH, len(train))  # groups, in place of products
        num_groups = max(at_least, math.ceil(len(train) / FLAGS.examples_per_class))
        labels = np.random.default_rng(FLAGS.seed).permutation(len(train)) % num_groups
    classes_per_batch = FLAGS.classes_per_batch or min(_CLASSES_PER_BATCH, len(np.unique(labels)))
    check_sample(classes_per_batch)
    return data.PKSampler(
        labels,
        classes_per_batch,
        FLAGS.examples_per_class,
        FLAGS.seed,
        train.categories,
        FLAGS.category_probability,
    )


def _attributes(train):
    """What the second head learns, or None."""
    from eet_tf import data

    if FLAGS.attributes:
        return data.encode_attributes(train, "all" if FLAGS.attributes == ["all"] else FLAGS.attributes)
    if "soft_binomial_deviance" in losses():
        raise ValueError(
            f"--loss={FLAGS.loss} needs --attributes=COLUMN,COLUMN or --attributes=all; "
            f"{train.source} has the columns {sorted(train.attributes) or 'none'}."
        )
    return None


def _check_addons() -> None:
    """Refuses what tensorflow-addons cannot do, and all of it where it is not installed."""
    if FLAGS.loss not in ADDONS_LOSSES and FLAGS.optimizer not in ADDONS_OPTIMIZERS:
        return
    from eet_tf.training import addons

    addons.check_available("loss", FLAGS.loss)
    addons.check_available("optimizer", FLAGS.optimizer)
    if FLAGS.loss == "tfa_npairs" and FLAGS.examples_per_class % 2:
        raise ValueError(
            "--loss=tfa_npairs needs an even --examples_per_class, as it takes the photos of a product in pairs. "
            f"Received: --examples_per_class={FLAGS.examples_per_class}."
        )
    if FLAGS.optimizer in ADDONS_OPTIMIZERS and FLAGS.ema:
        raise ValueError(
            f"--ema needs an optimizer of Keras: adam, adamw or sgd. Received: --optimizer={FLAGS.optimizer}."
        )


def check_workers() -> None:
    """Refuses a TF_CONFIG of several workers without the strategy that lets them train together."""
    from eet_tf import replicas

    count = len(replicas.read_cluster().workers)
    if count > 1 and not is_shared():
        raise ValueError(
            f"TF_CONFIG names {count} workers, which only --strategy=multi_worker lets train "
            f"together. Received: --strategy={FLAGS.strategy}. Change it, or unset TF_CONFIG."
        )
