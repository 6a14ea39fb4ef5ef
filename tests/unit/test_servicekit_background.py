"""Work beside the calls: begun anew when it fails, told of, and ended with its owner."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from quintet_servicekit.background import beside


async def test_work_that_fails_is_told_of_and_begins_anew() -> None:
    began: list[int] = []
    again = asyncio.Event()

    async def work() -> None:
        began.append(len(began))
        if len(began) == 1:
            raise RuntimeError("unforeseen")
        again.set()
        await asyncio.Event().wait()

    with capture_logs() as logs:
        async with beside(work, "test", pause=0), asyncio.timeout(10):
            await again.wait()
    assert began == [0, 1]
    assert [(it["event"], it["work"]) for it in logs] == [("background work failed", "test")]


async def test_work_that_is_done_stays_done_and_unfinished_work_ends_with_its_owner() -> None:
    done, ended = [], asyncio.Event()

    async def short() -> None:
        done.append(True)

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with beside(short, "short", pause=0), beside(long, "long", pause=0):
        for _ in range(5):
            await asyncio.sleep(0)
    assert done == [True]
    assert ended.is_set()


async def test_work_that_swallows_a_cancellation_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quintet_servicekit.background.AGAIN_SECONDS", 0.01)
    began, swallowed = asyncio.Event(), []

    async def work() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.append(True)
        await asyncio.Event().wait()

    async with asyncio.timeout(10), beside(work, "test"):
        await began.wait()
    assert swallowed == [True]
