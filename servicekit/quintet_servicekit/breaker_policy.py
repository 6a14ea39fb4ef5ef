"""When a breaker opens and for how long, and what the outcome of a call says about
the dependency that was called."""

from __future__ import annotations

import enum
from typing import Self

import grpc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from quintet_servicekit.errors import Reason, ServiceError


class Outcome(enum.Enum):
    """What the end of a call says about the dependency."""

    ANSWERED = enum.auto()
    """It did its work; an error that is the caller's own, such as NOT_FOUND, included."""
    FAILED = enum.auto()
    TIMED_OUT = enum.auto()
    """A failure, unless the caller gave it too little time."""
    OVERLOADED = enum.auto()
    """A failure where the settings say so."""
    NEUTRAL = enum.auto()
    """Nothing: the call was not ended by the dependency."""


class BreakerSettings(BaseModel):
    """When a breaker opens, and for how long. Part of a service's own settings."""

    model_config = ConfigDict(frozen=True)

    consecutive_failures: int = Field(5, ge=1, le=1000)
    """Failures without a success between them that open the breaker, whatever their
    rate: what tells a dead dependency where calls are few."""
    window_seconds: float = Field(10.0, ge=0.1, le=600)
    """Span over which the two rates are taken."""
    min_calls: int = Field(20, ge=1, le=100_000)
    """Calls within the window below which its rates say nothing."""
    failure_rate: float = Field(0.5, gt=0, le=1)
    """Share of failures among the window's calls from which the breaker opens."""
    slow_seconds: float = Field(30.0, gt=0, le=3600)
    """Wait for a response, or for a stream's first message, from which a call is slow.
    The default is beyond what any call here waits in health; each dependency's own
    goal is far below it."""
    slow_rate: float = Field(0.8, gt=0, le=1)
    """Share of slow calls among the window's calls from which the breaker opens."""
    open_seconds: float = Field(0.5, gt=0, le=600)
    """Longest first stay in open. Each stay is between half and the whole of its longest,
    so that the replicas of a service do not all come back in one instant."""
    max_open_seconds: float = Field(2.0, gt=0, le=3600)
    """What the stay's longest, doubling with each failed trial, ends at. With the
    trial after it this stays within the five seconds of recovery that we promise."""
    burst_seconds: float = Field(0.1, ge=0, le=60)
    """Calls under way at once that expire so soon after each other are one of the failures in
    a row: they do where this process, or the machine, was late."""
    trial_seconds: float = Field(2.0, gt=0, le=600)
    """Time after which a trial that has not ended no longer keeps out the next one: a
    stream may last for minutes, and one that was never closed for ever."""
    fair_timeout_seconds: float = Field(0.1, ge=0, le=600)
    """Timeout below which its expiry tells of the caller's haste, not of the dependency."""
    overload_is_failure: bool = True
    """Whether RESOURCE_EXHAUSTED counts as a failure. False suits a dependency that sheds
    load cheaply: there, opening would turn a part of the calls refused into all."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_open_seconds < self.open_seconds:
            raise ValueError("max_open_seconds must be at least open_seconds")
        return self

    def judge(self, outcome: Outcome, timeout: float | None) -> Outcome:
        """Return `outcome` as one of ANSWERED, FAILED, TIMED_OUT and NEUTRAL, for a call
        that was given `timeout` seconds. TIMED_OUT is then a failure."""
        if outcome is Outcome.OVERLOADED:
            return Outcome.FAILED if self.overload_is_failure else Outcome.ANSWERED
        if outcome is Outcome.TIMED_OUT:
            fair = timeout is None or timeout >= self.fair_timeout_seconds
            return Outcome.TIMED_OUT if fair else Outcome.NEUTRAL
        return outcome


_OUTCOMES = {
    grpc.StatusCode.UNAVAILABLE: Outcome.FAILED,
    grpc.StatusCode.INTERNAL: Outcome.FAILED,
    grpc.StatusCode.UNKNOWN: Outcome.FAILED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Outcome.TIMED_OUT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.OVERLOADED,
    grpc.StatusCode.CANCELLED: Outcome.NEUTRAL,
}


def outcome_of(error: Exception) -> Outcome:
    """Return what `error` says about the dependency.

    A `ServiceError` or an error of gRPC is judged by its status code, a `TimeoutError`
    as DEADLINE_EXCEEDED, anything else as a failure. CIRCUIT_OPEN is neutral: the
    breaker that refused stands further down and does its work there, and a second
    one opening above it would only add its own stay to the recovery. A caller who has
    used up what it may ask was answered, whatever the code.
    """
    if isinstance(error, ServiceError):
        if error.reason is Reason.CIRCUIT_OPEN:
            return Outcome.NEUTRAL
        if error.reason in (Reason.RATE_LIMITED, Reason.BUDGET_EXHAUSTED):
            return Outcome.ANSWERED
        return _OUTCOMES.get(error.code, Outcome.ANSWERED)
    if isinstance(error, grpc.aio.AioRpcError):
        return _OUTCOMES.get(error.code(), Outcome.ANSWERED)
    return Outcome.TIMED_OUT if isinstance(error, TimeoutError) else Outcome.FAILED
