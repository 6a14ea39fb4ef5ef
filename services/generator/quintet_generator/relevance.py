"""How well each sentence of some passages answers a question, by its words alone.

A sentence scores for the question's words that it holds, weighted by their rarity
among all sentences given (BM25's inverse document frequency), for holding them
close together, for offering the kind of thing that is asked for, and for standing
in a passage that the retriever ranked high.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from quintet_generator.answer_types import AnswerType, answer_type, offers
from quintet_generator.models import Passage
from quintet_servicekit.sentences import sentence_spans
from quintet_servicekit.words import stems

# Fitted on half of XQuAD's development questions, split by article, to the sentence
# that holds the answer (listwise softmax), and rounded. bench/answer_quality.py
# reports what they do on the other half.
_RARITY = 1.0
_SHARE = 1.0
_CONTEXT = 0.1
_PROXIMITY = 0.5
_ANSWER_TYPE = 0.4
_PASSAGE_RANK = 0.9
# Set by hand: XQuAD has none of these. A heading often holds every word of the
# question, and answers nothing; nor does the question where a text asks it itself. Code,
# table rows and lines that announce a list seldom do; list items may, and look no
# different.
_HEADING = _QUESTION = 0.3
_NOT_A_SENTENCE = 0.8

_COMPARED = 32
"""Best candidates that are looked at for halves of each other: many more than an
answer has sentences."""

_HEADING_FORM = re.compile(r"#{1,6}\s|[^\n]*\n\s*([=\-*~^_#+])\1{2,}\Z")
_QUESTION_END = re.compile(r"""[?？][)\]"'”’»」』*_]*\Z""")
_SENTENCE_END = re.compile(r"""[.!?…。！？][)\]"'”’»」』]*(?:\[[^\]]{1,20}\])*\Z""")
_END_CHARS = 40


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence, as characters `start` to `end` (exclusive) of its passage's text, and
    its score; the best possible is about 4."""

    passage_index: int
    start: int
    end: int
    score: float


def ranked(question: str, passages: Sequence[Passage]) -> list[Candidate]:
    """Return the sentences that share a word with the question, best first.

    Equal scores keep the passages' order. A sentence that several passages hold (they
    may overlap) comes once, and whole where one of them cuts it. Empty if no sentence
    shares a word.
    """
    sentences = [
        _Sentence(index, start, passage.text[start:end])
        for index, passage in enumerate(passages)
        for start, end in sentence_spans(passage.text)
    ]
    asked = _Asked(question, sentences)
    titles = [frozenset(stems(passage.title)) & asked.stems for passage in passages]
    candidates: dict[tuple[str, ...], Candidate] = {}
    previous: _Sentence | None = None
    for sentence in sentences:
        shared = asked.stems & sentence.stem_set
        if shared:
            context = titles[sentence.passage_index]
            if previous and previous.passage_index == sentence.passage_index:
                context = context | (asked.stems & previous.stem_set)
            score = _form(sentence.text) * (
                _RARITY * asked.rarity(shared)
                + _SHARE * len(shared) / len(asked.stems)
                + _CONTEXT * asked.rarity(context - shared)
                + _PROXIMITY * asked.proximity(sentence.stems)
                + _ANSWER_TYPE * asked.is_offered_by(sentence.text)
                + _PASSAGE_RANK / (1 + sentence.passage_index)
            )
            end = sentence.start + len(sentence.text)
            candidate = Candidate(sentence.passage_index, sentence.start, end, score)
            best = candidates.setdefault(tuple(sentence.stems), candidate)
            if candidate.score > best.score:
                candidates[tuple(sentence.stems)] = candidate
        previous = sentence
    return _whole(sorted(candidates.items(), key=lambda item: -item[1].score))


def _whole(ranking: Sequence[tuple[tuple[str, ...], Candidate]]) -> list[Candidate]:
    """Return the candidates of a ranking, best first, without the ends and beginnings
    of others: where passages overlap, one may hold half a sentence of another's. The
    whole sentence takes the better score."""
    kept = dict(ranking)
    compared = sorted((words for words, _ in ranking[:_COMPARED]), key=len)
    for words in compared:
        for others in compared:
            is_longer = len(others) > len(words)
            if is_longer and words in (others[-len(words) :], others[: len(words)]):
                fragment, whole = kept.pop(words), kept[others]
                kept[others] = replace(whole, score=max(whole.score, fragment.score))
                break
    return sorted(kept.values(), key=lambda it: -it.score)


def _form(sentence: str) -> float:
    """Return the part of its score that a sentence keeps for what it looks like."""
    if _HEADING_FORM.match(sentence):
        return _HEADING
    if _QUESTION_END.search(sentence[-_END_CHARS:]):
        return _QUESTION
    return 1.0 if _SENTENCE_END.search(sentence[-_END_CHARS:]) else _NOT_A_SENTENCE


class _Sentence:
    def __init__(self, passage_index: int, start: int, text: str) -> None:
        self.passage_index = passage_index
        self.start = start
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
