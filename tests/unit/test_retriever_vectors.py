"""Packed vectors become rows of length 1, whatever their scale."""

from __future__ import annotations

import numpy as np
import pytest

from quintet_retriever import vectors


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 3e38])
def test_a_vector_of_any_scale_keeps_its_direction(scale: float) -> None:
    rows = np.array([[3 * scale / 5, 4 * scale / 5]], dtype="<f4")
    unpacked = vectors.unpacked([rows[0].tobytes()], 2)
    assert vectors.directionless(unpacked).size == 0
    np.testing.assert_allclose(vectors.normalised(unpacked), [[0.6, 0.8]], rtol=1e-5)


def test_zero_and_what_is_not_finite_have_no_direction() -> None:
    rows = np.array([[0, 0], [1, 0], [np.nan, 1], [np.inf, 0], [-0.0, 0]], dtype=np.float32)
    assert vectors.directionless(rows).tolist() == [0, 2, 3, 4]
