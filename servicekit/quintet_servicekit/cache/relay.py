"""A stream in flight for all replicas: the leader appends its events to a stream in Redis,
and the followers read them as they come.

The leader holds a lease while it lives; its value names the stream in Redis, which is
new for every leader. Every entry has its number, so that a follower notices whatever was
lost. See `Flights`, which is what services use.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from google.rpc import status_pb2

from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.lease import Lease, take
from quintet_servicekit.cache.remote import Command, Remote
from quintet_servicekit.errors import ServiceError, from_status, to_status

LINGER_SECONDS = 10.0
"""How long a stream is kept in Redis after its last entry: time for a follower that has
just found the leader to read it."""
READ_SECONDS = 0.25
"""Longest wait for an entry before the leader's lease is looked at."""
MAX_FAILURES = 3
"""Consecutive failed reads after which a follower gives up."""
ENTRY_BYTES = 64
"""Counted for each entry beside its event."""


class _Kind(enum.Enum):
    EVENT = b"event"
    END = b"end"
    ERROR = b"error"
    LEFT = b"left"
    """The leader gave up without a result: its callers left, or the stream grew too long."""


class LeaderLostError(Exception):
    """The leader died, left, or what it sent can't be read any more."""


@dataclass(frozen=True)
class Leading:
    """We compute; `lease` is None where Redis couldn't grant one."""

    lease: Lease | None


@dataclass(frozen=True)
class Following:
    """Another replica computes, and its lease has this token."""

    token: str


async def lead_or_follow(remote: Remote, name: str, seconds: float) -> Leading | Following:
    """Return who computes the stream `name`."""
    lease_name = f"{name}:lease"
    while True:
        try:
            get = ("GET", remote.key(lease_name))
            lease, token = await take(remote, lease_name, seconds, then=get)
        except AwayError:
            return Leading(None)
        if lease is not None:
            return Leading(lease)
        if token is not None:  # else it has ended in between
            return Following(token.decode())


class Publisher:
    """The leader's side: appends events without waiting.

    When something keeps it from that, it stops, and the followers notice; the leader
    goes on.
    """

    def __init__(self, remote: Remote, name: str, lease: Lease, *, max_bytes: int) -> None:
        self._remote = remote
        self._stream = remote.key(_stream(name, lease.token))
        self._lease = lease
        self._left_bytes = max_bytes
        self._count = 0
        self._open = True

    def event(self, raw: bytes) -> None:
        """Append an event."""
        if not self._open:
            return
        self._left_bytes -= len(raw) + ENTRY_BYTES
        publishing = self._left_bytes >= 0 and self._lease.held
        if not publishing or not self._remote.writer.submit(
            self._entry(_Kind.EVENT, raw), len(raw)
        ):
            self._close(_Kind.LEFT)

    def end(self) -> None:
        """Append that the stream has ended well."""
        self._close(_Kind.END)

    def failed(self, error: ServiceError) -> None:
        """Append that it ended with an error, which the followers raise."""
        self._close(_Kind.ERROR, to_status(error).SerializeToString())

    def left(self) -> None:
        """Append that there won't be more."""
        self._close(_Kind.LEFT)

    def _close(self, kind: _Kind, raw: bytes = b"") -> None:
        if self._open:
            self._open = False
            self._lease.give_back(self._entry(kind, raw), len(raw))

    def _entry(self, kind: _Kind, raw: bytes) -> list[Command]:
        add = ("XADD", self._stream, "*", "n", self._count, "k", kind.value, "e", raw)
        self._count += 1
        return [add, ("PEXPIRE", self._stream, round(LINGER_SECONDS * 1000))]


async def follow(remote: Remote, name: str, token: str) -> AsyncGenerator[bytes]:
    """Yield the events of the leader whose lease has that token, from the first one on.

    Raises its `ServiceError`, or `LeaderLostError`.
    """
    stream, after, count, failures = _stream(name, token), b"0", 0, 0
    while True:
        try:
            entries = await remote.read_stream(stream, after, wait_seconds=READ_SECONDS)
            if not entries:
                entries = await _unless_dead(remote, name, token, after)
            failures = 0
        except AwayError as error:
            failures += 1
            if remote.available and failures < MAX_FAILURES:
                continue
            raise LeaderLostError("redis is away") from error
        for id_, fields in entries:
            kind, raw = _read(fields, count)
            after, count = id_, count + 1
            if kind is _Kind.LEFT:
                raise LeaderLostError("the leader left")
            if kind is _Kind.ERROR:
                raise _error(raw)
            if kind is _Kind.END:
                return
            yield raw


def _read(fields: Mapping[bytes, bytes], number: int) -> tuple[_Kind, bytes]:
    try:
        if int(fields[b"n"]) != number:
            raise ValueError("entries were lost")
        return _Kind(fields[b"k"]), fields[b"e"]
    except (KeyError, ValueError) as error:
        raise LeaderLostError("the leader's stream is damaged") from error


async def _unless_dead(
    remote: Remote, name: str, token: str, after: bytes
) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
    """Return entries that came just now; none while the leader lives but has none.

    Raises `LeaderLostError` when its lease has ended and nothing came before that.
    """
    holder = await remote.get(f"{name}:lease")
    if holder == token.encode():
        return []
    # The last entry is written before the lease is given back, so it must be there now.
    entries = await remote.read_stream(_stream(name, token), after, wait_seconds=0.001)
    if not entries:
        raise LeaderLostError("the leader's lease has ended")
    return entries


def _error(raw: bytes) -> ServiceError:
    error = from_status(status_pb2.Status.FromString(raw))
    assert error is not None, "it was made by to_status"
    return error


def _stream(name: str, token: str) -> str:
    return f"{name}:stream:{token}"
