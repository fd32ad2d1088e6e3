"""What a label is: a whole number, which reaches the loss as the int64 it is, whatever it was given as."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# From here on a type has no number of its own for every whole one
_LIMITS = {tf.float64: 2**53, tf.float32: 2**24, tf.float16: 2**11, tf.bfloat16: 2**8}
_MEND = "Number the skus: the labels of a Catalog are such numbers, and so is np.unique(skus, return_inverse=True)[1]."


def class_numbers(labels, argument: str = "y_true") -> tuple[tf.Tensor, tf.Tensor | None]:
    """Labels as int64, with another number for every other label.

    Integers of every type are kept exactly; uint64 above 2^63 become negative. Floats are taken where they are whole
    numbers that their type can tell apart: below 2^24 for float32, 2^53 for float64, 2^11 for float16, 2^8 for
    bfloat16.

    Args:
        labels: tensor, array or list of numbers, of any shape.
        argument: the name of the argument in messages.

    Returns:
        `(numbers, is_sound)`, each of the shape of `labels`. `is_sound` is None for integers. For floats it is bool,
        false where a label is no such number, which cannot be refused within a graph.

    Raises:
        ValueError: if labels are strings or other things that are no numbers; or floats of which one is no such number,
            where that can be seen, outside a graph.

    Example:

    >>> class_numbers(np.array([4006381333931, 4006381333948]))[0].numpy()
    array([4006381333931, 4006381333948])
    """
    labels = _tensor(labels, argument)
    if labels.dtype in _LIMITS:
        return _of_floats(labels, argument)
    if labels.dtype == tf.uint64:
        return tf.bitcast(labels, tf.int64), None
    if labels.dtype.is_integer or labels.dtype.is_bool:
        return tf.cast(labels, tf.int64), None
    raise _refusal(argument, "strings" if labels.dtype == tf.string else labels.dtype.name)


def _tensor(labels, argument: str) -> tf.Tensor:
    if tf.is_tensor(labels):
        return tf.convert_to_tensor(labels)
    try:
        labels = np.asarray(labels)
        labels = np.array(labels.tolist()) if labels.dtype == object else labels  # of what each thing in it is
    except ValueError:
        raise _refusal(argument, "rows of several lengths") from None
    if labels.dtype.kind in "US":
        raise _refusal(argument, "strings")
    if labels.dtype == object:
        raise _refusal(argument, _first_odd(labels.reshape(-1).tolist()))
    if labels.dtype.kind not in "biuf":
        raise _refusal(argument, f"values of type {labels.dtype}")
    return tf.convert_to_tensor(labels)


def _first_odd(labels: list) -> str:
    """The first label that is no number, with its row."""
    row, odd = next((row, each) for row, each in enumerate(labels) if not isinstance(each, int | float))
    return f"{'None' if odd is None else f'a {type(odd).__name__}'} in row {row}"


def _of_floats(labels: tf.Tensor, argument: str) -> tuple[tf.Tensor, tf.Tensor]:
    exact = tf.cast(labels, tf.float64)
    is_sound = tf.equal(exact, tf.floor(exact)) & (tf.abs(exact) < _LIMITS[labels.dtype])
    known = tf.get_static_value(labels)
    if known is not None:
        _check_floats(known.astype(np.float64).reshape(-1), labels.dtype, argument)
    return tf.cast(tf.where(is_sound, exact, 0.0), tf.int64), is_sound


def _check_floats(labels: np.ndarray, dtype: tf.DType, argument: str) -> None:
    wrong = np.flatnonzero(~((labels == np.floor(labels)) & (np.abs(labels) < _LIMITS[dtype])))
    if wrong.size:
        raise ValueError(
            f"`{argument}` must be whole numbers, below {_LIMITS[dtype]:,} where they are {dtype.name}, which tells no "
            f"larger ones apart. Received: {labels[wrong[0]]:.15g} in row {wrong[0]}. Give integers, e.g. of int64."
        )


def _refusal(argument: str, received: str) -> ValueError:
    return ValueError(f"`{argument}` must be integer labels. Received: {received}. {_MEND}")
