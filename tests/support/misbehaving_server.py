"""An HTTP server that answers every request with the bytes it was told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(value: Any) -> bytes:
    """Return an event of a stream; text is sent as it is."""
    data = value if isinstance(value, str) else json.dumps(value)
    return f"data: {data}\n\n".encode()


def delta(text: str) -> dict[str, Any]:
    """Return a piece of an answer."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def refusal(status: str, body: Any = "", **headers: str) -> bytes:
    """Return a whole response of another status than 200."""
    data = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class MisbehavingServer:
    """Sends `script` to whoever asks: bytes, and pauses in seconds between them."""

    def __init__(self) -> None:
        self.script: Sequence[bytes | float] = ()
        self.requests: list[tuple[bytes, dict[str, Any]]] = []
        self.hung_up = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            self.requests.append((head, json.loads(await reader.readexactly(length))))
            gone = asyncio.create_task(reader.read())
            for step in self.script:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                else:
                    await asyncio.wait({gone}, timeout=step)
                if gone.done():
                    self.hung_up.set()
                    break
            gone.cancel()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()


@asynccontextmanager
async def running_misbehaving_server() -> AsyncIterator[MisbehavingServer]:
    """Run one on a free port."""
    it = MisbehavingServer()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
