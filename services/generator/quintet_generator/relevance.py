"""How well each sentence of some passages answers a question, by its words alone.

A sentence scores for the question's words that it holds, weighted by their rarity
among all sentences given (BM25's inverse document frequency), for holding them
close together, for offering the kind of thing that is asked for, and for standing
in a passage that the retriever ranked high.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from quintet_generator.answer_types import AnswerType, answer_type, offers
from quintet_generator.models import Passage
from quintet_generator.sentences import Span, split
from quintet_generator.words import stems

# Fitted on half of XQuAD's development questions, split by article, to the sentence
# that holds the answer (listwise softmax), and rounded. bench/answer_quality.py
# reports what they do on the other half.
_RARITY = 1.0
_SHARE = 1.0
_CONTEXT = 0.1
_PROXIMITY = 0.5
_ANSWER_TYPE = 0.4
_PASSAGE_RANK = 0.9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence and its score; above 0, and around 3 where everything fits."""

    passage_index: int
    span: Span
    score: float


def ranked(question: str, passages: Sequence[Passage]) -> list[Candidate]:
    """Return the sentences that share a word with the question, best first.

    Equal scores keep the passages' order. Empty if no sentence shares any.
    """
    sentences = [
        _Sentence(index, span, passage.text[span.start : span.end])
        for index, passage in enumerate(passages)
        for span in split(passage.text)
    ]
    asked = _Asked(question, sentences)
    titles = [frozenset(stems(passage.title)) & asked.stems for passage in passages]
    candidates = []
    previous: _Sentence | None = None
    for sentence in sentences:
        shared = asked.stems & sentence.stem_set
        if shared:
            context = titles[sentence.passage_index]
            if previous and previous.passage_index == sentence.passage_index:
                context = context | (asked.stems & previous.stem_set)
            score = (
                _RARITY * asked.rarity(shared)
                + _SHARE * len(shared) / len(asked.stems)
                + _CONTEXT * asked.rarity(context - shared)
                + _PROXIMITY * asked.proximity(sentence.stems)
                + _ANSWER_TYPE * asked.is_offered_by(sentence.text)
                + _PASSAGE_RANK / (1 + sentence.passage_index)
            )
            candidates.append(Candidate(sentence.passage_index, sentence.span, score))
        previous = sentence
    return sorted(candidates, key=lambda it: -it.score)


class _Sentence:
    def __init__(self, passage_index: int, span: Span, text: str) -> None:
        self.passage_index = passage_index
        self.span = span
        self.text = text
        self.stems = stems(text)
        self.stem_set = frozenset(self.stems)


class _Asked:
    """The question's words, and how rare each is among the sentences."""

    def __init__(self, question: str, sentences: Sequence[_Sentence]) -> None:
        self.stems = frozenset(stems(question))
        self._wanted: AnswerType | None = answer_type(question)
        self._idf = _inverse_frequency(self.stems, sentences)
        self._total = sum(self._idf.values()) or 1.0

    def rarity(self, words: frozenset[str]) -> float:
        """Return the part of the question's rarity that `words` carry, 0 to 1."""
        return math.fsum(self._idf[word] for word in words) / self._total

    def proximity(self, words: Sequence[str]) -> float:
        """Return how close the question's words stand: for each two in a row, their
        rarity over their distance in words; 1 where they stand side by side."""
        found = [(at, word) for at, word in enumerate(words) if word in self.stems]
        near = [
            math.sqrt(self._idf[word] * self._idf[next_word]) / (next_at - at)
            for (at, word), (next_at, next_word) in pairwise(found)
            if word != next_word
        ]
        return math.fsum(near) / self._total

    def is_offered_by(self, sentence: str) -> bool:
        """Tell whether the sentence offers the kind of thing that is asked for."""
        return self._wanted is not None and offers(sentence, self._wanted, self.stems)


def _inverse_frequency(
    words: frozenset[str], sentences: Sequence[_Sentence]
) -> Mapping[str, float]:
    holding = Counter(word for sentence in sentences for word in words & sentence.stem_set)
    total = len(sentences)
    return {
        word: math.log1p((total - holding[word] + 0.5) / (holding[word] + 0.5))
        for word in sorted(words)
    }
