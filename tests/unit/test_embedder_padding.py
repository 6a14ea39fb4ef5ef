"""Texts of different lengths as one rectangle."""

from __future__ import annotations

import pytest

from quintet_embedder.padding import padded


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (8, 8)])
def test_a_rectangle_holds_each_text_and_masks_the_rest(multiple: int, width: int) -> None:
    ids, mask = padded([[5, 6, 7], [8]], 0, multiple)
    assert ids.shape == mask.shape == (2, width)
    assert ids[0, :3].tolist() == [5, 6, 7]
    assert ids[1, :1].tolist() == [8]
    assert ids.sum() == 5 + 6 + 7 + 8
    assert mask.sum(axis=1).tolist() == [3, 1]
