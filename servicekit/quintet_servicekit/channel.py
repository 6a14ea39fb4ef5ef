"""Calls to another service: the channel, and each call's span, deadline, errors and breaker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import Counter, Histogram

from quintet_servicekit import attributes, fault_injection, telemetry
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError, from_rpc_error
from quintet_servicekit.hedging import Hedging
from quintet_servicekit.identity import current
from quintet_servicekit.identity_token import IDENTITY_KEY
from quintet_servicekit.priority import PRIORITY_KEY, Priority, priority_now
from quintet_servicekit.settings import ChannelSettings, TlsSettings
from quintet_servicekit.spans import server_attributes
from quintet_servicekit.tls_channel import RenewedChannel

if TYPE_CHECKING:
    from quintet_servicekit.breaker import Breaker
    from quintet_servicekit.identity_token import Signer

_LABELS = ("grpc_service", "grpc_method")
_HANDLED = Counter(
    "grpc_client_handled_total", "Calls to others that ended.", (*_LABELS, "grpc_code")
)
_SECONDS = Histogram(
    "grpc_client_handling_seconds",
    "Duration of a call to another service, streams to their end.",
    _LABELS,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

# Children are looked up once: `labels` costs more than what it leads to.
_handled, _seconds = cache(_HANDLED.labels), cache(_SECONDS.labels)

NO_TLS = TlsSettings()
_LOST_STATUS = "Internal error from Core"
"""What gRPC's client says of a call that ended while it had a message to send."""

Request = TypeVar("Request")
Response = TypeVar("Response")


def open_channel(
    target: str,
    service: str,
    settings: ChannelSettings,
    *,
    only_healthy: bool = True,
    tls: TlsSettings = NO_TLS,
) -> grpc.aio.Channel:
    """Open a channel to `target` ("host:port" or a gRPC name such as
    "dns:///embedder:50051") for the service of full name `service`.

    Calls are spread over all addresses of the name that report themselves
    SERVING, or over all that answer where `only_healthy` is false: for a caller
    who wants to be told why a service is not ready. A call that ends UNAVAILABLE or
    RESOURCE_EXHAUSTED before its first response is tried again, when the service says in
    `grpc-retry-pushback-ms` or else after a moment, while retries are a small share of
    all calls.

    With authorities in `tls` the service must show a certificate of theirs for the host in
    `target`, and is shown ours. Raises OSError where its files cannot be used.
    """
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        **({"healthCheckConfig": {"serviceName": service}} if only_healthy else {}),
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
        "methodConfig": [
            {
                "name": [{"service": service}],
                "retryPolicy": {
                    "maxAttempts": settings.max_attempts,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ]
        if settings.max_attempts > 1
        else [],
    }
    longest_pause_ms = int(settings.max_reconnect_seconds * 1000)
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(config)),
        # Services are reached directly: a proxy that leads out of the network
        # (http_proxy) knows none of them.
        ("grpc.enable_http_proxy", 0),
        ("grpc.keepalive_time_ms", int(settings.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.initial_reconnect_backoff_ms", min(100, longest_pause_ms)),
        ("grpc.min_reconnect_backoff_ms", min(100, longest_pause_ms)),
        ("grpc.max_reconnect_backoff_ms", longest_pause_ms),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
    ]
    if tls.ca is None:
        return grpc.aio.insecure_channel(target, options=options)
    return RenewedChannel(lambda it: grpc.aio.secure_channel(target, it, options=options), tls)


class Peer:
    """The service at the other end of a channel.

    `name` is its short name ("embedder"), `service` its full protobuf name. Every call
    is made inside `breaker`, where there is one, and raises CIRCUIT_OPEN while it is
    open. `hedging` makes second attempts, but not in bulk. `signer` vouches for whom a
    call is made for; `authorization` is a caller's own credential ("Bearer …"). `target` is
    the channel's, for spans. A call's `deadline` is that of all that its caller does, of
    which the span tells what is left.
    """

    def __init__(
        self,
        name: str,
        service: str,
        breaker: Breaker | None = None,
        hedging: Hedging | None = None,
        *,
        signer: Signer | None = None,
        authorization: str = "",
        target: str = "",
    ) -> None:
        self.name = name
        self.breaker = breaker
        self._signer = signer
        self._authorization = authorization
        self._server = server_attributes(target)
        self._service = service
        self._hedging = hedging

    async def unary(
        self,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float,
        deadline: Deadline | None = None,
        expected: Reason | None = None,
    ) -> Response:
        """Return the response of a unary call within `timeout` seconds. A failure that is
        `expected` is an answer to its caller, and its span no error.

        Raises the `ServiceError` that the service raised, or the one that the
        transport's failure means.
        """
        with (
            self._guarded(timeout),
            self._observed(method, timeout, deadline, expected) as metadata,
        ):

            async def attempt(passed: float = 0.0) -> Response:
                return await call(request, timeout=timeout - passed, metadata=metadata)

            if self._hedging is None or priority_now.get() is Priority.BULK:
                return await attempt()
            return await self._hedging.first(method, attempt)

    async def stream(
        self,
        method: str,
        call: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float,
        first_timeout: float | None = None,
        deadline: Deadline | None = None,
    ) -> AsyncGenerator[Response]:
        """Yield the responses of a streaming call; the whole stream has `timeout`
        seconds, and its first response `first_timeout`. Closing the iterator cancels
        the call.

        Raises as `unary` does.
        """
        wait = timeout if first_timeout is None else min(timeout, first_timeout)
        with (
            self._guarded(wait) as first_message,
            self._observed(method, timeout, deadline) as metadata,
        ):
            responses = call(request, timeout=timeout, metadata=metadata)
            try:
                iterator = aiter(responses)
                response = await self._first(iterator, first_timeout)
                while response is not None:
                    first_message()
                    yield response
                    response = await anext(iterator, None)
            finally:
                responses.cancel()

    async def exchange(
        self,
        method: str,
        call: grpc.aio.StreamStreamMultiCallable[Request, Response],
        requests: AsyncIterator[Request],
        *,
        timeout: float,
    ) -> AsyncGenerator[Response]:
        """Yield the responses to a stream of requests, otherwise as `stream`.

        `requests` is read as fast as the far end takes it. It must not raise:
        gRPC would end the call as cancelled and drop the exception.

        Of a call that ends while a request is on its way gRPC's client says INTERNAL,
        whatever the far end said. That is found out by the same call without requests;
        if it does well, what ended the first has passed: DEPENDENCY_UNAVAILABLE.
        """
        with (
            self._guarded(timeout) as first_message,
            self._observed(method, timeout, None) as metadata,
        ):
            responses = call(requests, timeout=timeout, metadata=metadata)
            try:
                async for response in responses:
                    first_message()
                    yield response
            except grpc.aio.AioRpcError as error:
                if error.details() != _LOST_STATUS:
                    raise
                async for _ in call(_no_requests(), timeout=timeout, metadata=metadata):
                    pass
                raise ServiceError(
                    Reason.DEPENDENCY_UNAVAILABLE,
                    f"the {self.name} service ended the stream",
                    metadata={"dependency": self.name},
                ) from error
            finally:
                responses.cancel()

    async def _first(
        self, responses: AsyncIterator[Response], seconds: float | None
    ) -> Response | None:
        try:
            async with asyncio.timeout(seconds):
                return await anext(responses, None)
        except TimeoutError as error:
            raise ServiceError(
                Reason.DEADLINE_EXCEEDED,
                f"the {self.name} service did not begin in time",
                metadata={"hop": self.name},
            ) from error

    @contextmanager
    def _guarded(self, timeout: float) -> Iterator[Callable[[], None]]:
        """Yield what a stream calls when a message has come."""
        if self.breaker is None:
            yield lambda: None
        else:
            with self.breaker.guard(timeout=timeout) as guard:
                yield guard.first_message

    @contextmanager
    def _observed(
        self,
        method: str,
        timeout: float,
        deadline: Deadline | None,
        expected: Reason | None = None,
    ) -> Iterator[tuple[tuple[str, str], ...]]:
        full_name = f"{self._service}/{method}"
        span = telemetry.tracer().start_span(
            full_name,
            kind=SpanKind.CLIENT,
            attributes={
                "rpc.system.name": "grpc",
                "rpc.method": full_name,
                attributes.DEADLINE_GIVEN: timeout,
                **({} if self.breaker is None else {attributes.BREAKER_STATE: self.breaker.state}),
                **self._server,
            },
        )
        carrier: dict[str, str] = {}
        if self._signer is not None:
            carrier[IDENTITY_KEY] = self._signer.token(current(), self.name)
        if self._authorization:
            carrier["authorization"] = self._authorization
        if priority_now.get() is Priority.BULK:
            carrier[PRIORITY_KEY] = Priority.BULK
        # Injected by hand, not by making the span current: a generator's context
        # is its consumer's, and would leak the span into it.
        inject(carrier, trace.set_span_in_context(span))
        if faults := fault_injection.carried():
            carrier[fault_injection.HEADER] = faults
        code, is_error = grpc.StatusCode.OK, True
        began = time.perf_counter()
        try:
            yield tuple(carrier.items())
        except grpc.aio.AioRpcError as error:
            code = error.code()
            failure = self._service_error(error)
            span.set_attribute(attributes.ERROR_REASON, failure.reason)
            is_error = failure.reason is not expected
            raise failure from error
        except ServiceError as error:
            code = error.code
            span.set_attribute(attributes.ERROR_REASON, error.reason)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            _handled(self._service, method, code.name).inc()
            spent = time.perf_counter() - began
            _seconds(self._service, method).observe(spent, telemetry.exemplar_of(span))
            left = timeout - spent if deadline is None else deadline.left
            span.set_attributes(
                {
                    "rpc.response.status_code": code.name,
                    attributes.DEADLINE_SPENT: spent,
                    attributes.DEADLINE_LEFT: max(0.0, left),
                }
            )
            if code is not grpc.StatusCode.OK and is_error:
                span.set_attribute("error.type", code.name)
                span.set_status(Status(StatusCode.ERROR))
            span.end()

    def _service_error(self, error: grpc.aio.AioRpcError) -> ServiceError:
        told = from_rpc_error(error, service=self.name)
        if self._signer is not None and told.reason is Reason.UNAUTHENTICATED:
            # It is this service that is not believed, and not its caller.
            telemetry.logger().error("the identity token was refused", service=self.name)
            return ServiceError(
                Reason.DEPENDENCY_UNAVAILABLE,
                f"the {self.name} service does not accept this service's identity",
                metadata={"dependency": self.name},
            )
        return told


async def _no_requests() -> AsyncGenerator[Any]:
    return
    yield
