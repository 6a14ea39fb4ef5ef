"""What caches did, in plain words: below an answer, in a waterfall, in an explanation."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from rich.text import Text

from quintet.cache.v1.cache_service_pb2 import CacheOutcome, CacheStore, CacheUse
from quintet.gateway.v1.gateway_service_pb2 import AnswerCache, Usage
from quintet_cli.terminal import age, one_line, seconds

_OUTCOMES = {
    CacheOutcome.CACHE_OUTCOME_MISS: "miss",
    CacheOutcome.CACHE_OUTCOME_HIT: "hit",
    CacheOutcome.CACHE_OUTCOME_REVALIDATED: "revalidated",
    CacheOutcome.CACHE_OUTCOME_STALE: "stale",
    CacheOutcome.CACHE_OUTCOME_SHARED: "shared",
    CacheOutcome.CACHE_OUTCOME_BYPASS: "bypass",
}
_STORES = {CacheStore.CACHE_STORE_MEMORY: "memory", CacheStore.CACHE_STORE_REDIS: "Redis"}
_HOLDS = {
    CacheOutcome.CACHE_OUTCOME_HIT: "still holds",
    CacheOutcome.CACHE_OUTCOME_REVALIDATED: "found to hold by the database",
}


def outcome(use: CacheUse) -> str:
    """Return how a cache served, as one word; "" where none came into question."""
    return _OUTCOMES.get(use.outcome, "")


def store(use: CacheUse) -> str:
    """Return where a result was found; "" for nowhere."""
    return _STORES.get(use.store, "")


def is_stale(cache: AnswerCache) -> bool:
    """Whether an answer may be out of date."""
    return cache.possibly_stale or cache.use.outcome == CacheOutcome.CACHE_OUTCOME_STALE


def origin(cache: AnswerCache) -> Text | None:
    """Return a line on where an answer came from and what that saved; None for an
    answer that was made for this request."""
    use = cache.use
    kept = f"kept {age(_seconds(use.age))} ago"
    if is_stale(cache):
        line = Text.assemble(
            ("POSSIBLY OUT OF DATE", "bold yellow"),
            (f": {kept}, and whether it still holds is not known; --fresh makes sure", "yellow"),
        )
    elif use.outcome in _HOLDS:
        line = Text(f"{kept}, {_HOLDS[use.outcome]}", style="dim")
    elif use.outcome == CacheOutcome.CACHE_OUTCOME_SHARED:
        line = Text("shared with another caller, who was asking the same", style="dim")
    else:
        return None
    if saving := saved(cache):
        line.append(f" · saved {saving}", style="dim")
    return line


def other_question(cache: AnswerCache) -> str:
    """Return the question that a kept answer was made for, where it is another, and
    how near it is: "What is it? (similarity 0.97)"; else ""."""
    if not cache.question:
        return ""
    return f"{one_line(cache.question)} (similarity {cache.similarity:.2f})"


def saved(cache: AnswerCache) -> str:
    """Return what a kept answer saved: "2.31 s and about 209 tokens"; "" for nothing."""
    parts = []
    if cache.use.HasField("saved"):
        parts.append(seconds(_seconds(cache.use.saved)))
    spared = cache.saved
    if count := spared.prompt_tokens + spared.completion_tokens + spared.embedding_tokens:
        parts.append(f"{_about(spared)}{count} tokens")
    return " and ".join(parts)


def tokens(usage: Usage) -> str:
    """Return what the generator took: "200 prompt + 9 answer tokens"."""
    if not usage.prompt_tokens and not usage.completion_tokens:
        return "no tokens"
    counts = f"{usage.prompt_tokens} prompt + {usage.completion_tokens} answer tokens"
    return f"{_about(usage)}{counts}"


def hop(use: CacheUse) -> str:
    """Return what a hop's cache did: tier, outcome, hits of look-ups, age, as in
    "l2 hit 1/1, 3 min"; "" where none came into question."""
    found = f" {use.hits}/{use.lookups}" if use.lookups else ""
    old = f", {age(_seconds(use.age))}" if use.HasField("age") else ""
    return f"{use.tier} {outcome(use)}{found}{old}".strip()


def why_no_hops(cache: AnswerCache) -> str:
    """Return why no service was called for an answer."""
    if cache.use.outcome == CacheOutcome.CACHE_OUTCOME_SHARED:
        return "no hops: they are in the trail of the caller whose answer was shared"
    if is_stale(cache) or cache.use.outcome in _HOLDS:
        where = ", ".join(part for part in (cache.use.tier, store(cache.use)) if part)
        return f"no hops: the answer was kept ({where}), so no service was asked"
    return "no hops: the gateway tells none"


def _about(usage: Usage) -> str:
    return "about " if usage.estimated else ""


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
