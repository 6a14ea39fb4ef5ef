"""What passes between the embedder's layers."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quintet_servicekit.cache.use import CacheUse

TokenIds = Sequence[int]
"""Token ids of one text, with the model's special tokens around them."""

Vectors = npt.NDArray[np.float32]
"""One row a text, of the model's dimension."""


class Purpose(enum.Enum):
    """What a text is for. Some models put another prefix before a query than before a
    passage; of a text to rerank its tokens' states are wanted too."""

    QUERY = "query"
    PASSAGE = "passage"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True)
class TextStates:
    """What a model makes of one text: its pooled `vector`, float32 [dimension], and the
    last hidden states of its `tokens`, float32 [tokens, dimension], special ones too."""

    vector: Vectors
    tokens: Vectors


class RerankMethod(enum.Enum):
    """How passages are scored against a query."""

    MAX_SIM = "max_sim"
    CROSS_ENCODER = "cross_encoder"


@dataclass(frozen=True, slots=True)
class Reranked:
    """Scores of a request's passages, in its order."""

    model: str
    revision: str
    method: RerankMethod
    scores: Sequence[float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served; `backend` is its engine and precision."""

    name: str
    revision: str
    dimension: int
    max_tokens: int
    normalized: bool
    is_default: bool
    backend: str


@dataclass(frozen=True, slots=True)
class Embedding:
    """One text's vector: `dimension` little-endian float32, packed.

    `tokens` are those that the model read, special tokens included; `truncated` tells
    whether the text's end was not read.
    """

    vector: bytes
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of a request's texts, in its order, and what the cache did."""

    model: Model
    embeddings: Sequence[Embedding]
    cache: CacheUse
