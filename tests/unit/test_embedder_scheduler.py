"""Batching across callers, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_embedder.models import Purpose, Vectors
from quintet_embedder.scheduler import Batch, Scheduler
from quintet_servicekit.errors import Reason, ServiceError

PASSAGE, QUERY = Purpose.PASSAGE, Purpose.QUERY


def texts(*lengths: int) -> list[list[int]]:
    return [list(range(length)) for length in lengths]


def computed(batch: Batch) -> Vectors:
    """Vectors that tell their text: its length."""
    return np.array([[len(ids)] for ids in batch.ids], dtype=np.float32)


async def drained(scheduler: Scheduler) -> list[Batch]:
    batches = []
    while scheduler.waiting_texts:
        batches.append(await scheduler.next_batch(QUERY, PASSAGE))
        scheduler.deliver(batches[-1], computed(batches[-1]))
    return batches


@given(
    st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=40), min_size=1, max_size=12),
    st.integers(64, 4_096),
)
def test_every_caller_gets_the_vectors_of_its_texts_in_their_order(
    requests: Sequence[Sequence[int]], batch_tokens: int
) -> None:
    async def run() -> None:
        scheduler = Scheduler(batch_tokens=batch_tokens, max_texts=10_000)
        jobs = [scheduler.submit(texts(*lengths), PASSAGE) for lengths in requests]
        batches = await drained(scheduler)
        for lengths, job in zip(requests, jobs, strict=True):
            assert [row[0] for row in await job.done] == list(lengths)
        for batch in batches:
            longest = max(map(len, batch.ids))
            assert len(batch.items) == 1 or longest * len(batch.items) <= batch_tokens

    asyncio.run(run())


async def test_single_texts_of_many_callers_become_one_batch() -> None:
    scheduler = Scheduler(batch_tokens=4_096, max_texts=1_000)
    for _ in range(32):
        scheduler.submit(texts(128), PASSAGE)
    assert [len(batch.items) for batch in await drained(scheduler)] == [32]


async def test_a_query_overtakes_passages_that_came_before_it() -> None:
    scheduler = Scheduler(batch_tokens=256, max_texts=1_000)
    scheduler.submit(texts(*[128] * 50), PASSAGE)
    query = scheduler.submit(texts(12), QUERY)
    batch = await scheduler.next_batch(QUERY, PASSAGE)
    assert [job for job, _ in batch.items] == [query]


async def test_while_queries_come_only_so_many_batches_of_passages_are_computed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quintet_embedder.scheduler.CALM_SECONDS", 3_600.0)
    scheduler = Scheduler(batch_tokens=128, max_texts=100, passages_beside_queries=1)
    scheduler.submit(texts(*[128] * 4), PASSAGE)
    before = [await scheduler.next_batch(PASSAGE) for _ in range(2)]
    scheduler.submit(texts(12), QUERY)
    later = asyncio.create_task(scheduler.next_batch(PASSAGE))
    assert (await scheduler.next_batch(QUERY)).purpose is QUERY
    scheduler.deliver(before[0], computed(before[0]))
    await asyncio.sleep(0)
    assert not later.done()
    scheduler.deliver(before[1], computed(before[1]))
    assert (await asyncio.wait_for(later, 10)).purpose is PASSAGE


async def test_when_no_queries_come_any_more_passages_are_computed_on_all_lanes() -> None:
    scheduler = Scheduler(batch_tokens=128, max_texts=100, passages_beside_queries=1)
    scheduler.submit(texts(12), QUERY)
    scheduler.submit(texts(*[128] * 2), PASSAGE)
    await scheduler.next_batch(QUERY)
    for _ in range(2):
        await asyncio.wait_for(scheduler.next_batch(PASSAGE), 10)


async def test_a_bulk_request_and_a_small_one_advance_side_by_side() -> None:
    scheduler = Scheduler(batch_tokens=1_024, max_texts=10_000)
    scheduler.submit(texts(*[128] * 1_000), PASSAGE)
    small = scheduler.submit(texts(128), PASSAGE)
    batch = await scheduler.next_batch(PASSAGE)
    assert small in [job for job, _ in batch.items]


async def test_no_length_starves_another() -> None:
    scheduler = Scheduler(batch_tokens=256, max_texts=10_000)
    short = scheduler.submit(texts(10), PASSAGE)
    for _ in range(5):
        scheduler.submit(texts(*[128] * 20), PASSAGE)
    first = await scheduler.next_batch(PASSAGE)
    assert [job for job, _ in first.items] == [short]


async def test_texts_of_one_batch_are_of_like_length() -> None:
    scheduler = Scheduler(batch_tokens=4_096, max_texts=1_000)
    scheduler.submit(texts(*range(17, 250)), PASSAGE)
    for batch in await drained(scheduler):
        lengths = [len(ids) for ids in batch.ids]
        assert max(lengths) <= 1.5 * min(lengths)


async def test_a_withdrawn_request_leaves_the_line_and_costs_nothing() -> None:
    scheduler = Scheduler(batch_tokens=4_096, max_texts=1_000)
    gone = scheduler.submit(texts(*[128] * 20), PASSAGE)
    stays = scheduler.submit(texts(128), PASSAGE)
    scheduler.withdraw(gone)
    assert scheduler.waiting_texts == 1
    (batch,) = await drained(scheduler)
    assert [job for job, _ in batch.items] == [stays]
    assert gone.done.cancelled()


async def test_a_request_withdrawn_while_it_is_computed_is_dropped() -> None:
    scheduler = Scheduler(batch_tokens=4_096, max_texts=1_000)
    gone, stays = scheduler.submit(texts(5), PASSAGE), scheduler.submit(texts(6), PASSAGE)
    batch = await scheduler.next_batch(PASSAGE)
    scheduler.withdraw(gone)
    scheduler.deliver(batch, computed(batch))
    assert [row[0] for row in await stays.done] == [6]


async def test_passages_that_fill_their_line_keep_no_query_out() -> None:
    scheduler = Scheduler(batch_tokens=4_096, max_texts=10)
    scheduler.submit(texts(*[8] * 10), PASSAGE)
    query = scheduler.submit(texts(8), QUERY)
    assert scheduler.waiting_texts == 11
    await drained(scheduler)
    assert (await query.done)[0][0] == 8
    assert scheduler.waiting_texts == 0


async def test_a_full_line_refuses_and_says_when_to_come_back() -> None:
    scheduler = Scheduler(batch_tokens=4_096, max_texts=10)
    scheduler.submit(texts(*[5] * 8), PASSAGE)
    with pytest.raises(ServiceError) as caught:
        scheduler.submit(texts(5, 5, 5), PASSAGE)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after
    assert scheduler.waiting_texts == 8


async def test_a_failed_batch_fails_its_requests_and_frees_their_places() -> None:
    scheduler = Scheduler(batch_tokens=256, max_texts=1_000)
    job = scheduler.submit(texts(*[128] * 10), PASSAGE)
    other = scheduler.submit(texts(10), QUERY)
    scheduler.fail(await scheduler.next_batch(PASSAGE), RuntimeError("device lost"))
    with pytest.raises(RuntimeError, match="device lost"):
        await job.done
    assert scheduler.waiting_texts == 1
    await drained(scheduler)
    assert [row[0] for row in await other.done] == [10]


async def test_a_worker_waits_until_there_is_work() -> None:
    scheduler = Scheduler(batch_tokens=256, max_texts=10)
    waiting = asyncio.create_task(scheduler.next_batch(QUERY, PASSAGE))
    await asyncio.sleep(0)
    assert not waiting.done()
    scheduler.submit(texts(3), PASSAGE)
    assert len((await waiting).items) == 1
