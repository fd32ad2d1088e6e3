"""How the vectors of an index are kept: float32, or in half or a quarter of its memory."""

from __future__ import annotations

import dataclasses

import numpy as np

STORAGES = ("float32", "bfloat16", "int8")


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """`[N, D]` unit vectors in one of the `STORAGES`; `rows` gives any of them as float32.

    * bfloat16 keeps the upper half of each float32: cosines are off by about 0.001.
    * int8 keeps 127 steps to the largest coordinate of a row, scaled so that its length is 1: off by about 0.003.

    Args:
        values: `[N, D]`: float32; uint16, the bits of bfloat16; or int8.
        scales: `[N]` float32, what int8 rows are multiplied by; None for the others.
    """

    values: np.ndarray
    scales: np.ndarray | None = None

    @classmethod
    def of(cls, vectors: np.ndarray, storage: str) -> Vectors:
        """Keeps float32 `vectors` as `storage` says.

        Example:

        >>> kept = Vectors.of(np.float32([[0.6, 0.8]]), "int8")
        >>> kept.values.tolist(), np.allclose(kept.rows(slice(None)), [[0.6, 0.8]], atol=0.01)
        ([[95, 127]], True)
        """
        if storage == "float32":
            return cls(vectors)
        if storage == "bfloat16":
            bits = vectors.view(np.uint32)
            return cls(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))  # to nearest, ties to even
        steps = np.rint(vectors * (127 / np.abs(vectors).max(axis=1, keepdims=True))).astype(np.int8)
        return cls(steps, (1 / np.linalg.norm(steps.astype(np.float32), axis=1)).astype(np.float32))

    def rows(self, which: slice | np.ndarray) -> np.ndarray:
        """Those rows as float32 `[n, D]`; of float32 vectors a slice is a view."""
        # `take` copies whole rows, several times as fast as indexing
        values = self.values[which] if isinstance(which, slice) else np.take(np.asarray(self.values), which, axis=0)
        if values.dtype == np.float32:
            return values
        if values.dtype == np.uint16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values * self.scales[which][:, np.newaxis]  # type: ignore[index]  # int8 has scales

    @property
    def storage(self) -> str:
        """One of the `STORAGES`."""
        return {"float32": "float32", "uint16": "bfloat16", "int8": "int8"}[self.values.dtype.name]

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.values.shape[1]

    def __len__(self) -> int:
        return len(self.values)
