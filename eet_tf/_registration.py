"""Lets Keras load the layers, losses and learners of this package by name, without importing any of them beforehand.

A `.keras` file names a class as `"eet_tf>EETLoss"`, and Keras looks that name up in its registry of custom objects,
which it fills as classes are defined. So that `import eet_tf` alone is enough, and stays free of TensorFlow, the
registry gets a stand-in for every class: at once if Keras has been imported, otherwise as soon as it is. A stand-in
imports its class when Keras first asks it for something; the class then takes its place.

The names in `CLASSES` stay for ever, so that old files load. The modules may move: Keras looks at the name alone.
"""

from __future__ import annotations

import importlib
import sys

PACKAGE = "eet_tf"
CLASSES = {
    "AddonsLoss": "eet_tf.training.addons",
    "ArcFaceLoss": "eet_tf.losses.arcface",
    "AttributeHead": "eet_tf.embedder.heads",
    "AttributeLoss": "eet_tf.losses.attributes",
    "AvgMaxPooling": "eet_tf.embedder.pooling",
    "BinomialDevianceLoss": "eet_tf.losses.binomial",
    "ClassToken": "eet_tf.embedder.pooling",
    "CombinedLoss": "eet_tf.losses.combined",
    "DepthwiseConv": "eet_tf.embedder.depthwise",
    "DistillationLoss": "eet_tf.losses.distillation",
    "EETLoss": "eet_tf.losses.eet",
    "GeMPooling": "eet_tf.embedder.pooling",
    "GridPooling": "eet_tf.embedder.pooling",
    "MetricLearner": "eet_tf.training.learner",
    "MultiSimilarityLoss": "eet_tf.losses.multi_similarity",
    "NormalizedSoftmaxLoss": "eet_tf.losses.normalized_softmax",
    "PatchTokens": "eet_tf.embedder.pooling",
    "PixelScaling": "eet_tf.embedder.pixels",
    "PrefixLoss": "eet_tf.losses.prefixes",
    "ProxyAnchorLoss": "eet_tf.losses.proxy_anchor",
    "RecallAtKLoss": "eet_tf.losses.recall",
    "RoadmapLoss": "eet_tf.losses.average_precision",
    "SmoothAPLoss": "eet_tf.losses.average_precision",
    "SoftBinomialDevianceLoss": "eet_tf.losses.sgml",
    "SupervisedContrastiveLoss": "eet_tf.losses.contrastive",
    "TripletLoss": "eet_tf.losses.triplet",
    "UnitLength": "eet_tf.embedder.heads",
    "UnitPrefix": "eet_tf.embedder.heads",
}


class _StandIn:
    """Answers as the class that it stands for, which it imports when it is first asked."""

    def __init__(self, name: str, module: str):
        self._name = name
        self._module = module

    def __getattr__(self, attribute: str):
        if attribute.startswith("__"):  # what copying and inspecting look for is no question to the class
            raise AttributeError(attribute)
        return getattr(getattr(importlib.import_module(self._module), self._name), attribute)


class _RegisteringLoader:
    """Loads Keras as its own loader does, and then registers the stand-ins."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, attribute: str):
        return getattr(self._loader, attribute)

    def create_module(self, spec):
        """Makes the module as Keras's own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        """Runs the module, which knows its own loader alone, and registers."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register(module)


class _KerasFinder:
    """Finds Keras where the other finders on `sys.meta_path` find it, and nothing else."""

    def find_spec(self, name: str, path=None, target=None):
        """Returns the specification of Keras with a `_RegisteringLoader`; None for every other module."""
        if name != "keras":
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in specs if found is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)  # type: ignore[assignment]  # it answers as a loader
        return spec


def _register(keras) -> None:
    known = keras.saving.get_custom_objects()
    for name, module in CLASSES.items():
        known.setdefault(f"{PACKAGE}>{name}", _StandIn(name, module))


def register_lazily() -> None:
    """Registers the classes in `CLASSES` with Keras, now if it has been imported, otherwise when it is."""
    if "keras" in sys.modules:
        _register(importlib.import_module("keras"))  # waits where another thread is still at it
    else:
        sys.meta_path.insert(0, _KerasFinder())
