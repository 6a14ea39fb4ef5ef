"""Settings of the gateway; the only place that names its environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from quintet_gateway.access.settings import AccessSettings
from quintet_gateway.admission.settings import LimitSettings
from quintet_gateway.billing.prices import SHIPPED
from quintet_gateway.feedback.settings import FeedbackSettings
from quintet_gateway.usage.settings import UsageSettings
from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.postgres.settings import PostgresSettings
from quintet_servicekit.settings import AdmissionSettings, ChannelSettings, SigningSettings

MIB = 2**20


class RecordSettings(BaseModel):
    """Which records of answers are kept, where there is a database."""

    model_config = ConfigDict(frozen=True)

    kept: bool = True
    """Whether there are any."""
    texts: bool = False
    """Whether they hold question and answer. Off: they are what people said, and who may
    see records need not be who may see that. Without the question it must be given again to
    be asked again."""
    days: int = Field(7, ge=1, le=365)
    """Days after which a record goes, with all of its day."""
    tenant_rows: int = Field(100_000, ge=1, le=100_000_000)
    """Most records of a tenant, of some 3 KB each; the oldest go, when it is looked after."""
    max_bytes: int = Field(32_768, ge=2_048, le=2**20)
    """Largest record: ten times what an answer from five passages has. Beyond it details
    go."""
    queue: int = Field(2_000, ge=1, le=100_000)
    """Records that wait to be written, and hold their answers' memory, some 10 KB each: of
    four seconds at the 500 answers that a gateway gives in a second."""
    interval_seconds: float = Field(0.5, gt=0, le=60)
    """How long a record waits to be written together with others, and so how long another
    replica may not find it."""
    upkeep_seconds: float = Field(600.0, gt=0, le=86_400)
    """How often old records are dropped. Days last longer, and a tenant has as many more in
    between as are answered then."""


class Settings(PostgresSettings):
    """Where the services are, and the bounds of a question and a document."""

    model_config = SettingsConfigDict(
        env_prefix="QUINTET_GATEWAY_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    max_message_bytes: int = Field(64 * MIB, ge=2**10, le=2**30)
    """Largest message that is received. Several times the largest document, so that
    one that is too large is refused by name and not by the transport."""

    max_concurrent_calls: int = Field(2_048, ge=1, le=100_000)
    """Most calls in flight, whatever the adaptive limit finds. More than a service's own:
    equal questions wait here together for one answer."""

    admission: AdmissionSettings = AdmissionSettings(least_calls=16)
    """How many of them are worked on at once when callers begin to wait. At least 16 keep
    two cores busy, and are more than a light load has under way while a service hangs."""

    tokenizer_address: str = "localhost:50051"
    """Address of the tokenizer: "host:port" or a gRPC name ("dns:///tokenizer:50051")."""
    embedder_address: str = "localhost:50052"
    """Address of the embedder."""
    retriever_address: str = "localhost:50053"
    """Address of the retriever."""
    generator_address: str = "localhost:50054"
    """Address of the generator."""

    start_seconds: float = Field(30.0, ge=0, le=600)
    """How long after its start the gateway waits for all services before it is ready
    without some; they take some ten seconds to load their models."""

    channel: ChannelSettings = ChannelSettings()
    """How the services are reached, for instance `QUINTET_GATEWAY_CHANNEL__MAX_ATTEMPTS`."""

    access: AccessSettings = AccessSettings()
    """Who may ask, for instance `QUINTET_GATEWAY_ACCESS__MODE`."""
    signing: SigningSettings = SigningSettings()
    """How the services are told whom a call is made for, for instance
    `QUINTET_GATEWAY_SIGNING__KEY`."""

    breaker: BreakerSettings = BreakerSettings(overload_is_failure=False)
    """When calls to the tokenizer, the embedder and the retriever are suspended, for
    instance `QUINTET_GATEWAY_BREAKER__CONSECUTIVE_FAILURES`. They shed load cheaply, so
    that is no reason to suspend all."""
    generator_breaker: BreakerSettings = BreakerSettings(
        overload_is_failure=False, fair_timeout_seconds=4.0
    )
    """The same for the generator. A language model takes seconds: a call that was given
    less than four says nothing of its health."""

    database_url: SecretStr = SecretStr("")
    """Connection URI of PostgreSQL, with its password. Never logged. Empty: none, and
    nothing is kept of what is asked."""
    pool_min_size: int = Field(1, ge=1, le=1000)
    """Connections that are kept open. Most answers need none."""
    pool_max_size: int = Field(3, ge=1, le=1000)
    """Most connections. Six gateways with six retrievers then need 96 of the 97 that
    PostgreSQL allows by default, and nothing that an answer waits for needs one for long."""
    pool_timeout_seconds: float = Field(1.0, gt=0, le=60)
    """How long a call waits for a connection."""
    database_breaker: BreakerSettings = BreakerSettings(
        consecutive_failures=3, fair_timeout_seconds=0.0, slow_seconds=5.0
    )
    """When PostgreSQL is left alone, with the retriever's reasons."""

    records: RecordSettings = RecordSettings()
    """Which records of answers are kept, for instance `QUINTET_GATEWAY_RECORDS__DAYS`."""

    feedback: FeedbackSettings = FeedbackSettings()
    """What is kept of ratings, for instance `QUINTET_GATEWAY_FEEDBACK__COMMENTS`."""

    cache: CacheSettings = CacheSettings(ttl_seconds=86_400)
    """Where answers are kept (L1) and for how long, for instance
    `QUINTET_GATEWAY_CACHE__REDIS_URL`. A day: writes outdate an answer at once, so its
    age alone says little. 64 MiB of memory hold some 8,000 answers."""
    semantic: bool = False
    """Whether requests that leave it to the server are served the answer to a near
    question that means the same; docs/semantic-cache.md has the figures."""
    semantic_threshold: float = Field(0.9, gt=0, le=1)
    """Least cosine of two questions' vectors for that."""
    semantic_questions: int = Field(20_000, ge=1, le=10_000_000)
    """Most questions that can be found in that way, 2 KiB each."""

    limits: LimitSettings = LimitSettings()
    """How much callers may ask, for instance `QUINTET_GATEWAY_LIMITS__POLICY_FILE`."""
    prices_file: Path = SHIPPED
    """Price table by which bills are made, a YAML file; docs/cost.md describes it. The
    shipped one prices tokens at nothing and compute at what two virtual CPUs cost."""

    usage: UsageSettings = UsageSettings()
    """Where usage waits to be counted, for instance `QUINTET_GATEWAY_USAGE__FOLDER`."""

    ask_seconds: float = Field(30.0, gt=0, le=600)
    """Deadline of a question, and of every other unary call, whose caller gave none."""
    embed_floor_seconds: float = Field(0.02, ge=0, le=60)
    """Time of a question that is kept free for its embedding at least; beyond that what
    the last calls took. Twice what two idle cores need."""
    search_floor_seconds: float = Field(0.03, ge=0, le=60)
    """The same for its search."""
    count_floor_seconds: float = Field(0.01, ge=0, le=60)
    """The same for counting its passages' tokens."""
    rerank_floor_seconds: float = Field(0.15, ge=0, le=60)
    """The same for a reranking, which is left out where there is not as much: nothing is
    kept free for it before."""
    first_text_floor_seconds: float = Field(0.1, ge=0, le=60)
    """The same for the first text of its answer, and for trying another of the generator's
    models: the extractive one begins within a third of that."""
    reply_seconds: float = Field(0.02, ge=0, le=10)
    """Time kept free for the answer's way back."""
    substitute_after_seconds: float = Field(5.0, gt=0, le=600)
    """Longest wait for a service for which something else can stand in: the tokenizer, the
    embedder, and the retriever where a kept answer may be stale. Far beyond what they
    take under load, and far below a question's default deadline."""
    max_staleness_seconds: float = Field(86_400.0, ge=0, le=30 * 86_400)
    """Age since it was last found to hold up to which a kept answer is served though
    nobody can tell whether it still does, where the request does not say. As long as
    answers are kept."""
    document_seconds: float = Field(300.0, gt=0, le=3600)
    """Deadline of one document of an ingest stream: the largest one takes about two
    minutes to embed on two cores."""

    max_question_chars: int = Field(4_000, ge=1, le=100_000)
    """Longest question, in characters."""
    default_passages: int = Field(5, ge=1, le=50)
    """Passages of an answer where the request gives no number."""
    refine_candidates: int = Field(20, ge=1, le=200)
    """Hits that are found at least for a refinement that does not say how many. Twenty are
    what reranking was measured with."""
    merged_tokens: int = Field(512, ge=1, le=100_000)
    """Most tokens of neighbours that are merged into one passage, those that they share
    counted twice: four chunks, a third of what a prompt has room for."""
    context_tokens: int = Field(1_500, ge=64, le=1_000_000)
    """Most tokens that the passages of one prompt may have together, in the
    generator's tokens; a model with a smaller context lowers it."""
    prompt_overhead_tokens: int = Field(160, ge=0, le=10_000)
    """Tokens kept free for the template's own words and the chat format; the
    shipped template has about 100."""
    passage_overhead_tokens: int = Field(40, ge=0, le=1_000)
    """Tokens kept free for what stands around each passage in the prompt; the packaged
    model counts 31 for the tags with their mark, and others split differently."""
    default_answer_tokens: int = Field(256, ge=1, le=4_096)
    """Tokens kept free for the answer where the request gives no number; the
    generator's own default."""
    min_citation_support: float = Field(0.6, ge=0, le=1)
    """Support with which a sentence of an answer counts as supported, and is cited where
    the model does not cite its own sources. docs/answers.md has what it lets pass."""
    duplicate_similarity: float = Field(0.7, ge=0, le=1)
    """Least similarity (Jaccard, of three-word shingles) to a better passage with which a
    passage is left out of the prompt as a repeat; 1 leaves out only what has the same
    words. docs/answers.md has what is this near in public collections."""
    remove_loads: bool = True
    """Whether images and other content that a browser would load by itself are taken out
    of answers."""
    abstain_below: float = Field(0.2, ge=0, le=1)
    """Likelihood that the passages hold an answer below which the answer is that the
    documents don't say; 0 for never. Fitted for questions in English."""
    reading_bytes: int = Field(16 * 1024**2, ge=0, le=1024**3)
    """Bytes in which it is remembered what was found in passages (instructions, sentences,
    shingles), so that one which is found again is not read again; 0 for nothing. A chunk of
    128 tokens takes about 5 KB of it. It cannot be outdated: it depends on the text alone."""
    withhold_instructions: bool = True
    """Whether sentences of passages that read like instructions to a model are kept from
    it. They are flagged in the response either way."""

    max_document_chars: int = Field(4_000_000, ge=1, le=100_000_000)
    """Longest document, in characters; about a 1,500-page book."""
    chunk_tokens: int = Field(128, ge=8, le=8_192)
    """Most tokens of a chunk, in the embedding model's tokens."""
    chunk_overlap_tokens: int = Field(16, ge=0, le=4_096)
    """Tokens that a chunk shares with the one before it."""
    heading_chars: int = Field(100, ge=0, le=1_000)
    """Most characters of the headings above a chunk that are embedded with it. With a chunk
    of 128 tokens they fit into the 256 that the embedding model reads; 0 embeds none."""
    embed_batch: int = Field(64, ge=1, le=256)
    """Chunks that are embedded in one call: large enough for full batches, small
    enough that a question waits for one of them only."""
    embed_calls: int = Field(3, ge=1, le=64)
    """Such calls of one document under way at once, so that the embedder has the next
    batch when it ends one."""
    documents_in_flight: int = Field(12, ge=1, le=256)
    """Documents of one ingest stream under way at once; more are not read. With four,
    documents of a few chunks left the embedder idle for a fifteenth of the time."""
    chars_in_flight: int = Field(1_000_000, ge=1, le=100_000_000)
    """Characters of those documents together, which bounds their memory: with chunks
    and vectors about 10 bytes each. A longer document goes alone."""
    max_stream_documents: int = Field(1_000_000, ge=1)
    """Most documents of one ingest stream: their ids are remembered, 16 bytes each,
    to find one that is sent twice."""

    models_seconds: float = Field(5.0, gt=0, le=3600)
    """How long the generator's list of models is remembered, and for how long again
    while it is asked for anew: within twice this a generator's new model or template
    is noticed, and answers of its predecessor are not served any more."""
    max_remembered_collections: int = Field(1_000, ge=1)
    """Collections whose embedding model is remembered; the least recently used goes."""
