"""What about an answer is not as it was asked for, in plain words."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from quintet.errors.v1.error_reason_pb2 import ErrorReason
from quintet.gateway.v1.gateway_service_pb2 import Degradation
from quintet_cli.terminal import age, one_line


def staleness(seconds: float | None) -> Duration | None:
    """Return an option's seconds in the contract's form; None leaves it to the gateway."""
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def reason(value: ErrorReason.ValueType) -> str:
    """Return a reason as errors name it, such as CIRCUIT_OPEN; "" for none."""
    if not value:
        return ""
    if value not in ErrorReason.values():
        return str(value)  # a newer gateway's
    return ErrorReason.Name(value).removeprefix("ERROR_REASON_")


def tell(out: Console, degradations: Iterable[Degradation]) -> None:
    """Print a line for each, such as "DEGRADED: passages were found by their words
    (embedder: CIRCUIT_OPEN)"."""
    for it in degradations:
        old = f", {age(it.age.ToNanoseconds() / 1e9)} old" if it.HasField("age") else ""
        why = f"({one_line(it.hop)}: {reason(it.cause)}{old})"
        out.print(f"DEGRADED: {one_line(it.note)} {why}", style="yellow")
