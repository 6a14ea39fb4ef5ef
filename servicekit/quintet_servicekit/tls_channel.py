"""A channel over TLS that is opened anew when its certificates change.

gRPC's own channel keeps the credentials that it was opened with: from the end of its
certificate on it could not connect again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from quintet_servicekit.settings import TlsSettings
from quintet_servicekit.tls import CertificateFiles, channel_credentials

LAST_CALLS_SECONDS = 600.0
"""How long calls of a channel that was replaced may go on: longer than any but an ingest
stream, which is sent again."""

Open = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class RenewedChannel(grpc.aio.Channel):
    """What `open_` opens, and opens again with what the files then hold.

    While the present channel is connected, calls go over it until the next one is connected
    too. It is used in the event loop that it was made in. Raises as `CertificateFiles` does.
    """

    def __init__(self, open_: Open, settings: TlsSettings) -> None:
        self._open = open_
        self._pause = settings.reload_seconds
        self._files = CertificateFiles(settings)
        self._next: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.present = open_(channel_credentials(self._files.pem))
        self._following = asyncio.create_task(self._follow(), name="certificates")

    async def _follow(self) -> None:
        while True:
            await self._wait()
            if (pem := self._files.changed()) is not None:
                if self._next is not None:
                    await self._next.close(None)
                self._next = self._open(channel_credentials(pem))
            if self._next is not None and _takes_over(self._next, self.present):
                before, self.present, self._next = self.present, self._next, None
                closing = asyncio.create_task(before.close(LAST_CALLS_SECONDS))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    async def _wait(self) -> None:
        """Return when the next channel is connected, or it is time to look at the files."""
        if self._next is None:
            await asyncio.sleep(self._pause)
            return
        try:
            async with asyncio.timeout(self._pause):
                await self._next.channel_ready()
        except TimeoutError:
            pass

    async def close(self, grace: float | None = None) -> None:
        """Close what is open; calls in flight have `grace` seconds."""
        self._following.cancel()
        for closing in self._closing:
            closing.cancel()
        await asyncio.wait({self._following, *self._closing})
        if self._next is not None:
            await self._next.close(None)
        await self.present.close(grace)

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the present channel."""
        return self.present.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for another state of the present channel."""
        await self.present.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the present channel is connected."""
        await self.present.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Return the method, of whichever channel is the present one."""
        return self._method(lambda channel: channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return the method, of whichever channel is the present one."""
        return self._method(lambda channel: channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Return the method, of whichever channel is the present one."""
        return self._method(lambda channel: channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return the method, of whichever channel is the present one."""
        return self._method(lambda channel: channel.stream_stream(*args, **kwargs))

    def _method(self, bind: Callable[[grpc.aio.Channel], Any]) -> Callable[..., Any]:
        channel, bound = self.present, bind(self.present)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal channel, bound
            if channel is not self.present:
                channel, bound = self.present, bind(self.present)
            return bound(*args, **kwargs)

        return call


def _takes_over(later: grpc.aio.Channel, present: grpc.aio.Channel) -> bool:
    ready = grpc.ChannelConnectivity.READY
    return later.get_state(try_to_connect=True) is ready or present.get_state() is not ready
