"""What a cache did for one call, as its response and its span tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry import trace

from quintet_servicekit import attributes
from quintet_servicekit.cache.models import Found, Store
from quintet_servicekit.call_notes import note_tier

UseOutcome = Literal["hit", "revalidated", "stale", "shared", "miss", "bypass"]
"""As `quintet.cache.v1.CacheOutcome` defines them."""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """See `quintet.cache.v1.CacheUse`, field by field."""

    tier: str
    outcome: UseOutcome
    store: Store | None = None
    age_seconds: float | None = None
    saved_seconds: float | None = None
    lookups: int = 1
    hits: int = 0
    epoch: int = 0


def use_of(tier: str, found: Sequence[Found[Any] | None]) -> CacheUse:
    """Return what the tier did for a call that looked up `found`, at least one; None, or a
    value that was computed for this caller, is a miss.

    The outcome is that of the first that was no hit. Of several results the age is the
    oldest one's, the store Redis if one came from there, and what was saved is their sum.
    """
    outcomes = [_outcome(it) for it in found]
    served = [it for it in found if it is not None and (it.store is not None or it.shared)]
    outcome: UseOutcome = next((it for it in outcomes if it != "hit"), "hit")
    stores = {it.store for it in served}
    return CacheUse(
        tier,
        outcome,
        store="redis" if "redis" in stores else "memory" if "memory" in stores else None,
        age_seconds=max(it.age_seconds for it in served) if len(served) == len(found) else None,
        saved_seconds=sum(it.saved_seconds for it in served) if served else None,
        lookups=len(found),
        hits=sum(it in ("hit", "stale") for it in outcomes),
    )


def note_use(use: CacheUse, span: trace.Span | None = None) -> None:
    """Tell it by the attributes `quintet.cache.*` of the span, else of the current one, and
    by the call's log line."""
    note_tier(use.tier, use.outcome)
    (span or trace.get_current_span()).set_attributes(
        {
            attributes.CACHE_TIER: use.tier,
            attributes.CACHE_OUTCOME: use.outcome,
            attributes.CACHE_LOOKUPS: use.lookups,
            attributes.CACHE_HITS: use.hits,
        }
    )


def _outcome(found: Found[Any] | None) -> UseOutcome:
    if found is None:
        return "miss"
    if found.shared:
        return "shared"
    if found.store is None:
        return "miss"
    return "stale" if found.stale else "hit"
