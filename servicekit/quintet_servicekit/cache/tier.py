"""One tier of the cache: memory, behind it Redis, and whoever computes a value only once.

A service builds its `Cache` in `app.py` and its engine asks it. Keys come from `key_of`
and hold everything that a value depends on; what may change without a new key is checked
by the caller's `accept`. Whatever the key, its value is the present tenant's: no other finds,
shares, drops or counts it.

    cache = Cache("l2", Codec(encode, decode), settings.cache, remote, schema=1)
    found = await cache.get_or_load(key, load)

Whatever happens to Redis, a look-up ends as a miss or a value, never as an error; only
`load` can raise. All methods belong to the event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from quintet_servicekit import telemetry
from quintet_servicekit.cache import metrics
from quintet_servicekit.cache.envelope import Envelope, UnreadableError, pack, unpack
from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.keys import owned
from quintet_servicekit.cache.lease import Lease
from quintet_servicekit.cache.memory import Memory
from quintet_servicekit.cache.models import (
    Accept,
    CacheStats,
    Codec,
    Computed,
    Found,
    Load,
    Store,
)
from quintet_servicekit.cache.once import Once
from quintet_servicekit.cache.purging import drop_values
from quintet_servicekit.cache.remote import Remote
from quintet_servicekit.cache.settings import CacheSettings
from quintet_servicekit.cache.sharing import find_or_claim
from quintet_servicekit.cache.tally import Tally
from quintet_servicekit.identity import current

V = TypeVar("V")


class Cache(Generic[V]):
    """Values of one tier ("l1", "l2", "l3", "completions", "counts").

    `schema`, 0 to 65,535, is raised with every change of what `codec` writes: entries of
    another schema are not found. `remote` None: memory only.
    """

    def __init__(
        self,
        tier: str,
        codec: Codec[V],
        settings: CacheSettings,
        remote: Remote | None = None,
        *,
        schema: int = 1,
    ) -> None:
        self.tier = tier
        self._codec = codec
        self._settings = settings
        self._remote = remote
        self._schema = schema
        self._memory = Memory(settings.memory_bytes)
        self._once: Once[Found[V]] = Once()
        self._refreshing = 0
        self._tally = Tally(tier)
        metrics.ENTRIES.labels(tier).set_function(lambda: len(self._memory))
        metrics.BYTES.labels(tier).set_function(lambda: self._memory.bytes)

    def peek(
        self, key: str, *, allow_stale: bool = False, accept: Accept[V] | None = None
    ) -> Found[V] | None:
        """Return the value if memory has it; at once, without any await.

        A hit is counted; a miss is not, since whoever peeks asks on.
        """
        return self._peeked(owned(key), allow_stale, accept)

    async def get(
        self, key: str, *, allow_stale: bool = False, accept: Accept[V] | None = None
    ) -> Found[V] | None:
        """Return the value from memory, else from Redis in one round trip; None if neither
        has one that is fresh (or `allow_stale`) and accepted."""
        mine = owned(key)
        found = self._peeked(mine, allow_stale, accept)
        if found is not None:
            return found
        return self._counted(await self._fetched(mine), allow_stale, accept)

    async def get_many(
        self, keys: Sequence[str], *, allow_stale: bool = False, accept: Accept[V] | None = None
    ) -> list[Found[V] | None]:
        """Return the values of `keys` in their order, as `get` would: those that memory
        lacks in one round trip together."""
        mine = [owned(key) for key in keys]
        found = {key: self._peeked(key, allow_stale, accept) for key in dict.fromkeys(mine)}
        missing = [key for key, value in found.items() if value is None]
        if missing:
            raws = await self._mget([self._name(key) for key in missing])
            for key, raw in zip(missing, raws or [None] * len(missing), strict=True):
                found[key] = self._counted(self._received(key, raw), allow_stale, accept)
        return [found[key] for key in mine]

    def put(self, key: str, value: V, *, cost_seconds: float = 0.0, negative: bool = False) -> None:
        """Keep a value that took `cost_seconds` to compute; Redis gets it in the background."""
        self._store(owned(key), self._enveloped(value, cost_seconds, negative))

    def put_many(self, values: Iterable[tuple[str, V]], *, cost_seconds: float = 0.0) -> None:
        """Keep values that took `cost_seconds` each; Redis gets them in the background."""
        for key, value in values:
            self.put(key, value, cost_seconds=cost_seconds)

    async def delete(self, keys: Sequence[str]) -> bool:
        """Drop the values from this process and from Redis; false if Redis couldn't be told.

        A computation in flight for one of them ends for those who wait, and is not kept.
        The memory of other replicas is theirs: tell them, for instance by
        `Remote.publish`, to call `discard`.
        """
        self.discard(keys)
        if self._remote is None or not keys:
            return True
        names = [self._remote.key(self._name(owned(key))) for key in keys]
        return await self._remote.writer.flush([("DEL", *names)])

    def discard(self, keys: Iterable[str]) -> None:
        """Drop the values from this process only, and what is being computed for them."""
        for key in map(owned, keys):
            self._memory.discard(key)
            self._once.forget(key)

    def clear(self) -> int:
        """Drop the tenant's values from this process's memory, and what is being computed for
        it; return how many there were."""
        mine = owned("")
        self._once.forget_all(mine)
        return self._memory.clear(mine)

    async def purge(self) -> int:
        """Drop the tenant's values from this process and from Redis, and return how many: the
        greater of the two numbers, since most are in both.

        A computation in flight in this process ends for those who wait, and is not kept.
        Raises `AwayError` when Redis couldn't be told; memory is empty then.
        """
        dropped = self.clear()
        if self._remote is None:
            return dropped
        return max(dropped, await drop_values(self._remote, self.tier, current().tenant))

    async def get_or_load(
        self,
        key: str,
        load: Load[V],
        *,
        allow_stale: bool = True,
        accept: Accept[V] | None = None,
        across_replicas: bool = True,
    ) -> Found[V]:
        """Return the value from memory or Redis, or computed by `load`: once for all who ask
        at the same time in this process and, `across_replicas`, in the others.

        A stale value is served where `allow_stale`, while one computation in the background
        renews it. `accept` is asked of every value but the one that `load` computed for this
        very caller: also of what a computation yields that began before we came.
        Raises what `load` raises.
        """
        mine = owned(key)
        found = self._peeked(mine, allow_stale, accept)
        while found is None:
            joined, led = await self._once.join(
                mine,
                lambda: self._found_or_computed(mine, load, allow_stale, accept, across_replicas),
            )
            if joined.store is None:  # computed just now
                joined = joined._replace(saved_seconds=0.0) if led else joined._replace(shared=True)
            if led or _good(joined, allow_stale, accept):
                found = joined
                self._count(found)
        if found.stale:
            self._refresh(mine, load, across_replicas)
        return found

    def stats(self) -> CacheStats:
        """Return the tenant's counts and memory in this process."""
        entries, size = self._memory.held(current().tenant)
        outcomes, errors = self._tally.counts()
        return CacheStats(
            tier=self.tier,
            hits=outcomes["hit"] + outcomes["negative"],
            misses=outcomes["miss"],
            stale=outcomes["stale"],
            shared=outcomes["shared"],
            errors=errors,
            entries=entries,
            bytes=size,
            max_bytes=self._memory.max_bytes,
            redis_available=self._remote is not None and self._remote.available,
        )

    async def aclose(self) -> None:
        """Cancel computations in flight, refreshes among them."""
        await self._once.aclose()

    def _peeked(self, key: str, allow_stale: bool, accept: Accept[V] | None) -> Found[V] | None:
        envelope = self._memory.get(key, time.time() * 1000)
        if envelope is None:
            return None
        found = self._opened(key, envelope, "memory")
        if found is None or not _good(found, allow_stale, accept):
            return None
        self._count(found)
        return found

    async def _found_or_computed(
        self,
        key: str,
        load: Load[V],
        allow_stale: bool,
        accept: Accept[V] | None,
        across_replicas: bool,
    ) -> Found[V]:
        found = await self._fetched(key)
        if found is not None and _good(found, allow_stale, accept):
            return found
        return await self._computed_once(key, load, accept, across_replicas)

    async def _computed_once(
        self, key: str, load: Load[V], accept: Accept[V] | None, across_replicas: bool
    ) -> Found[V]:
        """Compute the value, or wait for the replica that already does."""
        if self._remote is None or not across_replicas:
            return await self._computed(key, load, None)

        def received(raw: bytes | None) -> Found[V] | None:
            found = self._received(key, raw)
            return found if found is not None and _good(found, False, accept) else None

        name = self._name(key)
        found, lease = await find_or_claim(self._remote, name, received, self._settings)
        if found is not None:
            return found._replace(shared=True)
        return await self._computed(key, load, lease)

    async def _computed(self, key: str, load: Load[V], lease: Lease | None) -> Found[V]:
        began = time.perf_counter()
        try:
            result = await load()
            computed = result if isinstance(result, Computed) else Computed(result)
            cost = time.perf_counter() - began
            # Deleted meanwhile: what we computed may be what was to be deleted.
            if computed.store and self._once.is_current(key):
                self._store(key, self._enveloped(computed.value, cost, computed.negative))
        finally:
            # After the value, in the same order on the wire: who then gets the lease
            # finds it.
            if lease is not None:
                lease.give_back()
        return Found(computed.value, 0.0, False, computed.negative, None, False, cost)

    def _refresh(self, key: str, load: Load[V], across_replicas: bool) -> None:
        """Renew a stale value in the background, unless that is being done or too many are."""
        if key in self._once or self._refreshing >= self._settings.max_refreshes:
            return
        self._refreshing += 1
        self._once.begin(
            key, lambda: self._computed_once(key, load, None, across_replicas)
        ).add_done_callback(self._refreshed)

    def _refreshed(self, task: asyncio.Task[Found[V]]) -> None:
        self._refreshing -= 1
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._tally.failed("refresh")
            telemetry.logger().warning(
                "a stale value stays stale", tier=self.tier, cause=type(error).__name__
            )

    def _enveloped(self, value: V, cost_seconds: float, negative: bool) -> Envelope:
        settings = self._settings
        ttl = settings.negative_ttl_seconds if negative else settings.ttl_seconds
        ttl *= 1 - settings.ttl_jitter * random.random()  # noqa: S311 - no secret
        stale = 0.0 if negative else settings.stale_seconds
        now = int(time.time() * 1000)
        soft = now + int(ttl * 1000)
        payload = self._codec.encode(value)
        return Envelope(payload, now, soft, soft + int(stale * 1000), cost_seconds, negative)

    def _store(self, key: str, envelope: Envelope) -> None:
        size = len(envelope.payload)
        if size > self._settings.max_value_bytes:
            self._tally.failed("oversized")
            return
        self._memory.put(key, envelope)
        if self._remote is None or not self._remote.available:
            return
        raw = pack(envelope, self._schema)
        ttl = max(1, envelope.hard_ms - envelope.stored_ms)
        command = ("SET", self._remote.key(self._name(key)), raw, "PX", ttl)
        if not self._remote.writer.submit([command], len(raw)):
            self._tally.failed("dropped")

    async def _fetched(self, key: str) -> Found[V] | None:
        raws = await self._mget([self._name(key)])
        return self._received(key, raws[0] if raws else None)

    async def _mget(self, names: Sequence[str]) -> list[bytes | None] | None:
        if self._remote is None or not names:
            return None if self._remote is None else []
        try:
            return await self._remote.mget(names)
        except AwayError:
            return None

    def _received(self, key: str, raw: bytes | None) -> Found[V] | None:
        """Return what Redis gave, kept in memory from now on; None for what is no value."""
        if raw is None:
            return None
        try:
            envelope = unpack(raw, self._schema)
        except UnreadableError:
            self._tally.failed("unreadable")
            return None
        if envelope.hard_ms <= time.time() * 1000:
            return None
        found = self._opened(key, envelope, "redis")
        if found is not None:
            self._memory.put(key, envelope)
        return found

    def _opened(self, key: str, envelope: Envelope, store: Store) -> Found[V] | None:
        try:
            value = self._codec.decode(envelope.payload)
        except Exception:
            self._tally.failed("unreadable")
            self._memory.discard(key)
            return None
        now = time.time() * 1000
        return Found(
            value,
            max(0.0, (now - envelope.stored_ms) / 1000),
            envelope.soft_ms <= now,
            envelope.negative,
            store,
            False,
            envelope.cost_seconds,
        )

    def _counted(
        self, found: Found[V] | None, allow_stale: bool, accept: Accept[V] | None
    ) -> Found[V] | None:
        if found is None or not _good(found, allow_stale, accept):
            self._tally.looked_up("miss", None)
            return None
        self._count(found)
        return found

    def _count(self, found: Found[V]) -> None:
        if found.shared:
            self._tally.looked_up("shared", found.store)
        elif found.store is None:
            self._tally.looked_up("miss", None)
        elif found.stale:
            self._tally.looked_up("stale", found.store)
        else:
            self._tally.looked_up("negative" if found.negative else "hit", found.store)

    def _name(self, key: str) -> str:
        return f"{self.tier}:{self._schema}:{key}"


def _good(found: Found[V], allow_stale: bool, accept: Accept[V] | None) -> bool:
    return (allow_stale or not found.stale) and (accept is None or accept(found))
