"""What the parts that work on a call leave for its log line and its metrics.

The interceptor opens one a call. Tasks that the call starts share it. Only names are noted
here, never what a caller has sent.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

MOST = 32
"""Entries of each kind that are kept of one call: a stream of documents may have any number."""


@dataclass(slots=True)
class CallNotes:
    """`tiers`: outcome of the latest look-up, by cache tier. `degradations`: as
    "hop:CAUSE:SUBSTITUTE", in the order in which they came about."""

    tiers: dict[str, str] = field(default_factory=dict)
    degradations: list[str] = field(default_factory=list)


_current: ContextVar[CallNotes | None] = ContextVar("call_notes", default=None)


def begin() -> CallNotes:
    """Return the notes of a call that begins in the present task."""
    notes = CallNotes()
    _current.set(notes)
    return notes


def note_tier(tier: str, outcome: str) -> None:
    """Note what a cache tier did for the call, if one is worked on."""
    notes = _current.get()
    if notes is not None and (tier in notes.tiers or len(notes.tiers) < MOST):
        notes.tiers[tier] = outcome


def note_degradation(hop: str, cause: str, substitute: str) -> None:
    """Note that `substitute` is served for what failed at `hop`, if a call is worked on."""
    notes = _current.get()
    if notes is not None and len(notes.degradations) < MOST:
        notes.degradations.append(f"{hop}:{cause}:{substitute}")
