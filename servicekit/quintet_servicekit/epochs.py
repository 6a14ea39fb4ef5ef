"""News of collections' epochs, and of API keys that end, over Redis' publish/subscribe.

Whoever writes announces the new epoch (`EpochNews`). Whoever caches follows (`EpochWatch`) and
is told at once, with no trip, at which epoch a collection is. docs/adr/0005 proves when that
may be believed; in short:

- News may be lost, late or out of order. So an epoch is only known of a name whose
  epoch was read from the database while the news was already followed (`EpochWatch.note`), and
  is forgotten with the connection.
- A writer may fail to announce. So what is known counts only until the moment up to
  which the database's relay has vouched for it (`EpochNews.extend_trust`); the writer
  takes that back and waits for that moment.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from prometheus_client import Counter
from redis.exceptions import AuthenticationError

from quintet_servicekit import telemetry
from quintet_servicekit.background import beside
from quintet_servicekit.cache.remote import Remote
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.identity import DEFAULT_TENANT, Identity, acting_as, current

CHANNEL = "epochs"
LEASE_SECONDS = 1.5
"""How long trust lasts unless it is extended: the longest that a writer waits whose
announcement failed, and that a replica cut off from the news may believe old ones."""
SKEW_SECONDS = 0.2
"""How much earlier than told a replica ends its trust, for a clock that is behind."""
CAPACITY = 10_000
"""Collections whose epochs are kept, some 3 MB."""

_CONNECT_SECONDS = 0.5
_SILENCE_SECONDS = 1.0
"""Silence after which Redis is asked whether it is there. The relay speaks more often."""
_PAUSE_SECONDS = 0.25
"""Longest pause before the next attempt: Redis is followed again within a second."""
_REFUSED_SECONDS = 5.0
"""Pause after a refused password: people change it, and the server logs each try."""

_SUBSCRIPTIONS = Counter(
    "quintet_epoch_subscriptions_total", "Times that the news of epochs began to be followed."
)


class Place(NamedTuple):
    """Where an epoch is told of: the tenant, and the name that it has for the collection."""

    tenant: str
    name: str


class EpochNews:
    """Tells all who follow. Every method raises `AwayError` when Redis didn't take it."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def announce(self, name: str, epoch: Epoch) -> None:
        """Tell the epoch that a collection of the present tenant has reached."""
        await self.announce_all([(Place(current().tenant, name), epoch)])

    async def announce_all(self, epochs: Iterable[tuple[Place, Epoch]]) -> None:
        """Tell the epochs that collections, of whichever tenant, have reached, in one round
        trip."""
        await self._publish(_epoch_message(place, epoch) for place, epoch in epochs)

    async def extend_trust(self, until: float) -> None:
        """Vouch that every write was announced that is acknowledged before `until`, in
        seconds since the Unix epoch, unless its writer first waits for that moment."""
        await self._publish([{"kind": "trust", "until": float(until)}])

    async def reset(self) -> None:
        """Let all followers forget what they know: there may be news that were not told."""
        await self._publish([{"kind": "reset"}])

    async def forget(self, keys: Sequence[str]) -> None:
        """Let all followers drop what they keep for the present tenant under these keys; see
        `on_forget`."""
        tenant = current().tenant
        await self._publish([{"kind": "forget", "keys": list(keys), "tenant": tenant}])

    async def key_changed(self, key_id: str) -> None:
        """Let all followers look an API key up again, whatever its tenant; see `on_key`."""
        await self._publish([{"kind": "api key", "id": key_id}])

    async def _publish(self, messages: Iterable[dict[str, Any]]) -> None:
        channel = self._remote.key(CHANNEL)
        commands = [("PUBLISH", channel, json.dumps(message)) for message in messages]
        if commands:
            await self._remote.pipeline(commands)


def _epoch_message(place: Place, epoch: Epoch) -> dict[str, Any]:
    message = {"name": place.name, "epoch": [epoch.collection, epoch.number]}
    if place.tenant == DEFAULT_TENANT:
        return {"kind": "epoch", **message}
    # A kind of its own: who knows of no tenants passes over it.
    return {"kind": "epoch of tenant", "tenant": place.tenant, **message}


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in one subscription."""

    subscription: int
    message: int


@dataclass(slots=True)
class _Entry:
    """What is known of a name. `message`: number of the last one about it."""

    epoch: Epoch
    based: bool
    message: int


class EpochWatch:
    """What this process knows of epochs. `open_watch` makes one that follows the news."""

    def __init__(
        self,
        on_forget: Callable[[Sequence[str]], None] = lambda keys: None,
        capacity: int = CAPACITY,
        *,
        on_key: Callable[[str], None] = lambda key_id: None,
        on_gap: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_forget = on_forget
        self._on_key = on_key
        self._on_gap = on_gap
        self._capacity = capacity
        self._subscription = 0
        self._live = False
        self._messages = 0
        self._dropped = 0
        self._entries: OrderedDict[Place, _Entry] = OrderedDict()
        self._distrust()

    def known(self, name: str) -> Epoch | None:
        """Return the epoch that the present tenant's collection of that name has reached, or
        None if that isn't known beyond doubt at this moment. Takes about a microsecond.

        All writes are in it that were acknowledged before, but for those whose news are
        on their way: at most `LEASE_SECONDS`. The number is `LAST` of a deleted collection.
        """
        if time.monotonic() >= self._trusted_monotonic or time.time() >= self._trusted_wall:
            return None
        place = Place(current().tenant, name)
        entry = self._entries.get(place)
        if entry is None or not entry.based:
            return None
        self._entries.move_to_end(place)
        return entry.epoch

    def mark(self) -> Mark | None:
        """Return the present moment, for `note`: to be called before the database is read."""
        return Mark(self._subscription, self._messages) if self._live else None

    def note(self, name: str, epoch: Epoch, mark: Mark | None) -> None:
        """Take note of an epoch of the present tenant's collection that was read from the
        database, in a read that began after `mark`.

        It must be such a read: an epoch that came out of a cache, or of a read that was
        shared with an earlier caller, may be older than the mark.
        """
        if mark is None or mark.subscription != self._subscription:
            return
        if self._dropped > mark.message:
            # A later epoch may have been told since, and dropped for want of room.
            return
        entry = self._entry(Place(current().tenant, name), epoch)
        entry.epoch = max(entry.epoch, epoch)
        entry.based = True

    def told(self, name: str, epoch: Epoch) -> None:
        """Take in news of this very process at once, as if they had come by Redis: they
        need not come back to whom they went out from."""
        self._told(Place(current().tenant, name), epoch)

    def _told(self, place: Place, epoch: Epoch) -> None:
        self._messages += 1
        entry = self._entry(place, epoch)
        entry.epoch = max(entry.epoch, epoch)
        entry.message = self._messages

    async def follow(self, remote: Remote) -> None:
        """Follow the news for ever."""
        while True:
            pause = random.uniform(0.2, 1.0) * _PAUSE_SECONDS  # noqa: S311 - no secret
            try:
                await self._follow_once(remote)
            except AuthenticationError:
                pause = _REFUSED_SECONDS
            except Exception as error:  # whatever it is, we are no wiser without trying again
                if self._live:
                    telemetry.logger().warning("epochs' news lost", cause=type(error).__name__)
            finally:
                self._live = False
                self._forget_all()
            await asyncio.sleep(pause)

    async def _follow_once(self, remote: Remote) -> None:
        connection = remote.connection()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SUBSCRIBE", remote.key(CHANNEL))
                await connection.read_response(push_request=True)
            self._live = True
            _SUBSCRIPTIONS.inc()
            self._on_gap()
            asked = False
            while True:
                reply = await connection.read_response(
                    disable_decoding=True, timeout=_SILENCE_SECONDS, push_request=True
                )
                if reply is not None:
                    asked = False
                    # The answer to PING is no list.
                    if isinstance(reply, list) and reply[0] == b"message":
                        self._take(reply[2])
                elif asked:
                    raise TimeoutError("Redis is silent")
                else:
                    asked = True
                    await connection.send_command("PING")
        finally:
            await connection.disconnect(nowait=True)

    def _take(self, data: bytes) -> None:
        """Take in a message; one of a kind that a later version adds is nothing to us."""
        match json.loads(data):
            case {"kind": "epoch", "name": str(name), "epoch": [int(collection), int(number)]}:
                self._told(Place(DEFAULT_TENANT, name), Epoch(collection, number))
            case {
                "kind": "epoch of tenant",
                "tenant": str(tenant),
                "name": str(name),
                "epoch": [int(collection), int(number)],
            }:
                self._told(Place(tenant, name), Epoch(collection, number))
            case {"kind": "trust", "until": float(until)}:
                # Never longer than a lease from now, even if our clock is behind.
                seconds = min(until - time.time(), LEASE_SECONDS) - SKEW_SECONDS
                self._trusted_monotonic = time.monotonic() + seconds
                # A monotonic clock stands still while the machine is suspended.
                self._trusted_wall = time.time() + seconds
            case {"kind": "reset"}:
                self._forget_all()
            case {"kind": "forget", "keys": [*keys], "tenant": str(tenant)}:
                with acting_as(Identity(tenant)):
                    self._on_forget(keys)
            case {"kind": "api key", "id": str(key_id)}:
                self._on_key(key_id)

    def _entry(self, place: Place, epoch: Epoch) -> _Entry:
        entry = self._entries.get(place)
        if entry is None:
            entry = self._entries[place] = _Entry(epoch, based=False, message=0)
            if len(self._entries) > self._capacity:
                _, dropped = self._entries.popitem(last=False)
                self._dropped = max(self._dropped, dropped.message)
        self._entries.move_to_end(place)
        return entry

    def _forget_all(self) -> None:
        self._subscription += 1
        self._entries.clear()
        self._distrust()

    def _distrust(self) -> None:
        self._trusted_monotonic = self._trusted_wall = -math.inf


@asynccontextmanager
async def open_watch(
    remote: Remote | None,
    on_forget: Callable[[Sequence[str]], None] = lambda keys: None,
    *,
    on_key: Callable[[str], None] = lambda key_id: None,
    on_gap: Callable[[], None] = lambda: None,
) -> AsyncIterator[EpochWatch]:
    """Yield a watch that follows the news; without a Redis it never knows an epoch.

    `on_forget` is called with the keys of each `EpochNews.forget`, for their tenant; `on_key`
    with the id of each `EpochNews.key_changed`; `on_gap` when the news begin to be followed:
    what was told before may have been missed. Redis need not be there.
    """
    watch = EpochWatch(on_forget, on_key=on_key, on_gap=on_gap)
    if remote is None:
        yield watch
        return
    async with beside(lambda: watch.follow(remote), "epochs' news"):
        yield watch
