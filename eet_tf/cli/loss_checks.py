"""What training refuses of its losses: names, sums, prefixes and distillation that they cannot have."""

from __future__ import annotations

from eet_tf.cli.complaints import Complaints
from eet_tf.cli.training_flags import ADDONS_LOSSES, CLASS_LOSSES, FLAGS, LOSSES, losses


def check_losses(complaints: Complaints) -> None:
    """Complains about losses that there are not, sums that make no sense, and what they cannot do."""
    names = losses()
    are_ours = all(name in LOSSES for name in names) and len({*names}) == len(names)
    is_known = are_ours or FLAGS.loss in (*ADDONS_LOSSES, "none")
    if not is_known:
        complaints.add(
            f"--loss must be one of {', '.join([*LOSSES, *ADDONS_LOSSES, 'none'])}; or several of {', '.join(LOSSES)} "
            f"with + between, each once. Received: --loss={FLAGS.loss}."
        )
    if FLAGS.loss_weights and (len(FLAGS.loss_weights) != len(names) or not all(map(_is_weight, FLAGS.loss_weights))):
        complaints.add(
            "--loss_weights must be numbers of at least 0 with commas between, one for each loss of --loss. Received: "
            f"--loss_weights={','.join(FLAGS.loss_weights)}, --loss={FLAGS.loss}."
        )
    elif FLAGS.loss_weights and len(names) == 1:
        complaints.add(
            "--loss_weights needs several losses, e.g. --loss=eet+normalized_softmax. Received: "
            f"--loss_weights={','.join(FLAGS.loss_weights)}, --loss={FLAGS.loss}."
        )
    if FLAGS.memory_size > 0 and all(name in CLASS_LOSSES for name in names):
        complaints.add(
            "--memory_size needs a loss that compares photos with each other, e.g. "
            f"--loss=supervised_contrastive+{FLAGS.loss}. Received: --memory_size={FLAGS.memory_size}, "
            f"--loss={FLAGS.loss}."
        )
    if FLAGS.margin is not None and not FLAGS.margin <= 3.14 and "arcface" in names:
        complaints.add(f"--margin must be from 0 to 3.14 radians for arcface. Received: --margin={FLAGS.margin}.")


def check_built_on_others(complaints: Complaints) -> None:
    """Complains about prefixes and distillation that the loss or the embedding cannot have."""
    lengths = complaints.whole_numbers("prefixes", FLAGS.prefixes) if FLAGS.prefixes else ()
    is_whole = bool(lengths) and (lengths[-1] == FLAGS.embedding_dim or _learns_all(lengths[-1]))
    if lengths and (list(lengths) != sorted(lengths) or not is_whole):
        complaints.add(
            f"--prefixes must ascend to the {FLAGS.embedding_dim} of --embedding_dim, since dimensions behind the last "
            f"prefix are not trained. Received: --prefixes={','.join(FLAGS.prefixes)}."
        )
    if lengths and (FLAGS.loss in ADDONS_LOSSES or FLAGS.loss == "none"):
        complaints.add(f"--prefixes needs a loss of this package. Received: --loss={FLAGS.loss}.")
    if FLAGS.teacher is None:
        for name in ("distillation_weight", "teacher_references"):
            if FLAGS[name].value != FLAGS[name].default:
                complaints.add(f"--{name} needs --teacher. Received: --{name}={FLAGS[name].value} without it.")
        if FLAGS.loss == "none":
            complaints.add("--loss=none needs --teacher: there is nothing to learn. Received: no --teacher.")
    elif FLAGS.loss in ADDONS_LOSSES:
        complaints.add(f"--teacher needs a loss of this package, or none. Received: --loss={FLAGS.loss}.")
    elif FLAGS.loss == "none" and FLAGS.teacher_references:
        complaints.add("--teacher_references needs a loss, whose references they are. Received: --loss=none.")


def check_sample(classes_per_batch: int) -> None:
    """Raises `ValueError` where a sample of classes does not hold those of a batch."""
    if FLAGS.sampled_classes is not None and FLAGS.sampled_classes < classes_per_batch:
        raise ValueError(
            f"--sampled_classes must be at least the {classes_per_batch} products in a batch. Received: "
            f"--sampled_classes={FLAGS.sampled_classes}."
        )


def _learns_all(length: int) -> bool:
    """Whether dimensions behind a prefix learn too: those of a teacher."""
    return FLAGS.teacher is not None and length <= FLAGS.embedding_dim


def _is_weight(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False
