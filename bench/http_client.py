"""The leanest client of OpenAI's embeddings protocol: a peer's server should not pay for
a slow one."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence


async def seconds_one_by_one(port: int, texts: Sequence[str], callers: int) -> float:
    """Embed each text in a request of its own, `callers` at once on connections that
    stay open; return the seconds."""
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(callers)]
    waiting = iter(texts)

    async def caller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in waiting:
            request = {"model": "model", "input": [text], "encoding_format": "base64"}
            body = json.dumps(request).encode()
            writer.write(
                b"POST /embeddings HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            answer = json.loads(await reader.readexactly(length))
            base64.b64decode(answer["data"][0]["embedding"])

    began = time.perf_counter()
    await asyncio.gather(*(caller(*it) for it in connections))
    seconds = time.perf_counter() - began
    for _, writer in connections:
        writer.close()
    return seconds
