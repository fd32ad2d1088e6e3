"""Recipes: which network and which training suit a catalogue, as flags of `eet train`, chosen by a few facts about it.

docs/recipes.md says how each was found on held-out training products, what it reaches on test products, and which one
is not measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from eet_tf.wording import counted

AUTO, NONE, FROM_SCRATCH = "auto", "none", "from_scratch"
_MANY_PRODUCTS = 300  # of a catalogue in which most batches miss most products
_LARGE_PHOTOS = 160  # pixels, from which on a network that was trained on 224 sees more than in small ones
PHOTOS_PER_DIM = 4  # fewer teach a whitening directions that are noise


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a recipe is chosen by.

    Args:
        num_products: to learn from.
        num_photos: of them.
        pixels: the middle one of the shorter sides of their photos; None where it is not known.
        is_pretrained: whether there are weights to begin with.
        has_gpu: whether TensorFlow sees a GPU.
        is_file: whether the weights are a file, which fits one network alone. That is taken to be MobileNetV2, with a
            GPU and without: the same command then trains the same thing on both.
    """

    num_products: int
    num_photos: int
    pixels: int | None
    is_pretrained: bool
    has_gpu: bool
    is_file: bool = False

    def __str__(self) -> str:
        size = "" if self.pixels is None else f" of {self.pixels} pixels"
        each = self.num_photos / max(self.num_products, 1)
        weights = "weights to begin with" if self.is_pretrained else "no weights to begin with"
        device = "a GPU" if self.has_gpu else "no GPU"
        products, photos = counted(self.num_products, "product"), f"{each:.1f} photos{size} each"
        return f"{products} with {photos}, {weights}, {device}"


@dataclasses.dataclass(frozen=True)
class Group:
    """Flags that make sense together.

    Args:
        flags: their values, by name.
        unless: flags which, given by the user with another value than here, or none here, leave the group out.
    """

    flags: Mapping[str, object]
    unless: tuple[str, ...] = ()


Recipe = tuple[Group, ...]


def flags_of(recipe: Recipe, given: Mapping[str, object]) -> dict[str, object]:
    """The flags of a recipe that are to be set, beside those that were `given`, which win."""
    chosen: dict[str, object] = {}
    for group in recipe:
        if not any(name in given and given[name] != group.flags.get(name) for name in group.unless):
            chosen |= {name: value for name, value in group.flags.items() if name not in given}
    return chosen


def choose(facts: Facts) -> str:
    """The name of the recipe that suits a catalogue.

    Example:

    >>> choose(Facts(num_products=2000, num_photos=6000, pixels=60, is_pretrained=True, has_gpu=False))
    'many_products'
    """
    if not facts.is_pretrained:
        return FROM_SCRATCH
    is_large = facts.pixels is not None and facts.pixels >= _LARGE_PHOTOS
    if facts.has_gpu and is_large and not facts.is_file:
        return "large_photos"
    return "many_products" if facts.num_products >= _MANY_PRODUCTS else "few_products"


def find_recipe(name: str, facts: Facts) -> Recipe:
    """The recipe of that name for a catalogue, whose size decides how long it trains.

    Example:

    >>> facts = Facts(num_products=2000, num_photos=6000, pixels=60, is_pretrained=True, has_gpu=False)
    >>> flags_of(find_recipe("many_products", facts), given={"loss": "triplet"})["classes_per_batch"]
    128
    """
    return _RECIPES[name](facts)


def _from_scratch(facts: Facts) -> Recipe:
    """No weights: a small network on small photos. Few products are learned fast, many with care."""
    is_many = facts.num_products >= _MANY_PRODUCTS
    rate, weight, color = (1e-3, 1.0, 0.05) if is_many else (4e-3, 0.3, 0.0)
    return (
        *_network("small_cnn", 128, image_size=64, pooling="gem"),
        Group({"backbone": "small_cnn", "optimizer": "adam", "learning_rate": rate}, unless=("backbone", "optimizer")),
        _loss("eet", equidistant_weight=weight, equidistributed_weight=weight),
        Group({"crop": 0.6, "color": color}),
        *_length(facts, 16, 4, passes=16, least=1600 if is_many else 2400),
    )


def _few_products(facts: Facts) -> Recipe:
    """Up to some hundreds of products, many photos of each: features keep what they know, and train briefly."""
    dims = _whitened(128, facts)
    return (
        *_network("mobilenet_v2_stride16", dims, image_size=96, pooling="gem", freeze_until="block_3_project_BN"),
        _loss("triplet", margin=0.6),
        Group({"projection": "whitening"}),
        Group({"optimizer": "adam", "learning_rate": 3e-4}, unless=("optimizer",)),
        Group({"freeze_batch_norm": True, "crop": 0.6, "color": 0.0}),
        *_length(facts, 16, 4, passes=8, least=200),
    )


def _many_products(facts: Facts) -> Recipe:
    """Thousands of products, few photos of each, all taken alike: features keep places, batches hold many products."""
    loss, rate = "eet+normalized_softmax", {"optimizer": "adamw", "learning_rate": 3e-4}
    return (
        *_network("mobilenet_v2_joined", _whitened(1024, facts), image_size=64, pooling="grid"),
        _loss(loss, neck="batch_norm"),
        Group({"projection": "whitening"}),
        Group({"optimizer": "adamw", "weight_decay": 1e-2, "ema": 0.99}, unless=("optimizer",)),
        Group({**rate, "trunk_learning_rate": 3e-5}, unless=("optimizer", "learning_rate")),
        Group({**rate, "loss": loss, "class_learning_rate": 3e-2}, unless=("optimizer", "learning_rate", "loss")),
        Group({"freeze_batch_norm": True, "crop": 0.85, "color": 0.0}),
        *_length(facts, 128, 2, passes=16, least=400),
    )


def _large_photos(facts: Facts) -> Recipe:
    """Photos of 160 pixels or more and a GPU: after published recipes (docs/methods.md), not measured here."""
    return (
        *_network("resnet50", _whitened(512, facts), pooling="gem"),
        _loss("eet"),
        Group({"projection": "whitening"}),
        Group({"optimizer": "adamw", "weight_decay": 1e-4, "learning_rate": 1e-4}, unless=("optimizer",)),
        Group({"image_size": 224, "freeze_batch_norm": True, "crop": 0.6, "color": 0.05}),
        *_length(facts, 32, 4, passes=20, least=1000),
    )


def _network(backbone: str, embedding_dim: int, pooling: str, **flags) -> Recipe:
    """What belongs to a backbone, and is left out with another one; the length also where something else decides it."""
    network = {"backbone": backbone, "pooling": pooling}
    of_length = ("backbone", "pooling", "teacher", "prefixes")
    return (
        Group({**network, **flags}, unless=("backbone",)),
        Group({**network, "embedding_dim": embedding_dim}, unless=of_length),
    )


def _whitened(most: int, facts: Facts) -> int:
    """The dimensions of an embedding that begins as a whitening: halved until the photos can teach so many."""
    while most > 64 and most * PHOTOS_PER_DIM > facts.num_photos:
        most //= 2
    return most


def _loss(loss: str, **flags) -> Group:
    """What belongs to a loss, and is left out with another one."""
    return Group({"loss": loss, **flags}, unless=("loss",))


def _length(facts: Facts, products: int, photos: int, passes: int, least: int) -> Recipe:
    """The batches, and how long it trains: each photo is shown `passes` times or more, in at least so many steps."""
    products = min(products, facts.num_products)
    steps_of_pass = math.ceil(max(facts.num_photos / (products * photos), facts.num_products / products))
    steps_of_epoch = max(steps_of_pass, 100)
    epochs = math.ceil(max(passes * steps_of_pass, least) / steps_of_epoch)
    of_batch = ("classes_per_batch", "examples_per_class")
    of_length = (*of_batch, "steps_per_epoch", "epochs", "schedule")
    return (
        Group({"classes_per_batch": products, "examples_per_class": photos}, unless=of_batch),
        Group({"epochs": epochs}, unless=of_batch),
        Group({"warmup_steps": epochs * steps_of_epoch // 10}, unless=of_length),
    )


_RECIPES = {
    "few_products": _few_products,
    "many_products": _many_products,
    FROM_SCRATCH: _from_scratch,
    "large_photos": _large_photos,
}
NAMES = (AUTO, *_RECIPES, NONE)
