"""The way to a gateway: its address, a channel, and calls with a deadline."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc

from quintet.gateway.v1.explain_service_pb2_grpc import ExplainServiceStub
from quintet.gateway.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.gateway.v1.key_service_pb2_grpc import KeyServiceStub
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.gateway.v1.usage_service_pb2_grpc import UsageServiceStub
from quintet_cli.errors import CliError
from quintet_cli.settings import TLS_CA, TLS_CERTIFICATE, TLS_KEY, Settings, read_key
from quintet_servicekit.channel import Peer, open_channel
from quintet_servicekit.settings import ChannelSettings, TlsSettings

SERVICE = "quintet.gateway.v1.GatewayService"
CALL_SECONDS = 60.0
"""Deadline of a call where none is given: twice the gateway's own for a
question, so that its more telling error comes first."""
STREAM_SECONDS = 24 * 3600.0
"""Deadline of work on many documents where none is given: as long as any could sensibly
take; a dead connection is noticed by its keepalive much sooner."""

Request = TypeVar("Request")
Response = TypeVar("Response")


class Gateway:
    """A gateway's methods, called with the deadline that the user gave."""

    def __init__(self, channel: grpc.aio.Channel, timeout: float | None, api_key: str = "") -> None:
        self.keys = KeyServiceStub(channel)
        self.stub = GatewayServiceStub(channel)
        self.links = LinkServiceStub(channel)
        authorization = f"Bearer {api_key}" if api_key else ""
        self._peer = Peer("gateway", SERVICE, authorization=authorization)
        self.explain = ExplainServiceStub(channel)
        self.usage = UsageServiceStub(channel)
        self.feedback = FeedbackServiceStub(channel)
        self._timeout = timeout

    async def unary(
        self,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
    ) -> Response:
        """Return the response. Raises `ServiceError`."""
        return await self._peer.unary(method, call, request, timeout=self._timeout or CALL_SECONDS)

    def stream(
        self,
        method: str,
        call: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        seconds: float = CALL_SECONDS,
    ) -> AsyncIterator[Response]:
        """Yield the responses, in `seconds` at most if the user says nothing else.
        Raises `ServiceError`."""
        return self._peer.stream(method, call, request, timeout=self._timeout or seconds)

    def exchange(
        self,
        method: str,
        call: grpc.aio.StreamStreamMultiCallable[Request, Response],
        requests: AsyncIterator[Request],
    ) -> AsyncIterator[Response]:
        """Yield the responses to a stream of requests. Raises `ServiceError`."""
        return self._peer.exchange(method, call, requests, timeout=self._timeout or STREAM_SECONDS)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Gateway]:
    """Open a channel to the gateway that the settings name.

    Raises `CliError` when there is none to name; that it answers is seen at the
    first call.
    """
    address = settings.address or local_address(settings.state_dir)
    try:
        tls = TlsSettings(
            ca=settings.tls_ca, certificate=settings.tls_certificate, key=settings.tls_key
        )
        channel = open_channel(address, SERVICE, ChannelSettings(), only_healthy=False, tls=tls)
    except (OSError, ValueError) as error:
        raise CliError(
            f"the certificates cannot be used: {type(error).__name__}",
            reason="BAD_CERTIFICATES",
            advice=f"see ${TLS_CA}, ${TLS_CERTIFICATE} and ${TLS_KEY}",
        ) from error
    async with channel:
        yield Gateway(channel, settings.timeout, api_key(settings))


def api_key(settings: Settings) -> str:
    """Return the key to call with; empty for none. That of the local stack goes to no
    address but its own."""
    if settings.api_key or settings.address:
        return settings.api_key
    file = settings.state_dir / "api-key"
    return read_key(file) if file.exists() else ""


def new_request_id() -> str:
    """Return an id for one write, by which it is known if the channel sends it again."""
    return str(uuid.uuid4())


def local_address(state_dir: Path) -> str:
    """Return the address of the gateway of the stack that runs in `state_dir`.

    Raises `CliError` when no stack has left its address there.
    """
    try:
        stack = json.loads((state_dir / "stack.json").read_text(encoding="utf-8"))
        address = stack["endpoints"]["gateway"]["grpc"]
    except FileNotFoundError:
        raise CliError(
            f"no stack runs in {state_dir}",
            reason="NO_ADDRESS",
            advice="start one with: quintet up; or name a gateway with --address HOST:PORT",
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise CliError(
            f"{state_dir / 'stack.json'} cannot be read",
            reason="NO_ADDRESS",
            advice="start the stack anew with: quintet up",
        ) from None
    return str(address)
