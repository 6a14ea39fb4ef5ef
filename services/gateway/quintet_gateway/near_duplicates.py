"""Finds passages that say nearly the same, by their shingles.

Shingles are runs of words; two texts are near-duplicates if their sets of shingles have
a high Jaccard similarity (Broder 1997).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TypeAlias

from quintet_servicekit.words import WORD

_WORDS = 3
"""Words of a shingle."""
_MOST_WORDS = 2_000
"""Words of a passage that are looked at, which bounds the time: fifty passages of that
length take 0.4 s, five of a usual one 0.7 ms."""


Shingles: TypeAlias = "array[int]"
"""Hashes of a text's shingles, each of 64 bits and once: those of two texts of a thousand
words meet by chance once in 10^13 times. They take 8 bytes each, their words a hundred."""


def near_duplicates(
    texts: Sequence[str],
    threshold: float,
    shingles_of: Callable[[str], Shingles] = lambda text: shingles(text),
) -> dict[int, int]:
    """Return, for each text that nearly repeats an earlier one, that one's index.

    `threshold` is the least Jaccard similarity of two near-duplicates, 0 to 1.
    """
    kept: dict[int, frozenset[int]] = {}
    repeated: dict[int, int] = {}
    for index, text in enumerate(texts):
        found = frozenset(shingles_of(text))
        same = next((at for at, it in kept.items() if _jaccard(found, it) >= threshold), None)
        if same is None:
            kept[index] = found
        else:
            repeated[index] = same
    return repeated


def similarity(one: str, other: str) -> float:
    """Return how much two texts repeat each other, 0 to 1, as `near_duplicates` has it."""
    return _jaccard(frozenset(shingles(one)), frozenset(shingles(other)))


def shingles(text: str) -> Shingles:
    """Return a text's shingles; of one with too few words its words as one, and of one with
    none its signs."""
    words = [word.casefold() for word in WORD.findall(text)[:_MOST_WORDS]]
    if len(words) < _WORDS:
        # Signs alone: only the same ones repeat them.
        return array("q", [hash(tuple(words or text.split()))])
    return array("q", {hash(it) for it in zip(words, words[1:], words[2:], strict=False)})


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
