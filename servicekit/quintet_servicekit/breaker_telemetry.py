"""What is told of a breaker: metrics, span events, a log line a transition."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiobreaker import CircuitBreakerListener, CircuitBreakerState
from opentelemetry import trace
from prometheus_client import Counter, Gauge

from quintet_servicekit import attributes, telemetry

_STATE = Gauge(
    "quintet_breaker_state", "1 for the state that the breaker is in.", ("breaker", "state")
)
_TRANSITIONS = Counter(
    "quintet_breaker_transitions_total", "Changes to a state.", ("breaker", "state")
)
_REJECTIONS = Counter(
    "quintet_breaker_rejections_total", "Calls refused without being made.", ("breaker",)
)


class Announcer(CircuitBreakerListener):  # type: ignore[misc]  # it comes without types
    """Tells of the transitions and rejections of the breaker `name`.

    `cause` says why the next transition happens. It is aiobreaker's listener and must
    not raise, because that would keep the breaker from changing its state; what
    `subscribers` raise is logged.
    """

    def __init__(self, name: str) -> None:
        self.cause = ""
        self.subscribers: list[Callable[[], None]] = []
        self._name = name
        self._rejections = _REJECTIONS.labels(name)
        for state in CircuitBreakerState:
            _TRANSITIONS.labels(name, state.name.lower())
            _STATE.labels(name, state.name.lower()).set(state is CircuitBreakerState.CLOSED)

    def state_change(self, breaker: Any, old: Any, new: Any) -> None:
        """Tell that the state changes from `old` to `new`, both aiobreaker's own objects."""
        before, after = old.state.name.lower(), new.state.name.lower()
        _STATE.labels(self._name, before).set(0)
        _STATE.labels(self._name, after).set(1)
        _TRANSITIONS.labels(self._name, after).inc()
        self._add_event(
            attributes.BREAKER_TRANSITION, after, {attributes.BREAKER_CAUSE: self.cause}
        )
        with suppress(OSError, ValueError):  # standard error is gone
            log = telemetry.logger()
            (log.warning if after == "open" else log.info)(
                "breaker", breaker=self._name, before=before, state=after, cause=self.cause
            )

    def tell_subscribers(self) -> None:
        """Call each subscriber, once the new state holds."""
        for subscriber in self.subscribers:
            try:
                subscriber()
            except Exception:
                telemetry.logger().exception("breaker subscriber failed", breaker=self._name)

    def rejected(self, state: str) -> None:
        """Tell that a call was refused in `state`."""
        self._rejections.inc()
        self._add_event(attributes.BREAKER_REJECTED, state, {})

    def _add_event(self, name: str, state: str, more: dict[str, str]) -> None:
        span = trace.get_current_span()
        if span.is_recording():  # a background task's may have ended
            told = {attributes.BREAKER_NAME: self._name, attributes.BREAKER_STATE: state}
            span.add_event(name, told | more)
