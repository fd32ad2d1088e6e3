"""What the parts of `benchmarks/gpu.py` are asked to measure."""

from typing import NamedTuple


class Settings(NamedTuple):
    """What was asked for; empty or None where a part chooses for itself."""

    output_dir: str
    losses: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    ways: tuple[str, ...] = ()
    photos: int | None = None


class CannotMeasureError(Exception):
    """Raised by a part that this machine lacks something for; the text says what."""
