"""Settings of usage; part of the gateway's own."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class UsageSettings(BaseModel):
    """Where usage waits to be counted in the database."""

    model_config = ConfigDict(frozen=True)

    folder: Path | None = None
    """Folder of the outbox, on a disk of this machine. What is in it outlasts the process:
    the next one with the same folder counts it. Gateways of one database may share it. None:
    a temporary one, of which the next process knows nothing."""
    interval_seconds: float = Field(0.5, gt=0, le=60)
    """How long usage waits to be counted together with others."""
