"""`--recipe`: sets the flags that were not given, by what suits the photos."""

from __future__ import annotations

import os
import statistics

from eet_tf.cli.training_flags import FLAGS, MAY_CHANGE, is_shared
from eet_tf.training import recipes

_NUM_LOOKED_AT = 16  # photos, of which the size is taken
_KEPT_BYTES = 2**30  # of decoded photos, up to which they are kept in memory: reading them again takes long


def apply_recipe(train, is_pretrained: bool) -> str | None:
    """Sets the flags of the recipe that were not given, and returns a line that says which recipe it is and why.

    Without a recipe there is nothing to say.

    Args:
        train: the photos to learn from.
        is_pretrained: whether the backbone has weights to begin with.

    Raises:
        ValueError: if the recipe needs weights, and there are none.
    """
    if FLAGS.recipe == recipes.NONE:
        return None
    facts = facts_of(train, is_pretrained)
    is_chosen = FLAGS.recipe == recipes.AUTO
    if is_chosen:
        FLAGS["recipe"].value = recipes.choose(facts)
    elif not is_pretrained and FLAGS.recipe != recipes.FROM_SCRATCH:
        raise ValueError(
            f"--recipe={FLAGS.recipe} needs --weights, since it keeps most of what a network knows. Received: none. "
            f"Give weights, or --recipe={recipes.FROM_SCRATCH}."
        )
    for name, value in recipes.flags_of(recipes.find_recipe(FLAGS.recipe, facts), _given()).items():
        if not (name == "projection" and is_shared()):  # workers begin at random
            FLAGS[name].value = value
    if not FLAGS["cache"].present and FLAGS.photo_crop is None:
        FLAGS["cache"].value = facts.num_photos * 3 * FLAGS.image_size**2 <= _KEPT_BYTES
    why = f", for {facts}" if is_chosen else ""
    return f"Recipe {FLAGS.recipe}{why}. --recipe=none leaves all flags at their defaults."


def go_on(begun: dict[str, str]) -> None:
    """Lets a run that has begun keep its recipe, and all that was chosen with it for flags that are not given.

    A run without one keeps its flags by being given them again, as in versions before there were recipes.

    Args:
        begun: what its flags.txt holds.
    """
    if FLAGS.recipe == recipes.AUTO:
        FLAGS["recipe"].value = begun.get("recipe", recipes.NONE)  # which versions before recipes did not write
    if FLAGS.recipe == begun.get("recipe", recipes.NONE) == recipes.NONE:
        return
    for name, text in begun.items():
        is_of_recipe = name in FLAGS and (name not in MAY_CHANGE or name == "epochs")
        if is_of_recipe and not FLAGS[name].present:
            FLAGS[name].value = FLAGS[name].parser.parse(text)


def facts_of(train, is_pretrained: bool) -> recipes.Facts:
    """What is known of the photos to learn from, and of the machine."""
    from eet_tf import plans

    is_file = FLAGS.weights not in (None, "none", "imagenet") and not FLAGS["backbone"].present
    return recipes.Facts(train.num_classes, len(train), _pixels(train), is_pretrained, plans.has_gpu(), is_file)


def _given() -> dict[str, object]:
    return {name: FLAGS[name].value for name in FLAGS if FLAGS[name].present}


def _pixels(train) -> int | None:
    """The middle one of the shorter sides of some photos; None where they are not files here."""
    if is_shared():  # whose strategy must be made before TensorFlow does anything
        return None
    import tensorflow as tf

    from eet_tf.data import images

    step = max(len(train) // _NUM_LOOKED_AT, 1)
    files = [file for file in train.files[::step][:_NUM_LOOKED_AT] if os.path.isfile(file)]
    sides = []
    for file in files:
        try:
            sides.append(min(images.decode(tf.io.read_file(file)).shape[:2]))
        except tf.errors.OpError:
            continue  # what cannot be read is said by the check of all photos
    return int(statistics.median_low(sides)) if sides else None
