"""The one server interceptor: admission, span, metrics, log line and errors of every call.

One interceptor and not five, because each costs time on every call, and because
they share what they tell: method, code, duration, trace id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode

from quintet_servicekit import attributes, call_notes, identity, telemetry
from quintet_servicekit.admission import Admission, Place
from quintet_servicekit.call_metrics import CallMeters
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.fault_injection import FaultInjection
from quintet_servicekit.gates import Authenticator, Guard
from quintet_servicekit.identity import NOBODY, become
from quintet_servicekit.incoming import (
    Bounds,
    Metadata,
    Patiences,
    check_size,
    each,
    only,
    tolerant,
)
from quintet_servicekit.line import DO_NOTHING, Line, Lines
from quintet_servicekit.priority import Priority, priority_now, priority_of
from quintet_servicekit.refusal import Context, details_of, refuser, refusing, told
from quintet_servicekit.tls import check_caller
from quintet_servicekit.trailers import trailers_of

TRACE_ID_KEY = "quintet-trace-id"
"""Trailer with the trace's id, on every response."""

_SILENT = ("/grpc.health.", "/grpc.reflection.")
"""Methods of the machinery: no span, no log line."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_BOUNDS = Bounds()


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps each of the server's own methods; see the module.

    `is_ready` tells whether calls may reach the service. Before that they end
    with UNAVAILABLE and NOT_READY. `faults` are done to calls that ask for them.
    `admission_of` returns what admits calls of a method, by its full name; None for one
    that is never refused. `tenants` are those that have metrics of their own.
    `authenticator` tells whom calls are for; without one nobody is asked. `guard` stands
    around each behaviour. What calls bring, and how slowly, is held to `bounds`. Where
    `callers` are named, certificates without any of these names are refused.
    """

    def __init__(
        self,
        is_ready: Callable[[], bool],
        faults: FaultInjection | None = None,
        admission_of: Callable[[str], Admission | None] = lambda _: None,
        tenants: Sequence[str] = (),
        authenticator: Authenticator | None = None,
        guard: Guard | None = None,
        bounds: Bounds = _BOUNDS,
        callers: frozenset[str] = frozenset(),
        lines: Lines | None = None,
    ) -> None:
        self._lines = lines or Lines()
        self._is_ready = is_ready
        self._authenticator = authenticator
        self._guard = guard
        self._bounds = bounds
        self._patiences = Patiences(bounds)
        self._callers = frozenset(name.encode() for name in callers)
        self._faults = faults
        self._admission_of = admission_of
        self._tenants = frozenset(tenants)
        self._wrapped: dict[str, tuple[Handler, Admission | None, Line]] = {}
        self._refusing: dict[Admission, Handler] = {}
        self._calls: set[asyncio.Task[Any] | None] = set()
        self._watches: set[asyncio.Task[Any] | None] = set()
        self._ended: set[asyncio.Task[Any] | None] = set()

    def end_calls(self) -> int:
        """End all calls in flight with UNAVAILABLE and NOT_READY; return how many."""
        return self._end(self._calls)

    def end_watches(self) -> None:
        """End the streams of those who watch health: they would be kept until their
        callers leave."""
        self._end(self._watches)

    def _end(self, tasks: set[asyncio.Task[Any] | None]) -> int:
        self._ended |= tasks
        for task in tasks:
            if task is not None:
                task.cancel()
        return len(tasks)

    async def intercept_service(  # type: ignore[override]  # None is gRPC's own 'no such method'
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, wrapped once and then remembered."""
        method = handler_call_details.method
        if method in self._wrapped:
            wrapped, admission, line = self._wrapped[method]
            if admission is None:
                return wrapped
            metadata = handler_call_details.invocation_metadata
            if line.is_measured and self._lines.is_own(metadata):
                return DO_NOTHING
            line.call_came()
            priority = priority_of(metadata)
            if not admission.is_full(priority):
                return wrapped
            admission.count_refusal(priority)
            return self._refusing[admission]
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if method.startswith(_SILENT):
            return self._watched(handler) if handler.unary_stream else handler
        name = method.lstrip("/")
        admission = self._admission_of(name)
        line = self._lines.of(method)
        wrapped = self._wrap(name, handler, admission, line)
        # Only methods that exist are remembered, so callers cannot grow the dict.
        self._wrapped[method] = wrapped, admission, line
        if admission is not None and admission not in self._refusing:
            self._refusing[admission] = refusing(admission.overloaded())
        return wrapped

    def _wrap(
        self, method: str, handler: Handler, admission: Admission | None, line: Line
    ) -> Handler:
        # As streams, so that a request is read when we say: after it is known who calls,
        # and for a bounded time. It costs the same.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        many, patiences = bool(handler.request_streaming), self._patiences
        meters = CallMeters(method, self._tenants)
        behaviour: Any = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        if self._faults:
            streams = bool(handler.response_streaming)
            behaviour = self._faults.around(method, behaviour, streams=streams)
        if self._guard:
            streams = bool(handler.response_streaming)
            behaviour = self._guard.around(method, behaviour, streams=streams)

        if admission is not None:
            refuse = refuser(admission.overloaded())

        async def read(requests: Any) -> Any:
            if many:
                return each(requests, patiences.next)
            return await only(requests, patiences.first)

        async def refuse_if_late(context: Context) -> None:
            if admission is not None and line.took_too_much(context.time_remaining()):
                priority = priority_of(context.invocation_metadata() or ())
                if priority is not Priority.BULK:
                    admission.count_refusal(priority)
                    await refuse(context)

        async def unary(requests: Any, context: Context) -> Any:
            await refuse_if_late(context)
            call = _Call(method, meters, context)
            with call.observed():
                self._calls.add(task := asyncio.current_task())
                try:
                    await self._check(method, call.metadata, context)
                    request = await read(requests)
                    async with _place(admission, call.metadata, context):
                        return await behaviour(request, context)
                except asyncio.CancelledError as error:
                    failure = call.failure(self._stopping(error))
                except Exception as error:
                    failure = call.failure(error)
                finally:
                    self._calls.discard(task)
            return await call.abort(failure)

        async def stream(requests: Any, context: Context) -> None:
            await refuse_if_late(context)
            call = _Call(method, meters, context)
            with call.observed():
                self._calls.add(task := asyncio.current_task())
                try:
                    await self._check(method, call.metadata, context)
                    request = await read(requests)
                    # Written here and not yielded: a caller who leaves cancels this
                    # very task, so the service's generator is closed at once, and
                    # not when the garbage collector comes by.
                    async with (
                        _place(admission, call.metadata, context) as place,
                        aclosing(behaviour(request, context)) as responses,
                    ):
                        async for response in responses:
                            place.answered()
                            async with patiences.taken.bound():
                                await context.write(response)
                    return
                except asyncio.CancelledError as error:
                    failure = call.failure(self._stopping(error))
                except Exception as error:
                    failure = call.failure(error)
                finally:
                    self._calls.discard(task)
            await call.abort(failure)

        return make(
            stream if handler.response_streaming else unary,
            request_deserializer=tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _watched(self, handler: Handler) -> Handler:
        behaviour: Any = handler.unary_stream

        async def watch(request: Any, context: Context) -> None:
            self._watches.add(task := asyncio.current_task())
            try:
                await behaviour(request, context)
            except asyncio.CancelledError as error:
                self._stopping(error)
            finally:
                self._watches.discard(task)

        return grpc.unary_stream_rpc_method_handler(
            watch,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _stopping(self, cancelled: asyncio.CancelledError) -> ServiceError:
        """Return what a call is told that `end_calls` ended; raise `cancelled` for others."""
        task = asyncio.current_task()
        if task is None or task not in self._ended:
            raise cancelled
        task.uncancel()
        return ServiceError(Reason.NOT_READY, "the service is stopping; repeat the call")

    async def _check(self, method: str, metadata: Metadata, context: Context) -> None:
        """Raise for a call that cannot or may not be made; note whom it is for."""
        if self._authenticator is not None:
            become(NOBODY)
        check_caller(self._callers, context)
        if not self._is_ready():
            raise ServiceError(Reason.NOT_READY, "the service is starting", retry_after=1.0)
        check_size(metadata, self._bounds.metadata_bytes)
        if self._authenticator is not None:
            # Each call has a context of its own: nothing to reset.
            become(await self._authenticator.identify(method, metadata))


@asynccontextmanager
async def _place(
    admission: Admission | None, metadata: Metadata, context: Context
) -> AsyncIterator[Place]:
    """Hold the place of a call, and pass its priority on to those that it makes."""
    priority = priority_of(metadata)
    # Each call has a context of its own: nothing to reset.
    priority_now.set(priority)
    if admission is None:
        yield Place.unlimited()
        return
    began = time.perf_counter()
    async with admission.place(priority, context.time_remaining()) as place:
        if priority is Priority.BULK:  # others are admitted or refused at once
            waited = time.perf_counter() - began
            trace.get_current_span().set_attribute(attributes.ADMISSION_WAIT, waited)
        yield place


class _Call:
    """What is told about one call."""

    def __init__(self, method: str, meters: CallMeters, context: Context) -> None:
        self._method = method
        self._meters = meters
        self._context = context
        self._code = grpc.StatusCode.OK
        self._reason = ""
        self._notes = call_notes.begin()
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        carrier = {k: v for k, v in self.metadata if isinstance(v, str)}
        # Reading a parent out of metadata that holds none costs as much as one that does.
        parent = extract(carrier) if "traceparent" in carrier else otel_context.Context()
        self._span = telemetry.tracer().start_span(
            method,
            parent,
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )
        given = context.time_remaining()
        if given is not None:
            self._span.set_attribute(attributes.DEADLINE_GIVEN, given)
        # Each call has a task, and so a context, of its own: nothing to detach.
        otel_context.attach(trace.set_span_in_context(self._span, parent))
        self._trace_id = telemetry.trace_id_of(self._span)
        context.set_trailing_metadata(((TRACE_ID_KEY, self._trace_id),))

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Measure the call, and end its span, whatever way it ends."""
        self._meters.began()
        began = time.perf_counter()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            remaining: float | None = self._context.time_remaining()
            expired = remaining is not None and remaining <= 0
            self._code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
            raise
        finally:
            seconds = time.perf_counter() - began
            # A tenth of a millisecond of work, for which the answer need not wait.
            asyncio.get_running_loop().call_soon(self._tell, seconds, time.time_ns())

    def _tell(self, seconds: float, ended_ns: int) -> None:
        code, notes, tenant = self._code.name, self._notes, identity.current().tenant
        self._meters.ended(
            code,
            seconds,
            reason=self._reason,
            degraded=bool(notes.degradations),
            tenant=tenant,
            exemplar=telemetry.exemplar_of(self._span),
        )
        self._span.set_attribute("rpc.response.status_code", code)
        if self._reason:
            self._span.set_attribute(attributes.ERROR_REASON, self._reason)
        if self._code in _SERVER_FAULTS:
            self._span.set_attribute("error.type", code)
            self._span.set_status(Status(StatusCode.ERROR))
        telemetry.logger().info(
            "call",
            method=self._method,
            code=code,
            seconds=round(seconds, 6),
            tenant=tenant,
            **({"reason": self._reason} if self._reason else {}),
            **({"tiers": notes.tiers} if notes.tiers else {}),
            **({"degradations": notes.degradations} if notes.degradations else {}),
        )
        self._span.end(ended_ns)

    def failure(self, error: Exception) -> ServiceError:
        """Return what the caller is told; an unknown error is logged, once."""
        if not isinstance(error, ServiceError):
            telemetry.logger().error("unexpected error", method=self._method, exc_info=error)
            error = ServiceError(
                Reason.INTERNAL,
                "internal error; the trace id leads to its cause",
                metadata={"trace_id": self._trace_id},
            )
        self._code, self._reason = error.code, error.reason.value
        return error

    async def abort(self, error: ServiceError) -> None:
        """End the call with the error's status, details and the trace's id."""
        await self._context.abort(
            error.code,
            error.message,
            (*trailers_of(self._context), *told(error, details_of(error))),
        )


_SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that make a server span an error, by OpenTelemetry's gRPC conventions."""
