"""Faults that a caller asks for in its own call's metadata, for game days.

    quintet-fault: embedder/Embed;delay=500ms, generator/*;abort=UNAVAILABLE;percent=20

A service that allows it (`ServiceSettings.fault_injection`) does to the call what is addressed
to it, and its own calls carry the header on; any other one doesn't look at it. After Envoy's
x-envoy-fault-delay-request and x-envoy-fault-abort-grpc-request headers; what they lack is the
address, since one question makes many calls.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import grpc
from opentelemetry import trace

from quintet_servicekit import attributes, telemetry
from quintet_servicekit.errors import Reason, ServiceError, Violation

HEADER = "quintet-fault"
"""Key of the metadata."""

MAX_FAULTS = 16
"""Most faults of one call: as many as a question makes calls."""
MAX_DELAY_SECONDS = 10.0
"""Longest delay of one call, beyond every deadline that people wait for."""
MAX_CHARS = 2_048
"""Longest header; clients may be refused 8 KiB of metadata in all."""

ABORTS = {
    grpc.StatusCode.UNAVAILABLE.name: Reason.DEPENDENCY_UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED.name: Reason.OVERLOADED,
    grpc.StatusCode.DEADLINE_EXCEEDED.name: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL.name: Reason.INTERNAL,
}
"""Codes that a call can be made to end with, and the reason of each."""

_ADDRESS = re.compile(r"([a-z]{1,40})/(\*|[A-Za-z]{1,60})")
_DELAY = re.compile(r"([0-9]{1,6})(ms|s)")
_NUMBER = re.compile(r"[0-9]{1,4}")

_carried: ContextVar[str] = ContextVar("quintet_fault", default="")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to calls of `service` ("embedder") and `method` ("Embed", or "*").

    The call waits `delay` seconds, and then ends with `abort` if there is one; a stream after
    `after` of its messages. Happens to so many `percent` of the calls.
    """

    service: str
    method: str
    delay: float = 0.0
    abort: Reason | None = None
    after: int = 0
    percent: int = 100

    def meets(self, service: str, method: str) -> bool:
        """Whether it is addressed to that method."""
        return self.service == service and self.method in ("*", method)

    def error(self) -> ServiceError:
        """Return what the call ends with; there is an abort."""
        assert self.abort is not None
        key = "hop" if self.abort is Reason.DEADLINE_EXCEEDED else "dependency"
        return ServiceError(
            self.abort, "a fault that the caller asked for", metadata={key: self.service}
        )


def parsed(header: str) -> tuple[Fault, ...]:
    """Return the faults that a header asks for.

    Raises `ServiceError` INVALID_FIELD for one that breaks the syntax or its bounds.
    """
    if len(header) > MAX_CHARS:
        raise _invalid(f"has more than {MAX_CHARS} characters")
    parts = [part.strip() for part in header.split(",")]
    if len(parts) > MAX_FAULTS:
        raise _invalid(f"asks for more than {MAX_FAULTS} faults")
    return tuple(map(_fault, parts))


def _fault(text: str) -> Fault:
    address, *options = (it.strip() for it in text.split(";"))
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise _invalid("must name a service and a method, or *: embedder/Embed")
    fault, seen = Fault(match[1], match[2]), set()
    for option in options:
        name, _, value = option.partition("=")
        if name in seen or name not in _OPTIONS:
            raise _invalid(f"takes each of {', '.join(_OPTIONS)} once")
        seen.add(name)
        fault = _OPTIONS[name](fault, value)
    if not fault.delay and fault.abort is None:
        raise _invalid("must have a delay or an abort")
    if fault.after and fault.abort is None:
        raise _invalid("has after=, which is for an abort")
    return fault


def _with_delay(fault: Fault, value: str) -> Fault:
    match = _DELAY.fullmatch(value)
    seconds = int(match[1]) / (1000 if match[2] == "ms" else 1) if match else 0.0
    if not 0 < seconds <= MAX_DELAY_SECONDS:
        raise _invalid(f"must have a delay of 1ms to {MAX_DELAY_SECONDS:.0f}s")
    return replace(fault, delay=seconds)


def _with_abort(fault: Fault, value: str) -> Fault:
    if value not in ABORTS:
        raise _invalid(f"must abort with one of {', '.join(ABORTS)}")
    return replace(fault, abort=ABORTS[value])


def _with_after(fault: Fault, value: str) -> Fault:
    return replace(fault, after=_whole("after", value, 1, 1_000))


def _with_percent(fault: Fault, value: str) -> Fault:
    return replace(fault, percent=_whole("percent", value, 1, 100))


def _whole(name: str, value: str, least: int, most: int) -> int:
    number = int(value) if _NUMBER.fullmatch(value) else 0
    if not least <= number <= most:
        raise _invalid(f"must have {name} from {least} to {most}")
    return number


_OPTIONS: dict[str, Callable[[Fault, str], Fault]] = {
    "delay": _with_delay,
    "abort": _with_abort,
    "after": _with_after,
    "percent": _with_percent,
}


def _invalid(description: str) -> ServiceError:
    return ServiceError(
        Reason.INVALID_FIELD,
        f"the metadata {HEADER} {description}",
        violations=[Violation(HEADER, description)],
    )


def carry(header: str) -> None:
    """Let the calls that this task makes from now on carry the header."""
    _carried.set(header)


def carried() -> str:
    """Return the header that calls of this task carry on; empty without one."""
    return _carried.get()


class FaultInjection:
    """Does to calls what their metadata ask for. Only a service that allows it has one."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        """`draw` returns numbers from 0 to 1, which decide about `percent`."""
        self._draw = draw

    def around(
        self, full_name: str, behaviour: Callable[[Any, Any], Any], *, streams: bool
    ) -> Callable[[Any, Any], Any]:
        """Return a method's behaviour with faults; `full_name` is as in
        "quintet.embedder.v1.EmbedderService/Embed", `streams` says how it responds."""
        package, method = full_name.rsplit("/", 1)
        service = package.split(".")[1]

        async def unary(request: Any, context: Any) -> Any:
            faults = self._of_call(context.invocation_metadata(), service, method)
            if any(fault.after for fault in faults):
                raise _invalid(f"has after=, and {service}/{method} has one response only")
            await _happen(faults)
            response: Awaitable[Any] = behaviour(request, context)
            return await response

        async def stream(request: Any, context: Any) -> AsyncGenerator[Any]:
            faults = self._of_call(context.invocation_metadata(), service, method)
            await _happen([fault for fault in faults if not fault.after])
            late = [fault for fault in faults if fault.after]
            count = 0
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
                    count += 1
                    await _happen([fault for fault in late if fault.after == count])

        return stream if streams else unary

    def _of_call(
        self, metadata: Iterable[tuple[str, str | bytes]] | None, service: str, method: str
    ) -> Sequence[Fault]:
        values = [str(value) for key, value in metadata or () if key == HEADER]
        if not values:
            return ()
        header = ",".join(values)
        faults = parsed(header)
        carry(header)
        return [it for it in faults if it.meets(service, method) and self._happens(it)]

    def _happens(self, fault: Fault) -> bool:
        return fault.percent == 100 or self._draw() * 100 < fault.percent


async def _happen(faults: Sequence[Fault]) -> None:
    """Wait and raise as the faults say, and tell of them in the span and the log."""
    for fault in faults:
        abort = fault.abort.value if fault.abort else ""
        trace.get_current_span().add_event(
            attributes.FAULT,
            {attributes.FAULT_DELAY: fault.delay, attributes.FAULT_ABORT: abort},
        )
        telemetry.logger().warning(
            "injected fault",
            method=f"{fault.service}/{fault.method}",
            delay=fault.delay,
            abort=abort,
        )
        # A deadline that passes meanwhile cancels the call.
        await asyncio.sleep(fault.delay)
        if fault.abort:
            raise fault.error()
