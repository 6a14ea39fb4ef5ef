"""The service's side of the batching process: starts it, feeds it, fans out its tokens.

Runs in the event loop; nothing here blocks. A request waits in line until one of the
slots is free; a caller who leaves gives up its place at once, or its slot with the
next step.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from opentelemetry.trace import Span, get_current_span
from prometheus_client import Gauge, Histogram

from quintet_generator.batch_messages import (
    BatchConfig,
    Cancel,
    Progress,
    Start,
    command_line,
    told,
)
from quintet_generator.metrics import DECODE_STEPS
from quintet_generator.models import Token
from quintet_servicekit import attributes, telemetry
from quintet_servicekit.breaker import Breaker
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.loading import Loading

_RUNNING = Gauge("quintet_generator_requests_running", "Requests that hold a slot.", ("model",))
_WAITING = Gauge("quintet_generator_requests_waiting", "Requests in line for a slot.", ("model",))
_WAIT_SECONDS = Histogram(
    "quintet_generator_queue_seconds",
    "Time that a request waited for a slot.",
    ("model",),
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30),
)
_BATCH = Histogram(
    "quintet_generator_batch_requests",
    "Requests that were decoded together, by step of the model.",
    ("model",),
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
_LINE_BYTES = 1 << 20
SILENCE_SECONDS = 3.0
"""How long the process may take to confirm a cancellation, which it does between two steps:
seven times its longest step on two cores."""


_NOTHING = -1
"""Number of no request."""


@dataclass(eq=False)
class _Request:
    start: Start
    steps: asyncio.Queue[Progress | ServiceError] = field(default_factory=asyncio.Queue)
    queued_at: float = field(default_factory=time.perf_counter)
    caller: Span = field(default_factory=get_current_span)


class BatchingProcess:
    """Runs requests in a process of `config`, at most `queue` of them waiting.

    `command` is the program and its arguments before the configuration. While the process
    does not say anything though it should, `breaker` is kept open: callers with little
    time leave before they could tell a process that hangs from one that is at work.
    """

    def __init__(
        self,
        name: str,
        config: BatchConfig,
        *,
        queue: int,
        breaker: Breaker | None = None,
        command: tuple[str, ...] = (sys.executable, "-P", "-m", "quintet_generator.batch_worker"),
    ) -> None:
        self._name = name
        self._config = config
        self._queue = queue
        self._command = command
        self._numbers = itertools.count()
        self._line: deque[_Request] = deque()
        self._slots: dict[int, _Request] = {}
        self._loading = Loading("language model", name)
        self._starting: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._breaker = breaker
        self._listening: asyncio.TimerHandle | None = None
        self._is_silent = False
        self._steps = DECODE_STEPS.labels(name, "batch")
        self._batches = _BATCH.labels(name)

    @property
    def running(self) -> int:
        """Number of requests that hold a slot."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """Number of requests in line."""
        return len(self._line)

    async def start(self) -> None:
        """Start the process and wait until its model is loaded; nothing if it runs.

        Raises `ServiceError` DEPENDENCY_UNAVAILABLE if it ends before that, and at once for
        a pause after.
        """
        if self._process is not None:
            return
        if self._starting is None or self._starting.done():
            self._loading.check()
            self._starting = asyncio.create_task(self._start())
        # A caller who leaves does not stop it: the next one finds it loaded.
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        with self._loading.attempt():
            self._process = process = await self._loaded()
        self._reading = asyncio.create_task(self._read(process))

    async def _loaded(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *self._command, json.dumps(asdict(self._config)), stdin=PIPE, stdout=PIPE,
            limit=_LINE_BYTES,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            if not await process.stdout.readline():
                raise self._gone("ended while it loaded the model")
        except BaseException:
            await _end(process)
            raise
        return process

    async def tokens(self, make: Callable[[int], Start]) -> AsyncGenerator[list[Token], None]:
        """Yield the tokens of the request that `make` gives for its number, some at a time.

        Raises `ServiceError` OVERLOADED when the line, or the KV cache, is full, and
        DEPENDENCY_UNAVAILABLE when the process ends meanwhile.
        """
        if len(self._slots) + len(self._line) >= self._config.slots + self._queue:
            raise ServiceError(Reason.OVERLOADED, f"the queue of {self._name} is full")
        request = _Request(make(next(self._numbers)))
        self._line.append(request)
        ended = False
        try:
            await self.start()
            self._fill_slots()
            while not ended:
                step = await request.steps.get()
                if isinstance(step, ServiceError):
                    ended = True
                    raise step
                ended = step.ending is not None
                if step.ending == "no_room":
                    raise ServiceError(Reason.OVERLOADED, f"the cache of {self._name} is full")
                pairs = itertools.zip_longest(step.tokens, step.logprobs, fillvalue=0.0)
                yield [Token(int(token), logprob) for token, logprob in pairs]
        finally:
            if not ended:
                self._give_up(request)

    def _fill_slots(self) -> None:
        while self._process is not None and self._line and self.running < self._config.slots:
            request = self._line.popleft()
            self._slots[request.start.id] = request
            waited = time.perf_counter() - request.queued_at
            _WAIT_SECONDS.labels(self._name).observe(waited)
            request.caller.set_attribute(attributes.QUEUE_WAIT, waited)
            request.caller.set_attribute(attributes.BATCH_REQUESTS, self.running)
            self._send(request.start)
        self._count()

    def _give_up(self, request: _Request) -> None:
        if request in self._line:
            self._line.remove(request)
        elif self._slots.pop(request.start.id, None):
            # Free at once: the process ends the old before it begins the new.
            self._cancel(request.start.id)
        self._fill_slots()

    def _cancel(self, number: int) -> None:
        """Send a cancellation, which the process confirms, also that of nothing."""
        self._send(Cancel(number))
        if self._listening is None:
            loop = asyncio.get_running_loop()
            self._listening = loop.call_later(SILENCE_SECONDS, self._silent)

    def _silent(self) -> None:
        self._listening = None
        if self._process is not None:
            self._is_silent = True
            if self._breaker is not None:
                self._breaker.trip(2 * SILENCE_SECONDS, "its process says nothing")
            self._cancel(_NOTHING)

    def _heard(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
        if self._is_silent:
            self._is_silent = False
            if self._breaker is not None:
                self._breaker.reset("its process answers")

    def _send(self, command: Start | Cancel) -> None:
        # Not drained: the process reads between any two steps, and what can wait in
        # the pipe is bounded by the slots.
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(command_line(command))

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while text := await process.stdout.readline():
            self._heard()
            news = told(text)
            self._steps.inc(news.steps)
            if news.progress:
                self._batches.observe(len(news.progress))
            for step in news.progress:
                request = self._slots.get(step.id)
                if request is None:
                    continue  # its caller has left
                request.steps.put_nowait(step)
                if step.ending:
                    del self._slots[step.id]
            self._fill_slots()
        self._process = None
        self._heard()
        status = await process.wait()
        telemetry.logger().error("the batching process ended", model=self._name, status=status)
        self._fail_all()

    def _fail_all(self) -> None:
        for request in (*self._slots.values(), *self._line):
            request.steps.put_nowait(self._gone("ended; it starts again with the next request"))
        self._slots.clear()
        self._line.clear()
        self._count()

    def _gone(self, what: str) -> ServiceError:
        return ServiceError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"the process of {self._name} {what}",
            metadata={"dependency": self._name},
        )

    def _count(self) -> None:
        _RUNNING.labels(self._name).set(self.running)
        _WAITING.labels(self._name).set(self.waiting)

    async def close(self) -> None:
        """End the process; requests that still run fail."""
        tasks: list[asyncio.Task[Any]] = [it for it in (self._starting, self._reading) if it]
        for task in tasks:
            task.cancel()
        if self._listening is not None:
            self._listening.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        self._fail_all()


async def _end(process: Process) -> None:
    """Kill it: it holds nothing that is worth a farewell."""
    if process.returncode is None:
        process.kill()
    await process.wait()
