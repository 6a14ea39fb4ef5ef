"""Packed vectors of the contract as numpy arrays, checked against their collection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quintet_retriever.models import CollectionKey
from quintet_servicekit.errors import Reason, ServiceError, Violation

FLOAT_BYTES = 4


def unpacked(packed: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Return the vectors as float32 [number, dimension].

    Each of `packed` must hold `dimension` little-endian 32-bit floats.
    """
    return np.frombuffer(b"".join(packed), dtype="<f4").reshape(len(packed), dimension)


def bytes_of(vector: NDArray[np.float32]) -> bytes:
    """Return a vector as little-endian 32-bit floats."""
    return vector.astype("<f4", copy=False).tobytes()


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


def unit_rows(packed: Sequence[tuple[str, bytes]], dimension: int) -> NDArray[np.float32]:
    """Return the named, packed vectors as float32 [number, dimension], rows of length 1.

    Raises `ServiceError` DIMENSION_MISMATCH, or INVALID_FIELD for one without a direction.
    """
    for field, data in packed:
        if len(data) != dimension * FLOAT_BYTES:
            actual = len(data) // FLOAT_BYTES
            raise ServiceError(
                Reason.DIMENSION_MISMATCH,
                f"{field} holds {actual} numbers, and the collection's vectors have {dimension}",
                metadata={"expected": str(dimension), "actual": str(actual)},
                violations=[Violation(field, f"must hold {dimension} numbers")],
            )
    rows = unpacked([data for _, data in packed], dimension)
    faults = [
        Violation(packed[i][0], "must hold finite numbers, not all of them zero")
        for i in directionless(rows)
    ]
    if faults:
        raise ServiceError(
            Reason.INVALID_FIELD, f"{faults[0].field} {faults[0].description}", violations=faults
        )
    return normalised(rows)


def check_revision(collection: str, key: CollectionKey, revision: str) -> None:
    """Raise `ServiceError` MODEL_MISMATCH unless the revision is the collection's, or empty."""
    if revision and revision != key.embedding_revision:
        raise ServiceError(
            Reason.MODEL_MISMATCH,
            "the vectors were made by another revision of the embedding model",
            metadata={
                "collection": collection,
                "expected": key.embedding_revision,
                "actual": revision,
            },
        )
