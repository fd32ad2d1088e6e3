"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import eet_tf

pytestmark = pytest.mark.addons

MODULES = sorted(module.name for module in pkgutil.walk_packages(eet_tf.__path__, "eet_tf."))
PUBLIC = {"np": np, **{name: getattr(eet_tf, name) for name in eet_tf.__all__}}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    """With NumPy and the public names at hand, as a reader has them."""
    if name == "eet_tf.beam":
        pytest.importorskip("apache_beam", reason="Apache Beam does not go with TensorFlow 2.15")
    if name == "eet_tf.index.milvus":
        pytest.importorskip("pymilvus", reason="the Milvus client does not go with TensorFlow 2.15")
    assert doctest.testmod(importlib.import_module(name), extraglobs=PUBLIC).failed == 0


def test_every_public_class_and_function_has_an_example():
    without = [name for name in eet_tf.__all__ if ">>>" not in (getattr(eet_tf, name).__doc__ or "")]
    # the functions behind the loss classes, whose docstrings have the examples
    assert without == ["eet_loss", "triplet_loss"]
