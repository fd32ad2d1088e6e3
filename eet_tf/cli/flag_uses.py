"""What training refuses of flags together: those that exclude each other, and those that nothing would use."""

from __future__ import annotations

from collections.abc import Callable

from eet_tf.cli.complaints import Complaints
from eet_tf.cli.loss_checks import check_built_on_others, check_losses
from eet_tf.cli.training_flags import ADDONS_LOSSES, CLASS_LOSSES, FLAGS, LOSSES, as_text, is_shared, losses
from eet_tf.training import recipes

_KNOWN_TO: dict[str, list[str]] = {"class_learning_rate": [*CLASS_LOSSES]}  # the losses that take a flag
for _loss, (_, _arguments) in LOSSES.items():
    for _flag in _arguments:
        _KNOWN_TO.setdefault(_flag, []).append(_loss)
for _loss, _arguments in ADDONS_LOSSES.items():
    for _flag in _arguments:
        _KNOWN_TO.setdefault(_flag, []).append(_loss)
_MARGIN_IN_FLAGS_TXT = 0.3  # that of a run whose loss has none, too
# the flag, the other one, whether the flag is used with the other's value, and what the flag needs
_USES: list[tuple[str, str, Callable, str]] = [
    ("weight_decay", "optimizer", lambda optimizer: optimizer != "adam", "another optimizer, e.g. --optimizer=adamw"),
    ("momentum", "optimizer", lambda optimizer: optimizer == "sgd", "--optimizer=sgd"),
    ("drop_at", "schedule", lambda schedule: schedule == "step", "--schedule=step"),
    ("preserved_share", "weighting", lambda weighting: weighting == "preserving", "--weighting=preserving"),
    ("memory_start", "memory_size", bool, "a --memory_size above 0"),
    ("attribute_weight", "attributes", bool, "--attributes"),
    ("crop", "photo_crop", lambda photo_crop: photo_crop is None, "photos without --photo_crop, which takes its place"),
]


def check_together(complaints: Complaints, is_settled: bool) -> None:
    """Complains about flags that do not go together, and about those that were given and would change nothing.

    Args:
        complaints: where to.
        is_settled: whether a recipe has set what it sets. If not, flags that it may set tell nothing yet.
    """
    if is_settled or _is_settled("loss"):
        check_losses(complaints)
        for flag, known_to in _KNOWN_TO.items():
            if _is_given(flag) and not {*known_to}.intersection(losses()):
                complaints.add(f"--{flag} needs --loss with {_one_of(known_to)}. {_received(flag, 'loss')}")
    check_built_on_others(complaints)
    for flag, other, is_used, needed in _USES:
        if (is_settled or _is_settled(other)) and _is_given(flag) and not is_used(FLAGS[other].value):
            complaints.add(f"--{flag} needs {needed}. {_received(flag, other)}")
    if FLAGS.photo_crop is not None and FLAGS.cache:
        complaints.add("--photo_crop needs photos as they are. Received: --cache, which keeps squares. Leave it out.")
    if FLAGS.schedule == "step" and FLAGS.warmup_steps:
        complaints.add("--warmup_steps needs --schedule=cosine. Received: --schedule=step.")
    if FLAGS.projection == "whitening" and is_shared():
        complaints.add("--projection must be random with --strategy=multi_worker. Received: --projection=whitening.")


def _is_settled(flag: str) -> bool:
    return bool(FLAGS[flag].present) or FLAGS.recipe == recipes.NONE


def _is_given(flag: str) -> bool:
    """Whether it was given, and is not as if it had not been: flags.txt of a run gives all of them."""
    kept = _MARGIN_IN_FLAGS_TXT if flag == "margin" else FLAGS[flag].default
    return bool(FLAGS[flag].present) and FLAGS[flag].value not in (FLAGS[flag].default, kept)


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _received(flag: str, other: str) -> str:
    value = as_text(FLAGS[other].value) if FLAGS[other].value else ""
    with_other = f"with --{other}={value}" if value else f"without --{other}"
    return f"Received: --{flag}={as_text(FLAGS[flag].value)} {with_other}."
