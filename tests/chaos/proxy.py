"""A TCP proxy that does what networks and their machines do when they fail.

It stands between a client and a server, passes bytes on as long as it is healthy, and
otherwise does what `Mode` says to all connections, old and new. Once healthy again, what it
held back is delivered, as after a network's repair.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from quintet_local.ports import HOST, ReservedPort

SLOW_SECONDS = 0.5
"""By how much what is slow comes later, in each direction."""
DRIP_BYTES = 16
DRIP_SECONDS = 0.075
RESET_BYTES = (100, 4_000)
"""How much of a server's answers a connection lives for, at least and at most."""
_AT_ONCE = struct.pack("ii", 1, 0)
_Held = asyncio.Queue[tuple[float, bytes]]
"""What has arrived and when, in order; nothing: the end."""
_READ = 2**16
_HELD = 64
"""Reads that are held back in each direction before the sender has to wait."""


class Mode(Enum):
    """What a proxy does."""

    PASS = "pass"
    REFUSE = "refuse"
    """Resets each connection, and accepts none."""
    BLACK_HOLE = "black hole"
    """Accepts connections and bytes, and says nothing."""
    SLOW = "slow"
    """Delivers all bytes `SLOW_SECONDS` late, in each direction."""
    DRIP = "drip"
    """Delivers `DRIP_BYTES` each `DRIP_SECONDS`, in each direction."""
    RESET = "reset"
    """Resets each connection in the middle of what the server says."""


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    task: asyncio.Task[None]
    until_reset: int
    server: asyncio.StreamWriter | None = None

    def abort(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                # So that the other side is told of a reset, not of an end.
                with suppress(OSError):
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                writer.transport.abort()


class FaultProxy:
    """Listens on `port` from `start` to `close` and leads to a port of this machine, which
    `leads_to` names and which may change. `seed` decides when connections are reset."""

    def __init__(self, leads_to: int = 0, seed: int = 1) -> None:
        self.leads_to = leads_to
        self._rng = random.Random(seed)
        self._reserved = ReservedPort()
        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return self._reserved.number

    @property
    def address(self) -> str:
        """Host and port that it listens on."""
        return f"{HOST}:{self.port}"

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port, reuse_port=True)

    async def close(self) -> None:
        """Reset all connections and give the port back."""
        await self.be(Mode.REFUSE)
        self._reserved.close()

    async def be(self, mode: Mode) -> None:
        """Do from now on what `mode` says."""
        self._mode = mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for connection in self._connections:
            connection.until_reset = self._rng.randint(*RESET_BYTES)
        if mode is Mode.REFUSE:
            if self._server is not None:
                self._server.close()
                self._server = None
            tasks = [it.task for it in self._connections]
            for connection in self._connections:
                connection.abort()
                connection.task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        elif self._server is None:
            await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(writer, task, until_reset=self._rng.randint(*RESET_BYTES))
        self._connections.add(connection)
        try:
            while self._mode is Mode.BLACK_HOLE:
                await self._change(None)
            server_reader, connection.server = await asyncio.open_connection(HOST, self.leads_to)
            async with asyncio.TaskGroup() as group:
                for source, sink in ((reader, connection.server), (server_reader, writer)):
                    held: _Held = asyncio.Queue(_HELD)
                    group.create_task(_receive(source, held))
                    group.create_task(self._pass_on(connection, held, sink))
        except* (OSError, asyncio.CancelledError):
            # Whoever is left learns it as the proxy did.
            pass
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _pass_on(
        self, connection: _Connection, held: _Held, sink: asyncio.StreamWriter
    ) -> None:
        while True:
            arrived, data = await held.get()
            await self._deliver(connection, arrived, data, sink)
            if not data:
                # One direction's end is the connection's: no protocol here half-closes.
                sink.close()
                await sink.wait_closed()
                raise ConnectionResetError

    async def _deliver(
        self, connection: _Connection, arrived: float, data: bytes, sink: asyncio.StreamWriter
    ) -> None:
        while True:
            late = SLOW_SECONDS - (time.monotonic() - arrived)
            if self._mode is Mode.BLACK_HOLE:
                await self._change(None)
            elif self._mode is Mode.SLOW and late > 0:
                await self._change(late)
            elif self._mode is Mode.DRIP and len(data) > DRIP_BYTES:
                sink.write(data[:DRIP_BYTES])
                data = data[DRIP_BYTES:]
                await self._change(DRIP_SECONDS)
            else:
                break
        if self._mode is Mode.RESET and sink is connection.client:
            connection.until_reset -= len(data)
            if connection.until_reset < 0:
                sink.write(data[: connection.until_reset])
                await sink.drain()
                raise ConnectionResetError
        sink.write(data)
        await sink.drain()

    async def _change(self, seconds: float | None) -> None:
        """Wait for another mode, no longer than that."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


async def _receive(source: asyncio.StreamReader, held: _Held) -> None:
    data = b"-"
    while data:
        data = await source.read(_READ)
        await held.put((time.monotonic(), data))
