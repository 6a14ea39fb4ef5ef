"""Puts the waiting texts of many callers into full batches.

Fair: each batch starts with the caller who has waited longest since its last turn,
and is filled from the others in their order, so that a request of thousands of
texts and one of a single text advance side by side. Little padding: a batch holds
texts of one bucket of lengths. Queries have a line of their own and go first.
Runs in the event loop only; nothing here blocks.
"""

from __future__ import annotations

import asyncio
import bisect
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import Span, get_current_span

from quintet_embedder.models import Purpose, TokenIds, Vectors
from quintet_servicekit.errors import Reason, ServiceError

BUCKETS = (16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 384, 512, 1024, 8192)
"""Upper ends of the buckets, in tokens, beyond which a bucket has no end. Texts of
one bucket, of 16 tokens or more, are padded by half at most, typically by a tenth."""
CALM_SECONDS = 0.5
"""How long after a query none has come since for nobody to be waiting: a question goes on
through the other services, on the same cores, when it has its vector."""


@dataclass(eq=False)
class Job:
    """One request's texts: which of them wait, by bucket, and the results so far; and the
    span that they are computed for."""

    ids: Sequence[TokenIds]
    purpose: Purpose
    done: asyncio.Future[list[Any]]
    waiting: dict[int, list[int]] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)
    left: int = 0
    caller: Span = field(default_factory=get_current_span)
    queued_at: float = field(default_factory=time.perf_counter)
    first_taken_at: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts that are computed together: of which job, and which of its texts."""

    items: Sequence[tuple[Job, int]]

    @property
    def purpose(self) -> Purpose:
        """What all its texts are for."""
        return self.items[0][0].purpose

    @property
    def ids(self) -> list[TokenIds]:
        """Token ids of each text."""
        return [job.ids[index] for job, index in self.items]


class Scheduler:
    """The lines before a model, one a purpose. `max_texts` may wait in each, so that many
    passages keep no query out; a batch has `batch_tokens` at
    most, padding included, but always at least one text. While queries come,
    `passages_beside_queries` batches of passages are computed at once at most."""

    def __init__(
        self, *, batch_tokens: int, max_texts: int, passages_beside_queries: float = math.inf
    ) -> None:
        self._batch_tokens = batch_tokens
        self._max_texts = max_texts
        self._passages_beside_queries = passages_beside_queries
        self._passages_taken = 0
        self._calm_at = -math.inf
        self._lines: dict[Purpose, OrderedDict[int, Job]] = {
            purpose: OrderedDict() for purpose in Purpose
        }
        self._texts = dict.fromkeys(Purpose, 0)
        self._arrival = asyncio.Event()

    @property
    def waiting_texts(self) -> int:
        """Number of texts that no batch has taken."""
        return sum(self._texts.values())

    def submit(self, ids: Sequence[TokenIds], purpose: Purpose) -> Job:
        """Put a request's texts in line; `job.done` becomes their results,
        in their order.

        Raises `ServiceError` OVERLOADED when its line is full.
        """
        waiting = self._texts[purpose]
        if waiting + len(ids) > self._max_texts and waiting:
            raise ServiceError(Reason.OVERLOADED, "the embedder's queue is full")
        job = Job(ids, purpose, asyncio.get_running_loop().create_future())
        job.rows = [None] * len(ids)
        job.left = len(ids)
        for index, tokens in enumerate(ids):
            job.waiting.setdefault(bisect.bisect_left(BUCKETS, len(tokens)), []).append(index)
        self._texts[purpose] += len(ids)
        self._lines[purpose][id(job)] = job
        if purpose is not Purpose.PASSAGE:
            self._calm_at = time.monotonic() + CALM_SECONDS
        self._arrival.set()
        return job

    def withdraw(self, job: Job) -> None:
        """Take a job out of the line; what is being computed for it is dropped."""
        self._lines[job.purpose].pop(id(job), None)
        self._texts[job.purpose] -= sum(map(len, job.waiting.values()))
        job.waiting.clear()
        job.done.cancel()

    async def next_batch(self, *purposes: Purpose) -> Batch:
        """Wait for texts of one of the purposes, the first of them first."""
        while True:
            for purpose in purposes:
                if self._lines[purpose] and not self._yields(purpose):
                    self._passages_taken += purpose is Purpose.PASSAGE
                    return self._take(self._lines[purpose])
            self._arrival.clear()
            calm = self._calm_at - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(calm if calm > 0 else None):
                    await self._arrival.wait()

    def _yields(self, purpose: Purpose) -> bool:
        return (
            purpose is Purpose.PASSAGE
            and self._passages_taken >= self._passages_beside_queries
            and time.monotonic() < self._calm_at
        )

    def _ended(self, batch: Batch) -> None:
        if batch.purpose is Purpose.PASSAGE:
            self._passages_taken -= 1
            self._arrival.set()

    def _take(self, line: OrderedDict[int, Job]) -> Batch:
        first = next(iter(line.values()))
        # Longest first: the short ones left over fill the last batches.
        bucket = max(first.waiting)
        padded = BUCKETS[bucket] if bucket < len(BUCKETS) else max(map(len, first.ids))
        room = max(1, self._batch_tokens // padded)
        items: list[tuple[Job, int]] = []
        takers = [job for job in line.values() if bucket in job.waiting]
        for position, job in enumerate(takers):
            share = -(-(room - len(items)) // (len(takers) - position))
            queue = job.waiting[bucket]
            taken, job.waiting[bucket] = queue[:share], queue[share:]
            items += [(job, index) for index in taken]
            if not job.waiting[bucket]:
                del job.waiting[bucket]
            self._rotate(line, job)
            if len(items) >= room:
                break
        self._texts[first.purpose] -= len(items)
        return Batch(items)

    @staticmethod
    def _rotate(line: OrderedDict[int, Job], job: Job) -> None:
        if job.first_taken_at is None:
            job.first_taken_at = time.perf_counter()
        if job.waiting:
            line.move_to_end(id(job))
        else:
            del line[id(job)]

    def deliver(self, batch: Batch, rows: Sequence[Any] | Vectors) -> None:
        """Hand a batch's results, one a text, to the jobs they belong to."""
        self._ended(batch)
        for (job, index), row in zip(batch.items, rows, strict=True):
            job.rows[index] = row
            job.left -= 1
            if job.left == 0 and not job.done.done():
                job.done.set_result(job.rows)

    def fail(self, batch: Batch, error: Exception) -> None:
        """Fail every job of a batch, and take its other texts out of the line."""
        self._ended(batch)
        for job in {id(job): job for job, _ in batch.items}.values():
            if not job.done.done():
                job.done.set_exception(error)
            self._lines[job.purpose].pop(id(job), None)
            self._texts[job.purpose] -= sum(map(len, job.waiting.values()))
            job.waiting.clear()
