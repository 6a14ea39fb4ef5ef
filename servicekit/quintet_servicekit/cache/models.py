"""What a `Cache` returns and is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

V = TypeVar("V")

Store = Literal["memory", "redis"]


class Found(NamedTuple, Generic[V]):
    """A value and where it came from."""

    value: V
    age_seconds: float
    """Time since it was computed; never negative, whatever the clocks of replicas say."""
    stale: bool
    """Whether it is past its TTL."""
    negative: bool
    """Whether it says that there is nothing."""
    store: Store | None
    """Where it was; None for a value that was computed just now, for this caller."""
    shared: bool
    """Whether it was computed just now for another caller, whose work this one joined."""
    saved_seconds: float
    """What computing it took, and so what it saved; 0 for one that was computed for this
    caller."""


@dataclass(frozen=True)
class Computed(Generic[V]):
    """What a `load` returns that has more to say than its value."""

    value: V
    negative: bool = False
    """The value says that there is nothing: it is kept for the negative TTL only."""
    store: bool = True
    """False for a value that is good for those who wait for it and nobody later, for
    instance a degraded one."""


@dataclass(frozen=True)
class Codec(Generic[V]):
    """A value's compact binary form; never pickle. `decode` raises any exception for what
    it cannot read, and is called for every hit: a view of the bytes is best."""

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]


Accept = Callable[[Found[V]], bool]
"""Whether a found value may be used by this caller; one that may not is a miss."""
Load = Callable[[], Awaitable[V | Computed[V]]]
"""Computes a value. It may run on after its caller has left, for others who wait, so it
bounds its own time; it says by `Computed` what is negative or not to be kept."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """One tier of one process: counts since its start, and its memory now."""

    tier: str
    hits: int
    """Values that were found fresh, negative ones included."""
    misses: int
    stale: int
    shared: int
    """Values that another caller was computing."""
    errors: int
    """Entries that could not be read, were too large or could not be written. Commands
    that failed are counted for the process's Redis, in the metrics."""
    entries: int
    bytes: int
    max_bytes: int
    redis_available: bool
    """False also where no Redis is configured."""
