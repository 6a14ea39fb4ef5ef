"""How well passages support a sentence, by its words.

A sentence is held against the passages' sentences: up to three of them may support it
together. Its support is the share of its words that they hold, each weighted by its
rarity among the passages' sentences (BM25's inverse document frequency), less what its
numbers and names that they don't hold make doubtful: a sentence that is all true but
for a year is not supported. docs/answers.md has how well this tells supported
sentences from others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quintet_servicekit.sentences import sentence_spans
from quintet_servicekit.words import STOP_WORDS, WORD, stem, stems

_SOURCES = 3
"""Sentences that may support one together: a long answer puts two or three into one."""
_LEAST_GAIN = 0.1
"""Share of the sentence's weight that a further source must add."""
_DOUBT = 0.9
"""Share of the support that is lost if none of the numbers and names is found."""


@dataclass(frozen=True, slots=True)
class Source:
    """A sentence of a passage, as characters `start` to `end` (exclusive) of its text,
    and how well it supports the sentence alone, 0 to 1."""

    passage_index: int
    start: int
    end: int
    support: float


@dataclass(frozen=True, slots=True)
class Support:
    """How well all sources together support a sentence, 0 to 1; the best source first."""

    score: float
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of a question's words, weighted by rarity, that the best sentence and the
    best passage hold, and the share of its numbers and names that no passage holds."""

    sentence: float
    passage: float
    missing_names: float


class Sentences(NamedTuple):
    """A text's sentences, and the stems of each one's words, each stem once."""

    spans: tuple[tuple[int, int], ...]
    words: tuple[tuple[str, ...], ...]


def sentences(text: str) -> Sentences:
    """Return the sentences of a text."""
    spans = tuple(sentence_spans(text))
    return Sentences(spans, tuple(tuple(set(stems(text[start:end]))) for start, end in spans))


class Evidence:
    """The sentences of the passages that an answer is made from, read by `read`.

    A passage's title counts as what it holds, and supports nothing.
    """

    def __init__(
        self,
        passages: Sequence[str],
        titles: Sequence[str] = (),
        read: Callable[[str], Sentences] = sentences,
    ) -> None:
        found = [read(text) for text in passages]
        self._places = [(index, *span) for index, it in enumerate(found) for span in it.spans]
        self._words = [frozenset(words) for it in found for words in it.words]
        by_passage = [set(stems(title)) for title in titles or [""] * len(passages)]
        for (index, _, _), words in zip(self._places, self._words, strict=True):
            by_passage[index] |= words
        self._by_passage = [frozenset(words) for words in by_passage]
        self._holding = Counter(word for words in self._words for word in words)

    @property
    def is_empty(self) -> bool:
        """Tell whether the passages say nothing at all."""
        return not self._places

    def support(self, sentence: str) -> Support:
        """Return how well the passages support a sentence; 0 for one without words that
        say what it is about."""
        weights = {word: self._rarity(word) for word in stems(sentence)}
        total = math.fsum(weights.values())
        if not total:
            return Support(0.0, ())
        told = _numbers_and_names(sentence)
        shared = [weights.keys() & words for words in self._words]
        covered: frozenset[str] = frozenset()
        sources: list[Source] = []
        for _ in range(_SOURCES):
            gains = [
                math.fsum(map(weights.__getitem__, words - covered)) if words else 0.0
                for words in shared
            ]
            best = max(range(len(gains)), key=gains.__getitem__, default=None)
            if best is None or gains[best] < _LEAST_GAIN * total:
                break
            covered = covered | self._words[best]
            alone = _score(weights, total, told, self._words[best])
            sources.append(Source(*self._places[best], alone))
        return Support(_score(weights, total, told, covered), tuple(sources))

    def coverage(self, question: str) -> Coverage:
        """Return how much of a question the passages hold."""
        weights = {word: self._rarity(word) for word in stems(question)}
        total = math.fsum(weights.values())
        if not total:
            return Coverage(0.0, 0.0, 0.0)

        def best(holders: Sequence[frozenset[str]]) -> float:
            shares = (math.fsum(weights[it] for it in weights.keys() & held) for held in holders)
            return max(shares, default=0.0) / total

        named = _numbers_and_names(question)
        missing = named.difference(*self._by_passage)
        return Coverage(
            best(self._words), best(self._by_passage), len(missing) / len(named) if named else 0.0
        )

    def _rarity(self, word: str) -> float:
        holding = self._holding[word]
        return math.log1p((len(self._words) - holding + 0.5) / (holding + 0.5))


def _score(
    weights: dict[str, float], total: float, told: frozenset[str], held: frozenset[str]
) -> float:
    share = math.fsum(weights[word] for word in weights.keys() & held) / total
    doubt = _DOUBT * len(told - held) / len(told) if told else 0.0
    return min(1.0, share * (1 - doubt))


def _numbers_and_names(sentence: str) -> frozenset[str]:
    """Return the stems of words with a digit first or, but for the first word, with a
    capital."""
    words = WORD.findall(sentence)
    return frozenset(
        stem(word)
        for place, word in enumerate(words)
        if word[0].isdigit() or (place and word[0].isupper() and word.casefold() not in STOP_WORDS)
    )
