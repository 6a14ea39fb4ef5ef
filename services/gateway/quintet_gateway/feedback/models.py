"""What passes between the layers of ratings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

SCORES = (1, 2, 3, 4, 5)
LIKED = 4
"""Least score of an answer that was liked."""
_Z = 1.96
"""Of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Made:
    """How an answer was made."""

    collection: str
    model: str
    model_revision: str
    template: str
    template_revision: str


@dataclass(frozen=True, slots=True)
class Rating:
    """A rater's `score`, 1 to 5, of an answer; `rater` is a digest of 16 bytes."""

    answer_id: UUID
    rater: bytes
    score: int
    comment: str
    made: Made


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment on an answer, and how that was made and rated."""

    answer_id: UUID
    score: int
    text: str
    rated_at: datetime
    template: str
    model: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The ratings of all answers that were made alike; `counts` by score, from 1, at least
    one of them. The collection of `made` is empty."""

    made: Made
    counts: tuple[int, int, int, int, int]

    @property
    def number(self) -> int:
        """How many there are."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean score."""
        return sum(map(math.prod, zip(SCORES, self.counts, strict=True))) / self.number

    @property
    def liked(self) -> float:
        """The share of answers that were liked."""
        return sum(self.counts[LIKED - 1 :]) / self.number

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of that share."""
        return wilson(sum(self.counts[LIKED - 1 :]), self.number)


def wilson(successes: int, number: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share, `number` at least 1."""
    share, square = successes / number, _Z * _Z
    middle = share + square / (2 * number)
    reach = _Z * math.sqrt(share * (1 - share) / number + square / (4 * number * number))
    whole = 1 + square / number
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)
