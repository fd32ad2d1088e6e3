"""Every public class is in every suite, or on a list with the reason why not. A forgotten one is a failing test.

The suites: it comes back from its configuration or its files (serialization); it takes float16, bfloat16 and float32
(dtype); one replica and two give the same (replicas); compiled by XLA it is the same (jit_compile); its numbers for
fixed seeds are the stored ones (golden). Where a suite stands in another file, its table is read there.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import os
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf.index import ScannConfiguration
from tests.conformance import goldens
from tests.index import test_disk, test_index
from tests.losses.test_keras_contract import OTHER_ARGUMENTS, made
from tests.training import test_replicas

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ["eet_tf", "eet_tf.client", "eet_tf.data", "eet_tf.service", "eet_tf.index", "eet_tf.serving"]
DTYPES = [tf.float16, tf.bfloat16, tf.float32]
ERROR = "an error: it carries a message"
RECORD = "a record of arrays: it keeps what it is given, and computes nothing"
NETWORK = "a connection: photos go out as bytes, float32 comes back; tests/serving/test_client.py"
MODEL = "a SavedModel: its file is what it is loaded from, and the graph in it decides the rest; tests/serving"
NUMPY = "NumPy on one machine: it knows no replicas and no XLA"


def classes_in(tables):
    return {kind.__name__ for table in tables for kind, _ in table.values()}


def losses_trained_on_replicas():
    """The classes of all losses in the trainings of tests/training/test_replicas.py, and what trains with them."""
    trainings = [make() for make in test_replicas.TRAININGS.values()]
    losses = {type(value).__name__ for each in trainings for value in each.values() if hasattr(value, "reduction")}
    return losses | (
        {"MetricLearner"} if any(name.startswith("learner") for name in test_replicas.TRAININGS) else set()
    )


# The suite -> the classes in it.
COVERED = {
    # losses: tests/losses/test_keras_contract.py; indexes: tests/index/test_disk.py
    "serialization": {*OTHER_ARGUMENTS, *classes_in([test_disk.KINDS]), "MetricLearner", "ScannConfiguration"},
    # losses and the learner: below; indexes: tests/index/test_index.py
    "dtype": {*OTHER_ARGUMENTS, *classes_in([test_index.KINDS]), "MetricLearner"},
    # tests/training/test_replicas.py
    "replicas": losses_trained_on_replicas(),
    "jit_compile": {*OTHER_ARGUMENTS, "MetricLearner"},
    "golden": set(goldens.GOLDENS),
}
# Where to add a class, for the message of a failing test.
WHERE = {
    "serialization": "a loss: OTHER_ARGUMENTS in tests/losses/test_keras_contract.py; an index: KINDS in "
    "tests/index/test_disk.py; else a test here and its name in COVERED",
    "dtype": "a loss: OTHER_ARGUMENTS in tests/losses/test_keras_contract.py; an index: KINDS in "
    "tests/index/test_index.py; else a test here and its name in COVERED",
    "replicas": "TRAININGS in tests/training/test_replicas.py",
    "jit_compile": "a loss: OTHER_ARGUMENTS in tests/losses/test_keras_contract.py; else a test here and its name in "
    "COVERED",
    "golden": f"GOLDENS in tests/conformance/goldens.py, then {goldens.COMMAND}",
}
IN_NONE = {
    **dict.fromkeys(["CatalogError", "CatalogIndexError", "DemoError", "MissingPhotosError"], ERROR),
    **dict.fromkeys(["SavedModelError", "ServingError"], ERROR),
    **dict.fromkeys(["AttributeTable", "KeptPhotos", "Neighbors", "Parts", "SkippedPhoto", "UpdatePlan"], RECORD),
    "Batch": "what a loss compares in one step: the losses made of it are in every suite",
    "MetricLoss": "the base of losses, without terms of its own; tests/losses/test_own_loss.py",
    "Catalog": "strings and dense class numbers, which its list on the disk holds; tests/data/test_catalog.py",
    "EmbeddingClient": NETWORK,
    "ServedEmbedder": MODEL,
    "TrainingAdvice": "a callback of words, without state that lasts; tests/training/test_advice.py",
}
# The suite -> the class that is not in it -> the reason; `path::test` where another test sees to it.
NOT_IN = {
    "serialization": {
        **IN_NONE,
        "PKSampler": "its batches follow from its arguments and the epoch alone, so there is no state to keep",
        "RetrievalEvaluation": "a callback: Keras saves none, and it keeps nothing between epochs",
    },
    "dtype": {
        **IN_NONE,
        "PKSampler": "it takes labels, which are integers",
        "RetrievalEvaluation": "it casts what the model predicts to float32; the model's own tests are of other dtypes",
        "ScannConfiguration": "whole numbers",
    },
    "replicas": {
        **IN_NONE,
        **dict.fromkeys(["ExactIndex", "MilvusIndex", "PKSampler", "ScannConfiguration", "ScannIndex"], NUMPY),
        "RetrievalEvaluation": "Keras predicts on all replicas; tests/end_to_end/test_train.py trains with two",
    },
    "jit_compile": {
        **IN_NONE,
        **dict.fromkeys(["ExactIndex", "MilvusIndex", "PKSampler", "ScannConfiguration", "ScannIndex"], NUMPY),
        "RetrievalEvaluation": "it measures in NumPy what the model predicts",
    },
    "golden": {
        **IN_NONE,
        "MilvusIndex": "a server must start; tests/index/test_index.py::test_agrees_with_the_oracle has its answers",
    },
}


def public_classes():
    """The names of the public classes of every package that can be imported here."""
    for package in PACKAGES:
        if package == "eet_tf.service" and importlib.util.find_spec("flask") is None:
            continue
        module = importlib.import_module(package)
        yield from (name for name in module.__all__ if isinstance(getattr(module, name), type))


CLASSES = sorted(public_classes())


# The walk


def missing(name, suite):
    """What to do about a class that is in a suite neither by name nor by reason; None if it is."""
    covered, excused = name in COVERED[suite], name in NOT_IN[suite]
    if covered and excused:
        return f"{name} is in the suite {suite!r}: take it off NOT_IN in {__name__}."
    if not covered and not excused:
        return (
            f"{name} is a public class that the suite {suite!r} does not know. Add it to {WHERE[suite]}; or, where "
            f"that makes no sense, to NOT_IN[{suite!r}] in tests/conformance/test_conformance.py with the reason."
        )
    return None


@pytest.mark.parametrize("suite", COVERED)
@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_is_in_every_suite_or_says_why_not(name, suite):
    assert missing(name, suite) is None, missing(name, suite)


def test_a_new_class_is_told_what_to_add():
    assert "'golden' does not know. Add it to GOLDENS" in missing("NewLoss", "golden")
    assert "KINDS in tests/index/test_disk.py" in missing("NewIndex", "serialization")


def test_names_are_of_one_class_each():
    assert len(set(CLASSES)) == len(CLASSES)


def test_no_table_names_a_class_that_is_gone():
    known = {*CLASSES, "DemoError", "InCluster", "Contrastive"}  # the last two are of the tests
    for suite, names in COVERED.items():
        assert names <= known, suite
        assert set(NOT_IN[suite]) <= known, suite


def test_every_test_that_a_reason_names_exists():
    for reason in {reason for reasons in NOT_IN.values() for reason in reasons.values()}:
        for path, _, name in re.findall(r"(tests/[\w/]+(?:\.py)?)(::(\w+))?", reason):
            assert (ROOT / path).exists(), reason
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8")) if name else None
            assert not name or name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, reason


# Serialization


def test_a_learners_embedder_comes_back(tmp_path):
    learner, _ = goldens.trained()
    learner.embedder.save(tmp_path / "model.keras")
    loaded = eet_tf.load_embedder(os.fspath(tmp_path / "model.keras"))
    np.testing.assert_array_equal(loaded(goldens.EMBEDDINGS), learner(goldens.EMBEDDINGS))


def test_a_configuration_comes_back():
    configuration = ScannConfiguration(num_candidates=30, num_leaves=7, num_leaves_to_search=3)
    assert ScannConfiguration(**dataclasses.asdict(configuration)) == configuration


# Dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", OTHER_ARGUMENTS)
def test_losses_take_every_float_and_calculate_in_float32(name, dtype):
    """The loss is that of the same numbers given as float32, and its gradient has the dtype of what came in."""
    values, slopes = goldens.loss_of(name, dtype)
    targets, outputs, _ = goldens.loss_inputs(name, dtype)
    as_float32 = tf.nest.map_structure(lambda x: tf.cast(x, tf.float32), outputs)
    expected = goldens.per_photo(made(getattr(eet_tf, name)), targets, as_float32)
    assert values.dtype == tf.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert np.all(np.isfinite(slopes))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_a_learner_trains_in_every_float(policy, set_policy):
    """Nearly as far as in float32; the history and the weights are float32 and finite."""
    _, expected = goldens.trained()
    set_policy(policy)
    learner, history = goldens.trained()
    assert history["loss"] == pytest.approx(expected["loss"], rel=0.05)
    assert all(weight.dtype == np.float32 and np.all(np.isfinite(weight)) for weight in learner.embedder.get_weights())


# XLA


@pytest.mark.parametrize("name", OTHER_ARGUMENTS)
def test_losses_compiled_by_xla_are_the_same(name):
    targets, outputs, _ = goldens.loss_inputs(name)
    loss = made(getattr(eet_tf, name))
    compiled = tf.function(functools.partial(goldens.per_photo, loss), jit_compile=True)(targets, outputs)
    np.testing.assert_allclose(compiled, goldens.per_photo(loss, targets, outputs), rtol=1e-4, atol=1e-6)


def test_a_learner_compiled_by_xla_is_the_same():
    (plain, expected), (compiled, history) = goldens.trained(jit_compile=False), goldens.trained(jit_compile=True)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    for weight, other in zip(compiled.embedder.get_weights(), plain.embedder.get_weights()):
        np.testing.assert_allclose(weight, other, rtol=1e-3, atol=1e-5)


# Golden


def assert_alike(computed, stored, where):
    if isinstance(stored, dict):
        assert list(computed) == list(stored), where
        for key, value in stored.items():
            assert_alike(computed[key], value, f"{where}: {key}")
    elif np.asarray(stored).dtype.kind == "f":
        np.testing.assert_allclose(computed, stored, rtol=1e-4, atol=1e-5, err_msg=where)
    else:
        assert computed == stored, where


@pytest.mark.parametrize("name", goldens.GOLDENS)
def test_its_numbers_are_the_stored_ones(name):
    keras.utils.set_random_seed(0)
    assert_alike(goldens.GOLDENS[name](), goldens.read(name)["values"], f"{name}; on purpose? Then {goldens.COMMAND}")


def test_every_golden_file_is_of_a_class_and_says_how_it_was_made():
    assert {file.stem for file in goldens.FOLDER.glob("*.json")} == set(goldens.GOLDENS)
    for name in goldens.GOLDENS:
        assert goldens.read(name)["made_by"] == goldens.COMMAND
