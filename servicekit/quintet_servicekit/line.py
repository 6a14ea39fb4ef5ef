"""How long calls wait before the server gets to them.

gRPC hands a server its calls one by one, for each method in the order in which they came. What
comes faster than it is begun waits there: nobody sees it, no call that is under way is late, and
each is begun with the little time that the line has left it. So the server stands in its own
lines: it makes a call that does nothing, over a socket that only its user can open, and measures
how long that takes.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from prometheus_client import Gauge

from quintet_servicekit.folders import passing
from quintet_servicekit.incoming import Metadata

_SECONDS = Gauge(
    "quintet_admission_line_seconds",
    "How long a call waited, when last measured, before the server got to it; NaN: not known.",
    ("grpc_method",),
)
LINE_KEY = "quintet-line"
"""Metadata by which a server knows its own calls."""
CALLS = 100
"""Calls after which a server stands in line again. Where they are few there is none."""
SHORT_SECONDS = 0.05
"""Wait up to which a line is not one, and is measured again after the next hundred calls."""
LONGEST_SECONDS = 10.0
"""Time after which it leaves the line and stands at its end again."""
PAUSE_SECONDS = 0.05
"""Time after which it does where it could not stand in line."""


class Line:
    """The line of one method."""

    def __init__(self, lines: Lines, method: str) -> None:
        self._lines = lines
        self._method = method
        self._seconds = _SECONDS.labels(method.rpartition("/")[2])
        self._came = 0
        self._since: float | None = None
        self._waited = 0.0

    @property
    def is_measured(self) -> bool:
        """Whether the server stands in it now."""
        return self._since is not None

    def call_came(self) -> None:
        """Note that the server got to a call."""
        self._came += 1
        if self._came >= CALLS and self._since is None and self._lines.begin(self):
            self._came = 0
            self._since = time.monotonic()

    def took_too_much(self, remaining: float | None) -> bool:
        """Whether a call that is begun now, with `remaining` seconds of its deadline, has spent
        more than half of it in line. Of one without a deadline that is not said."""
        if self._since is None or remaining is None:
            return False
        # Those that are begun now came before the server stood in line.
        waited = max(self._waited, time.monotonic() - self._since)
        return waited > max(remaining, SHORT_SECONDS)

    async def measure(self, channel: grpc.aio.Channel) -> None:
        """Stand in line until it is short."""
        call = channel.stream_stream(self._method, None, None)
        metadata = ((LINE_KEY, self._lines.token),)
        while True:
            self._since = began = time.monotonic()
            try:
                async for _ in call(_nothing(), timeout=LONGEST_SECONDS, metadata=metadata):
                    pass
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    # The socket is gone, as temporary files may be: nothing is known any more.
                    self._seconds.set(math.nan)
                    return
                # What waits in line may be turned away there.
                await asyncio.sleep(PAUSE_SECONDS)
            self._waited = time.monotonic() - began
            self._seconds.set(self._waited)
            if self._waited <= SHORT_SECONDS:
                return

    def left(self) -> None:
        """Note that the server stands in it no more, for whatever reason."""
        self._waited, self._since = 0.0, None


class Lines:
    """The lines in front of one server, and its own calls that stand in them."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self._channel: grpc.aio.Channel | None = None
        self._measuring: set[asyncio.Task[None]] = set()

    def of(self, method: str) -> Line:
        """Return the line of a method, by its full name."""
        return Line(self, method)

    def is_own(self, metadata: Metadata) -> bool:
        """Tell whether a call is one of those that do nothing."""
        return (LINE_KEY, self.token) in metadata

    def begin(self, line: Line) -> bool:
        """Have a line measured; return whether it is, which it is not while the server ends."""
        if self._channel is None:
            return False
        task = asyncio.create_task(line.measure(self._channel))
        self._measuring.add(task)
        task.add_done_callback(self._measuring.discard)
        # Not by the task itself, which may be cancelled before it begins.
        task.add_done_callback(lambda _: line.left())
        return True

    @asynccontextmanager
    async def measured(self, server: grpc.aio.Server) -> AsyncIterator[None]:
        """Measure the lines of a server, which is not started yet, while the context lasts."""
        with passing("quintet-line-") as folder:
            address = f"unix:{folder / 'line'}"
            server.add_insecure_port(address)
            async with grpc.aio.insecure_channel(address) as self._channel:
                try:
                    yield
                finally:
                    self._channel = None
                    for task in self._measuring:
                        task.cancel()
                    await asyncio.gather(*self._measuring, return_exceptions=True)


async def _nothing() -> AsyncIterator[bytes]:
    for each in tuple[bytes, ...]():
        yield each


async def _end(requests: Any, context: Any) -> None:
    """Do what the server's own calls are for."""


DO_NOTHING: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(_end)
"""Handler of a server's own calls."""
