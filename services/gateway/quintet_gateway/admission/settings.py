"""Settings of the limits; part of the gateway's own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from quintet_gateway.admission.policy import Policy


class LimitSettings(BaseModel):
    """What is limited, and what holds without Redis."""

    model_config = ConfigDict(frozen=True)

    policy: Policy = Policy()
    """The limits, as JSON (docs/rate-limits.md), and how models and templates are chosen
    (docs/prompts.md). None: how much a deployment can take, and who may have how much of it,
    only its operators know."""
    policy_file: Path | None = None
    """A YAML file with the limits, instead of `policy`. A change of it holds within two
    seconds."""
    without_redis: Literal["share", "open", "closed"] = "share"
    """What is admitted while Redis, where one is set, does not answer: each replica's share
    of every limit, everything, or nothing. A share, because neither a tenant's flood nor
    nothing at all is what an outage of a cache should bring."""
    replicas: int = Field(1, ge=1, le=10_000)
    """Replicas of the gateway among which the limits are shared out without Redis."""
    lease_seconds: float = Field(30.0, ge=1, le=3600)
    """How long the place of a stream is kept whose replica has died; a living one renews it
    three times as often."""
