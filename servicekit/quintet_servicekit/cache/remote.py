"""The Redis side of a process's caches: bounded, quick to fail, and back by itself.

One `Remote` a process, opened by its `app.py` and handed to every `Cache` and to others
who keep something in Redis. Every failure is `AwayError`, at once while Redis is known to be
gone: the caller then goes on without it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeAlias

from opentelemetry.trace import INVALID_SPAN
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    DataError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.maint_notifications import MaintNotificationsConfig

from quintet_servicekit import telemetry
from quintet_servicekit.breaker import Breaker, State
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.cache import metrics
from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.redis_spans import RedisSpans, note_replies
from quintet_servicekit.cache.script import RENEW, Script
from quintet_servicekit.cache.settings import CacheSettings
from quintet_servicekit.cache.writer import Writer
from quintet_servicekit.errors import ServiceError

Argument: TypeAlias = str | bytes | int | float
Command: TypeAlias = Sequence[Argument]
"""A command's name and its arguments."""

BLOCKING_READS = 16
"""Connections beside the settings' that may wait in Redis for a stream to grow."""
BREAKER = BreakerSettings(consecutive_failures=3, fair_timeout_seconds=0.0)
"""One failure can be a restart's reset of an idle connection, and three cost a caller at
most three timeouts. However short, our timeout is many times a round trip."""
PROBE_SECONDS = 0.25
"""Pause between probes and what each may take, so that Redis is used again within a
second of its return."""
REFUSED_SECONDS = 5.0
"""Least pause after a refused password: people change it, and the server logs each try."""


class Remote:
    """Commands to one Redis server over a bounded number of connections.

    A command has `settings.redis_timeout_seconds` for its reply, and before that as long
    for one of the connections; it is never tried again, and raises `AwayError` when it
    has no good reply. After a few failures in a row every
    command raises at once, until a probe in the background finds Redis again.
    A caller who is cancelled costs the connection that it used, never a wrong reply.

    Keys and channels are given without the namespace, which is put before each.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._timeout = settings.redis_timeout_seconds
        self._prefix = f"{settings.namespace}:"
        # Neither socket timeouts nor redis-py's own blocking pool: one timeout bounds the
        # whole exchange, connecting included, and a semaphore, which is released without
        # an await, can't lose a connection to a cancellation.
        self._pool: ConnectionPool = ConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            protocol=3,
            max_connections=settings.redis_connections + BLOCKING_READS + 1,
            socket_timeout=None,
            socket_connect_timeout=settings.redis_timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._spans = RedisSpans(self._pool.connection_kwargs)
        self._slots = asyncio.Semaphore(settings.redis_connections)
        self._blocking_slots = asyncio.Semaphore(BLOCKING_READS)
        self._next_try = 0.0
        self._password_refused = False
        self.breaker = Breaker("redis", BREAKER, may_try=lambda: time.monotonic() >= self._next_try)
        self.writer = Writer(self.pipeline, max_bytes=settings.pending_bytes)
        """Takes writes that nobody waits for."""

    @property
    def available(self) -> bool:
        """Whether Redis is being asked; false from a few failures on until it answers."""
        return self.breaker.state is State.CLOSED

    def key(self, key: str) -> str:
        """Return `key` as it is named in Redis: for `command` and `pipeline`, which take
        their arguments as they are."""
        return self._prefix + key

    async def command(self, *command: Argument) -> Any:
        """Return the reply to one command, in RESP3's types with strings as bytes.

        Raises `AwayError`.
        """
        return (await self.pipeline([command]))[0]

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to `commands`, sent in one round trip; not a transaction.

        Raises `AwayError`, also when any of the replies is an error.
        """
        replies = await self._exchange(commands, self._slots, self._timeout)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise _refused(reply)
        return replies

    async def script(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """Return what the Lua script returns; its `keys` are put into the namespace.

        It is sent by its hash, and whole where the server doesn't know it. Raises `AwayError`.
        """
        return (await self.scripts(script, [(keys, arguments)]))[0]

    async def scripts(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]]
    ) -> list[Any]:
        """Return what the script returns for each of the `calls`, which are keys and
        arguments, in one round trip, otherwise as `script`."""
        commands: list[Command] = [
            ("EVALSHA", script.sha, len(keys), *map(self.key, keys), *arguments)
            for keys, arguments in calls
        ]
        replies = await self._exchange(commands, self._slots, self._timeout)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            load: Command = ("SCRIPT", "LOAD", script.text)
            again = await self.pipeline([load, *(commands[i] for i in unknown)])
            for i, reply in zip(unknown, again[1:], strict=True):
                replies[i] = reply
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise _refused(reply)
        return replies

    async def get(self, key: str) -> bytes | None:
        """Return the value of `key`. Raises `AwayError`."""
        reply: bytes | None = await self.command("GET", self.key(key))
        return reply

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of `keys`, at least one, in one round trip. Raises `AwayError`."""
        replies: list[bytes | None] = await self.command("MGET", *map(self.key, keys))
        return replies

    async def renew(self, key: str, token: str, seconds: float) -> bool:
        """Let the claim last `seconds` from now; false if it was lost. Raises `AwayError`."""
        return bool(await self.script(RENEW, [key], token, _ms(seconds)))

    async def read_stream(
        self, key: str, after: bytes, *, wait_seconds: float
    ) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Return the entries of a stream after the id `after` (b"0": from the start) as
        (id, fields), or wait up to `wait_seconds` for the first; none then.

        Where too many already wait, it looks once and returns after a short pause.
        Raises `AwayError`.
        """
        name = self.key(key)
        if self._blocking_slots.locked():
            reply = await self.command("XREAD", "STREAMS", name, after)
            if not reply:
                await asyncio.sleep(min(wait_seconds, self._timeout))
        else:
            waiting = ("XREAD", "BLOCK", _ms(wait_seconds), "STREAMS", name, after)
            limit = self._timeout + wait_seconds
            [reply] = await self._exchange([waiting], self._blocking_slots, limit)
        if isinstance(reply, ResponseError):
            raise _refused(reply)
        entries = reply[name.encode()] if reply else []
        return [(id_, dict(zip(f[::2], f[1::2], strict=True))) for id_, f in entries]

    def connection(self) -> Connection:
        """Return a connection outside the pool, not yet connected: for who follows a channel.
        It has no timeout of its own, and its owner disconnects it."""
        connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def _exchange(
        self, commands: Sequence[Command], slots: asyncio.Semaphore, timeout: float
    ) -> list[Any]:
        if not self.available:
            raise _away("unavailable")
        began = time.perf_counter()
        await self._take(slots)
        # Who waits in Redis for another replica asks as often as that takes.
        spans = self._spans.around(commands) if slots is self._slots else nullcontext(INVALID_SPAN)
        try:
            with self.breaker.guard(timeout=timeout), spans as span:
                async with asyncio.timeout(timeout):
                    replies = await self._on_a_connection(commands)
                note_replies(span, replies)
        except ServiceError as error:  # the breaker opened while we waited
            raise _away("unavailable", error) from error
        except TimeoutError as error:
            raise _away("timeout", error) from error
        except AuthenticationError as error:
            self._refused_password()
            raise _away("authentication", error) from error
        except DataError:  # an argument of a wrong type is the caller's mistake
            raise
        # What is no Redis at the other end makes the parser raise ValueError.
        except (RedisError, OSError, EOFError, ValueError) as error:
            raise _away("connection", error) from error
        finally:
            slots.release()
        if slots is self._slots:
            metrics.REDIS_SECONDS.observe(time.perf_counter() - began)
        return replies

    async def _take(self, slots: asyncio.Semaphore) -> None:
        if not slots.locked():
            await slots.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout):
                await slots.acquire()
        except TimeoutError as error:
            # Our own queue says nothing about the server.
            raise _away("busy") from error

    async def _on_a_connection(self, commands: Sequence[Command]) -> list[Any]:
        connection: Connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await _send(connection, commands)
            # A read that is cancelled or fails disconnects, so that no reply is left
            # for the next who uses the connection.
            return [await _reply(connection) for _ in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def _probe(self) -> None:
        try:
            [reply] = await self._on_a_connection([("PING",)])
        except AuthenticationError:
            self._refused_password()
            raise
        self._password_refused = False
        if isinstance(reply, ResponseError):
            raise reply

    def _refused_password(self) -> None:
        self._next_try = time.monotonic() + REFUSED_SECONDS
        self.breaker.trip(0.0, "redis refuses our password")
        if not self._password_refused:
            self._password_refused = True
            telemetry.logger().error("redis refuses our password; nothing is kept there")

    async def _close(self) -> None:
        """Write what is pending, as far as one timeout lets, and close all connections."""
        await self.writer.aclose(self._timeout)
        await self._pool.disconnect()


async def _send(connection: Connection, commands: Sequence[Command]) -> None:
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
    except RuntimeError as error:
        # What uvloop says of a connection that was reset while nobody used it.
        raise ConnectionResetError("the connection is closed") from error


@asynccontextmanager
async def open_remote(settings: CacheSettings) -> AsyncIterator[Remote | None]:
    """Open the process's `Remote`, or None where no URL is set. Redis need not be there."""
    if not settings.redis_url.get_secret_value():
        yield None
        return
    remote = Remote(settings)
    async with remote.breaker.watch(remote._probe, PROBE_SECONDS):
        try:
            yield remote
        finally:
            await remote._close()


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _refused(error: ResponseError) -> AwayError:
    """Return what an error reply means: this command, not the server, is at fault."""
    away = _away("refused", error)
    away.__cause__ = error
    return away


def _away(kind: str, error: Exception | None = None) -> AwayError:
    metrics.ERRORS.labels("redis", kind).inc()
    return AwayError(kind if error is None else f"{kind}: {error}")


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
