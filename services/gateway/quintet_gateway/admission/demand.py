"""What a call takes of its limits, and what they say to it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Window:
    """A token bucket: `limit` units at once, and as many again in every `seconds`.

    `key` tells it apart from all others; `name` is told to callers.
    """

    key: str
    name: str
    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Places:
    """At most `limit` streams at once."""

    key: str
    name: str
    limit: int


@dataclass(frozen=True, slots=True)
class Demand:
    """`cost` units of each window, and one of each of the `places` under the name
    `holder`: all of it or nothing.

    A cost above a window's limit takes the whole of it. `force`: it has been spent, so it is
    taken whatever is left; a negative one is given back.
    """

    windows: tuple[Window, ...]
    cost: int = 1
    places: tuple[Places, ...] = ()
    holder: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the limits say.

    `limit` is the one that refuses and otherwise the one of which the least is left, by
    its share; None where there is none. `remaining` units are left of it, and all of
    them in `reset_seconds`. `wait_seconds` is when to try again what was refused.
    """

    admitted: bool
    limit: Window | Places | None = None
    remaining: int = 0
    reset_seconds: float = 0.0
    wait_seconds: float = 0.0
    shared: bool = field(default=True, compare=False)
    """Whether all replicas were asked, and not this one's share alone."""


STREAM_WAIT_SECONDS = 1.0
"""When to try again where all places are taken: nobody knows when a stream ends."""
