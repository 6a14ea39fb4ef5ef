"""A language model that is given the passages' best sentences instead of all of them.

A small model answers from three sentences as well as from three paragraphs, shorter, and
in half the time; docs/answers.md has the figures.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from quintet_generator import extractive
from quintet_generator.engine import Backend
from quintet_generator.models import Event, Feature, ModelInfo, Passage, Query
from quintet_generator.prompts import PromptTemplate
from quintet_generator.relevance import ranked
from quintet_servicekit.executor import BoundedExecutor


class EvidenceBackend:
    """Implements `engine.Backend` by another one, which is given `sentences` of them."""

    def __init__(self, model: Backend, executor: BoundedExecutor, *, sentences: int) -> None:
        self.name = model.name
        self.operation = model.operation
        self.features: frozenset[Feature] = model.features
        self.worth_keeping = model.worth_keeping
        self._model = model
        self._executor = executor
        self._sentences = sentences

    async def describe(self) -> ModelInfo:
        """Return what the model is; the choice of sentences is part of its revision."""
        info = await self._model.describe()
        told = f"{info.revision} {extractive.revision(self._sentences)}"
        return replace(info, revision=hashlib.sha256(told.encode()).hexdigest())

    async def load(self) -> None:
        """Make the model ready."""
        await self._model.load()

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield the model's answer; raises as the model does."""
        passages = await self._executor.run(evidence, query, self._sentences)
        asked = replace(query, passages=passages)
        async with aclosing(self._model.generate(asked, template)) as events:
            async for event in events:
                yield event


def evidence(query: Query, sentences: int) -> tuple[Passage, ...]:
    """Return the best sentences, those of one passage together in their order; all
    passages if no sentence shares a word with the question."""
    best = ranked(query.question, query.passages)[:sentences]
    chosen = []
    for index in dict.fromkeys(it.passage_index for it in best):
        passage = query.passages[index]
        spans = sorted((it.start, it.end) for it in best if it.passage_index == index)
        text = " ".join(passage.text[start:end] for start, end in spans)
        chosen.append(Passage(passage.title, text))
    return tuple(chosen) or query.passages
