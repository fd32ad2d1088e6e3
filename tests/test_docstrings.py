"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import eet_tf

# the verifier of bundles bars this package from the process that imports it
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(eet_tf.__path__, "eet_tf.") if "verifier" not in module.name
)
NEEDED = {
    "eet_tf.training.addons": {"tensorflow_addons": "TensorFlow Addons goes with TensorFlow 2.15 alone"},
    "eet_tf.embedding.beam": {"apache_beam": "Apache Beam does not go with TensorFlow 2.15"},
    "eet_tf.client.grpc_transport": {"tensorflow_serving": "tensorflow-serving-api is the extra [serving]"},
    "eet_tf.data.listings": {"pandas": "Apache Beam and the tests bring pandas along, TensorFlow 2.15 goes without"},
    "eet_tf.service": {"flask": "Flask is the extra [demo]"},
    "eet_tf.service.app": {"flask": "Flask is the extra [demo]"},
    "eet_tf.service.filters": {"flask": "Flask is the extra [demo]"},
    "eet_tf.service.photos": {"flask": "Flask is the extra [demo]"},
    "eet_tf.index.milvus.index": {"pymilvus": "the Milvus client does not go with TensorFlow 2.15"},
}
PUBLIC = {"np": np, **{name: getattr(eet_tf, name) for name in eet_tf.__all__}}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    """With NumPy and the public names at hand, as a reader has them."""
    for package, reason in NEEDED.get(name, {}).items():
        pytest.importorskip(package, reason=reason)
    assert doctest.testmod(importlib.import_module(name), extraglobs=PUBLIC, optionflags=doctest.ELLIPSIS).failed == 0


def test_every_public_class_and_function_has_an_example():
    assert [name for name in eet_tf.__all__ if ">>>" not in (getattr(eet_tf, name).__doc__ or "")] == []
