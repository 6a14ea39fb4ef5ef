"""Settings of a service with a database; its own `settings.py` adds to them."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, field_validator

from quintet_servicekit.settings import ServiceSettings


class PostgresSettings(ServiceSettings):
    """Where the database is, and how long what may take there."""

    database_url: SecretStr = SecretStr("postgresql://127.0.0.1:5432/quintet")
    """Connection URI of PostgreSQL, with its password. Never logged. Its role is none that
    row-level security does not hold for: no superuser and not the tables' owner."""
    owner_database_url: SecretStr = SecretStr("")
    """The same for the role that owns the tables and migrates them; used at the start alone.
    It may create schemas and the extensions that are not there."""

    pool_min_size: int = Field(2, ge=1, le=1000)
    """Connections that are kept open: a search seldom waits for a new one."""
    pool_max_size: int = Field(10, ge=1, le=1000)
    """Most connections. PostgreSQL allows 100 by default, shared by all replicas."""
    pool_timeout_seconds: float = Field(2.0, gt=0, le=60)
    """How long a call waits for a connection before it ends UNAVAILABLE."""
    pool_max_waiting: int = Field(256, ge=1, le=100_000)
    """Calls that may wait for a connection; more end RESOURCE_EXHAUSTED at once."""
    connect_timeout_seconds: int = Field(3, ge=1, le=60)
    """How long connecting may take."""
    statement_timeout_seconds: float = Field(10.0, gt=0, le=3600)
    """Longest statement, for callers without an earlier deadline."""
    lock_timeout_seconds: float = Field(5.0, gt=0, le=3600)
    """How long a writer waits for another one before it ends ABORTED."""
    migration_lock_timeout_seconds: float = Field(30.0, gt=0, le=3600)
    """How long a starting replica waits for another's migration, and a migration
    for locks on tables, before it is tried again."""

    @field_validator("database_url", "owner_database_url")
    @classmethod
    def _can_be_read(cls, url: SecretStr) -> SecretStr:
        try:
            ports = str(conninfo_to_dict(url.get_secret_value()).get("port") or "")
            [int(port) for port in ports.split(",") if port]
        except (psycopg.Error, ValueError):
            # libpq's own message quotes it, with its password. A password that is not
            # percent-encoded may be read as a port.
            raise ValueError("must be a connection URI of PostgreSQL") from None
        return url
