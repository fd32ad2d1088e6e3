"""`--recipe`: sets the flags that were not given, by what suits the photos."""

from __future__ import annotations

import os
import statistics

from eet_tf.cli.training_flags import FLAGS, is_shared
from eet_tf.training import recipes

_NUM_LOOKED_AT = 16  # photos, of which the size is taken


def apply_recipe(train, is_pretrained: bool, model_dir: str) -> str | None:
    """Sets the flags of the recipe that were not given, and returns a line that says which recipe it is and why.

    A run that is gone on with keeps its recipe and all that it set, whatever machine goes on with it; then, and
    without a recipe, there is nothing to say.

    Args:
        train: the photos to learn from.
        is_pretrained: whether the backbone has weights to begin with.
        model_dir: the folder of the run.
    """
    from eet_tf.training.run import settings_of_begun

    begun = settings_of_begun(model_dir)
    if begun is not None:
        _go_on(begun)
        return None
    if FLAGS.recipe == recipes.NONE:
        return None
    facts = facts_of(train, is_pretrained)
    is_chosen = FLAGS.recipe == recipes.AUTO
    if is_chosen:
        FLAGS["recipe"].value = recipes.choose(facts)
    recipe = recipes.find_recipe(FLAGS.recipe, facts)
    for name, value in recipes.flags_of(recipe, _given()).items():
        if not (name == "projection" and is_shared()):  # workers begin at random
            FLAGS[name].value = value
    why = f", for {facts}" if is_chosen else ""
    return f"Recipe {FLAGS.recipe}{why}. --recipe=none leaves all flags at their defaults."


def facts_of(train, is_pretrained: bool) -> recipes.Facts:
    """What is known of the photos to learn from, and of the machine."""
    from eet_tf import plans

    is_file = FLAGS.weights not in (None, "none", "imagenet") and not FLAGS["backbone"].present
    return recipes.Facts(train.num_classes, len(train), _pixels(train), is_pretrained, plans.has_gpu(), is_file)


def _given() -> dict[str, object]:
    return {name: FLAGS[name].value for name in FLAGS if FLAGS[name].present}


def _go_on(begun: dict[str, str]) -> None:
    """Takes from a run's flags.txt the recipe, and what was chosen with it for flags that are not given."""
    name = begun.get("recipe", recipes.NONE)  # which versions before recipes did not write
    if FLAGS["recipe"].present and FLAGS.recipe != recipes.AUTO:
        name = FLAGS.recipe
    FLAGS["recipe"].value = name
    if name == recipes.NONE:
        return
    any_facts = recipes.Facts(2, 4, None, True, False)
    names = {flag for group in recipes.find_recipe(name, any_facts) for flag in group.flags}
    for flag in names.intersection(begun):
        if not FLAGS[flag].present:
            FLAGS[flag].value = FLAGS[flag].parser.parse(begun[flag])


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
