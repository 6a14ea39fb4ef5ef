"""The limits as all replicas share them, in Redis.

What calls demand at the same moment goes there in one round trip: while one is under way
those that come wait for the next. So a thousand calls at once need no thousand connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from importlib.resources import files

from quintet_gateway.admission.budget import Budget, State
from quintet_gateway.admission.demand import (
    STREAM_WAIT_SECONDS,
    Demand,
    Places,
    Verdict,
    Window,
    over_budget,
)
from quintet_servicekit.cache import AwayError, Remote
from quintet_servicekit.cache.script import Script

SCRIPT = Script(files(__package__).joinpath("script.lua").read_text(encoding="utf-8"))
BOOK = Script(files(__package__).joinpath("book.lua").read_text(encoding="utf-8"))
HOLD = Script("""
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000000 + time[2] + ARGV[1], ARGV[2])
return redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000))
""")
"""Let the holder ARGV[2] keep its place of KEYS[1] for ARGV[1] microseconds more."""

BATCH = 128
"""Demands in one round trip: some milliseconds of Redis's time, far below its timeout."""
MICROS = 1_000_000
DAY_SECONDS = 86_400


class SharedLimits:
    """Limits in Redis; a place is lost `lease_seconds` after its holder was last heard of."""

    def __init__(self, remote: Remote, *, lease_seconds: float) -> None:
        self._remote = remote
        self._lease_us = round(lease_seconds * MICROS)
        self._waiting: list[tuple[Demand, asyncio.Future[Verdict]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def take(self, demand: Demand) -> Verdict:
        """Take what is demanded if there is as much of everything. Raises `AwayError`."""
        future = self._asking(demand)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                # The verdict had come, and its caller left before it could be told.
                self._give_back(demand, future.result())
            raise

    def _asking(self, demand: Demand) -> asyncio.Future[Verdict]:
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((demand, future))
        if self._sending is None:
            # In nobody's trace, since it is for all; a caller who leaves does not end it.
            work = self._send()
            self._sending = asyncio.create_task(work, name="limits", context=Context())
        return future

    async def hold(self, places: Sequence[tuple[Places, str]]) -> None:
        """Let each of the holders keep its place for another lease. Raises `AwayError`."""
        calls = [((it.key,), (self._lease_us, holder)) for it, holder in places]
        await self._remote.scripts(HOLD, calls)

    async def release(self, places: Iterable[Places], holder: str) -> None:
        """Give places back. Raises `AwayError`."""
        commands = [("ZREM", self._remote.key(it.key), holder) for it in places]
        if commands:
            await self._remote.pipeline(commands)

    async def note_spent(self, spent: Sequence[tuple[Budget, int]]) -> None:
        """Have it known what is spent of budgets at least. Raises `AwayError`."""
        calls: list[tuple[list[str], list[str | int]]] = [
            (_keys_of(budget), [nanos, _kept_ms(budget)]) for budget, nanos in spent
        ]
        if calls:
            await self._remote.scripts(BOOK, calls)

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                # Nothing is taken for those who have left.
                batch = [it for it in batch if not it[1].done()]
                if not batch:
                    continue
                try:
                    verdicts = await self._asked([demand for demand, _ in batch])
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (demand, future), verdict in zip(batch, verdicts, strict=True):
                    if not future.done():
                        future.set_result(verdict)
                        continue
                    self._give_back(demand, verdict)
                    with suppress(AwayError):
                        # Again: it may have been released before it was held.
                        await self.release(demand.places, demand.holder)
        finally:
            self._sending = None

    def _give_back(self, demand: Demand, verdict: Verdict) -> None:
        """Give back what was taken for a caller who left meanwhile."""
        if verdict.admitted and not demand.force:
            back = replace(
                demand,
                cost=-demand.cost,
                places=(),
                force=True,
                amount=0,
                reserved=demand.amount,
            )
            # What could not be given back flows out with time.
            self._asking(back).add_done_callback(asyncio.Future.exception)

    async def _asked(self, demands: Sequence[Demand]) -> list[Verdict]:
        calls = [_call(demand, self._lease_us) for demand in demands]
        replies = await self._remote.scripts(SCRIPT, calls)
        return [_verdict(it, reply) for it, reply in zip(demands, replies, strict=True)]

    async def aclose(self) -> None:
        """Wait for what is being asked."""
        if self._sending is not None:
            await asyncio.wait({self._sending})


def _call(demand: Demand, lease_us: int) -> tuple[list[str], list[str | int]]:
    keys = [*(it.key for it in demand.windows), *(it.key for it in demand.places)]
    arguments: list[str | int] = [
        int(demand.force),
        len(demand.windows),
        lease_us,
        demand.holder,
        len(demand.places),
    ]
    for window in demand.windows:
        arguments += (window.limit, round(window.seconds * MICROS), demand.cost)
    arguments += (it.limit for it in demand.places)
    for budget in demand.budgets:
        keys += _keys_of(budget)
        arguments += (
            budget.limit,
            demand.amount,
            demand.reserved,
            round(demand.lease_seconds * MICROS),
            _kept_ms(budget),
        )
    return keys, arguments


def _keys_of(budget: Budget) -> list[str]:
    return [budget.key, f"{budget.key}:reserved"]


def _kept_ms(budget: Budget) -> int:
    """Return how long a budget's book is kept: a day longer than its period, for the calls
    that began in it."""
    return round((budget.ends_in + DAY_SECONDS) * 1000)


def _verdict(demand: Demand, reply: Sequence[int]) -> Verdict:
    refused, wait_us, told, remaining, reset_us, *books = reply
    if refused < 0:
        return Verdict(False, states=None)
    limits: tuple[Window | Places, ...] = (*demand.windows, *demand.places)
    states = tuple(State(*it) for it in zip(books[::2], books[1::2], strict=True))
    if refused > len(limits):
        number = refused - len(limits) - 1
        return over_budget(demand.budgets[number], states[number], demand.amount)
    if refused > len(demand.windows):
        return Verdict(False, limits[refused - 1], wait_seconds=STREAM_WAIT_SECONDS)
    return Verdict(
        admitted=not refused,
        limit=limits[told - 1] if told else None,
        remaining=remaining,
        reset_seconds=reset_us / MICROS,
        wait_seconds=wait_us / MICROS,
        states=states,
    )
