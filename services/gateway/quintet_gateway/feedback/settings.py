"""Settings of ratings; part of the gateway's own."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FeedbackSettings(BaseModel):
    """What is kept of ratings, where there is a database."""

    model_config = ConfigDict(frozen=True)

    comments: bool = False
    """Whether comments are stored. Off: they are what people said, and may name anybody."""
    days: int = Field(365, ge=1, le=3650)
    """Days after which a rating goes: long enough to compare two seasons' templates."""
    tenant_rows: int = Field(1_000_000, ge=1, le=1_000_000_000)
    """Most ratings of a tenant, some 400 bytes each; the oldest go, when it is looked after."""
    upkeep_seconds: float = Field(3600.0, gt=0, le=86_400)
    """How often old ratings are dropped. Nobody waits for that."""
