"""Settings that every service has; a service's own `settings.py` adds to them.

Values come from environment variables with the service's prefix
(`QUINTET_TOKENIZER_PORT`), and are checked once, at start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class AdmissionSettings(BaseModel):
    """How many calls are worked on at once. Part of a service's own settings."""

    model_config = ConfigDict(frozen=True)

    least_calls: int = Field(64, ge=1, le=100_000)
    """Calls that are always admitted, whatever they take. Behind a gateway many: what it
    has begun is better ended, and it refuses its callers first."""
    patience_seconds: float = Field(30.0, gt=0, le=3600)
    """Deadline that is assumed of a caller who gave none, or a later one."""
    fair_deadline_seconds: float = Field(0.1, ge=0, le=60)
    """Deadline below which a call that is late tells nothing: else a caller whose deadlines
    no server could meet would lower the limit for all. As breakers' `fair_timeout_seconds`."""
    bulk_share: float = Field(0.25, gt=0, le=1)
    """Share of the limit that bulk calls may have."""
    bulk_calls: int = Field(64, ge=1, le=100_000)
    """Most bulk calls under way at once, whatever the limit."""
    bulk_waiting: int = Field(256, ge=0, le=100_000)
    """Bulk calls that may wait in line; more are refused."""
    bulk_wait_seconds: float = Field(300.0, gt=0, le=3600)
    """Longest wait in line, where the caller's own deadline is not earlier: as long as the
    gateway gives a document."""
    retry_seconds: float = Field(0.2, gt=0, le=60)
    """When a refused caller is told to try again. A client that retries on its own is told
    half to half as much again of it, so that not all come back together."""


class IdentitySettings(BaseModel):
    """How a service knows whom a call is made for. Part of a service's own settings."""

    model_config = ConfigDict(frozen=True)

    public_keys: Path | None = None
    """PEM file, or folder of them, with the public keys of those who may vouch for a caller:
    the gateway's, and beside it the next one while keys are exchanged. Read anew when it
    changes."""
    required: bool = True
    """Whether calls without a token are refused. Where not, they are the default tenant's,
    with every right: for a network that nobody else is in."""
    leeway_seconds: float = Field(10.0, ge=0, le=300)
    """How far clocks may be apart. NTP keeps them within milliseconds; ten seconds are a
    machine that has just woken up."""


class SigningSettings(BaseModel):
    """How the gateway vouches for a caller. Part of its own settings."""

    model_config = ConfigDict(frozen=True)

    key: Path | None = None
    """PEM file with the Ed25519 private key. Read anew when it changes."""
    reuse_seconds: float = Field(30.0, ge=0, le=3600)
    """How long a token is used for an identity's calls: signing costs as much as a look-up
    in Redis."""
    lifetime_seconds: float = Field(360.0, ge=30, le=7200)
    """How long it is valid. Half a minute of use, and then the longest call that it can begin,
    a document's five minutes: what gRPC tries again late carries it still."""


class TlsSettings(BaseModel):
    """Certificates, PEM files all. Part of a service's own settings, and of a client's.

    A server with a certificate speaks TLS only; a channel with authorities does.
    """

    model_config = ConfigDict(frozen=True)

    certificate: Path | None = None
    """Who we are: our certificate and those between it and an authority. None: no TLS."""
    key: Path | None = None
    """The certificate's private key."""
    ca: Path | None = None
    """Authorities that we trust. While they are exchanged, the file holds both."""
    require_client: bool = True
    """Whether callers must show a certificate of these authorities. Not at a gateway whose
    callers are known by something else."""
    callers: frozenset[str] = frozenset()
    """Names, of which a caller's certificate must have one as a subject alternative name, for
    instance `["gateway"]`. Empty: whoever has a certificate may call."""
    reload_seconds: float = Field(10.0, gt=0, le=3600)
    """How often a channel looks whether the files changed; a server looks whenever a
    connection begins. A mounted Secret changes a minute late anyway."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.certificate is not None and self.require_client and self.ca is None:
            raise ValueError("callers' certificates need a ca to be checked by")
        if self.callers and (self.certificate is None or not self.require_client):
            raise ValueError("callers are known by certificates, which must be required")
        return self


class ServiceSettings(BaseSettings):
    """Where a service listens, how it logs and drains, and its bounds."""

    # A service's own configuration is laid over this one.
    # Without the last, one variable of a part would undo the service's own defaults
    # for the rest of it. Errors go to the log, and what is wrong may be a password's URL.
    model_config = SettingsConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        extra="ignore",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on, for gRPC and metrics; "[::]" or "0.0.0.0" in a container."""
    port: int = Field(0, ge=0, le=65535)
    """Port of the gRPC server; 0 asks the system for one."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """Port of the Prometheus endpoint; 0 asks the system for one."""
    tls: TlsSettings = TlsSettings()
    """TLS of the gRPC port, and of the channels to other services, for instance
    `QUINTET_TOKENIZER_TLS__CERTIFICATE`. Off: what runs on one machine needs none."""
    health_port: int | None = Field(None, ge=0, le=65535)
    """Port of a second server without TLS that serves health and nothing else: probes of
    Kubernetes have no certificate to show. None: no such server; 0 asks the system for one."""
    max_connection_seconds: float = Field(0.0, ge=0, le=86_400)
    """Age at which a connection ends, after its calls, so that its certificates are looked
    at again and callers resolve their names anew, which finds new replicas. 0: never."""
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    """Least level that is logged."""
    metrics_tenants: tuple[str, ...] = Field((), max_length=100)
    """Tenants whose calls are counted each for themselves, and those of all others together,
    as a JSON list. None by default: each costs a series a method and code."""
    otlp_endpoint: str = Field(
        default_factory=lambda: os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    )
    """Address of an OTLP/gRPC receiver of spans, for instance http://collector:4317.
    Unset: the variable that OpenTelemetry prescribes. Empty: no spans are exported."""
    trace_ratio: float = Field(1.0, ge=0, le=1)
    """Share of traces that are recorded where the caller did not decide it. 1: what is kept of
    them is the collector's to decide, which knows the errors and the slow ones."""
    trace_content: bool = False
    """Whether spans hold questions, passages and answers (docs/tracing.md). Off: traces are
    read by more people than documents are."""
    lame_duck_seconds: float = Field(0.5, ge=0, le=60)
    """How long calls are still taken after SIGTERM, while health says NOT_SERVING. Channels
    that watch health move on within milliseconds; half a second lets a busy machine,
    and calls that already wait in gRPC's queue, catch up."""
    drain_seconds: float = Field(20.0, ge=0, le=600)
    """How long calls in flight may take to finish after that. The rest are then ended."""
    probe_interval_seconds: float = Field(1.0, gt=0, le=60)
    """How often readiness asks the dependencies. One second, so that a returned
    dependency is used again within the five seconds that we promise."""
    share_breakers: bool = True
    """Whether this service's replicas share their breakers through the cache's Redis, where
    one is set: one of them then tries whether a dependency is back, for all."""
    max_message_bytes: int = Field(16 * 2**20, ge=2**10, le=2**30)
    """Largest message that is received. 16 MiB holds 256 chunks of 20,000
    characters with their vectors, with room to spare."""
    max_concurrent_calls: int = Field(512, ge=1, le=100_000)
    """Most calls in flight, whatever the adaptive limit finds; one more is OVERLOADED."""
    admission: AdmissionSettings = AdmissionSettings()
    """How many of them are worked on at once when callers begin to wait, for instance
    `QUINTET_TOKENIZER_ADMISSION__LEAST_CALLS`."""

    identity: IdentitySettings = IdentitySettings()
    """How it knows whom a call is made for, for instance
    `QUINTET_TOKENIZER_IDENTITY__PUBLIC_KEYS`."""
    max_metadata_bytes: int = Field(8_192, ge=1_024, le=65_536)
    """Most metadata of a call, keys and values. Eight KiB are what gRPC servers take unless
    they are told otherwise."""
    first_request_seconds: float = Field(30.0, gt=0, le=3600)
    """How long the request of a call may take to come. The largest one, on a line of
    20 Mbit/s, takes that long; a caller who sends none would hold a call's place for ever."""
    idle_stream_seconds: float = Field(600.0, gt=0, le=86_400)
    """How long the service waits for the next request of a stream: of an ingest, whose
    documents somebody may be fetching."""
    untaken_seconds: float = Field(60.0, gt=0, le=3600)
    """How long a caller may leave a response of a stream untaken, once some 64 KiB of them
    are on their way."""
    fault_injection: bool = False
    """Whether callers may have faults done to their own calls (docs/game-days.md). Off:
    who can send metadata could otherwise make every service behind the gateway fail."""


class ChannelSettings(BaseModel):
    """How a client reaches a service. Part of a client's own settings."""

    model_config = ConfigDict(frozen=True)

    keepalive_seconds: float = Field(30.0, ge=10, le=3600)
    """Idle time after which a connection is probed, so that a dead peer is noticed."""
    max_reconnect_seconds: float = Field(1.0, ge=0.1, le=120)
    """Longest pause between attempts to connect. gRPC's own two minutes would
    outlast every deadline after a restart."""
    max_attempts: int = Field(3, ge=1, le=5)
    """Attempts of a call that ends UNAVAILABLE, or is refused with RESOURCE_EXHAUSTED,
    before its first response."""
    max_message_bytes: int = Field(64 * 2**20, ge=2**10, le=2**30)
    """Largest message that is sent or received: the largest document with its chunks
    and vectors."""
    hedging_ratio: float = Field(0.0, ge=0, le=1)
    """Share of calls that only read for which a second attempt may be made when the first
    takes unusually long; 0: none. It helps where a service has several replicas of which
    one is slow at times; with one replica it only adds load."""
