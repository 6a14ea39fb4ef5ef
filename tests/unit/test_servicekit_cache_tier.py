"""One tier of the cache with memory only: look-ups, computing once, stale and negative."""

import asyncio
import time

import pytest

from quintet_servicekit.cache import Cache, CacheSettings, Codec, Computed, Found, key_of
from quintet_servicekit.cache.keys import owned
from quintet_servicekit.errors import Reason, ServiceError

TEXT = Codec[str](str.encode, lambda raw: bytes(raw).decode())
KEY = key_of("question")


def cache_of(**settings: float) -> Cache[str]:
    return Cache("l1", TEXT, CacheSettings.model_validate(settings))


class Loads:
    """A `load` that counts its calls and ends when it is told to."""

    def __init__(self, value: str = "value") -> None:
        self.value = value
        self.began = 0
        self.ended = 0
        self.cancelled = 0
        self.started = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.began += 1
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        return f"{self.value} {self.began}"


async def constant(value: str = "value") -> str:
    return value


async def test_a_value_is_found_with_its_age_and_what_it_saved() -> None:
    cache = cache_of()
    cache.put(KEY, "value", cost_seconds=1.5)
    found = cache.peek(KEY)
    assert found is not None
    assert (found.value, found.store, found.saved_seconds) == ("value", "memory", 1.5)
    assert 0 <= found.age_seconds < 1
    assert not (found.stale or found.negative or found.shared)
    again = await cache.get(KEY)
    assert again is not None
    assert again._replace(age_seconds=0) == found._replace(age_seconds=0)
    assert [f and f.value for f in await cache.get_many([key_of("other"), KEY])] == [None, "value"]
    assert cache.peek(key_of("other")) is None


async def test_a_thousand_callers_at_once_compute_once() -> None:
    cache, loads = cache_of(), Loads()
    callers = [asyncio.create_task(cache.get_or_load(KEY, loads)) for _ in range(1000)]
    await loads.started.wait()
    loads.go.set()
    found = await asyncio.gather(*callers)
    assert loads.began == 1
    assert {f.value for f in found} == {"value 1"}
    assert sum(f.shared for f in found) == 999
    assert found[0].saved_seconds == 0 < found[1].saved_seconds
    stats = cache.stats()
    assert (stats.misses, stats.shared, stats.hits) == (1, 999, 0)


async def test_the_first_caller_may_leave_and_the_others_get_its_work() -> None:
    cache, loads = cache_of(), Loads()
    first = asyncio.create_task(cache.get_or_load(KEY, loads))
    await loads.started.wait()
    second = asyncio.create_task(cache.get_or_load(KEY, loads))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    loads.go.set()
    assert (await second).value == "value 1"
    assert loads.cancelled == 0


async def test_when_all_callers_have_left_the_work_is_cancelled_and_the_next_starts_anew() -> None:
    cache, loads = cache_of(), Loads()
    callers = [asyncio.create_task(cache.get_or_load(KEY, loads)) for _ in range(3)]
    await loads.started.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    loads.go.set()
    assert (await cache.get_or_load(KEY, loads)).value == "value 2"
    assert (loads.cancelled, loads.ended) == (1, 1)


async def test_an_error_goes_to_all_who_waited_and_is_not_kept() -> None:
    cache = cache_of()
    failures = 0

    async def fail() -> str:
        nonlocal failures
        failures += 1
        await asyncio.sleep(0)
        raise ServiceError(Reason.NO_PASSAGES, "none")

    results = await asyncio.gather(
        *(cache.get_or_load(KEY, fail) for _ in range(5)), return_exceptions=True
    )
    assert failures == 1
    assert all(isinstance(r, ServiceError) and r.reason is Reason.NO_PASSAGES for r in results)
    assert (await cache.get_or_load(KEY, constant)).value == "value"


async def test_who_waits_for_a_caller_that_ran_out_of_time_computes_for_itself() -> None:
    cache, loads = cache_of(), Loads()
    loads.go.set()

    async def out_of_time() -> str:
        await asyncio.sleep(0)
        raise ServiceError(Reason.DEADLINE_EXCEEDED, "no time left")

    short = asyncio.create_task(cache.get_or_load(KEY, out_of_time))
    await asyncio.sleep(0)
    long = [asyncio.create_task(cache.get_or_load(KEY, loads)) for _ in range(10)]
    with pytest.raises(ServiceError):
        await short
    assert {(await caller).value for caller in long} == {"value 1"}
    assert loads.began == 1


async def test_a_caller_never_gets_what_it_does_not_accept() -> None:
    cache, old, new = cache_of(), Loads("old"), Loads("new")
    cache.put(KEY, "oldest")

    def accept(found: Found[str]) -> bool:
        return found.value.startswith("new")

    assert cache.peek(KEY, accept=accept) is None
    assert await cache.get(KEY, accept=accept) is None
    cache.clear()
    first = asyncio.create_task(cache.get_or_load(KEY, old))
    await old.started.wait()
    second = asyncio.create_task(cache.get_or_load(KEY, new, accept=accept))
    await asyncio.sleep(0)
    old.go.set()
    new.go.set()
    assert (await first).value == "old 1"
    assert (await second).value == "new 1"


async def test_a_stale_value_is_served_marked_while_one_computation_renews_it() -> None:
    cache, loads = cache_of(ttl_seconds=0.02, ttl_jitter=0, stale_seconds=60), Loads("new")
    cache.put(KEY, "old")
    await asyncio.sleep(0.03)
    assert cache.peek(KEY) is None
    assert await cache.get(KEY) is None
    for _ in range(5):
        found = await cache.get_or_load(KEY, loads)
        assert (found.value, found.stale) == ("old", True)
        assert found.age_seconds >= 0.02
    await loads.started.wait()
    strict = asyncio.create_task(cache.get_or_load(KEY, loads, allow_stale=False))
    await asyncio.sleep(0)
    loads.go.set()
    assert (await strict).value == "new 1"
    found = await cache.get_or_load(KEY, loads)
    assert (found.value, found.stale) == ("new 1", False)
    assert loads.began == 1
    await cache.aclose()


async def test_no_more_stale_values_are_renewed_at_once_than_allowed() -> None:
    cache = cache_of(ttl_seconds=0.001, ttl_jitter=0, stale_seconds=60, max_refreshes=2)
    loads = Loads()
    keys = [key_of(n) for n in range(5)]
    for key in keys:
        cache.put(key, "old")
    await asyncio.sleep(0.005)
    for key in keys:
        assert (await cache.get_or_load(key, loads)).stale
    await asyncio.sleep(0.01)
    assert loads.began == 2
    await cache.aclose()
    assert loads.cancelled == 2


async def test_a_renewal_that_fails_leaves_the_stale_value_and_is_counted() -> None:
    cache = cache_of(ttl_seconds=0.001, ttl_jitter=0, stale_seconds=60)
    cache.put(KEY, "old")
    await asyncio.sleep(0.005)

    async def fail() -> str:
        raise ServiceError(Reason.OVERLOADED, "busy")

    assert (await cache.get_or_load(KEY, fail)).value == "old"
    await asyncio.sleep(0.005)
    assert (await cache.get_or_load(KEY, constant)).value == "old"
    assert cache.stats().errors == 1


async def test_a_negative_result_is_kept_for_its_own_short_time() -> None:
    cache = cache_of(negative_ttl_seconds=0.05, stale_seconds=60, ttl_jitter=0)

    async def nothing() -> Computed[str]:
        return Computed("", negative=True)

    assert (await cache.get_or_load(KEY, nothing)).negative
    found = await cache.get_or_load(KEY, constant)
    assert (found.value, found.negative, found.store) == ("", True, "memory")
    await asyncio.sleep(0.06)
    assert (await cache.get_or_load(KEY, constant)).value == "value"


async def test_a_value_not_to_be_kept_serves_those_who_wait_and_nobody_later() -> None:
    cache = cache_of()

    async def degraded() -> Computed[str]:
        await asyncio.sleep(0)
        return Computed("degraded", store=False)

    both = await asyncio.gather(*(cache.get_or_load(KEY, degraded) for _ in range(2)))
    assert [found.value for found in both] == ["degraded", "degraded"]
    assert cache.peek(KEY) is None


async def test_what_is_deleted_while_it_is_computed_is_not_kept() -> None:
    cache, loads = cache_of(), Loads()
    caller = asyncio.create_task(cache.get_or_load(KEY, loads))
    await loads.started.wait()
    assert await cache.delete([KEY])
    loads.go.set()
    assert (await caller).value == "value 1"
    assert cache.peek(KEY) is None


async def test_a_ttl_is_shortened_at_random_and_never_lengthened() -> None:
    cache = cache_of(ttl_seconds=1000, ttl_jitter=0.5)
    expiries = set()
    for n in range(200):
        now = time.time() * 1000
        cache.put(key_of(n), "value")
        envelope = cache._memory.get(owned(key_of(n)), 0)
        assert envelope is not None
        ttl = envelope.soft_ms - now
        assert 499_000 <= ttl <= 1_000_100
        expiries.add(round(ttl / 10_000))
    assert len(expiries) > 20


async def test_what_the_codec_cannot_read_is_a_counted_miss() -> None:
    cache = Cache("l1", Codec(str.encode, lambda raw: str(int(raw))), CacheSettings())
    cache.put(KEY, "no number")
    assert await cache.get(KEY) is None
    stats = cache.stats()
    assert (stats.errors, stats.misses, stats.entries) == (1, 1, 0)


async def test_an_oversized_value_is_served_and_not_kept() -> None:
    cache = cache_of(max_value_bytes=100)
    assert len((await cache.get_or_load(KEY, lambda: constant("x" * 101))).value) == 101
    assert cache.peek(KEY) is None
    assert cache.stats().errors == 1


async def test_a_hit_in_memory_gives_the_event_loop_no_turn() -> None:
    cache = cache_of()
    cache.put(KEY, "value")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(10):
        await cache.get(KEY)
        await cache.get_many([KEY])
        await cache.get_or_load(KEY, constant)
    assert turns == 0
    counting.cancel()
