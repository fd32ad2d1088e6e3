"""The ways in which photos of any aspect become the squares that an embedder takes.

`"squash"` stretches a photo to the square. `"letterbox"` keeps its aspect: it is made as large as fits, stands in the
middle, and what is left of the square is white, as the background of shops' photos is.
"""

from __future__ import annotations

FITS = ("squash", "letterbox")


def check_fit(fit) -> None:
    """Refuses what is no such way.

    Example:

    >>> check_fit("letterbox")
    >>> check_fit("crop")
    Traceback (most recent call last):
    ...
    ValueError: `fit` must be one of squash, letterbox. Received: fit='crop'.
    """
    if fit not in FITS:
        raise ValueError(f"`fit` must be one of {', '.join(FITS)}. Received: fit={fit!r}.")
