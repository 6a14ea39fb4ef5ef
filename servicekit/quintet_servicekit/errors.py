"""The one error type of Quintet and its form on the wire.

Services raise `ServiceError`; the server's interceptor turns it into a
`google.rpc.Status` by `to_status`, and a client turns that back by
`from_rpc_error`, so that the reason survives the gateway. See
docs/error-handling.md for what crosses the wire.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "quintet"
DETAILS_KEY = "grpc-status-details-bin"


class Reason(enum.StrEnum):
    """The closed set of reasons; `quintet.errors.v1.ErrorReason` documents each.

    A contract test holds the two equal.
    """

    INVALID_FIELD = "INVALID_FIELD"
    INPUT_TOO_LONG = "INPUT_TOO_LONG"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    DUPLICATE_ID = "DUPLICATE_ID"
    DIMENSION_MISMATCH = "DIMENSION_MISMATCH"
    INVALID_FILTER = "INVALID_FILTER"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - a name, no secret
    COLLECTION_NOT_FOUND = "COLLECTION_NOT_FOUND"
    COLLECTION_EXISTS = "COLLECTION_EXISTS"
    DOCUMENT_NOT_FOUND = "DOCUMENT_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    TEMPLATE_NOT_FOUND = "TEMPLATE_NOT_FOUND"
    UNSUPPORTED_BY_MODEL = "UNSUPPORTED_BY_MODEL"
    MODEL_MISMATCH = "MODEL_MISMATCH"
    NO_PASSAGES = "NO_PASSAGES"
    OVERLOADED = "OVERLOADED"
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    NOT_READY = "NOT_READY"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    CONFLICT = "CONFLICT"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    LINK_NOT_FOUND = "LINK_NOT_FOUND"
    DOCUMENT_EXISTS = "DOCUMENT_EXISTS"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    PEER_NOT_ALLOWED = "PEER_NOT_ALLOWED"
    ANSWER_NOT_FOUND = "ANSWER_NOT_FOUND"
    NO_DATABASE = "NO_DATABASE"
    RATE_LIMITED = "RATE_LIMITED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"


_CODES: Mapping[Reason, grpc.StatusCode] = {
    Reason.COLLECTION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.COLLECTION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.DOCUMENT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.TEMPLATE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.UNSUPPORTED_BY_MODEL: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MODEL_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NO_PASSAGES: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.BUDGET_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DEPENDENCY_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.CONFLICT: grpc.StatusCode.ABORTED,
    Reason.CIRCUIT_OPEN: grpc.StatusCode.UNAVAILABLE,
    Reason.LINK_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.DOCUMENT_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.KEY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.PEER_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.ANSWER_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.NO_DATABASE: grpc.StatusCode.FAILED_PRECONDITION,
}
"""Status code of each reason; those not named are INVALID_ARGUMENT."""

_REASON_OF_FOREIGN_CODE: Mapping[grpc.StatusCode, Reason] = {
    grpc.StatusCode.UNAVAILABLE: Reason.DEPENDENCY_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_FIELD,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
}
"""Reason of a status that came without ErrorInfo, from gRPC itself or a proxy."""

DEFAULT_RETRY_AFTER = 0.2
"""Seconds that RetryInfo tells where an error names no other; about one reconnect."""


MAX_VIOLATIONS = 32
"""Violations that are told: a status travels in a header block, which clients accept
up to 8 KiB only, and a large batch can break a rule in thousands of places."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks its bounds: `field` as a path ("texts[3]"), and how."""

    field: str
    description: str


class ServiceError(Exception):
    """A failure that a caller may be told about.

    `message` and `metadata` cross the wire: no secret, no document text, no
    driver's message may stand in them. `retry_after` is in seconds.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = _CODES.get(reason, grpc.StatusCode.INVALID_ARGUMENT)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        retryable = self.code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        self.retry_after = DEFAULT_RETRY_AFTER if retry_after is None and retryable else retry_after

    def __repr__(self) -> str:
        return f"ServiceError({self.reason}, {self.message!r})"


def to_status(error: ServiceError) -> status_pb2.Status:
    """Return the error as a `google.rpc.Status` with its details packed."""
    details: list[any_pb2.Any] = [
        _packed(
            error_details_pb2.ErrorInfo(
                reason=error.reason.value, domain=DOMAIN, metadata=error.metadata
            )
        )
    ]
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations[:MAX_VIOLATIONS]:
            bad_request.field_violations.add(
                field=violation.field, description=violation.description
            )
        details.append(_packed(bad_request))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    code: int = error.code.value[0]
    return status_pb2.Status(code=code, message=error.message, details=details)


def from_rpc_error(error: grpc.aio.AioRpcError, *, service: str) -> ServiceError:
    """Return what a failed call to `service` raised at its far end.

    A status without our ErrorInfo (from gRPC itself, or from a proxy) becomes the
    reason that its code means, and its message is dropped: it may name addresses.
    """
    trailers = cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ())
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            found = from_status(status_pb2.Status.FromString(value))
            if found is not None:
                return found
    reason = _REASON_OF_FOREIGN_CODE.get(error.code(), Reason.INTERNAL)
    key = "hop" if reason is Reason.DEADLINE_EXCEEDED else "dependency"
    return ServiceError(reason, _FOREIGN_MESSAGES[reason].format(service), metadata={key: service})


_FOREIGN_MESSAGES: Mapping[Reason, str] = {
    Reason.DEPENDENCY_UNAVAILABLE: "the {} service cannot be reached",
    Reason.DEADLINE_EXCEEDED: "the deadline passed in the {} service",
    Reason.OVERLOADED: "the {} service is overloaded, or the message is too large for it",
    Reason.CANCELLED: "the call to the {} service was cancelled",
    Reason.UNIMPLEMENTED: "the {} service has no such method",
    Reason.INVALID_FIELD: "the {} service refused the request",
    Reason.UNAUTHENTICATED: "the {} service does not know the caller",
    Reason.PERMISSION_DENIED: "the {} service does not allow it to the caller",
    Reason.INTERNAL: "the {} service failed",
}


def from_status(status: status_pb2.Status) -> ServiceError | None:
    """Return the error that `to_status` packed, or None for a status that it didn't make."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    found, retry_after = False, None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            found = info.domain == DOMAIN and info.reason in Reason.__members__
        elif detail.Is(bad_request.DESCRIPTOR):
            detail.Unpack(bad_request)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    if not found:
        return None
    return ServiceError(
        Reason(info.reason),
        status.message,
        metadata=dict(info.metadata),
        retry_after=retry_after,
        violations=[Violation(v.field, v.description) for v in bad_request.field_violations],
    )


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
