"""A bench's side of the conversation with a worker, see `workers/serving.py`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_LONGEST_LINE = 256 * 2**20


class WorkerError(Exception):
    """A worker could not start, or could not do what it was asked."""


class Worker:
    """A running worker, ready."""

    def __init__(self, name: str, process: Process) -> None:
        self._name = name
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def __call__(self, **request: Any) -> Any:
        """Return the worker's answer; raises `WorkerError`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.reply()

    async def reply(self) -> Any:
        """Return the worker's next answer."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self._name} ended")
        message = json.loads(line)
        if "error" in message:
            raise WorkerError(f"{self._name}: {message['error']}")
        return message["result"]


@asynccontextmanager
async def running_worker(
    name: str,
    *arguments: str,
    python: Path | None = None,
    environment: Mapping[str, str] | None = None,
    log_file: Path,
) -> AsyncIterator[Worker]:
    """Run `bench.workers.<name>` with `python` (None: ours) while the context lasts.

    Raises `WorkerError` when it cannot load.
    """
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            str(python or sys.executable),
            "-m",
            f"bench.workers.{name}",
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            limit=_LONGEST_LINE,
            start_new_session=True,
        )
    try:
        worker = Worker(name, process)
        await worker.reply()
        yield worker
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):
        process.stdin.close()
        await process.stdin.wait_closed()
    try:
        await asyncio.wait_for(process.wait(), 5)
    except TimeoutError:
        process.kill()
        await process.wait()
