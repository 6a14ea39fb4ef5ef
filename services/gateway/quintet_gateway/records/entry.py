"""What is noted of an answer while its caller waits: references, and next to no work."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from uuid import UUID

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer of which a record is to be made, and whose it is.

    `response` is what the caller was told, of a failure what was told before it. `failure`
    is unspecified for an answer; `failed_at` names a dependency or a hop.
    """

    id: UUID
    tenant: str
    key: str
    streamed: bool
    request: pb.AskRequest
    response: pb.AskResponse
    embedding_model: str
    embedding_revision: str
    failure: error_reason_pb2.ErrorReason.ValueType = error_reason_pb2.ERROR_REASON_UNSPECIFIED
    failed_at: str = ""


def new_id() -> UUID:
    """Return a UUIDv7: 48 bits of milliseconds, and 74 random ones that nobody guesses."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    number = milliseconds << 80 | random
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)


def milliseconds_of(answer_id: UUID) -> int:
    """Return when an id was made, in milliseconds since 1970."""
    return answer_id.int >> 80
