"""Prefixes of embeddings as vectors of their own, for models that were trained to be searched with them."""

from __future__ import annotations

import numpy as np


def prefix_vectors(embeddings, length: int) -> np.ndarray:
    """The first dimensions of embeddings, brought to length 1.

    Args:
        embeddings: `[N, D]`.
        length: how many dimensions, at most D.

    Returns:
        `[N, length]` float32. A prefix of zeros stays as it is.

    Example:

    >>> prefix_vectors([[0.6, 0.0, 0.8], [0.0, 0.0, 1.0]], 2)
    array([[1., 0.],
           [0., 0.]], dtype=float32)
    """
    rows = np.asarray(embeddings, np.float32)[:, :length]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
