"""Settings of a service's cache. A service's own `Settings` hold one as `cache`, so that
its variables are `QUINTET_<SERVICE>_CACHE__REDIS_URL` and so on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from redis.asyncio.connection import parse_url


class CacheSettings(BaseModel):
    """Where values are kept, for how long, and how much of them."""

    model_config = ConfigDict(frozen=True)

    redis_url: SecretStr = SecretStr("")
    """URL of the Redis or Valkey server that the replicas share, with its password;
    "rediss://" for TLS. Empty: values are kept in this process's memory only."""
    redis_timeout_seconds: float = Field(0.04, gt=0, le=5)
    """Longest that one look-up or write may take once it has one of the connections, and
    longest that it waits for one. A round trip is a quarter of a millisecond; forty leave
    room for a busy machine and are little beside what a hit saves."""
    redis_connections: int = Field(16, ge=1, le=1000)
    """Commands in flight; those beyond wait within their timeout."""
    namespace: str = Field("quintet", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """First part of every key, so that two deployments can share a server."""
    memory_bytes: int = Field(64 * 2**20, ge=0, le=2**40)
    """Bound of the values in memory, with their keys and overhead. 0: none are kept."""
    max_value_bytes: int = Field(2**20, ge=1, le=2**29)
    """Largest encoded value that is kept. Whole answers have some kilobytes."""
    pending_bytes: int = Field(8 * 2**20, ge=2**10, le=2**30)
    """Values that wait to be written to Redis; those beyond are dropped and counted,
    since an answer never waits for its own caching."""
    ttl_seconds: float = Field(3600.0, gt=0, le=366 * 86_400)
    """How long a value counts as fresh."""
    ttl_jitter: float = Field(0.1, ge=0, lt=1)
    """Largest share by which an entry's TTL is shortened at random, so that entries
    written together don't expire together."""
    stale_seconds: float = Field(0.0, ge=0, le=366 * 86_400)
    """How long after its TTL a value may still be served, marked as stale, to those who
    allow it while it is computed anew."""
    negative_ttl_seconds: float = Field(30.0, gt=0, le=86_400)
    """TTL of a negative result: short, for what is missing now may come soon."""
    max_refreshes: int = Field(4, ge=0, le=1000)
    """Stale values that are computed anew in the background at once."""
    lease_seconds: float = Field(2.0, gt=0, le=600)
    """How long one replica's claim to compute a value lasts unless it is renewed, as it is
    while the replica lives: what the others wait when it dies."""
    lease_wait_seconds: float = Field(10.0, ge=0, le=600)
    """Longest wait for a value that another replica computes, before it is computed
    here too."""

    @field_validator("redis_url")
    @classmethod
    def _can_be_read(cls, url: SecretStr) -> SecretStr:
        try:
            if url.get_secret_value():
                parse_url(url.get_secret_value())
        except ValueError:
            # Its message may quote what it takes for a port.
            raise ValueError("must be a URL of Redis") from None
        return url
