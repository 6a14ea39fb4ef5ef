"""The chain of calls that one request makes: one deadline over all, one trail of all."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import grpc
from google.protobuf import duration_pb2
from opentelemetry import trace

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_servicekit import telemetry
from quintet_servicekit.channel import Peer
from quintet_servicekit.deadline import Deadline

Request = TypeVar("Request")
Response = TypeVar("Response")


class Chain:
    """Makes the calls of one request, each with the time that is left, and notes them."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._began = time.perf_counter()
        self._hops: list[pb.Hop] = []

    async def unary(
        self,
        peer: Peer,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
    ) -> Response:
        """Return the response of a unary call; raises as `Peer.unary` does."""
        hop = self._begin(peer, method)
        try:
            response = await peer.unary(
                method, call, request, timeout=self._deadline.remaining(peer.name)
            )
        finally:
            self._end(hop)
        hop.model = getattr(response, "model", "")
        return response

    async def stream(
        self,
        peer: Peer,
        method: str,
        call: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
    ) -> AsyncGenerator[Response]:
        """Yield the responses of a streaming call; raises as `Peer.stream` does."""
        hop = self._begin(peer, method)
        try:
            timeout = self._deadline.remaining(peer.name)
            async with aclosing(peer.stream(method, call, request, timeout=timeout)) as responses:
                async for response in responses:
                    if not hop.HasField("first_message"):
                        _set(hop.first_message, self._since_arrival() - _seconds(hop.start))
                    yield response
        finally:
            self._end(hop)

    def name_model(self, model: str) -> None:
        """Note which model served the latest call, where only its last message says."""
        self._hops[-1].model = model

    def trail(self) -> pb.Trail:
        """Return what happened so far."""
        trail = pb.Trail(hops=self._hops, trace_id=telemetry.trace_id_of(trace.get_current_span()))
        _set(trail.total, self._since_arrival())
        return trail

    def _begin(self, peer: Peer, method: str) -> pb.Hop:
        hop = pb.Hop(service=peer.name, method=method)
        _set(hop.start, self._since_arrival())
        self._hops.append(hop)
        return hop

    def _end(self, hop: pb.Hop) -> None:
        _set(hop.duration, self._since_arrival() - _seconds(hop.start))

    def _since_arrival(self) -> float:
        return time.perf_counter() - self._began


def _set(duration: duration_pb2.Duration, seconds: float) -> None:
    duration.FromNanoseconds(round(seconds * 1e9))


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.ToNanoseconds() / 1e9
