"""Cites the sentences of an answer as they end.

A sentence is cited to the passages' sentences that support it, see `support`, unless
the model knows its own sources; how well it is supported is told in any case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet_gateway.support import Evidence, Support
from quintet_servicekit.sentences import sentence_spans

_BEGUN = re.compile(r"[^\s\"'“‘(\[]")


@dataclass(frozen=True, slots=True)
class Sentence:
    """An ended sentence of the answer, as characters `start` to `end` (exclusive)."""

    start: int
    end: int
    support: float
    supported: bool
    citations: Sequence[generator_pb.Citation]


class Citer:
    """Cites the sentences of one answer as its text comes in.

    `evidence` is of the texts that the generator was given, in its order; a sentence
    with `min_support` is supported.
    """

    def __init__(self, evidence: Evidence, min_support: float) -> None:
        self._evidence = evidence
        self._min_support = min_support
        self._text = ""
        self._cited_to = 0

    def feed(self, text: str) -> list[Sentence]:
        """Take the next piece of the answer; return the sentences that it ends."""
        self._text += text
        rest = self._text[self._cited_to :]
        spans = sentence_spans(rest)
        # The last sentence may go on with the next piece; and so may the one before it
        # until the last has more than opening marks.
        undecided = 1 if not spans or _BEGUN.search(rest, spans[-1][0]) else 2
        return self._cite(spans[:-undecided])

    def finish(self) -> list[Sentence]:
        """Return the last sentence, if there is one."""
        return self._cite(sentence_spans(self._text[self._cited_to :]))

    def _cite(self, spans: Sequence[tuple[int, int]]) -> list[Sentence]:
        base = self._cited_to
        if spans:
            self._cited_to = base + spans[-1][1]
        return [self._sentence(base + start, base + end) for start, end in spans]

    def _sentence(self, start: int, end: int) -> Sentence:
        found = self._evidence.support(self._text[start:end])
        supported = found.score >= self._min_support
        citations = _citations(start, end, found) if supported else ()
        return Sentence(start, end, found.score, supported, citations)


def _citations(start: int, end: int, found: Support) -> list[generator_pb.Citation]:
    return [
        generator_pb.Citation(
            passage_index=it.passage_index,
            answer_start=start,
            answer_end=end,
            passage_start=it.start,
            passage_end=it.end,
            support=it.support,
        )
        for it in found.sources
    ]
