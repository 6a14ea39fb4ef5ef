"""Processes that the generator starts while gRPC is busy."""

from __future__ import annotations

import subprocess
import sys

STARTS = 30
SCRIPT = f"""
import asyncio
import quintet_generator.app
import grpc
import uvloop

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{{port}}") as channel:
        call = channel.unary_unary("/no/such")
        done = []

        async def load():
            while not done:
                try:
                    await call(b"")
                except grpc.aio.AioRpcError:
                    pass

        callers = [asyncio.create_task(load()) for _ in range(4)]
        for _ in range({STARTS}):
            child = await asyncio.create_subprocess_exec("true")
            assert await child.wait() == 0
        done.append(True)
        await asyncio.gather(*callers)
    await server.stop(None)

uvloop.run(main())
"""


def test_no_process_that_the_generator_starts_runs_the_fork_handlers_of_grpc() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
