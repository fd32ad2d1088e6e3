"""A network made again with other layers and the same weights."""

from __future__ import annotations

from collections.abc import Callable

import keras


def rebuilt(network: keras.Model, changed: Callable[[keras.layers.Layer], keras.layers.Layer]) -> keras.Model:
    """Makes a functional model of the layers that `changed` gives for its own, with the weights that it has."""
    made = keras.models.clone_model(network, clone_function=changed)
    made.set_weights(network.get_weights())
    for layer in made.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # which keeps what it computes of its weights
    return made
