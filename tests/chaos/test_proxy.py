"""What the proxy does to bytes in each of its modes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from chaos.proxy import DRIP_BYTES, RESET_BYTES, SLOW_SECONDS, FaultProxy, Mode
from quintet_local.ports import HOST

LONG = 60.0
"""Longer than anything here takes."""


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """A proxy that leads to an echo."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, HOST, 0)
    it = FaultProxy(server.sockets[0].getsockname()[1])
    await it.start()
    yield it
    await it.close()
    server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def said(self, data: bytes) -> bytes:
        self.writer.write(data)
        async with asyncio.timeout(LONG):
            return await self.reader.readexactly(len(data))


async def connected(proxy: FaultProxy) -> Client:
    return Client(*await asyncio.open_connection(HOST, proxy.port))


async def test_bytes_pass(proxy: FaultProxy) -> None:
    client = await connected(proxy)
    assert await client.said(b"x" * 100_000) == b"x" * 100_000


async def test_who_refuses_resets_connections_and_takes_none_until_it_passes_again(
    proxy: FaultProxy,
) -> None:
    client = await connected(proxy)
    await client.said(b"hello")
    await proxy.be(Mode.REFUSE)
    with pytest.raises(ConnectionError):
        await client.said(b"hello")
        await client.said(b"hello")
    with pytest.raises(ConnectionError):
        await connected(proxy)
    await proxy.be(Mode.PASS)
    assert await (await connected(proxy)).said(b"hello") == b"hello"


async def test_a_black_hole_says_nothing_and_what_it_swallowed_arrives_after_it(
    proxy: FaultProxy,
) -> None:
    before = await connected(proxy)
    await before.said(b"hello")
    await proxy.be(Mode.BLACK_HOLE)
    within = await connected(proxy)
    answers = [asyncio.create_task(it.said(b"again")) for it in (before, within)]
    done, _ = await asyncio.wait(answers, timeout=0.3)
    assert not done
    await proxy.be(Mode.PASS)
    assert await asyncio.gather(*answers) == [b"again", b"again"]


async def test_what_is_slow_comes_late_in_each_direction_but_not_one_after_the_other(
    proxy: FaultProxy,
) -> None:
    client = await connected(proxy)
    await client.said(b"hello")
    await proxy.be(Mode.SLOW)
    began = time.monotonic()
    for _ in range(20):
        client.writer.write(b"x")
        await asyncio.sleep(0.01)
    async with asyncio.timeout(LONG):
        assert await client.reader.readexactly(20) == b"x" * 20
    assert 2 * SLOW_SECONDS <= time.monotonic() - began < 20 * SLOW_SECONDS


async def test_a_drip_ends_with_the_fault(proxy: FaultProxy) -> None:
    client = await connected(proxy)
    await client.said(b"hello")
    await proxy.be(Mode.DRIP)
    data = b"x" * DRIP_BYTES * 10_000
    answer = asyncio.create_task(client.said(data))
    done, _ = await asyncio.wait([answer], timeout=0.3)
    assert not done
    await proxy.be(Mode.PASS)
    assert await answer == data


async def test_resets_come_in_the_middle_of_an_answer(proxy: FaultProxy) -> None:
    client = await connected(proxy)
    await client.said(b"hello")
    await proxy.be(Mode.RESET)
    client.writer.write(b"x" * (RESET_BYTES[1] + 1))
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(LONG):
            await client.reader.readexactly(RESET_BYTES[1] + 1)
