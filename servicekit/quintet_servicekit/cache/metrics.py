"""Metrics of the caches, by tier. Gauges are those of the process's caches as they are."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

LOOKUPS = Counter(
    "quintet_cache_lookups_total",
    "Look-ups: outcome is hit, stale, negative, miss, or shared for a value that another "
    "caller was computing; store is memory, redis, or none for a miss.",
    ("tier", "outcome", "store"),
)
ERRORS = Counter(
    "quintet_cache_errors_total",
    "What kept a cache from being used: unavailable, timeout, connection, authentication, "
    "refused, busy, unreadable, oversized, dropped. Tier is redis where a command failed.",
    ("tier", "kind"),
)
ENTRIES = Gauge("quintet_cache_entries", "Entries in memory.", ("tier",))
BYTES = Gauge("quintet_cache_bytes", "Bytes of the entries in memory.", ("tier",))
REDIS_SECONDS = Histogram(
    "quintet_cache_redis_seconds",
    "Duration of a command to Redis, the wait for a connection included.",
    buckets=(0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
)

FLIGHTS = Counter(
    "quintet_cache_flights_total",
    "Streams: led were computed here, joined is a caller of a stream in flight in this "
    "process, attached is a process that follows another's.",
    ("tier", "role"),
)
