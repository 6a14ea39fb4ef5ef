"""Replicas that share a breaker through a real Valkey: one tries for all."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from pydantic import SecretStr

from quintet_local.valkey import running_valkey
from quintet_servicekit.breaker import Breaker, Guard, State
from quintet_servicekit.breaker_fleet import PERIOD_SECONDS, TICK_SECONDS, sharing
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.cache import CacheSettings, open_remote
from quintet_servicekit.errors import ServiceError

SETTINGS = BreakerSettings(consecutive_failures=3, open_seconds=0.1, max_open_seconds=0.1)
HANGING = SETTINGS.model_copy(update={"trial_seconds": 60.0})
"""With which a trial that hangs is waited for."""


class Dependency:
    """What the replicas call; it notes when."""

    def __init__(self) -> None:
        self.is_away = False
        self.calls: list[float] = []


class Replica:
    """One replica: its breaker, and whether only it can't reach the dependency."""

    def __init__(self, dependency: Dependency, settings: BreakerSettings = SETTINGS) -> None:
        self.breaker = Breaker("it", settings)
        self.is_cut_off = False
        self._dependency = dependency

    def call(self) -> bool | None:
        """Return whether a call was answered; None if it was not made."""
        try:
            with self.breaker.guard():
                self._dependency.calls.append(time.monotonic())
                if self._dependency.is_away or self.is_cut_off:
                    raise ConnectionError
        except ServiceError:
            return None
        except ConnectionError:
            return False
        return True


@asynccontextmanager
async def fleet_of(
    url: str, dependency: Dependency, size: int, settings: BreakerSettings = SETTINGS
) -> AsyncIterator[list[Replica]]:
    replicas = []
    async with AsyncExitStack() as stack:
        for _ in range(size):
            replicas.append(Replica(dependency, settings))
            await stack.enter_async_context(member(url, replicas[-1]))
        await asyncio.sleep(0.3)  # all have heard of each other
        yield replicas


@asynccontextmanager
async def member(url: str, replica: Replica) -> AsyncIterator[None]:
    async with (
        open_remote(CacheSettings(redis_url=SecretStr(url), redis_timeout_seconds=1)) as remote,
        sharing(remote, "test", [replica.breaker]),
    ):
        yield


async def calling(replicas: list[Replica], seconds: float) -> None:
    """Let all replicas call all the time, for so long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for replica in replicas:
            replica.call()
        await asyncio.sleep(0.005)


async def all_closed(replicas: list[Replica]) -> None:
    async with asyncio.timeout(5):
        while True:
            for replica in replicas:
                replica.call()
            if all(it.breaker.state is State.CLOSED for it in replicas):
                return
            await asyncio.sleep(0.005)


def opened(*replicas: Replica) -> None:
    for replica in replicas:
        while replica.call() is not None:
            pass


async def test_one_replica_tries_for_all_and_its_success_is_that_of_all(redis_url: str) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 3) as replicas:
        dependency.is_away = True
        opened(*replicas)
        await asyncio.sleep(0.3)
        dependency.calls.clear()
        await calling(replicas, 4 * PERIOD_SECONDS)
        # Three on their own would have tried some twenty times each.
        assert 1 <= len(dependency.calls) <= 5
        dependency.is_away = False
        await all_closed(replicas)
        causes = [it.breaker.snapshot().cause for it in replicas]
        assert causes.count("the trial was answered") == 1
        assert causes.count("another replica found it back") == 2


async def test_a_replica_that_dies_with_the_lease_holds_up_the_others_for_a_period(
    redis_url: str,
) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 2) as replicas:
        dependency.is_away = True
        dying = Replica(dependency)
        async with member(redis_url, dying):
            await asyncio.sleep(0.3)
            opened(dying)
            async with asyncio.timeout(5):
                dependency.calls.clear()
                while not dependency.calls:  # it has the lease
                    dying.call()
                    await asyncio.sleep(0.005)
        opened(*replicas)
        dependency.is_away = False
        await all_closed(replicas)


async def trying(replica: Replica) -> Guard:
    """Have the replica get the lease and send a trial, which goes on until `ended`."""
    async with asyncio.timeout(5):
        while True:
            guard = replica.breaker.guard()
            with suppress(ServiceError):
                return guard.__enter__()
            await asyncio.sleep(0.005)


def ended(guard: Guard, error: BaseException | None) -> None:
    guard.__exit__(None if error is None else type(error), error, None)


async def test_a_trial_that_hangs_keeps_the_others_from_trying_until_it_fails(
    redis_url: str,
) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 3, HANGING) as replicas:
        dependency.is_away = True
        opened(*replicas)
        trial = await trying(replicas[0])
        dependency.calls.clear()
        await calling(replicas, 5 * PERIOD_SECONDS)
        assert dependency.calls == []
        ended(trial, ConnectionError())
        dependency.is_away = False
        await all_closed(replicas)
        assert replicas[0].breaker.snapshot().cause == "another replica found it back"


async def test_a_trial_that_was_given_up_is_followed_by_another_only_with_the_lease(
    redis_url: str,
) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 2, HANGING) as replicas:
        dependency.is_away = True
        opened(*replicas)
        ended(await trying(replicas[0]), asyncio.CancelledError())
        assert replicas[0].breaker.state is State.HALF_OPEN
        hanging = await trying(replicas[1])
        dependency.calls.clear()
        await calling(replicas, 2 * PERIOD_SECONDS)
        assert dependency.calls == []
        ended(hanging, None)
        dependency.is_away = False
        await all_closed(replicas)


async def test_a_trial_keeps_the_others_out_for_no_longer_than_a_trial_may_last(
    redis_url: str,
) -> None:
    dependency = Dependency()
    settings = SETTINGS.model_copy(update={"trial_seconds": 1.0})
    async with fleet_of(redis_url, dependency, 2, settings) as replicas:
        dependency.is_away = True
        opened(*replicas)
        await trying(replicas[0])  # and it never ends
        dependency.calls.clear()
        await calling(replicas[1:], PERIOD_SECONDS)
        assert dependency.calls == []
        dependency.is_away = False
        await all_closed(replicas)
        assert replicas[1].breaker.snapshot().cause == "the trial was answered"


async def test_who_is_killed_with_a_trial_under_way_keeps_the_others_out_for_a_second(
    redis_url: str,
) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 2, HANGING) as replicas:
        dependency.is_away = True
        opened(*replicas)
        killed = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, redis_url),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert killed.stdout is not None
            async with asyncio.timeout(30):
                while await killed.stdout.readline() != b"trying\n":  # after its log
                    assert not killed.stdout.at_eof()
            dependency.calls.clear()
            await calling(replicas, 4 * PERIOD_SECONDS)
            assert dependency.calls == []
        finally:
            killed.kill()
            await killed.wait()
        died = time.monotonic()
        async with asyncio.timeout(5):
            while not dependency.calls:
                await calling(replicas, 0.01)
        assert dependency.calls[0] - died < 4 * PERIOD_SECONDS


async def test_a_replica_that_alone_is_cut_off_does_not_open_the_others(redis_url: str) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 3) as replicas:
        replicas[0].is_cut_off = True
        opened(replicas[0])
        await calling(replicas, 1.5)
        assert [it.breaker.state for it in replicas[1:]] == [State.CLOSED] * 2
        assert replicas[0].breaker.state is not State.CLOSED
        # Nor does it make them open at a single failure for as long as it is cut off.
        dependency.is_away = True
        assert replicas[1].call() is False
        assert replicas[1].breaker.state is State.CLOSED


async def test_when_one_opens_the_next_failure_of_another_opens_that_too(redis_url: str) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 2) as replicas:
        dependency.is_away = True
        opened(replicas[0])
        await asyncio.sleep(4 * TICK_SECONDS)
        assert replicas[1].call() is False
        assert replicas[1].breaker.state is State.OPEN
        assert "another replica" in replicas[1].breaker.snapshot().cause


async def test_one_that_is_cut_off_does_not_keep_the_others_from_trying(redis_url: str) -> None:
    dependency = Dependency()
    async with fleet_of(redis_url, dependency, 2) as replicas:
        cut_off, other = replicas
        cut_off.is_cut_off = dependency.is_away = True
        opened(*replicas)
        await calling(replicas, 1.0)
        dependency.is_away = False
        async with asyncio.timeout(5):
            while other.breaker.state is not State.CLOSED:
                await calling(replicas, 0.05)
        assert other.breaker.snapshot().cause == "the trial was answered"


async def test_without_redis_each_replica_tries_for_itself(tmp_path: Path) -> None:
    dependency = Dependency()
    async with AsyncExitStack() as stack:
        async with running_valkey(tmp_path, megabytes=16) as url:
            replicas = await stack.enter_async_context(fleet_of(url, dependency, 2))
            dependency.is_away = True
            opened(*replicas)
        await calling(replicas, 1.0)
        dependency.is_away = False
        await all_closed(replicas)
        causes = {it.breaker.snapshot().cause for it in replicas}
        assert causes == {"the trial was answered"}


async def test_without_a_redis_in_the_settings_nothing_is_shared() -> None:
    replica = Replica(Dependency())
    async with member("", replica):
        assert replica.call() is True


async def try_until_killed(url: str) -> None:
    """Be a replica of its own process that is killed while its trial hangs."""
    dependency = Dependency()
    async with fleet_of(url, dependency, 1, HANGING) as (replica,):
        dependency.is_away = True
        opened(replica)
        await trying(replica)
        sys.stdout.write("trying\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(try_until_killed(sys.argv[1]))
