"""Second attempts, without a wire."""

from __future__ import annotations

import asyncio

import pytest

from quintet_servicekit.hedging import LEAST_CALLS, MOST_TOKENS, Hedging


class Replicas:
    """Attempts of which those that are told to hang until they are cancelled."""

    def __init__(self) -> None:
        self.attempts = 0
        self.cancelled = 0
        self.second = asyncio.Event()
        self.hanging: set[int] = set()
        self.failing: set[int] = set()

    async def __call__(self, passed: float) -> int:
        number, self.attempts = self.attempts, self.attempts + 1
        if number == 1:
            self.second.set()
        if number in self.failing:
            raise ValueError(number)
        if number in self.hanging:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return number


async def known(ratio: float = 1.0) -> tuple[Hedging, Replicas]:
    """Return hedging that knows how long calls take."""
    hedging, replicas = Hedging("service", frozenset({"Read"}), ratio=ratio), Replicas()
    for _ in range(LEAST_CALLS):
        await hedging.first("Read", replicas)
    assert replicas.attempts == LEAST_CALLS
    replicas.attempts = 0
    replicas.second.clear()
    return hedging, replicas


async def test_the_first_answer_wins_and_the_other_attempt_is_cancelled() -> None:
    hedging, replicas = await known()
    replicas.hanging = {0}
    assert await hedging.first("Read", replicas) == 1
    assert (replicas.attempts, replicas.cancelled) == (2, 1)


async def test_methods_that_are_not_named_and_not_known_yet_are_tried_once() -> None:
    hedging, replicas = await known()
    assert hedging.delay("Write") is None
    assert Hedging("service", frozenset({"Read"}), ratio=1.0).delay("Read") is None
    replicas.hanging = {0}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hedging.first("Write", replicas), 0.05)
    assert (replicas.attempts, replicas.cancelled) == (1, 1)


async def test_a_caller_who_leaves_cancels_both_attempts() -> None:
    hedging, replicas = await known()
    replicas.hanging = {0, 1}
    call = asyncio.create_task(hedging.first("Read", replicas))
    async with asyncio.timeout(5):
        await replicas.second.wait()
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert replicas.cancelled == 2


async def test_a_failure_is_not_waited_beyond_and_is_the_first_attempts() -> None:
    hedging, replicas = await known()
    replicas.failing = {0}
    with pytest.raises(ValueError, match="0"):
        await hedging.first("Read", replicas)
    assert replicas.attempts == 1


async def test_second_attempts_are_a_small_share_of_all_calls() -> None:
    hedging, replicas = await known(ratio=0.05)
    calls = 100
    replicas.hanging = set(range(10**4))

    async def call() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hedging.first("Read", replicas), 0.05)

    await asyncio.gather(*(call() for _ in range(calls)))
    assert calls < replicas.attempts <= calls + MOST_TOKENS + 0.05 * calls
