"""The breakers of a service's replicas, shared through Redis: one replica tries for all.

Each replica opens a breaker on its own evidence only: one whose own network is broken would
else keep the others from what they can reach. What they share (docs/adr/0013):

- who tries: a trial or probe needs a lease, which is kept up while it lasts. Who dies with it
  costs a second at most, and who had it lets the others go first;
- that it is back: whoever closes its breaker says so, and the others close theirs;
- that it is gone: when another replica's opens, one's own next call decides.

Without Redis each goes its own way.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from quintet_servicekit.background import beside
from quintet_servicekit.breaker import Breaker, Snapshot, State
from quintet_servicekit.cache import AwayError, Remote
from quintet_servicekit.cache.remote import Command
from quintet_servicekit.cache.script import RENEW

TICK_SECONDS = 0.25
"""Pause between looks at what the others say: recovery reaches all within a second."""
PERIOD_SECONDS = 0.5
"""At most one trial, or probe, of all replicas in each. As long as a breaker's first stay in
open."""
_HELD_SECONDS = 4 * TICK_SECONDS
"""What a lease lasts without being kept up while its trial is under way: as long as a busy
event loop may forget of it, and what the others wait for who was killed meanwhile."""
_CLAIM_SECONDS = PERIOD_SECONDS / 4
"""Least pause between two claims of the lease by one replica."""
_SUSPECT_SECONDS = 2.0
"""How long another replica's opening is news: as long as a breaker is open at most."""
_OPEN_SECONDS = 1.0
"""How long a replica's breaker counts as open without its saying so again."""
_BACK_SECONDS = 60.0
"""How long it can be read that a dependency is back; much longer than a tick."""
_OTHERS = "another replica found it back"


class _Shared:
    """One breaker of this replica, and what is to be said and was heard of it."""

    def __init__(self, fleet: Fleet, breaker: Breaker, key: str) -> None:
        self._fleet = fleet
        self._breaker = breaker
        self._key = key
        self._wants_to_try = False
        self._claimed_at = 0.0
        self._next_claim = 0.0
        self._lease_ends = 0.0
        self._is_trying = False
        self._trial_ends = 0.0
        self._is_back = False
        self._heard_back: bytes | None = None
        self._heard_open = False
        breaker.share_trials(self)
        breaker.subscribe(self._moved)

    def begin(self, seconds: float) -> bool:
        """Return whether we have the lease, and keep it while we try; see `Trials`."""
        now = time.monotonic()
        if not self._fleet.is_live:
            return True
        if now < self._lease_ends:
            self._lease_ends = 0.0
            self._wants_to_try = False
            self._is_trying, self._trial_ends = True, now + seconds
            self._fleet.wake.set()
            return True
        if now >= self._next_claim and not self._is_trying:
            self._wants_to_try = True
            self._fleet.wake.set()
        return False

    def ended(self) -> None:
        """Give the lease back; see `Trials`."""
        self._trial_ends = 0.0
        if self._is_trying:
            self._fleet.wake.set()

    def _moved(self, snapshot: Snapshot) -> None:
        self._is_back = snapshot.state is State.CLOSED and snapshot.cause != _OTHERS
        self._fleet.wake.set()

    def said(self) -> Iterator[tuple[Command, Callable[[Any], None]]]:
        """Yield what to say to Redis, each with who takes the reply."""
        lease, back, opened = (f"{self._key}:{it}" for it in ("try", "back", "open"))
        token = self._fleet.token
        if self._is_back:
            yield ("SET", back, secrets.token_hex(8), "PX", _ms(_BACK_SECONDS)), self._said_back
        if self._is_trying:
            seconds = self._lease_seconds()
            yield ("EVAL", RENEW.text, 1, lease, token, _ms(seconds)), lambda _: None
        elif self._wants_to_try:
            self._wants_to_try = False
            self._claimed_at = time.monotonic()
            self._next_claim = self._claimed_at + _CLAIM_SECONDS
            yield ("SET", lease, token, "NX", "PX", _ms(PERIOD_SECONDS)), self._hear_of_lease
        if self._breaker.state is not State.CLOSED:
            yield ("SET", opened, token, "PX", _ms(_OPEN_SECONDS)), lambda _: None
        yield ("MGET", back, opened), self._hear

    def _hear_of_lease(self, granted: Any) -> None:
        if granted is not None:
            self._lease_ends = self._claimed_at + PERIOD_SECONDS
            self._let_others_first()

    def _lease_seconds(self) -> float:
        """Return how long the lease of our trial shall last from now."""
        now = time.monotonic()
        if now < self._trial_ends:
            return _HELD_SECONDS
        self._is_trying = False
        self._let_others_first()
        # A trial that fails at once makes no room for another in the same period.
        return max(0.0, self._claimed_at + PERIOD_SECONDS - now)

    def _let_others_first(self) -> None:
        # Lest one that is cut off, and so never has enough of trying, keeps it for itself.
        ends = max(time.monotonic(), self._claimed_at + PERIOD_SECONDS)
        self._next_claim = ends + 2 * _CLAIM_SECONDS

    def _said_back(self, _: Any) -> None:
        self._is_back = False

    def _hear(self, state: list[bytes | None]) -> None:
        back, opened = state
        # What was said while we could not hear is no news.
        if self._fleet.is_live:
            if back is not None and back != self._heard_back:
                self._breaker.reset(_OTHERS)
            elif opened is not None and not self._heard_open:
                self._breaker.suspect(_SUSPECT_SECONDS)
        self._heard_back = back
        self._heard_open = opened is not None


class Fleet:
    """This replica's side. `group` names the service."""

    def __init__(self, remote: Remote, group: str, breakers: Iterable[Breaker]) -> None:
        self.token = secrets.token_hex(8)
        self.wake = asyncio.Event()
        self._remote = remote
        self._heard = False
        self._shared = [
            _Shared(self, it, remote.key(f"breaker:{group}:{it.name}")) for it in breakers
        ]

    @property
    def is_live(self) -> bool:
        """Whether this replica hears of the others."""
        return self._heard and self._remote.available

    async def run(self) -> None:
        """Tell and hear for ever."""
        try:
            while True:
                self.wake.clear()
                try:
                    await self._exchange()
                    self._heard = True
                except AwayError:
                    self._heard = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        await self.wake.wait()
        finally:  # who can't hear of a lease must not wait for one
            self._heard = False

    async def _exchange(self) -> None:
        said = [it for shared in self._shared for it in shared.said()]
        replies = await self._remote.pipeline([command for command, _ in said])
        for (_, hear), reply in zip(said, replies, strict=True):
            hear(reply)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@asynccontextmanager
async def sharing(
    remote: Remote | None, group: str, breakers: Iterable[Breaker]
) -> AsyncIterator[None]:
    """Share the breakers within the context; without a Redis each stays its own."""
    shared = list(breakers)
    if remote is None or not shared:
        yield
        return
    async with beside(Fleet(remote, group, shared).run, "breakers"):
        yield
