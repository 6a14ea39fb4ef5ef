"""Writes to Redis that nobody waits for, in order and bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.spans import outside_calls

BATCH_BYTES = 2**20
"""Most that is sent in one round trip: a megabyte takes a local server a millisecond or
two, well within one command's timeout."""
COMMAND_BYTES = 128
"""Counted for each command beside its payload: its name, key and our own objects."""

Commands = Sequence[Sequence[str | bytes | int | float]]


class Writer:
    """Sends commands by `send` in the background, in the order of `submit`.

    As many as have gathered go in one round trip. `send` may raise `AwayError`: what it
    was given is dropped, and it has counted that.
    """

    def __init__(self, send: Callable[[Commands], Awaitable[Any]], *, max_bytes: int) -> None:
        self._send = send
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Commands, int, asyncio.Future[bool] | None]] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def submit(self, commands: Commands, payload_bytes: int) -> bool:
        """Have `commands` sent soon; false, and nothing is, when too much waits already."""
        return self._add(commands, payload_bytes, None)

    async def flush(self, commands: Commands = ()) -> bool:
        """Send `commands` after all that was submitted before; return whether they were
        done, after the reply."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        return self._add(commands, 0, done) and await done

    def _add(self, commands: Commands, payload: int, done: asyncio.Future[bool] | None) -> bool:
        size = payload + COMMAND_BYTES * (len(commands) + 1)
        if self._closed or self._bytes + size > self._max_bytes:
            return False
        self._waiting.append((commands, size, done))
        self._bytes += size
        if self._task is None:
            self._task = asyncio.create_task(
                self._drain(), name="cache writer", context=outside_calls()
            )
        return True

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._send_batch()
        finally:
            self._task = None

    async def _send_batch(self) -> None:
        batch: list[Sequence[str | bytes | int | float]] = []
        dones: list[asyncio.Future[bool]] = []
        size = 0
        while self._waiting and (not size or size + self._waiting[0][1] <= BATCH_BYTES):
            commands, its_size, done = self._waiting.popleft()
            batch.extend(commands)
            size += its_size
            if done is not None:
                dones.append(done)
        sent = False
        try:
            if batch:
                await self._send(batch)
            sent = True
        except AwayError:
            pass
        finally:
            self._bytes -= size
            for done in dones:
                if not done.done():
                    done.set_result(sent)

    async def aclose(self, seconds: float) -> None:
        """Send what waits, for at most `seconds`, and take no more."""
        self._closed = True
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=seconds)
            for task in late:
                task.cancel()
                await asyncio.wait({task})
        for _, _, done in self._waiting:
            if done is not None and not done.done():
                done.set_result(False)
        self._waiting.clear()
