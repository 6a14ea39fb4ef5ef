"""Keeps a model's special tokens out of what callers and passages say."""

from __future__ import annotations

import re
from collections.abc import Iterable


class SpecialTokens:
    """The texts that a model reads as tokens with a meaning, such as a turn's end."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")

    def broken(self, content: str) -> str:
        """Return content in which none of them stands: a passage that held the one that
        ends a turn could otherwise speak as the system."""
        return self._pattern.sub(lambda it: f"{it[0][0]} {it[0][1:]}", content)
