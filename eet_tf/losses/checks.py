"""What the arguments of a loss may be, and what it is given, and how another is refused."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import tensorflow as tf


def entry_of(argument: str, value, key: str):
    """`value[key]`, where a loss needs dicts of labels and of outputs.

    Raises:
        ValueError: if `value` is no dict or has no such entry; it says where dicts come from.
    """
    if isinstance(value, Mapping) and key in value:
        return value[key]
    received = f"a dict of {', '.join(sorted(value))}" if isinstance(value, Mapping) else "no dict"
    raise ValueError(
        f"`{argument}` must be a dict with {key!r}. Received: {argument} is {received}. Losses that use attributes "
        "need eet_tf.MetricLearner (Keras's own compile gives a loss one output at a time), an embedder from "
        "build_embedder(..., attribute_names=...) and batches of (images, {'label': [batch], 'attributes': [batch, "
        "num_attributes]})."
    )


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"`{argument}` must be one of {', '.join(choices)}. Received: {argument}={value!r}.")


def check_numbers(arguments: Mapping[str, float], above_zero: bool = False) -> None:
    """Raises `ValueError` unless each of some arguments is 0 or more, or above 0; tensors are taken as they are.

    Example:

    >>> check_numbers({"margin": float("nan")})
    Traceback (most recent call last):
        ...
    ValueError: `margin` must be 0 or more. Received: margin=nan.
    """
    for argument, value in arguments.items():
        if tf.is_tensor(value) or isinstance(value, tf.Variable):
            continue
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not (value > 0 if above_zero else value >= 0):  # NaN neither
            expected = "above 0" if above_zero else "0 or more"
            raise ValueError(f"`{argument}` must be {expected}. Received: {argument}={value}.")
