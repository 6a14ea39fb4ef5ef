"""The generator's settings, from environment variables `QUINTET_GENERATOR_*`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from quintet_servicekit.settings import ServiceSettings

BackendKind = Literal["extractive", "transformers"]


class GeneratorSettings(ServiceSettings):
    """What the generator runs, and its bounds."""

    model_config = SettingsConfigDict(env_prefix="QUINTET_GENERATOR_", frozen=True, extra="ignore")

    backends: Annotated[tuple[BackendKind, ...], NoDecode, Field(min_length=1)] = (
        "extractive",
        "transformers",
    )
    """Backends to have, by preference; the first answers requests that name no model.
    A JSON list, or names with commas between. The order is that of
    bench/answer_quality.py."""
    load_all: bool = False
    """Whether all backends load at start, or only the first and the others when first
    called. Loading the language model takes 5 s and 400 MB, for a backend that may never
    be asked for; the call that loads it waits that long."""
    max_passages_chars: int = Field(1_000_000, ge=1_000, le=10_000_000)
    """Most characters of a request's passages together. 64 passages of 15,000 fit; the
    extractive backend takes a second or so for that much."""
    queue: int = Field(16, ge=0, le=10_000)
    """Requests that may wait for each backend. Sixteen short answers of the packaged
    model take about half a minute, which is as long as a caller waits."""

    extractive_sentences: int = Field(3, ge=1, le=16)
    """Most sentences of an extractive answer. The third still raised the answers
    contained from 90 to 92 % on XQuAD's development questions."""

    model: str = ""
    """Model of the transformers backend: a folder, or a hub repository's name. Empty: the
    packaged SmolLM2-135M-Instruct."""
    model_name: str = Field("", max_length=200)
    """Name by which requests choose it. Empty: the last part of `model` in lower case,
    or "smollm2-135m-instruct"."""
    model_dir: Path = Path(sys.prefix) / "share" / "quintet" / "models"
    """Folder for the packaged model in the form that transformers loads fast, some 270 MB."""
    allow_downloads: bool = False
    """Whether a hub repository that is not in the local cache may be downloaded."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the model computes in. "auto" is bfloat16 on processors that have it (1.6
    times as fast as float32 in decoding, 1.9 times in reading the prompt), else float32."""
    threads: int = Field(2, ge=1, le=256)
    """Threads of the model's arithmetic: as many as the service has cores to itself."""

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

    @property
    def served_name(self) -> str:
        """The name by which requests choose the transformers model."""
        return self.model_name or (self.model and Path(self.model).name.lower()) or PACKAGED_NAME


PACKAGED_NAME = "smollm2-135m-instruct"
"""Name of the model that comes with the packages."""
