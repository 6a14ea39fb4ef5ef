"""Finds passages that say nearly the same, by their shingles.

Shingles are runs of words; two texts are near-duplicates if their sets of shingles have
a high Jaccard similarity (Broder 1997).
"""

from __future__ import annotations

from collections.abc import Sequence

from quintet_servicekit.words import WORD

_WORDS = 3
"""Words of a shingle."""
_MOST_WORDS = 2_000
"""Words of a passage that are looked at, which bounds the time: fifty passages of that
length take 0.4 s, five of a usual one 0.7 ms."""


def near_duplicates(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """Return, for each text that nearly repeats an earlier one, that one's index.

    `threshold` is the least Jaccard similarity of two near-duplicates, 0 to 1.
    """
    kept: dict[int, frozenset[tuple[str, ...]]] = {}
    repeated: dict[int, int] = {}
    for index, text in enumerate(texts):
        shingles = _shingles(text)
        same = next((at for at, it in kept.items() if _jaccard(shingles, it) >= threshold), None)
        if same is None:
            kept[index] = shingles
        else:
            repeated[index] = same
    return repeated


def similarity(one: str, other: str) -> float:
    """Return how much two texts repeat each other, 0 to 1, as `near_duplicates` has it."""
    return _jaccard(_shingles(one), _shingles(other))


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = [word.casefold() for word in WORD.findall(text)[:_MOST_WORDS]]
    if not words:
        # Signs alone: only the same ones repeat them.
        return frozenset({tuple(text.split())})
    last = max(1, len(words) - _WORDS + 1)
    return frozenset(tuple(words[at : at + _WORDS]) for at in range(last))


def _jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
