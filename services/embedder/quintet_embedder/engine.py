"""The embedder's work: count, check, wait for a place in a batch, compute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Gauge, Histogram

from quintet_embedder.models import Embedded, Model, Purpose, TokenIds, Vectors
from quintet_embedder.scheduler import Job, Scheduler
from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.executor import BoundedExecutor

_TOKENS = Counter("quintet_embedder_tokens_total", "Tokens that were embedded.", ["model"])
_BATCH = Histogram(
    "quintet_embedder_batch_texts",
    "Texts that were computed at once.",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
_WAIT = Histogram(
    "quintet_embedder_queue_seconds",
    "Time from a request's arrival in the line to the first batch that took of it.",
    ["model", "purpose"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_WAITING = Gauge("quintet_embedder_queue_texts", "Texts that wait for a batch.", ["model"])

INLINE_CHARS = 4_000
"""Requests of fewer characters are tokenized in the event loop, in less than 0.3 ms,
which is less than a thread's hand-over costs under load."""


class Lane(Protocol):
    """An engine with a model in it, for texts of some purposes. `open` and `encode`
    block, and are called from one thread, one at a time."""

    name: str
    purposes: tuple[Purpose, ...]

    def open(self) -> None:
        """Load the model; from then on `name` tells engine and precision."""

    def encode(self, ids: Sequence[TokenIds]) -> Vectors:
        """Return the vectors of the texts, float32 [texts, dimension]; blocking."""


class Tokenizer(Protocol):
    """The model's tokenizer."""

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each text, whole, with special tokens."""

    def truncate(self, text: str, max_tokens: int) -> TokenIds:
        """Return the ids of the beginning that fits."""


class Engine:
    """Embeds with one model, on the lanes that `plan` returns; it may block."""

    def __init__(
        self,
        *,
        name: str,
        plan: Callable[[], Sequence[Lane]],
        tokenizer: Tokenizer,
        revision: Callable[[], str],
        max_tokens: int,
        normalized: bool,
        prompts: dict[str, str],
        scheduler: Scheduler,
    ) -> None:
        self._name = name
        self._plan = plan
        self._tokenizer = tokenizer
        self._revision_of = revision
        self._max_tokens = max_tokens
        self._normalized = normalized
        self._prompts = prompts
        self._scheduler = scheduler
        self._model: Model | None = None
        self._threads: list[BoundedExecutor] = []
        self._workers: list[asyncio.Task[None]] = []
        self._tokenizing = BoundedExecutor("tokenize", threads=1, queue=256)
        _WAITING.labels(name).set_function(lambda: scheduler.waiting_texts)

    async def warm_up(self) -> None:
        """Load the model and compute once, so that no caller pays for it."""
        revision, lanes = await asyncio.gather(
            asyncio.to_thread(self._revision_of), asyncio.to_thread(self._plan)
        )
        ids = self._tokenizer.encode(["A first text."])
        # A lane is a thread: it is not safe for two, and some have a priority.
        self._threads = [BoundedExecutor("embed", threads=1, queue=1) for _ in lanes]
        for lane, thread in zip(lanes, self._threads, strict=True):
            await thread.run(lane.open)
            vectors = await thread.run(lane.encode, ids)
        self._model = Model(
            name=self._name,
            revision=revision,
            dimension=vectors.shape[1],
            max_tokens=self._max_tokens,
            normalized=self._normalized,
            is_default=True,
            backend=lanes[0].name,
        )
        self._workers = [
            asyncio.create_task(self._work(lane, thread))
            for lane, thread in zip(lanes, self._threads, strict=True)
        ]

    def models(self) -> Sequence[Model]:
        """Return the models that are served."""
        return [] if self._model is None else [self._model]

    async def check(self) -> None:
        """Raise when nobody works on the line any more."""
        if any(worker.done() for worker in self._workers):
            raise ServiceError(Reason.NOT_READY, "a worker of the model has ended")

    async def embed(
        self, name: str, texts: Sequence[str], purpose: Purpose, *, truncate: bool
    ) -> Embedded:
        """Return the vectors of `texts`.

        Raises `ServiceError` MODEL_NOT_FOUND, INPUT_TOO_LONG for a text that the
        model cannot read whole (unless `truncate`), and OVERLOADED.
        """
        model = self._served(name)
        prompt = self._prompts.get(purpose.value, "")
        prompted = [prompt + text for text in texts] if prompt else texts
        ids, truncated = await self._tokenized(prompted, truncate)
        tokens = [len(each) for each in ids]
        with telemetry.tracer().start_as_current_span(
            f"embeddings {model.name}",
            kind=SpanKind.INTERNAL,
            attributes={
                "gen_ai.operation.name": "embeddings",
                "gen_ai.provider.name": "quintet",
                "gen_ai.request.model": model.name,
                "gen_ai.embeddings.dimension.count": model.dimension,
                "gen_ai.usage.input_tokens": sum(tokens),
            },
        ) as span:
            job = self._scheduler.submit(ids, purpose)
            try:
                vectors = await job.done
            finally:
                self._scheduler.withdraw(job)
                waited = _waited(job)
                span.add_event("queued", {"quintet.queue.seconds": waited})
                _WAIT.labels(model.name, purpose.value).observe(waited)
        _TOKENS.labels(model.name).inc(sum(tokens))
        return Embedded(model.name, model.revision, _unit(vectors, model), tokens, truncated)

    def _served(self, name: str) -> Model:
        if self._model is None or name not in ("", self._model.name):
            raise ServiceError(
                Reason.MODEL_NOT_FOUND, "no model has that name", metadata={"model": name[:200]}
            )
        return self._model

    async def _tokenized(
        self, texts: Sequence[str], truncate: bool
    ) -> tuple[list[TokenIds], list[bool]]:
        if sum(map(len, texts)) < INLINE_CHARS:
            return self._fitting(texts, truncate)
        return await self._tokenizing.run(self._fitting, texts, truncate)

    def _fitting(self, texts: Sequence[str], truncate: bool) -> tuple[list[TokenIds], list[bool]]:
        ids = self._tokenizer.encode(texts)
        too_long = [len(each) > self._max_tokens for each in ids]
        if any(too_long) and not truncate:
            index = too_long.index(True)
            raise ServiceError(
                Reason.INPUT_TOO_LONG,
                f"texts[{index}] has {len(ids[index])} tokens with the model's own, and the "
                f"model reads at most {self._max_tokens}",
                metadata={
                    "limit": str(self._max_tokens),
                    "actual": str(len(ids[index])),
                    "unit": "tokens",
                },
                violations=[
                    Violation(f"texts[{i}]", f"must have at most {self._max_tokens} tokens")
                    for i, long in enumerate(too_long)
                    if long
                ],
            )
        for index, long in enumerate(too_long):
            if long:
                ids[index] = self._tokenizer.truncate(texts[index], self._max_tokens)
        return ids, too_long

    async def _work(self, lane: Lane, thread: BoundedExecutor) -> None:
        while True:
            batch = await self._scheduler.next_batch(*lane.purposes)
            _BATCH.labels(self._name).observe(len(batch.items))
            try:
                vectors = await thread.run(lane.encode, batch.ids)
            except Exception as error:
                self._scheduler.fail(batch, error)
            else:
                self._scheduler.deliver(batch, vectors)

    async def close(self) -> None:
        """End the workers and the threads."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for thread in (*self._threads, self._tokenizing):
            await thread.close()


def _waited(job: Job) -> float:
    taken_at = job.first_taken_at or time.perf_counter()
    return taken_at - job.queued_at


def _unit(vectors: Vectors, model: Model) -> Vectors:
    """Return vectors of length 1 where the model promises it: in half precision its
    own normalisation leaves an error in the third digit."""
    if not model.normalized:
        return vectors
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths
