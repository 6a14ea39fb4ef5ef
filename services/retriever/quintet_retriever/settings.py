"""Settings of the retriever: the only place that names its environment variables."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.postgres.settings import PostgresSettings
from quintet_servicekit.settings import AdmissionSettings


class Settings(PostgresSettings):
    """Where the database is, how it is searched, and the bounds of what is kept."""

    model_config = SettingsConfigDict(env_prefix="QUINTET_RETRIEVER_", frozen=True, extra="ignore")

    breaker: BreakerSettings = BreakerSettings(
        consecutive_failures=3, fair_timeout_seconds=0.0, slow_seconds=5.0
    )
    """When calls stop to go to PostgreSQL. One failure can be the end of a connection, and
    three are an absent server: what may be slow is told by its answer to a cancellation.
    Searches take milliseconds; when most round trips take five seconds, those that would
    come on top are better refused."""

    hnsw_m: int = Field(16, ge=2, le=100)
    """Neighbours of a node in the index of a new collection; pgvector's default."""
    hnsw_ef_construction: int = Field(64, ge=4, le=1000)
    """Candidates at an insertion into that index; pgvector's default. At least 2 m."""
    hnsw_ef_search: int = Field(100, ge=1, le=1000)
    """Candidates that a scan of the index looks at in one step."""
    hnsw_max_scan_tuples: int = Field(100_000, ge=1)
    """Chunks after which a filtered scan of the index gives up, and all chunks that
    match the filter are compared instead."""
    exact_chunks: int = Field(2_000, ge=0, le=1_000_000)
    """Collections, and matches of a filter, of at most so many chunks are searched
    by comparing all: exact, and at 384 dimensions as fast as the index (2 ms)."""
    candidates: int = Field(100, ge=1, le=1000)
    """Chunks that each of the two searches puts up for the fusion (or k, if more)."""

    dense_weight: float = Field(0.6, ge=0, le=1)
    """Weight of the vectors' similarity in the fusion; the words' has the rest. Best or
    next to best on each of four collections (docs/quality.md), .5 to .7 hardly worse."""
    word_count_interval_seconds: float = Field(1.0, gt=0, le=3600)
    """How often it is asked in which collections so many chunks have changed that their
    words should be counted anew."""

    max_changes: int = Field(2_000, ge=0, le=1_000_000)
    """Writes since an earlier search, and chunks that they wrote, beyond which a search
    is run anew rather than asked whether they concern it: comparing as many takes
    about as long."""

    keep_changes: int = Field(10_000, ge=1, le=10_000_000)
    """Writes of a collection that are remembered one by one, 100 bytes each. An answer
    that was cached longer ago is searched for anew."""
    keep_requests_seconds: float = Field(86_400.0, ge=60, le=30 * 86_400)
    """How long a write's request id is remembered, 200 bytes each: as long as Stripe
    does. One that is repeated later is applied again."""
    relay_interval_seconds: float = Field(0.4, gt=0, le=1.0)
    """How often the relay looks into the outbox and extends the trust in the news. That
    lasts 1.5 s, so that two cycles may fail without anybody noticing."""

    cache: CacheSettings = CacheSettings()
    """Cache of search results, and the Redis that carries the news of epochs. All
    replicas on one database must name the same one."""

    admission: AdmissionSettings = AdmissionSettings(bulk_calls=4)
    """How many calls are worked on at once when callers wait. In bulk 4: a question finds
    most of the pool's connections free, however many documents are written."""

    max_documents: int = Field(64, ge=1, le=10_000)
    """Most documents in a batch."""
    max_chunks: int = Field(20_000, ge=1, le=1_000_000)
    """Most chunks of a document."""
    max_content_chars: int = Field(8_388_608, ge=1, le=50_000_000)
    """Longest content, in characters: 8 Mi, some 3,000 pages."""
    max_chunk_chars: int = Field(100_000, ge=1, le=200_000)
    """Longest chunk, in characters; PostgreSQL indexes 1 MB of words a chunk at most."""
    max_message_bytes: int = Field(64 * 2**20, ge=2**10, le=2**30)
    """Largest message that is received. 64 MiB holds a document of the longest
    content with its chunks, and lets one of 50 MB be refused by name."""
