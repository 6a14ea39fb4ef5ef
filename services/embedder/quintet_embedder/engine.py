"""The embedder's work: find the model, count, check, wait for a place in a batch, compute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from prometheus_client import Counter

from quintet_embedder.models import (
    Embedded,
    Embedding,
    Model,
    Purpose,
    Reranked,
    RerankMethod,
    TokenIds,
    Vectors,
)
from quintet_embedder.reranking import max_sim_scores
from quintet_servicekit.cache.use import CacheUse, note_use
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.spans import Value, working

_TOKENS = Counter("quintet_embedder_tokens_total", "Tokens that were computed.", ["model"])

SCORING_QUEUE = 16
"""Requests that wait for a cross-encoder; each takes seconds on a CPU."""


class Tokenizer(Protocol):
    """The model's tokenizer."""

    async def encode(
        self, names: Sequence[str], texts: Sequence[str], *, truncate: bool
    ) -> tuple[list[TokenIds], list[bool]]:
        """Return the ids of each text, and whether its end was cut off."""

    async def close(self) -> None:
        """Free what it holds."""


class Pool(Protocol):
    """The model at work."""

    backend: str

    async def open(self, first: Sequence[TokenIds]) -> int:
        """Load the model, compute `first`, return the vectors' dimension."""

    async def compute(self, ids: Sequence[TokenIds], purpose: Purpose) -> list[Any]:
        """Return each text's vector, or its states if it is to be reranked."""

    def check(self) -> None:
        """Raise when it no longer works."""

    async def close(self) -> None:
        """End it."""


class Kept(Protocol):
    """The embeddings that are kept."""

    async def get_or_compute(
        self,
        revision: str,
        texts: Sequence[str],
        purpose: Purpose,
        *,
        truncate: bool,
        compute: Callable[[Sequence[int]], Awaitable[Sequence[Embedding]]],
    ) -> tuple[list[Embedding], CacheUse]:
        """Return the embedding of each text; `compute` computes those of the indexes given."""

    async def aclose(self) -> None:
        """End what is being computed."""


class Scorer(Protocol):
    """A cross-encoder; its methods block."""

    name: str

    def open(self) -> None:
        """Load the model."""

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """Return the score of each passage."""


class Engine:
    """Embeds and reranks with several models, of which the first serves who names none;
    `scorer` reranks in their place where it is given."""

    def __init__(self, engines: Sequence[ModelEngine], kept: Kept, scorer: Scorer | None) -> None:
        self._engines = engines
        self._kept = kept
        self._scorer = scorer
        self._scoring = BoundedExecutor("score", threads=1, queue=SCORING_QUEUE)

    async def warm_up(self) -> None:
        """Load the models and compute once with each, so that no caller pays for it."""
        for engine in self._engines:
            await engine.warm_up(is_default=engine is self._engines[0])
        if self._scorer is not None:
            await self._scoring.run(self._scorer.open)

    def models(self) -> Sequence[Model]:
        """Return the models that are served, by name."""
        found = [engine.model for engine in self._engines if engine.model is not None]
        return sorted(found, key=lambda model: model.name)

    async def check(self) -> None:
        """Raise when one of them computes nothing any more."""
        for engine in self._engines:
            engine.check()

    async def embed(
        self, name: str, texts: Sequence[str], purpose: Purpose, *, truncate: bool
    ) -> Embedded:
        """Return the embeddings of `texts`: those that are kept, and the others computed.

        Raises `ServiceError` MODEL_NOT_FOUND, INPUT_TOO_LONG for a text that the
        model cannot read whole (unless `truncate`), and OVERLOADED.
        """
        engine, model = self._served(name)
        return await engine.embed(model, texts, purpose, kept=self._kept, truncate=truncate)

    async def rerank(
        self, name: str, query: str, passages: Sequence[str], *, truncate: bool
    ) -> Reranked:
        """Return how well each passage answers `query`; raises as `embed` does."""
        engine, model = self._served(name)
        ids = await engine.encode_pair(query, passages, truncate=truncate)
        tokens = sum(map(len, ids))
        with _working("rerank", model, tokens):
            if self._scorer is not None:
                scores = await self._scoring.run(self._scorer.score, query, passages)
                method = RerankMethod.CROSS_ENCODER
                return Reranked(self._scorer.name, model.revision, method, scores, tokens)
            scores = await engine.max_sim(ids)
        return Reranked(model.name, model.revision, RerankMethod.MAX_SIM, scores, tokens)

    def _served(self, name: str) -> tuple[ModelEngine, Model]:
        for engine in self._engines:
            if engine.model is not None and name in ("", engine.model.name):
                return engine, engine.model
        raise ServiceError(
            Reason.MODEL_NOT_FOUND, "no model has that name", metadata={"model": name[:200]}
        )

    async def close(self) -> None:
        """End what was opened."""
        await self._kept.aclose()
        for engine in self._engines:
            await engine.close()
        await self._scoring.close()


class ModelEngine:
    """One model: its texts, its tokenizer, and where it is computed.

    `revision` computes the model's revision; it blocks.
    """

    def __init__(
        self,
        *,
        name: str,
        revision: Callable[[], str],
        max_tokens: int,
        normalized: bool,
        prompts: dict[str, str],
        tokenizer: Tokenizer,
        pool: Pool,
    ) -> None:
        self._name = name
        self._revision = revision
        self._max_tokens = max_tokens
        self._normalized = normalized
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._pool = pool
        self.model: Model | None = None
        """What it is, once it is loaded."""

    async def warm_up(self, *, is_default: bool) -> None:
        """Load the model and compute once."""
        first, _ = await self._tokenizer.encode(["text"], ["A first text."], truncate=False)
        revision, dimension = await asyncio.gather(
            asyncio.to_thread(self._revision), self._pool.open(first)
        )
        self.model = Model(
            name=self._name,
            revision=revision,
            dimension=dimension,
            max_tokens=self._max_tokens,
            normalized=self._normalized,
            is_default=is_default,
            backend=self._pool.backend,
        )

    def check(self) -> None:
        """Raise when nothing is computed any more."""
        self._pool.check()

    async def embed(
        self, model: Model, texts: Sequence[str], purpose: Purpose, *, kept: Kept, truncate: bool
    ) -> Embedded:
        """Return the embeddings of `texts`; see `Engine.embed`."""
        prompt = self._prompts.get(purpose.value, "")
        prompted = [prompt + text for text in texts] if prompt else texts

        async def compute(indexes: Sequence[int]) -> list[Embedding]:
            ids, truncated = await self._tokenizer.encode(
                [f"texts[{index}]" for index in indexes],
                [prompted[index] for index in indexes],
                truncate=truncate,
            )
            return await self._computed(model, ids, truncated, purpose)

        embeddings, use = await kept.get_or_compute(
            model.revision, prompted, purpose, truncate=truncate, compute=compute
        )
        note_use(use)
        return Embedded(model, embeddings, use)

    async def _computed(
        self, model: Model, ids: Sequence[TokenIds], truncated: Sequence[bool], purpose: Purpose
    ) -> list[Embedding]:
        tokens = [len(each) for each in ids]
        with _working("embeddings", model, sum(tokens)):
            rows = await self._pool.compute(ids, purpose)
        vectors = np.stack(rows)
        packed = (_unit(vectors) if model.normalized else vectors).astype("<f4", copy=False)
        return [
            Embedding(row.tobytes(), count, cut)
            for row, count, cut in zip(packed, tokens, truncated, strict=True)
        ]

    async def encode_pair(
        self, query: str, passages: Sequence[str], *, truncate: bool
    ) -> list[TokenIds]:
        """Return the ids of the query and of each passage."""
        names = ["query", *(f"passages[{index}]" for index in range(len(passages)))]
        texts = [
            self._prompts.get("query", "") + query,
            *(self._prompts.get("passage", "") + passage for passage in passages),
        ]
        ids, _ = await self._tokenizer.encode(names, texts, truncate=truncate)
        return ids

    async def max_sim(self, ids: Sequence[TokenIds]) -> list[float]:
        """Return the score of each passage against the query, which comes first."""
        asked, *states = await self._pool.compute(ids, Purpose.RERANK)
        return await asyncio.to_thread(max_sim_scores, asked, states)

    async def close(self) -> None:
        """End what was opened."""
        await self._pool.close()
        await self._tokenizer.close()


@contextmanager
def _working(operation: str, model: Model, tokens: int) -> Iterator[None]:
    """Trace and count the model's work; named by the GenAI conventions."""
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "quintet",
        "gen_ai.request.model": model.name,
        "gen_ai.response.model": model.name,
        "gen_ai.embeddings.dimension.count": model.dimension,
        "gen_ai.usage.input_tokens": tokens,
    }
    with working(f"{operation} {model.name}", attributes):
        yield
    _TOKENS.labels(model.name).inc(tokens)


def _unit(vectors: Vectors) -> Vectors:
    """Return vectors of length 1: in half precision a model's own normalisation leaves
    an error in the third digit."""
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths
