"""Chooses the passages for which a prompt has room."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def pack(tokens: Sequence[int], budget: int, passed_by: Collection[int] = ()) -> list[int]:
    """Return the indices of the passages to keep, in their order.

    `tokens` are the passages' sizes, best first; those `passed_by` don't come into
    question. A passage that does not fit is left out and a later, smaller one may take
    its place. The best passage is always kept, since an answer needs one: if it alone
    is too large, the generator says so.
    """
    kept: list[int] = []
    left = budget
    for index, size in enumerate(tokens):
        if index not in passed_by and (size <= left or not kept):
            kept.append(index)
            left -= size
    return kept
