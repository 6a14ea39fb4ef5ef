"""What about a response is not as it was asked for: failures that were passed over, and
what was served instead. The ladder's rungs stand where the calls are made."""

from __future__ import annotations

from opentelemetry import trace
from prometheus_client import Counter

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_servicekit import attributes
from quintet_servicekit.call_notes import note_degradation
from quintet_servicekit.errors import Reason, ServiceError

_DEGRADATIONS = Counter(
    "quintet_degradations_total",
    "Times that something else was served, or a step left out, for what failed.",
    ("hop", "cause", "substitute"),
)

AWAY = frozenset(
    {
        Reason.DEPENDENCY_UNAVAILABLE,
        Reason.CIRCUIT_OPEN,
        Reason.NOT_READY,
        Reason.OVERLOADED,
        Reason.DEADLINE_EXCEEDED,
        Reason.CANCELLED,
        Reason.INTERNAL,
        Reason.BUDGET_EXHAUSTED,
    }
)
"""Reasons for which work was not done, and something else may be served.
The others are about the request, and are its answer. CANCELLED is here because a
service that is stopped may end its calls so; a caller who leaves is no `ServiceError`."""


class Degradations:
    """The degradations of one response, in the order in which they came about.

    `forbidden`: the request wants the failure rather than a substitute.
    """

    def __init__(self, *, forbidden: bool = False) -> None:
        self.messages: list[pb.Degradation] = []
        self._forbidden = forbidden
        self._passed_over: dict[int, ServiceError] = {}

    def may_replace(self, error: ServiceError) -> bool:
        """Whether something else may be served where a call failed with `error`."""
        return error.reason in AWAY and not self._forbidden

    def pass_over(
        self,
        hop: str,
        error: ServiceError,
        substitute: pb.Substitute.ValueType,
        note: str,
        *,
        age_seconds: float | None = None,
    ) -> None:
        """Note that `substitute` is served for what failed with `error` at `hop`, which is
        a service or a step. Raises `error` where nothing may be."""
        if not self.may_replace(error):
            raise error
        degradation = pb.Degradation(
            hop=hop, cause=reason_value(error), substitute=substitute, note=note
        )
        if age_seconds is not None:
            degradation.age.FromNanoseconds(round(age_seconds * 1e9))
        self.messages.append(degradation)
        self._passed_over[substitute] = error
        name = pb.Substitute.Name(substitute).removeprefix("SUBSTITUTE_")
        _note_on_span(hop, error.reason, name, age_seconds)
        note_degradation(hop, error.reason, name)
        _DEGRADATIONS.labels(hop, error.reason, name).inc()

    def behind(self, substitute: pb.Substitute.ValueType) -> ServiceError | None:
        """Return the failure for which a substitute was served; None if it was not."""
        return self._passed_over.get(substitute)


def _note_on_span(hop: str, cause: str, substitute: str, age_seconds: float | None) -> None:
    told: dict[str, str | float] = {
        attributes.DEGRADATION_HOP: hop,
        attributes.DEGRADATION_CAUSE: cause,
        attributes.DEGRADATION_SUBSTITUTE: substitute,
    }
    if age_seconds is not None:
        told[attributes.DEGRADATION_AGE] = age_seconds
    span = trace.get_current_span()
    span.set_attribute(attributes.DEGRADED, True)
    span.add_event(attributes.DEGRADATION, told)


def reason_value(error: ServiceError) -> error_reason_pb2.ErrorReason.ValueType:
    """Return an error's reason as the contract has it."""
    return error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason}")


def out_of_time(step: str) -> ServiceError:
    """Return the failure of a step that was left out because too little time was left."""
    return ServiceError(
        Reason.DEADLINE_EXCEEDED,
        f"too little time was left for the {step}",
        metadata={"hop": step},
    )
