"""How a server stands in its own lines; what comes of it is in tests/contract."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from prometheus_client import REGISTRY

from quintet_servicekit.line import CALLS, Line, Lines


async def begun(lines: Lines) -> Line:
    line = lines.of("/quintet.test.v1.TestService/Stand")
    for _ in range(CALLS):
        line.call_came()
    return line


async def test_a_line_that_cannot_be_stood_in_any_more_refuses_nobody(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'gone'}") as channel:
        lines = Lines()
        await asyncio.wait_for((await begun(lines)).measure(channel), 5)
    seconds = REGISTRY.get_sample_value("quintet_admission_line_seconds", {"grpc_method": "Stand"})
    assert seconds != seconds  # not a number


async def test_a_server_that_ends_stands_in_no_line() -> None:
    lines = Lines()
    async with lines.measured(grpc.aio.server()):
        line = await begun(lines)
        was_measured = line.is_measured
    assert was_measured and not line.is_measured
    assert not line.took_too_much(0.0)
    assert not (await begun(lines)).is_measured
