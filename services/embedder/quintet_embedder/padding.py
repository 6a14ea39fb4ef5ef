"""Token ids of different lengths as one rectangle, which is what engines compute on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quintet_embedder.models import TokenIds

Rectangle = npt.NDArray[np.int64]


def padded(
    ids: Sequence[TokenIds], padding_id: int, multiple: int = 1
) -> tuple[Rectangle, Rectangle]:
    """Return ids and attention mask, each int64 [texts, longest]; the mask is 1 on
    a text's own tokens and 0 on the padding after them. `longest` is rounded up to a
    multiple of `multiple`."""
    longest = -(-max(map(len, ids)) // multiple) * multiple
    rectangle = np.full((len(ids), longest), padding_id, dtype=np.int64)
    mask = np.zeros((len(ids), longest), dtype=np.int64)
    for row, tokens in enumerate(ids):
        rectangle[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return rectangle, mask
