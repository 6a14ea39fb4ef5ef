"""Orders hits so that each says something new: maximal marginal relevance.

Two hits are as similar as their words: the cosine of their sets of stems, each stem
weighted by how few of the hits have it. docs/refinement.md has what that tells apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from quintet_servicekit.words import stems

_MOST_CHARACTERS = 4_000
"""Characters of a text that are looked at, which bounds the time: two hundred texts of
that length take half a second, twenty chunks of the shipped size 2 ms."""


def by_marginal_relevance(
    scores: Sequence[float], texts: Sequence[str], relevance_share: float
) -> list[int]:
    """Return the indices of `texts` by maximal marginal relevance (Carbonell and
    Goldstein, 1998), the first one first.

    `scores` are the texts' relevance on any scale; they are brought to 0 for the least
    and 1 for the greatest. Each next text is the one with the greatest sum of
    `relevance_share` (0 to 1) times that, less the rest times its similarity to the
    nearest text before it; of equal ones the first.
    """
    relevance = _scaled(scores)
    similarity = Similarity(texts)
    left, order = list(range(len(texts))), list[int]()
    nearest = [0.0] * len(texts)
    while left:
        best = max(
            left,
            key=lambda it: relevance_share * relevance[it] - (1 - relevance_share) * nearest[it],
        )
        chosen = best if order else left[0]
        left.remove(chosen)
        order.append(chosen)
        for it in left:
            nearest[it] = max(nearest[it], similarity.between(chosen, it))
    return order


class Similarity:
    """How much the words of some texts are those of another of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._stems = [frozenset(stems(text[:_MOST_CHARACTERS])) for text in texts]
        have = Counter(stem for of_text in self._stems for stem in of_text)
        # Squared, so that a sum of them is a scalar product.
        self._weights = {
            stem: math.log(1 + len(texts) / count) ** 2 for stem, count in have.items()
        }
        self._lengths = [math.sqrt(self._weight(it)) for it in self._stems]

    def between(self, one: int, other: int) -> float:
        """Return the similarity of two texts by their indices, 0 to 1."""
        lengths = self._lengths[one] * self._lengths[other]
        return self._weight(self._stems[one] & self._stems[other]) / lengths if lengths else 0.0

    def _weight(self, of: frozenset[str]) -> float:
        # A set's order differs from process to process; an exact sum does not depend on it.
        return math.fsum(self._weights[stem] for stem in of)


def _scaled(scores: Sequence[float]) -> list[float]:
    least, most = min(scores, default=0.0), max(scores, default=0.0)
    return [(it - least) / (most - least) if most > least else 1.0 for it in scores]
