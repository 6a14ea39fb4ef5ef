"""The generator's settings, from environment variables `QUINTET_GENERATOR_*`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from quintet_servicekit.breaker_policy import BreakerSettings
from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.settings import ServiceSettings

BackendKind = Literal["extractive", "openvino", "transformers", "openai"]


class GeneratorSettings(ServiceSettings):
    """What the generator runs, and its bounds."""

    model_config = SettingsConfigDict(
        env_prefix="QUINTET_GENERATOR_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    backends: Annotated[tuple[BackendKind, ...], NoDecode, Field(min_length=1)] = (
        "extractive",
        "openvino",
    )
    """Backends to have, by preference; the first answers requests that name no model.
    A JSON list, or names with commas between. The order is that of
    bench/answer_quality.py."""
    load_all: bool = False
    """Whether all backends load at start, or only the first and the others when first
    called. Loading the language model takes 3 s and 300 MB, for a backend that may never
    be asked for; the call that loads it waits that long."""
    max_passages_chars: int = Field(1_000_000, ge=1_000, le=10_000_000)
    """Most characters of a request's passages together. 64 passages of 15,000 fit; the
    extractive backend takes a second or so for that much."""
    queue: int = Field(16, ge=0, le=10_000)
    """Requests that may wait for each backend. Sixteen short answers of the packaged
    model take ten seconds through openvino and half a minute through transformers, which
    is as long as a caller waits."""

    templates_dir: Path | None = None
    """A folder of own prompt templates, files NAME.txt as docs/prompts.md describes them, beside
    the packaged ones and instead of those of the same name. Read at start, which one that is
    malformed ends."""

    cache: CacheSettings = CacheSettings(ttl_seconds=86_400)
    """Where answers to deterministic requests are kept, for a day. Their keys hold the
    revisions of model and template; what a revision does not tell, a model exchanged
    behind another server under its old name, is noticed after that day."""

    extractive_sentences: int = Field(3, ge=1, le=16)
    """Most sentences of an extractive answer. The third still raised the answers
    contained from 90 to 92 % on XQuAD's development questions."""

    evidence_sentences: int = Field(3, ge=0, le=64)
    """Sentences of the passages that a local model is given, the best by the extractive
    backend's measure; 0 gives it the passages whole, which suits models that read well.
    With three the packaged model's answers hold the right one as often, at an F1 of .167
    instead of .126, in half the time."""

    model: str = ""
    """Model of the local backends. For openvino a folder that optimum exported, for
    transformers a folder or a hub repository's name. Empty: the packaged
    SmolLM2-135M-Instruct."""
    model_name: str = Field("", max_length=200)
    """Name by which requests choose it. Empty: the last part of `model` in lower case,
    or "smollm2-135m-instruct". Where both local backends are listed, that of
    transformers has "-transformers" after it."""
    model_dir: Path = Path(sys.prefix) / "share" / "quintet" / "models"
    """Folder for the packaged model in the form that a backend loads fast: some 150 MB for
    openvino, 270 MB for transformers."""
    allow_downloads: bool = False
    """Whether a hub repository that is not in the local cache may be downloaded."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the transformers model computes in. "auto" is bfloat16 on processors that have it (1.6
    times as fast as float32 in decoding, 1.9 times in reading the prompt), else float32."""
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$")
    """Where the transformers model computes, as torch names it. A GPU needs a torch that
    was built for it."""
    threads: int = Field(2, ge=1, le=256)
    """Threads of a local model's arithmetic: as many as the service has cores to itself."""

    breaker: BreakerSettings = BreakerSettings(
        consecutive_failures=3,
        window_seconds=60.0,
        min_calls=10,
        slow_seconds=20.0,
        overload_is_failure=False,
    )
    """When a model's requests are refused, so that their callers go on to the next model at
    once; one breaker a backend. Slow is an answer whose first text takes twenty seconds:
    five times what a full queue takes on two cores. A queue that is full, ours or a
    server's, is no failure."""

    slots: int = Field(8, ge=1, le=256)
    """Requests that openvino runs at once; each step serves all of them. Beyond eight, two
    cores give each less than a person reads."""
    kv_cache_tokens: int = Field(16_384, ge=1_024, le=10_000_000)
    """Tokens of prompts and answers, running and remembered, that openvino's cache holds:
    28 kB each for the packaged model, 450 MB together once it is full. Prompts that begin
    as an earlier one did are read from it. Also the most of one request."""
    step_tokens: int = Field(512, ge=32, le=65_536)
    """Most tokens of prompts that a step of openvino reads: some 0.4 s on two cores, for
    which the other answers pause."""
    stream_seconds: float = Field(0.1, ge=0, le=5)
    """Longest time for which openvino gathers an answer's tokens before it sends them on,
    after the first; 0 sends each alone. Nobody reads ten pieces a second, and on two
    cores each one sent slows the model by a millisecond."""
    openvino_precision: Literal["f32", "bf16", "f16"] = "f32"
    """What openvino computes attention and norms in. With bf16 the packaged model misses
    easy questions that it answers in f32, and is no faster."""
    kv_cache_precision: Literal["u8", "f16", "f32"] = "f16"
    """What openvino keeps the cache in. Of 40 questions' answers, 90 % begin with the five
    tokens of transformers in float32; with u8, which takes half the memory, 80 %."""

    openai_base_url: HttpUrl | None = None
    """Address of a server of OpenAI's protocol, up to what stands before
    /chat/completions: http://vllm:8000/v1. Needed by the openai backend."""
    openai_model: str = Field("", max_length=200)
    """Model's name at that server. Needed by the openai backend."""
    openai_name: str = Field("", max_length=200)
    """Name by which requests choose it here. Empty: the last part of `openai_model` in
    lower case."""
    openai_api_key: SecretStr = SecretStr("")
    """Key sent as a bearer token; empty for none."""
    openai_proxy: str = ""
    """Address of a proxy to reach it through; empty for none, whatever the environment says."""
    openai_stream_usage: bool = True
    """Whether to ask for the token counts of a stream. Some servers refuse the question
    (`transformers serve`); usage is then an estimate and says so."""
    openai_context_tokens: int = Field(0, ge=0)
    """Most tokens of prompt and answer that the model takes, for callers who pack prompts.
    0: not known; the server refuses what is too long."""
    openai_tokenizer: str = Field("", max_length=200)
    """Name of the tokenizer service's model with the same tokens. Empty: none."""
    openai_connect_seconds: float = Field(2.0, gt=0, le=60)
    """How long the server may take to accept a connection."""
    openai_first_byte_seconds: float = Field(60.0, gt=0, le=3600)
    """How long it may take to begin its answer: a hosted model's queue, and a long prompt."""
    openai_idle_seconds: float = Field(15.0, gt=0, le=3600)
    """How long a stream that has begun may say nothing."""
    openai_max_concurrent: int = Field(32, ge=1, le=10_000)
    """Requests at the server at once; `queue` more may wait for a connection."""

    @field_validator("backends", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [name.strip() for name in value.split(",") if name.strip()]

    @field_validator("backends")
    @classmethod
    def _distinct(cls, value: tuple[BackendKind, ...]) -> tuple[BackendKind, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a backend is listed twice")
        return value

    @model_validator(mode="after")
    def _complete(self) -> GeneratorSettings:
        if "openai" in self.backends and not (self.openai_base_url and self.openai_model):
            raise ValueError("the openai backend needs OPENAI_BASE_URL and OPENAI_MODEL")
        listed = [self.name_of(kind) for kind in self.backends]
        if len(set(listed)) < len(listed):
            raise ValueError(
                "two backends' models have the same name; set MODEL_NAME or OPENAI_NAME"
            )
        return self

    def name_of(self, kind: BackendKind) -> str:
        """Return the name of the backend's model."""
        names: dict[BackendKind, str] = {
            "extractive": "extractive",
            "openvino": self.served_name,
            "transformers": self.transformers_name,
            "openai": self.openai_served_name,
        }
        return names[kind]

    @property
    def served_name(self) -> str:
        """The name of the local model, and of its tokenizer."""
        return self.model_name or (self.model and Path(self.model).name.lower()) or PACKAGED_NAME

    @property
    def transformers_name(self) -> str:
        """The name of the transformers backend's model."""
        suffix = "-transformers" if "openvino" in self.backends else ""
        return self.served_name + suffix

    @property
    def openai_served_name(self) -> str:
        """The name of the openai backend's model."""
        return self.openai_name or self.openai_model.rpartition("/")[2].lower()


PACKAGED_NAME = "smollm2-135m-instruct"
"""Name of the model that comes with the packages."""
