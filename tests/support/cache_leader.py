"""A process that computes what others wait for, to be killed at it.

Run as a module with what it computes ("value" or "stream"), the server's URL and the
lease's seconds. It says "computing" and then computes for ever; a stream after `WORDS`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from quintet_servicekit.cache import Cache, CacheSettings, Codec, Flights, key_of, open_remote

TEXT: Codec[str] = Codec(str.encode, lambda raw: bytes(raw).decode())
KEY = key_of("question")
WORDS = ["one", "two"]


@asynccontextmanager
async def leader(
    what: str, url: str, *, lease_seconds: float, words: int = 0
) -> AsyncIterator[None]:
    """Run the process from its first computing on; kill it with -9 at the end."""
    arguments = (what, url, str(lease_seconds), str(words))
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.cache_leader",
        *arguments,
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        assert await child.stdout.readline() == b"computing\n"
        yield
    finally:
        child.kill()
        await child.wait()


async def _main(what: str, url: str, lease_seconds: str, words: str) -> None:
    settings = CacheSettings(redis_url=SecretStr(url), lease_seconds=float(lease_seconds))
    async with open_remote(settings) as remote:

        async def forever() -> str:
            assert remote is not None
            await remote.writer.flush()
            sys.stdout.write("computing\n")
            sys.stdout.flush()
            await asyncio.Event().wait()
            return ""

        async def stream() -> AsyncGenerator[str]:
            for word in WORDS[: int(words)]:
                yield word
            yield await forever()

        if what == "value":
            cache = Cache("l1", TEXT, settings, remote, schema=3)
            await cache.get_or_load(KEY, forever)
        else:
            flights = Flights("l1", TEXT, settings, remote)
            async with aclosing(flights.join(KEY, stream)) as events:
                async for _ in events:
                    pass


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
