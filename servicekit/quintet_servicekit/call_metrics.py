"""Metrics of the calls that a server takes: rate, errors and duration by method."""

from __future__ import annotations

from functools import cache, partial

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ("grpc_service", "grpc_method")
_STARTED = Counter("grpc_server_started_total", "Calls that began.", _LABELS)
_HANDLED = Counter(
    "grpc_server_handled_total", "Calls that ended, by status code.", (*_LABELS, "grpc_code")
)
_ERRORS = Counter(
    "grpc_server_errors_total", "Calls that ended with an error, by reason.", (*_LABELS, "reason")
)
_DEGRADED = Counter(
    "grpc_server_degraded_total",
    "Calls for which a substitute was served, however many, and whatever their code.",
    _LABELS,
)
_TENANT_HANDLED = Counter(
    "quintet_tenant_handled_total",
    "Calls of the tenants that the setting `metrics_tenants` names, and of all others "
    "together as `other`; nothing where it names none.",
    ("tenant", "grpc_method", "grpc_code"),
)
_IN_FLIGHT = Gauge("grpc_server_in_flight", "Calls under way.", _LABELS)
_SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Duration of a call, streams to their end.",
    _LABELS,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

OTHER_TENANTS = "other"


class CallMeters:
    """The metrics of one method, their labels looked up once. `tenants` are those that are
    told apart."""

    def __init__(self, method: str, tenants: frozenset[str]) -> None:
        service, name = method.rsplit("/", 1)
        self._name = name
        self._tenants = tenants
        self._started = _STARTED.labels(service, name)
        self._in_flight = _IN_FLIGHT.labels(service, name)
        self._seconds = _SECONDS.labels(service, name)
        self._degraded = _DEGRADED.labels(service, name)
        self._handled = cache(partial(_HANDLED.labels, service, name))
        self._errors = cache(partial(_ERRORS.labels, service, name))

    def began(self) -> None:
        """Count a call that begins."""
        self._started.inc()
        self._in_flight.inc()

    def ended(
        self,
        code: str,
        seconds: float,
        *,
        reason: str,
        degraded: bool,
        tenant: str,
        exemplar: dict[str, str] | None,
    ) -> None:
        """Count a call that has ended, of an error's `reason` if there was one."""
        self._in_flight.dec()
        self._handled(code).inc()
        self._seconds.observe(seconds, exemplar)
        if reason:
            self._errors(reason).inc()
        if degraded:
            self._degraded.inc()
        if self._tenants:
            told = tenant if tenant in self._tenants else OTHER_TENANTS
            _TENANT_HANDLED.labels(told, self._name, code).inc()
