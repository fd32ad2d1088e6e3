"""Recipes: which is chosen, what flags the user gave win, and how long each trains."""

import itertools

import pytest

from eet_tf.cli.training_flags import FLAGS
from eet_tf.training import recipes

NAMES = [name for name in recipes.NAMES if name not in (recipes.AUTO, recipes.NONE)]


def facts(**changes) -> recipes.Facts:
    known = {"num_products": 1926, "num_photos": 5989, "pixels": 60, "is_pretrained": True, "has_gpu": False}
    return recipes.Facts(**{**known, **changes})


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, "many_products"),
        ({"num_products": 41, "num_photos": 1480}, "few_products"),
        ({"is_pretrained": False}, "from_scratch"),
        ({"is_pretrained": False, "has_gpu": True, "pixels": 800}, "from_scratch"),
        ({"has_gpu": True, "pixels": 800}, "large_photos"),
        ({"has_gpu": True, "pixels": 800, "is_file": True}, "many_products"),
        ({"has_gpu": True, "pixels": 60}, "many_products"),
        ({"has_gpu": True, "pixels": None}, "many_products"),
        ({"has_gpu": False, "pixels": 800}, "many_products"),
    ],
)
def test_what_is_chosen(changes, expected):
    assert recipes.choose(facts(**changes)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_each_sets_flags_that_there_are_to_values_that_they_take(name):
    for products, photos in ((2, 4), (41, 1480), (11_318, 59_551)):
        found = recipes.find_recipe(name, facts(num_products=products, num_photos=photos))
        for flag, value in recipes.flags_of(found, {}).items():
            assert FLAGS[flag].parser.parse(str(value)) == value, flag


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("products, photos", [(2, 5), (41, 1480), (1926, 5989), (11_318, 59_551)])
def test_each_photo_is_seen_often_enough(name, products, photos):
    flags = recipes.flags_of(recipes.find_recipe(name, facts(num_products=products, num_photos=photos)), {})
    batch = flags["classes_per_batch"] * flags["examples_per_class"]
    steps = flags["epochs"] * max(-(-photos // batch), -(-products // flags["classes_per_batch"]), 100)
    assert flags["classes_per_batch"] <= products
    least, passes = (200, 8) if name == "few_products" else (400, 16)
    assert steps >= least and steps * batch / photos >= passes
    assert flags["warmup_steps"] == steps // 10


@pytest.mark.parametrize(
    "name, products, photos, epochs",
    [("many_products", 1926, 5989, 4), ("few_products", 41, 1493, 2), ("few_products", 37, 1340, 2)],
)
def test_it_trains_as_long_as_was_found_for_it(name, products, photos, epochs):
    flags = recipes.flags_of(recipes.find_recipe(name, facts(num_products=products, num_photos=photos)), {})
    assert (flags["epochs"], flags["warmup_steps"]) == (epochs, 10 * epochs)  # of 100 steps each


def test_what_is_given_wins_and_takes_along_what_belongs_to_it():
    recipe = recipes.find_recipe("many_products", facts())
    every = recipes.flags_of(recipe, {})
    assert every["backbone"] == "mobilenet_v2_joined" and every["pooling"] == "grid" and every["neck"] == "batch_norm"
    for name in every:
        assert name not in recipes.flags_of(recipe, {name: "given"})
    without = {
        "backbone": {"pooling", "image_size", "embedding_dim"},
        "pooling": {"embedding_dim"},
        "loss": {"neck", "class_learning_rate"},
        "optimizer": {"weight_decay", "ema", "learning_rate", "trunk_learning_rate", "class_learning_rate"},
        "learning_rate": {"trunk_learning_rate", "class_learning_rate"},
        "epochs": {"warmup_steps"},
        "schedule": {"warmup_steps"},
        "examples_per_class": {"classes_per_batch", "epochs", "warmup_steps"},
        "teacher": {"embedding_dim"},
        "prefixes": {"embedding_dim"},
    }
    for given, left_out in without.items():
        assert every.keys() - recipes.flags_of(recipe, {given: "mine"}).keys() == {*left_out, given} & every.keys()
    for name, value in every.items():  # what is given as the recipe has it takes nothing along
        if name not in ("epochs", "classes_per_batch", "examples_per_class"):
            assert recipes.flags_of(recipe, {name: value}).keys() == every.keys() - {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_teachers_vectors_have_a_length_of_their_own(name):
    recipe = recipes.find_recipe(name, facts())
    assert recipes.flags_of(recipe, {}).keys() - recipes.flags_of(recipe, {"teacher": "a"}).keys() == {"embedding_dim"}


@pytest.mark.parametrize(
    "name, photos, dims",
    [
        *[("many_products", n, d) for n, d in ((4096, 1024), (4095, 512), (600, 128), (9, 64))],
        *[("few_products", n, d) for n, d in ((9000, 128), (511, 64))],
    ],
)
def test_no_more_dimensions_begin_as_a_whitening_than_photos_can_teach(name, photos, dims):
    flags = recipes.flags_of(recipes.find_recipe(name, facts(num_products=300, num_photos=photos)), {})
    assert flags["projection"] == "whitening" and flags["embedding_dim"] == dims


def test_the_line_says_what_it_was_chosen_by():
    assert str(facts()) == ("1,926 products with 3.1 photos of 60 pixels each, weights to begin with, no GPU")
    assert str(facts(num_products=2, num_photos=5, pixels=None, is_pretrained=False, has_gpu=True)) == (
        "2 products with 2.5 photos each, no weights to begin with, a GPU"
    )


def test_names_are_those_of_the_flag():
    assert FLAGS["recipe"].default == recipes.AUTO
    for first, second in itertools.combinations(NAMES, 2):
        assert recipes.find_recipe(first, facts()) != recipes.find_recipe(second, facts())
