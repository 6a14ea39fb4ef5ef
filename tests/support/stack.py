"""Fixture: the whole of Quintet, once for all end-to-end tests of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quintet_local.postgres import Postgres
from quintet_local.supervisor import Stack, running_stack
from support import tenants

START_SECONDS = 240
"""Two cores that also run other tests load the models slowly."""

ALLOWED = {
    "QUINTET_EMBEDDER_FAULT_INJECTION": "true",
    "QUINTET_RETRIEVER_FAULT_INJECTION": "true",
}
"""The embedder does faults that calls ask for. The gateway doesn't carry them on."""


class TestStack:
    """A stack that runs in a thread of its own, so that it is looked after, and
    takes spans, whichever event loop a test uses or none."""

    __test__ = False

    def __init__(self, stack: Stack, loop: asyncio.AbstractEventLoop) -> None:
        self.state_dir = stack.state_dir
        self.gateway = stack.gateway
        self.endpoints = stack.endpoints
        self._stack = stack
        self._loop = loop

    def pid(self, name: str) -> int:
        """Return the process id of a service, or of "postgres" or "valkey"."""
        return self._stack.process(name).pid

    @property
    def database_url(self) -> str:
        """DSN of the stack's own PostgreSQL."""
        program = self._stack._members["postgres"].program
        assert isinstance(program, Postgres)
        return program.dsn

    def stop(self, name: str) -> None:
        """End a service or server until `start`; returns when it has ended."""
        self._do(self._stack.stop(name))

    def start(self, name: str) -> None:
        """Start a service or server that was ended; returns when it is ready."""
        self._do(self._stack.start(name))

    def restart(self, name: str) -> None:
        """End a service or server, and start it again; returns when it is ready."""
        self._do(self._stack.restart(name))

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(START_SECONDS)


@contextmanager
def stack_in_thread(
    state_dir: Path, environment: Mapping[str, str] = ALLOWED
) -> Iterator[TestStack]:
    """Run a stack in `state_dir` on a thread; `environment` overlays ours. Its gateway takes
    the tokens of `support.tenants`."""
    started: Future[TestStack] = Future()
    stop = threading.Event()

    async def run() -> None:
        known = tenants.environment(state_dir.parent)
        async with running_stack(state_dir, environment={**known, **environment}) as stack:
            started.set_result(TestStack(stack, asyncio.get_running_loop()))
            await asyncio.to_thread(stop.wait)

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    # Children end with the thread that started them: this one waits for them.
    thread = threading.Thread(target=main, name="stack")
    thread.start()
    try:
        yield started.result(START_SECONDS)
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestStack]:
    """The five services with their database, running until the last test."""
    with stack_in_thread(tmp_path_factory.mktemp("stack") / "state") as running:
        yield running
