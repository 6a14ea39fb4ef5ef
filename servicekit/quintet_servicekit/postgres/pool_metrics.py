"""Gauges of a pool of connections, read when they are scraped."""

from __future__ import annotations

from typing import Any

from prometheus_client import Gauge
from psycopg_pool import AsyncConnectionPool

_CONNECTIONS = Gauge(
    "db_client_connections",
    "Connections to the database: state is used, or idle for those that wait for work.",
    ("pool", "state"),
)
_MOST = Gauge("db_client_connections_max", "Connections that there may be.", ("pool",))
_WAITING = Gauge(
    "db_client_connections_pending_requests", "Round trips that wait for a connection.", ("pool",)
)


def tell(pool: AsyncConnectionPool[Any]) -> None:
    """Tell of `pool`, by its name, from now on."""

    def stat(name: str) -> int:
        return pool.get_stats().get(name, 0)

    _CONNECTIONS.labels(pool.name, "used").set_function(
        lambda: stat("pool_size") - stat("pool_available")
    )
    _CONNECTIONS.labels(pool.name, "idle").set_function(lambda: stat("pool_available"))
    _MOST.labels(pool.name).set_function(lambda: stat("pool_max"))
    _WAITING.labels(pool.name).set_function(lambda: stat("requests_waiting"))
