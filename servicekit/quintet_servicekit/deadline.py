"""The time that a request has left, from its caller's gRPC deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import grpc

from quintet_servicekit.errors import Reason, ServiceError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that is `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of_call(cls, context: grpc.aio.ServicerContext[Any, Any], default: float) -> Deadline:
        """Return the caller's deadline, or `default` seconds from now without one."""
        remaining: float | None = context.time_remaining()
        return cls.after(default if remaining is None else remaining)

    def or_after(self, seconds: float) -> Deadline:
        """Return this deadline, or the one `seconds` from now if that is earlier."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    @property
    def left(self) -> float:
        """The seconds left; less than 0 when it has passed."""
        return self.at - time.monotonic()

    def remaining(self, hop: str) -> float:
        """Return the seconds left, more than 0.

        Raises `ServiceError` DEADLINE_EXCEEDED, naming `hop`, when none is.
        """
        left = self.left
        if left <= 0:
            raise ServiceError(
                Reason.DEADLINE_EXCEEDED,
                f"the deadline passed before the {hop} call",
                metadata={"hop": hop},
            )
        return left
