"""The backend that answers with the best-supported sentences of the passages.

No weights: it says only what the passages say, verbatim, each sentence cited. The
same request always gets the same answer. Its tokens are words and marks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import islice

from quintet_generator.models import (
    Citation,
    Event,
    Feature,
    Finished,
    FinishReason,
    ModelInfo,
    Passage,
    Query,
    TextDelta,
)
from quintet_generator.prompts import PromptTemplate
from quintet_generator.relevance import Candidate, ranked
from quintet_generator.stops import first_stop
from quintet_servicekit.executor import BoundedExecutor

_MARGIN = 0.7
"""Least score of a further sentence, as a part of the best one's. On half of XQuAD's
development questions it raised answers contained from 80 to 92 %, with 1.7 sentences
an answer; three sentences whatever their score would be 94 %."""

_TOKEN = re.compile(r"\w+|[^\w\s]")

DECIDING = {
    "quintet_generator": ("relevance", "answer_types", "extractive", "stops"),
    "quintet_servicekit": ("words", "sentences"),
}
"""The modules that choose sentences, by package: who imports another one adds it."""


class ExtractiveBackend:
    """Implements `engine.Backend`; answers with at most `sentences` sentences."""

    def __init__(self, executor: BoundedExecutor, *, sentences: int) -> None:
        self._executor = executor
        self._sentences = sentences
        self.name = "extractive"
        self.operation = "text_completion"
        self.features: frozenset[Feature] = frozenset()
        # Five passages of 600 characters take 1.5 ms; to take a lease in Redis and look
        # there takes 0.6 before it has begun.
        self.worth_keeping = False
        self._info = ModelInfo(
            name=self.name,
            revision=revision(sentences),
            backend="extractive",
            context_tokens=0,
            tokenizer="",
        )

    async def describe(self) -> ModelInfo:
        """Return what ListModels tells."""
        return self._info

    async def load(self) -> None:
        """Nothing to load."""

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield each sentence and its citation. The template is not read."""
        for event in await self._executor.run(answer, query, self._sentences):
            yield event


def answer(query: Query, sentences: int) -> list[Event]:
    """Return the events of the answer; nothing but `Finished` if no sentence shares a
    word with the question."""
    best, dropped = _chosen(query, sentences)
    text, citations = _joined(query.passages, best)
    allowed = _end_of_token(text, query.max_tokens)
    stop = first_stop(text, query.stop)
    end = allowed if stop is None else min(allowed, stop)
    events: list[Event] = []
    told = 0
    for citation in citations:
        until = min(citation.answer_end, end)
        if until > told:
            events.append(TextDelta(text[told:until]))
            told = until
        if until > citation.answer_start:
            kept = until - citation.answer_start
            events.append(
                replace(citation, answer_end=until, passage_end=citation.passage_start + kept)
            )
    is_cut = end == allowed < len(text) or (dropped and stop is None)
    return [
        *events,
        Finished(
            FinishReason.LENGTH if is_cut else FinishReason.STOP,
            prompt_tokens=_count(query.question) + sum(_count(it.text) for it in query.passages),
            completion_tokens=_count(text[:told]),
        ),
    ]


def _chosen(query: Query, limit: int) -> tuple[list[Candidate], bool]:
    """Return the best sentences that fit into `max_tokens`, and whether one did not.

    The best is kept even if it does not fit: a part of it is better than nothing.
    Those of one passage come in the order of its text, so that "he" follows the name.
    """
    candidates = ranked(query.question, query.passages)[:limit]
    chosen: list[Candidate] = []
    room, dropped = query.max_tokens, False
    for it in candidates:
        size = _count(query.passages[it.passage_index].text[it.start : it.end])
        if it.score < _MARGIN * candidates[0].score:
            break
        if chosen and size > room:
            dropped = True
            break
        chosen.append(it)
        room -= size
    passages = list(dict.fromkeys(it.passage_index for it in chosen))
    chosen.sort(key=lambda it: (passages.index(it.passage_index), it.start))
    return chosen, dropped


def _joined(passages: Sequence[Passage], chosen: Sequence[Candidate]) -> tuple[str, list[Citation]]:
    text, citations = "", []
    for it in chosen:
        if text:
            text += " "
        start = len(text)
        text += passages[it.passage_index].text[it.start : it.end]
        citations.append(
            Citation(it.passage_index, start, len(text), it.start, it.end, support=1.0)
        )
    return text, citations


def _count(text: str) -> int:
    return sum(1 for _ in _TOKEN.finditer(text))


def _end_of_token(text: str, number: int) -> int:
    """Return where the token of that number (from 1) ends; the text's end if it has fewer."""
    token = next(islice(_TOKEN.finditer(text), number - 1, None), None)
    return token.end() if token else len(text)


def revision(sentences: int) -> str:
    """Return a digest of the code that chooses sentences, which stands in for weights."""
    digest = hashlib.sha256(f"{sentences} {_MARGIN}".encode())
    for package, names in DECIDING.items():
        for name in names:
            digest.update((files(package) / f"{name}.py").read_bytes())
    return digest.hexdigest()
