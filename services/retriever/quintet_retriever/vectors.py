"""Packed vectors of the contract as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FLOAT_BYTES = 4


def unpacked(packed: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Return the vectors as float32 [number, dimension].

    Each of `packed` must hold `dimension` little-endian 32-bit floats.
    """
    return np.frombuffer(b"".join(packed), dtype="<f4").reshape(len(packed), dimension)


def directionless(rows: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the indices of the rows of float32 [number, dimension] that have no
    cosine with another: zero, or not finite."""
    usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    return np.flatnonzero(~usable)


def normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows scaled to length 1; none may be directionless."""
    # In double precision, where no square of a float32 over- or underflows.
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit.astype(np.float32)
