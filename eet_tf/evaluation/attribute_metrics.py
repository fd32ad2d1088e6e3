"""How often an attribute head is right, attribute by attribute, where the truth is known. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def attribute_accuracy(predictions, attributes, names: Sequence[str], from_logits: bool = True) -> dict[str, dict]:
    """Counts how often an attribute head is right about each attribute.

    A photo of which an attribute is not known does not count for it; an attribute of which nothing is known is left
    out. A head that has learnt nothing reaches `"majority"`, the share of the more frequent answer: compare the two.

    Args:
        predictions: `[N, A]` logits, as `build_embedder(..., attribute_names=...)` gives them, or probabilities.
        attributes: `[N, A]` the truth in {1, 0, -1 = unknown}, e.g. `encode_attributes(...).values`.
        names: the A attributes, in the order of the columns, e.g. `encode_attributes(...).names`.
        from_logits: whether predictions are logits, of which those above 0 say yes; of probabilities those above 0.5.

    Returns:
        `{name: {"accuracy": share right, "majority": share of the more frequent answer, "num_known": photos}}`, in the
        order of the names; both shares in [0, 1].

    Raises:
        ValueError: if shapes do not fit, a prediction is no number, a truth is another value, or a probability is not
            in [0, 1].

    Example:

    >>> logits, truth = [[2.0, -1.0], [-3.0, 1.0], [0.5, 0.5]], [[1, 0], [1, -1], [1, 0]]
    >>> found = attribute_accuracy(logits, truth, ["red", "striped"])
    >>> round(found["red"]["accuracy"], 3), found["red"]["majority"]
    (0.667, 1.0)
    >>> found["striped"]
    {'accuracy': 0.5, 'majority': 1.0, 'num_known': 2}
    """
    predictions, attributes = _checked(predictions, attributes, names, from_logits)
    says_yes, known = predictions > (0.0 if from_logits else 0.5), attributes >= 0
    num_known = known.sum(axis=0)
    num_right = (known & (says_yes == (attributes == 1))).sum(axis=0)
    num_yes = (attributes == 1).sum(axis=0)
    return {
        str(name): {
            "accuracy": float(num_right[place] / num_known[place]),
            "majority": float(max(num_yes[place], num_known[place] - num_yes[place]) / num_known[place]),
            "num_known": int(num_known[place]),
        }
        for place, name in enumerate(names)
        if num_known[place]
    }


def _checked(predictions, attributes, names: Sequence[str], from_logits: bool) -> tuple[np.ndarray, np.ndarray]:
    predictions, attributes = np.asarray(predictions), np.asarray(attributes)
    if predictions.dtype.kind not in "biuf" or predictions.ndim != 2 or predictions.shape[1] != len(names):
        raise ValueError(
            f"`predictions` must be [N, {len(names)}] numbers, a column for each of `names`. "
            f"Received: shape {predictions.shape}."
        )
    if attributes.shape != predictions.shape:
        raise ValueError(
            f"`attributes` must be {list(predictions.shape)}, as the predictions. Received: shape {attributes.shape}."
        )
    _check_values("attributes", attributes, np.isin(attributes, (1, 0, -1)), "1 (yes), 0 (no) or -1 (unknown)")
    is_sound = np.isfinite(predictions)
    if from_logits:
        _check_values("predictions", predictions, is_sound, "finite numbers")
    else:
        is_sound &= (predictions >= 0) & (predictions <= 1)
        _check_values("predictions", predictions, is_sound, "in [0, 1]; give from_logits=True for logits")
    return predictions, attributes


def _check_values(argument: str, values: np.ndarray, is_sound: np.ndarray, expected: str) -> None:
    wrong = np.argwhere(~is_sound)
    if len(wrong):
        row, column = (int(place) for place in wrong[0])
        value = values[row, column].item() if isinstance(values[row, column], np.generic) else values[row, column]
        raise ValueError(f"`{argument}` must be {expected}. Received: {argument}[{row}, {column}]={value!r}.")
