"""The batching process's life, played by programs of a few lines."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from quintet_generator.batch_messages import BatchConfig, Start, command, command_line
from quintet_generator.batching import BatchingProcess
from quintet_generator.models import Token
from quintet_servicekit.breaker import Breaker, State
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.errors import Reason, ServiceError

CONFIG = BatchConfig(
    "nowhere", [2], 1, "f32", "u8", slots=1, cache_tokens=64, step_tokens=32, stream_seconds=0
)
READY = "print('\"ready\"', flush=True)\n"
ECHO = """
import json, sys
for line in sys.stdin:
    it = json.loads(line)
    print(json.dumps([1, [[it["id"], it.get("prompt", []), [], "done"]]]), flush=True)
"""


def process(program: str) -> BatchingProcess:
    return BatchingProcess("it", CONFIG, queue=1, command=(sys.executable, "-c", program))


def start(number: int) -> Start:
    return Start(number, [5, 6], 8, 0.0, 1, "", False)


async def tokens(it: BatchingProcess) -> list[Token]:
    return [token async for some in it.tokens(start) for token in some]


def test_a_command_is_read_back_as_it_was() -> None:
    assert command(command_line(start(3))) == start(3)


async def test_tokens_come_from_the_process_and_the_slot_is_free_after_them() -> None:
    it = process(READY + ECHO)
    try:
        for _ in range(3):
            assert [token.id for token in await tokens(it)] == [5, 6]
        assert (it.running, it.waiting) == (0, 0)
    finally:
        await it.close()


async def test_one_that_cannot_load_fails_callers_at_once_until_it_is_tried_again(
    tmp_path: Path,
) -> None:
    flag = tmp_path / "second"
    program = (
        f"import pathlib, sys; flag = pathlib.Path({str(flag)!r})\n"
        "if not flag.exists(): flag.touch(); sys.exit(3)\n"
    )
    it = process(program + READY + ECHO)
    try:
        for _ in range(2):  # the second would load, so it is not tried
            with pytest.raises(ServiceError, match="cannot be loaded") as caught:
                await tokens(it)
            assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert it.waiting == 0
        assert caught.value.retry_after is not None
        await asyncio.sleep(caught.value.retry_after)
        assert len(await tokens(it)) == 2
    finally:
        await it.close()


async def test_a_caller_who_leaves_while_it_loads_does_not_stop_it() -> None:
    it = process("import time; time.sleep(0.3)\n" + READY + ECHO)
    try:
        leaving = asyncio.create_task(tokens(it))
        await asyncio.sleep(0.05)
        leaving.cancel()
        assert len(await tokens(it)) == 2
    finally:
        await it.close()


async def test_one_that_dies_fails_who_runs_and_who_waits() -> None:
    it = process(READY + "import sys; sys.stdin.readline()")
    try:
        calls = [asyncio.create_task(tokens(it)) for _ in range(2)]
        for call in calls:
            with pytest.raises(ServiceError) as caught:
                await call
            assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert (it.running, it.waiting) == (0, 0)
    finally:
        await it.close()


async def test_closing_fails_who_still_runs() -> None:
    it = process(READY + "import sys; sys.stdin.read()")
    call = asyncio.create_task(tokens(it))
    async with asyncio.timeout(5):
        while not it.running:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        await it.close()
        with pytest.raises(ServiceError):
            await call


async def test_a_process_that_confirms_no_cancellation_is_not_called_until_it_speaks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quintet_generator.batching.SILENCE_SECONDS", 0.3)
    # Silent for its first second, then it confirms what was sent.
    confirms = (
        "import sys, time\ntime.sleep(1)\n"
        "for line in sys.stdin:\n"
        "    if 'Cancel' in line: print('[0, []]', flush=True)\n"
    )
    breaker = Breaker("it", BreakerSettings())
    command = (sys.executable, "-c", READY + confirms)
    it = BatchingProcess("it", CONFIG, queue=1, breaker=breaker, command=command)
    try:
        await it.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await tokens(it)
        for state in (State.OPEN, State.CLOSED):
            async with asyncio.timeout(5):
                while True:
                    if breaker.state is state:
                        break
                    await asyncio.sleep(0.01)
        assert breaker.snapshot().cause == "its process answers"
    finally:
        await it.close()
