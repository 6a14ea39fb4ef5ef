"""Kept answers: each deterministic request is answered once, for all who ask it at once,
and for a day after.

Who asks while the answer is being written gets its text as it comes, in other replicas
too. The writing goes on while one of them is left, and ends within a decode step when
none is.
"""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from quintet_generator.models import (
    Citation,
    Completed,
    Completion,
    Event,
    Finished,
    ModelInfo,
    Query,
    TextDelta,
)
from quintet_generator.resuming import resumed
from quintet_servicekit.cache import (
    Cache,
    CacheSettings,
    CacheStats,
    Codec,
    Flights,
    Found,
    Remote,
    key_of,
)
from quintet_servicekit.cache.tally import MAX_TENANTS
from quintet_servicekit.cache.use import CacheUse, use_of
from quintet_servicekit.tenant_map import TenantMap

TIER = "completions"
_RANDOM = struct.Struct("<dQ")
"""Temperature and seed."""

Compute = Callable[[], AsyncGenerator[Event]]


@dataclass
class _Origin:
    """Where the events of one caller come from."""

    led: bool = False
    """Whether it is this caller's own look-up and computation."""
    found: Found[Completion] | None = None
    """What that look-up found."""


class CompletionCache:
    """Implements `engine.Kept`, and is itself the tier that `CacheService` tells of."""

    tier = TIER

    def __init__(
        self,
        completions: Codec[Completion],
        events: Codec[Event],
        settings: CacheSettings,
        remote: Remote | None,
        *,
        schema: int,
    ) -> None:
        self._cache = Cache(TIER, completions, settings, remote, schema=schema)
        self._flights = Flights(TIER, events, settings, remote, schema=schema)
        self._shared: TenantMap[int] = TenantMap(MAX_TENANTS)

    async def stream(
        self, query: Query, model: ModelInfo, compute: Compute, *, keep: bool
    ) -> AsyncGenerator[TextDelta | Citation | Completed]:
        """Yield the answer of `compute`, `Completed` last, or the one that is kept, its text
        in one piece. Not `keep`: the answer is only shared by those who ask for it at once, in
        this process. Raises what `compute` raises.

        A request whose answer is left to chance, or that forbids it, is computed for itself.
        """
        if not is_repeatable(query):
            bypass = CacheUse(TIER, "bypass")
            async with aclosing(compute()) as events:
                async for event in events:
                    yield _told(event, model, bypass)
            return
        key = key_of_completion(query, model)
        found = self._cache.peek(key) if keep else None
        if found is not None:
            for event in _events(found.value):
                yield _told(event, model, use_of(TIER, [found]))
            return
        origin = _Origin()

        def start() -> AsyncGenerator[Event]:
            origin.led = True
            return self._found_or_written(key, compute, origin) if keep else compute()

        def join(anywhere: bool) -> AsyncGenerator[Event]:
            return self._flights.join(key, start, across_replicas=keep and anywhere)

        async with aclosing(resumed(join)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    yield Completed(model, event, self._use(origin, keep))
                else:
                    yield event

    async def _found_or_written(
        self, key: str, compute: Compute, origin: _Origin
    ) -> AsyncGenerator[Event]:
        origin.found = found = await self._cache.get(key)
        if found is not None:
            for event in _events(found.value):
                yield event
            return
        began = time.perf_counter()
        text: list[str] = []
        citations: list[Citation] = []
        async with aclosing(compute()) as events:
            async for event in events:
                match event:
                    case TextDelta():
                        text.append(event.text)
                    case Citation():
                        citations.append(event)
                    case Finished():
                        # Before it is told: who asks next finds it.
                        whole = Completion("".join(text), tuple(citations), event)
                        cost = time.perf_counter() - began
                        self._cache.put(key, whole, cost_seconds=cost)
                yield event

    def stats(self) -> CacheStats:
        """Return the tenant's counts and memory in this process."""
        return replace(self._cache.stats(), shared=self._shared.get("") or 0)

    async def purge(self) -> int:
        """Drop the tenant's answers and return how many; raises as `Cache.purge` does."""
        return await self._cache.purge()

    async def aclose(self) -> None:
        """End what is being computed."""
        await self._flights.aclose()
        await self._cache.aclose()

    def _use(self, origin: _Origin, keep: bool) -> CacheUse | None:
        if not origin.led:
            self._shared.put("", (self._shared.get("") or 0) + 1)
            return CacheUse(TIER, "shared")
        return use_of(TIER, [origin.found]) if keep else None


def is_repeatable(query: Query) -> bool:
    """Tell whether the request gets the same answer each time, and lets it be kept."""
    return not query.no_cache and (query.temperature == 0 or query.seed is not None)


def key_of_completion(query: Query, model: ModelInfo) -> str:
    """Return the key of the answer: all that it depends on."""
    random = b"" if query.temperature == 0 else _RANDOM.pack(query.temperature, query.seed or 0)
    return key_of(
        model.name,
        model.revision,
        query.template,
        query.template_revision,
        query.question,
        len(query.passages),
        *(part for it in query.passages for part in (it.title, it.text)),
        query.max_tokens,
        random,
        len(query.stop),
        *query.stop,
        query.json_schema,
        int(query.logprobs),
    )


def _events(completion: Completion) -> Iterator[Event]:
    """Yield the answer as a backend would, its text in one piece."""
    if completion.text:
        yield TextDelta(completion.text)
    yield from completion.citations
    yield completion.finished


def _told(event: Event, model: ModelInfo, use: CacheUse) -> TextDelta | Citation | Completed:
    return Completed(model, event, use) if isinstance(event, Finished) else event
