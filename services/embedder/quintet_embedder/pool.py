"""The model at work: lanes that compute batches of the line before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from prometheus_client import Gauge, Histogram

from quintet_embedder.batch_spans import batch_span
from quintet_embedder.models import Purpose, TextStates, TokenIds, Vectors
from quintet_embedder.scheduler import Job, Scheduler
from quintet_servicekit import attributes
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.spans import note_failure

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


class Lane(Protocol):
    """An engine with a model in it, for texts of some purposes. Its methods block, and
    are called from one thread, one at a time."""

    name: str
    purposes: tuple[Purpose, ...]

    def open(self) -> None:
        """Load the model; from then on `name` tells engine and precision."""

    def encode(self, ids: Sequence[TokenIds]) -> Vectors:
        """Return the vectors of the texts, float32 [texts, dimension]."""

    def encode_states(self, ids: Sequence[TokenIds]) -> list[TextStates]:
        """Return the vector of each text and the states of its tokens."""


class Pool:
    """Computes with one model, on the lanes that `plan` returns; `plan` may block."""

    def __init__(self, name: str, plan: Callable[[], Sequence[Lane]], scheduler: Scheduler) -> None:
        self._name = name
        self._plan = plan
        self._scheduler = scheduler
        self._threads: list[BoundedExecutor] = []
        self._workers: list[asyncio.Task[None]] = []
        self.backend = ""
        _WAITING.labels(name).set_function(lambda: scheduler.waiting_texts)

    async def open(self, first: Sequence[TokenIds]) -> int:
        """Load the model on every lane and compute `first` once, so that no caller
        pays for it; return the vectors' dimension."""
        lanes = await asyncio.to_thread(self._plan)
        # A lane is a thread: it is not safe for two, and some have a priority.
        self._threads = [BoundedExecutor("embed", threads=1, queue=1) for _ in lanes]
        for lane, thread in zip(lanes, self._threads, strict=True):
            await thread.run(lane.open)
            vectors = await thread.run(lane.encode, first)
        self.backend = lanes[0].name
        self._workers = [
            asyncio.create_task(self._work(lane, thread))
            for lane, thread in zip(lanes, self._threads, strict=True)
        ]
        return int(vectors.shape[1])

    def check(self) -> None:
        """Raise when nobody works on the line any more."""
        if any(worker.done() for worker in self._workers):
            raise ServiceError(Reason.NOT_READY, "a worker of the model has ended")

    async def compute(self, ids: Sequence[TokenIds], purpose: Purpose) -> list[Any]:
        """Return each text's vector, or its `TextStates` if it is to be reranked.

        Raises `ServiceError` OVERLOADED when the line is full.
        """
        job = self._scheduler.submit(ids, purpose)
        try:
            return await job.done
        finally:
            self._scheduler.withdraw(job)
            waited = _waited(job)
            job.caller.set_attribute(attributes.QUEUE_WAIT, waited)
            _WAIT.labels(self._name, purpose.value).observe(waited)

    async def _work(self, lane: Lane, thread: BoundedExecutor) -> None:
        while True:
            batch = await self._scheduler.next_batch(*lane.purposes)
            _BATCH.labels(self._name).observe(len(batch.items))
            span = batch_span(self._name, batch)
            compute: Callable[[Sequence[TokenIds]], Any] = (
                lane.encode_states if batch.purpose is Purpose.RERANK else lane.encode
            )
            try:
                rows = await thread.run(compute, batch.ids)
            except Exception as error:
                note_failure(span, error)
                self._scheduler.fail(batch, error)
            else:
                self._scheduler.deliver(batch, rows)
            span.end()

    async def close(self) -> None:
        """End the workers and the threads."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for thread in self._threads:
            await thread.close()


def _waited(job: Job) -> float:
    taken_at = job.first_taken_at or time.perf_counter()
    return taken_at - job.queued_at
