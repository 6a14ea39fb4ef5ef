"""The chain of calls that one request makes: one deadline over all, one trail of all."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import cache
from typing import Any, TypeVar

import grpc
from google.protobuf import duration_pb2
from opentelemetry import trace

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.spent import NOTHING, Generation, Spent, spent_by
from quintet_gateway.budget import Plan
from quintet_gateway.degradation import Degradations, reason_value
from quintet_servicekit import telemetry
from quintet_servicekit.breaker import State
from quintet_servicekit.call_notes import note_tier
from quintet_servicekit.channel import Peer
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError

BREAKER_STATES = {
    State.CLOSED: pb.BREAKER_STATE_CLOSED,
    State.OPEN: pb.BREAKER_STATE_OPEN,
    State.HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
}

Request = TypeVar("Request")
Response = TypeVar("Response")


class Chain:
    """Makes the calls of one request, each with its share of the time that is left, and
    notes them, as well as what is served for those that fail.

    Without a `plan` each call gets all the time that is left. `meter` adds up what the
    calls cost. `left_out` takes what was
    found and is not in the prompt; `model` the name of the generator's model that is wanted,
    once it is known, for which time is kept free. `embedding_model` and its revision are the
    collection's, once they are known.
    """

    def __init__(
        self,
        deadline: Deadline,
        plan: Plan | None = None,
        *,
        meter: Meter | None = None,
        fail_if_degraded: bool = False,
    ) -> None:
        self.meter = meter or Meter()
        self.degradations = Degradations(forbidden=fail_if_degraded)
        self.left_out: list[pb.LeftOut] = []
        self.model = ""
        self.embedding_model = self.embedding_revision = ""
        self._deadline = deadline
        self._plan = plan
        self._began = time.perf_counter()
        self._hops: list[pb.Hop] = []

    async def unary(
        self,
        peer: Peer,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        replaceable: bool = False,
        expected: Reason | None = None,
    ) -> Response:
        """Return the response of a unary call; raises as `Peer.unary` does.

        `replaceable`: something else is served if it fails, so it is not waited for as
        long as there is time. `expected` is as there.
        """
        spent = NOTHING
        with self._hop(peer, method, lambda _: spent) as hop:
            budget = self._deadline.remaining(peer.name)
            if self._plan is not None:
                budget = self._plan.share(method, budget, self.model, replaceable=replaceable)
            set_seconds(hop.budget, budget)
            response = await peer.unary(
                method,
                call,
                request,
                timeout=budget,
                deadline=self._deadline,
                expected=expected,
            )
            hop.model = getattr(response, "model", "")
            _note_cache(hop, response)
            spent = spent_by(response)
        if self._plan is not None:
            self._plan.answered(method, _seconds(hop.duration))
        return response

    async def stream(
        self,
        peer: Peer,
        method: str,
        call: grpc.aio.UnaryStreamMultiCallable[
            generator_pb.GenerateRequest, generator_pb.GenerateStreamResponse
        ],
        request: generator_pb.GenerateRequest,
        *,
        model: str = "",
        replaceable: bool = False,
    ) -> AsyncGenerator[generator_pb.GenerateStreamResponse]:
        """Yield the events of an answer of `model`; raises as `Peer.stream` does.

        `replaceable`: something else is tried if it does not begin, so time for that is
        kept free.
        """
        generation = Generation(request)
        with self._hop(peer, method, lambda failed: generation.spent(failed=failed)) as hop:
            hop.model = model
            timeout, first = self._deadline.remaining(peer.name), None
            if self._plan is not None:
                if replaceable:
                    first = self._plan.first_share(method, timeout)
                timeout = self._plan.share(method, timeout, self.model)
            set_seconds(hop.budget, first or timeout)
            stream = peer.stream(
                method,
                call,
                request,
                timeout=timeout,
                first_timeout=first,
                deadline=self._deadline,
            )
            async with aclosing(stream) as responses:
                async for response in responses:
                    if not hop.HasField("first_message"):
                        self._note_first(hop, model)
                    generation.note(response)
                    if response.HasField("completed"):
                        hop.model = response.completed.model
                        _note_cache(hop, response.completed)
                    yield response

    def is_short(self, method: str) -> bool:
        """Whether too little time is left for a call of that method."""
        return self._plan is not None and self._plan.is_short(method, self.left())

    def is_short_for(self, method: str) -> bool:
        """Whether too little time is left for a call of that method that may be left out,
        and for what comes after it."""
        plan = self._plan
        return plan is not None and plan.is_short_for(method, self.left(), self.model)

    def is_short_after(self, method: str) -> bool:
        """Whether too little time is left for what comes after a call of that method."""
        plan = self._plan
        return plan is not None and plan.is_short_after(method, self.left(), self.model)

    def trail(self) -> pb.Trail:
        """Return what happened so far."""
        trail = pb.Trail(
            hops=self._hops,
            trace_id=telemetry.trace_id_of(trace.get_current_span()),
            left_out=self.left_out,
        )
        set_seconds(trail.total, self._since_arrival())
        return trail

    @contextmanager
    def _hop(self, peer: Peer, method: str, spent: Callable[[bool], Spent]) -> Iterator[pb.Hop]:
        """Note a call; `spent` tells what it took, once it has ended, by whether it failed."""
        hop = pb.Hop(service=peer.name, method=method)
        if peer.breaker is not None:
            hop.breaker = BREAKER_STATES[peer.breaker.state]
        set_seconds(hop.start, self._since_arrival())
        self._hops.append(hop)
        try:
            yield hop
        except ServiceError as error:
            hop.failure = reason_value(error)
            raise
        finally:
            seconds = self._since_arrival() - _seconds(hop.start)
            set_seconds(hop.duration, seconds)
            set_seconds(hop.left, max(0.0, self.left()))
            self.meter.called(hop.service, hop.model, seconds, spent(bool(hop.failure)), hop.cache)

    def _note_first(self, hop: pb.Hop, model: str) -> None:
        seconds = self._since_arrival() - _seconds(hop.start)
        set_seconds(hop.first_message, seconds)
        if self._plan is not None:
            self._plan.answered(hop.method, seconds, model)

    def left(self) -> float:
        """Return the seconds that the request has left; below 0 where its time is up."""
        return self._deadline.left

    def _since_arrival(self) -> float:
        return time.perf_counter() - self._began


def _note_cache(hop: pb.Hop, response: Any) -> None:
    # Responses of services without a cache have no such field.
    if _tells_of_cache(response.DESCRIPTOR) and response.HasField("cache"):
        hop.cache.CopyFrom(response.cache)
        outcome = cache_pb.CacheOutcome.Name(response.cache.outcome)
        note_tier(response.cache.tier, outcome.removeprefix("CACHE_OUTCOME_").lower())


@cache
def _tells_of_cache(message: Any) -> bool:
    return "cache" in message.fields_by_name


def set_seconds(duration: duration_pb2.Duration, seconds: float) -> None:
    """Set `duration` to `seconds`, to the nanosecond."""
    duration.FromNanoseconds(round(seconds * 1e9))


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.ToNanoseconds() / 1e9
