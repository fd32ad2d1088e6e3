"""Which embedder it is: a name that two embedders share only if their vectors can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import keras
import numpy as np

from eet_tf.data import images
from eet_tf.embedder.heads import attribute_head


def embedder_fingerprint(embedder: keras.Model, whitening=None) -> str:
    """Computes a hash of everything that makes a vector of a photo: weights, layers, whitening and decoding.

    Vectors of two embedders can be compared only if their fingerprints are equal. An attribute head is no part of it.
    """
    digest = hashlib.sha256()
    digest.update(f"decoding {images.RULES_VERSION}, input {embedder.input_shape[1:]}".encode())
    for fact in _layer_facts(embedder):
        digest.update(fact.encode())
    head = attribute_head(embedder)
    no_part = {id(variable) for variable in (head.weights if head else ())}
    weights = [weight for each, weight in zip(embedder.weights, embedder.get_weights()) if id(each) not in no_part]
    for weight in (*weights, *([] if whitening is None else [whitening.mean, whitening.projection])):
        digest.update(str((weight.shape, weight.dtype)).encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def _layer_facts(model: keras.Model) -> Iterator[str]:
    """What each layer is and was told, of models in it too, but for what does not change its answers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layer_facts(layer)
            continue
        if layer is attribute_head(model):
            continue
        config = {name: value for name, value in layer.get_config().items() if name not in ("name", "trainable")}
        plain = {name: value for name, value in config.items() if isinstance(value, str | int | float | list | tuple)}
        yield f"{type(layer).__name__} {json.dumps(plain, sort_keys=True, default=str)}"
