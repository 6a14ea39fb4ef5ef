"""Keeping a program running, with programs that exist only here."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from quintet_local.process import StartError
from quintet_local.settings import LocalSettings
from quintet_local.supervisor import Member, Progress


class Child:
    """Stands for a process that ends when a test says so."""

    def __init__(self) -> None:
        self.pid = 1
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def end(self, status: int) -> None:
        self.returncode = status
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


class ScriptedProgram:
    """Starts children; the outcomes given go before (an error is raised)."""

    def __init__(self, *outcomes: StartError | None) -> None:
        self.children: list[Child] = []
        self.outcomes = list(outcomes)

    async def start(self) -> Any:
        if self.outcomes and (error := self.outcomes.pop(0)):
            raise error
        self.children.append(Child())
        return self.children[-1]

    async def stop(self, child: Any) -> None:
        child.end(0)


class Watched:
    """A member, and the news of it."""

    def __init__(self, program: ScriptedProgram, **settings: Any) -> None:
        self.news: asyncio.Queue[Progress] = asyncio.Queue()
        self.member = Member("it", program, LocalSettings(**settings), self.news.put_nowait)

    async def states(self, count: int) -> list[str]:
        return [(await asyncio.wait_for(self.news.get(), 5)).state for _ in range(count)]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make the pauses before restarts short, and tell how long they would be."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def short(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("quintet_local.supervisor.asyncio.sleep", short)
    return pauses


async def test_a_program_that_ends_by_itself_is_started_again() -> None:
    program = ScriptedProgram()
    watched = Watched(program)
    await watched.member.start()
    program.children[0].end(-9)
    assert await watched.states(2) == ["starting", "ready"]
    restarting = await watched.news.get()
    assert (restarting.state, restarting.detail) == ("restarting", "it was ended by SIGKILL")
    assert await watched.states(1) == ["ready"]
    assert watched.member.process is cast(Any, program.children[1])
    await watched.member.stop()
    assert await watched.states(2) == ["stopping", "stopped"]


async def test_restarts_pause_longer_each_time_and_end_after_the_bound(
    no_pauses: list[float],
) -> None:
    program = ScriptedProgram(None, *(StartError("no luck") for _ in range(4)))
    watched = Watched(program, max_restarts=4)
    await watched.member.start()
    program.children[0].end(1)
    assert await watched.states(6) == ["starting", "ready", *["restarting"] * 4]
    failed = await watched.news.get()
    assert (failed.state, failed.detail) == ("failed", "no luck")
    assert no_pauses == [0.2, 0.4, 0.8, 1.6]
    await watched.member.stop()


async def test_earlier_restarts_do_not_count_after_a_steady_time() -> None:
    program = ScriptedProgram()
    watched = Watched(program, max_restarts=1, steady_seconds=1e-9)
    await watched.member.start()
    for _ in range(3):
        program.children[-1].end(1)
        while (await watched.news.get()).state != "restarting":
            pass
        assert await watched.states(1) == ["ready"]
    await watched.member.stop()


async def test_a_program_that_is_stopped_stays_stopped() -> None:
    program = ScriptedProgram()
    watched = Watched(program)
    await watched.member.start()
    await watched.member.stop()
    await asyncio.sleep(0)
    assert len(program.children) == 1
    assert await watched.states(4) == ["starting", "ready", "stopping", "stopped"]


async def test_a_first_start_that_fails_is_not_tried_again() -> None:
    watched = Watched(ScriptedProgram(StartError("broken")))
    with pytest.raises(StartError, match="broken"):
        await watched.member.start()
    await watched.member.stop()
    assert await watched.states(1) == ["starting"]
