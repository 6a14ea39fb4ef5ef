"""Settings of the tokenizer service, from variables that begin QUINTET_TOKENIZER_."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.settings import AdmissionSettings, ServiceSettings

EMBEDDED_MODEL = "all-MiniLM-L6-v2"
"""Name of the model whose tokenizer comes with the installation."""


class Settings(ServiceSettings):
    """What the tokenizer service serves, and its bounds."""

    model_config = SettingsConfigDict(
        env_prefix="QUINTET_TOKENIZER_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    models: dict[str, Path] = Field(default_factory=dict)
    """Further models, as a JSON mapping of name to a folder that holds a
    tokenizer.json, or to such a file. The embedded all-MiniLM-L6-v2 is always there,
    unless this names another by its name."""
    prepared_dir: Path = Path(sys.prefix) / "share" / "quintet" / "models"
    """Folder of the models that were prepared after the installation. Each of its
    folders `<name>.<what else tells it apart>` that holds a tokenizer.json is served
    too, under its name."""
    default_model: str = EMBEDDED_MODEL
    """Model of requests that name none."""
    loaded_models: int = Field(8, ge=2, le=1_000)
    """Most tokenizers in memory; the least recently used one goes,
    but never the default one. A tokenizer of
    30,000 tokens takes about 15 MB, one of 250,000 about 150 MB."""
    threads: int = Field(2, ge=1, le=256)
    """Calls that are worked on at once. Each spreads over all cores by itself, so a
    second one only keeps a small call from waiting behind a large document."""
    queue: int = Field(128, ge=0, le=100_000)
    """Calls that may wait for a thread; one more is OVERLOADED."""
    max_batch: int = Field(256, ge=1, le=100_000)
    """Most texts, or sequences of ids, in a request."""
    max_chars: int = Field(8_388_608, ge=1, le=100_000_000)
    """Most characters of a text, and of all texts of a request together: the
    longest document that is ingested, 8 Mi characters."""
    max_encode_chars: int = Field(1_000_000, ge=1, le=100_000_000)
    """Most characters, or ids, in all of an Encode or Decode. Less than elsewhere,
    because a reply with offsets is tens of times larger than its request."""
    chunk_max_tokens: int = Field(128, ge=8, le=8_192)
    """Most tokens of a chunk where the request names no number."""
    chunk_overlap_tokens: int = Field(16, ge=0, le=4_095)
    """Tokens that neighbouring chunks share where the request names no number."""
    admission: AdmissionSettings = AdmissionSettings(bulk_calls=1)
    """How many calls are worked on at once when callers wait. One of them in bulk: while it
    cuts a document, a question's count finds the other thread free."""

    cache: CacheSettings = CacheSettings(memory_bytes=8 * 2**20, ttl_seconds=7 * 86_400)
    """How many counts are kept: 8 MiB hold 15,000. In memory only, whatever address of a
    Redis it has: to ask it takes longer than to count."""
    max_message_bytes: int = Field(128 * 2**20, ge=2**10, le=2**30)
    """Largest message. 8 Mi characters of 4 bytes are 32 MiB; their chunks with the
    largest overlap are twice that."""

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.default_model != EMBEDDED_MODEL and self.default_model not in self.models:
            raise ValueError("default_model must be one of the models")
        if 2 * self.chunk_overlap_tokens >= self.chunk_max_tokens:
            raise ValueError("chunk_overlap_tokens must be less than half of chunk_max_tokens")
        return self
