"""The chain of calls that one request makes: one deadline over all, one trail of all."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf import duration_pb2
from opentelemetry import trace

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
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
        _note_cache(hop, response)
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
                        set_seconds(hop.first_message, self._since_arrival() - _seconds(hop.start))
                    yield response
        finally:
            self._end(hop)

    def complete(self, last: generator_pb.Completed) -> None:
        """Note what only the last message of the latest call's stream says."""
        self._hops[-1].model = last.model
        _note_cache(self._hops[-1], last)

    def trail(self) -> pb.Trail:
        """Return what happened so far."""
        trail = pb.Trail(hops=self._hops, trace_id=telemetry.trace_id_of(trace.get_current_span()))
        set_seconds(trail.total, self._since_arrival())
        return trail

    def _begin(self, peer: Peer, method: str) -> pb.Hop:
        hop = pb.Hop(service=peer.name, method=method)
        set_seconds(hop.start, self._since_arrival())
        self._hops.append(hop)
        return hop

    def _end(self, hop: pb.Hop) -> None:
        set_seconds(hop.duration, self._since_arrival() - _seconds(hop.start))

    def _since_arrival(self) -> float:
        return time.perf_counter() - self._began


def _note_cache(hop: pb.Hop, response: Any) -> None:
    # Responses of services without a cache have no such field.
    if "cache" in response.DESCRIPTOR.fields_by_name and response.HasField("cache"):
        hop.cache.CopyFrom(response.cache)


def set_seconds(duration: duration_pb2.Duration, seconds: float) -> None:
    """Set `duration` to `seconds`, to the nanosecond."""
    duration.FromNanoseconds(round(seconds * 1e9))


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.ToNanoseconds() / 1e9
