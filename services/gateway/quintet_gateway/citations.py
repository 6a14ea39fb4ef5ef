"""Finds the passage that each sentence of an answer rests on.

For models that don't know their own sources. A sentence is cited to the passage
sentence that holds most of its words; see `support`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet_servicekit.sentences import sentence_spans

_WORD = re.compile(r"\w+")
_FUNCTION_WORDS = frozenset(
    (
        "a an and are as at be been but by can did do does for from had has have he her his how "
        "if in into is it its may no not of on or our she so such than that the their them then "
        "there these they this to was we were what when where which who why will with would you"
    ).split()
)
"""English words that say nothing about what a sentence is about."""


class Citer:
    """Cites the sentences of one answer as its text comes in.

    `passages` are the texts that the generator was given, in its order.
    """

    def __init__(self, passages: Sequence[str], min_support: float) -> None:
        self._sentences = [
            (index, start, end, _words(text[start:end]))
            for index, text in enumerate(passages)
            for start, end in sentence_spans(text)
        ]
        self._min_support = min_support
        self._text = ""
        self._cited_to = 0
        self._model_cites = False

    def model_cites(self) -> None:
        """Leave the citing to the model, which knows its own sources."""
        self._model_cites = True

    def feed(self, text: str) -> list[generator_pb.Citation]:
        """Take the next piece of the answer; return what its ended sentences rest on."""
        self._text += text
        # The last sentence may go on with the next piece.
        return self._cite(sentence_spans(self._text[self._cited_to :])[:-1])

    def finish(self) -> list[generator_pb.Citation]:
        """Return what the last sentence rests on."""
        return self._cite(sentence_spans(self._text[self._cited_to :]))

    def _cite(self, spans: Sequence[tuple[int, int]]) -> list[generator_pb.Citation]:
        if self._model_cites:
            return []
        base, citations = self._cited_to, []
        for start, end in spans:
            citation = self._best(base + start, base + end)
            if citation is not None:
                citations.append(citation)
            self._cited_to = base + end
        return citations

    def _best(self, start: int, end: int) -> generator_pb.Citation | None:
        words = _words(self._text[start:end])
        best = max(self._sentences, key=lambda sentence: support(words, sentence[3]), default=None)
        if best is None or support(words, best[3]) < self._min_support:
            return None
        index, passage_start, passage_end, passage_words = best
        return generator_pb.Citation(
            passage_index=index,
            answer_start=start,
            answer_end=end,
            passage_start=passage_start,
            passage_end=passage_end,
            support=support(words, passage_words),
        )


def support(words: frozenset[str], source: frozenset[str]) -> float:
    """Return the share of `words` that `source` holds, 0 to 1; 0 without words."""
    return len(words & source) / len(words) if words else 0.0


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _FUNCTION_WORDS
