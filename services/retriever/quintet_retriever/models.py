"""What passes between the retriever's layers."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quintet_retriever.filters import Condition
from quintet_retriever.links.models import DocumentLinks
from quintet_servicekit.consistency import Epoch

Metadata = Mapping[str, Any]
"""A JSON object."""


ENGLISH = "english"
LANGUAGES = frozenset(
    "simple arabic armenian basque catalan danish dutch english finnish french german greek"
    " hindi hungarian indonesian irish italian lithuanian nepali norwegian portuguese romanian"
    " russian serbian spanish swedish tamil turkish yiddish".split()
)
"""Languages whose words are reduced to their stems; "simple" takes them as they are."""


class CollectionGoneError(Exception):
    """The tables of a collection are not there: it was deleted meanwhile."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """By what a write that is repeated is known: the caller's `id`, a UUID; the place
    `item` of the transaction in the request; and the SHA-256 of what was asked for."""

    id: str
    digest: bytes
    item: int = 0

    def at(self, item: int) -> RequestKey:
        """Return the key of another transaction of the request."""
        return replace(self, item=item)


@dataclass(frozen=True, slots=True)
class NewCollection:
    """A collection to be made."""

    name: str
    embedding_model: str
    embedding_revision: str
    dimension: int
    description: str
    language: str = ENGLISH


@dataclass(frozen=True, slots=True)
class CollectionKey:
    """What of a collection never changes and every call needs. `id` names its tables
    and is never used for another collection, whatever its name."""

    id: int
    embedding_revision: str
    dimension: int
    language: str = ENGLISH


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it is kept."""

    key: CollectionKey
    epoch: Epoch
    name: str
    embedding_model: str
    description: str
    create_time: datetime
    document_count: int
    chunk_count: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: characters `start` to `end` of its content."""

    text: str
    start: int
    end: int
    tokens: int
    vector: bytes
    """Packed little-endian float32."""


@dataclass(frozen=True, slots=True)
class DocumentInput:
    """A document as a caller sends it; its vectors are not looked at yet. Links are read
    unless it is `plain`."""

    id: str
    title: str
    content: str
    content_hash: str
    metadata: Metadata
    chunks: tuple[Chunk, ...]
    plain: bool = False


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to be written. `embeddings`: float32 [chunks, dimension], rows of
    length 1."""

    source: DocumentInput
    embeddings: NDArray[np.float32]
    links: DocumentLinks


@dataclass(frozen=True, slots=True)
class WrittenDocument:
    """What a write made of a document. `version` is 1 if its id was new."""

    id: str
    version: int
    chunk_count: int
    epoch: Epoch
    link_count: int = 0
    omitted_links: int = 0


@dataclass(frozen=True, slots=True)
class DeletedDocument:
    """What was deleted with a document, and the epoch since which it is gone."""

    chunk_count: int
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class DeletedCollection:
    """What was deleted with a collection, and its last epoch."""

    document_count: int
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is read. `content` is empty where it was not asked for."""

    id: str
    title: str
    content: str
    content_length: int
    content_hash: str
    metadata: Metadata
    version: int
    create_time: datetime
    update_time: datetime
    chunk_count: int


@dataclass(frozen=True, slots=True)
class DocumentChunks:
    """A document's chunks as they are read, and what they are of."""

    version: int
    embedding_revision: str
    chunks: tuple[Chunk, ...]


class Mode(enum.Enum):
    """How hits are found and ordered."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search as a caller asks for it. `vector` is packed as in Chunk.

    The hits must be of an epoch of `at_least`, or of the newest if `fully_consistent`.
    `known_state` is the encoded `SearchState` of an earlier result, or empty.
    """

    mode: Mode
    text: str
    vector: bytes
    embedding_revision: str
    k: int
    condition: Condition | None
    at_least: Epoch | None = None
    fully_consistent: bool = False
    known_state: bytes = b""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of the service's settings the hits depend on; see there."""

    candidates: int
    dense_weight: float


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search as the store runs it. `vector`: float32 [dimension] of length 1, None
    for lexical search; `text` is unused for dense search."""

    mode: Mode
    text: str
    vector: NDArray[np.float32] | None
    k: int
    condition: Condition | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found. `dense` is a cosine; ranks count from 1; a component
    that the chunk does not have is None."""

    document_id: str
    document_version: int
    title: str
    metadata: Metadata
    chunk_index: int
    text: str
    start: int
    end: int
    tokens: int
    score: float
    dense: float | None
    dense_rank: int | None
    lexical: float | None
    lexical_rank: int | None


@dataclass(frozen=True, slots=True)
class SearchState:
    """What the hits of a search rest on; see `freshness` for what follows from it.

    `epoch` is the state of the collection that was searched, `word_revision` that of
    its counts of words, which the scores of words rest on. A floor is the score of
    the last chunk in the list that was ranked, negative infinity if another one would
    have found room (or there was no such list). `documents` are the keys of the
    documents that have a chunk in a list, ascending.
    """

    epoch: Epoch
    dense_floor: float
    lexical_floor: float
    documents: tuple[int, ...]
    word_revision: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, best first, and what they rest on."""

    hits: tuple[Hit, ...]
    state: SearchState
    compared_all: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the hits that rest on an earlier state are those at `epoch` too, and whether
    they were declared out of date since (or may have been); never both."""

    epoch: Epoch
    unchanged: bool
    invalidated: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to a search. `unchanged`: the hits are those of the request's
    `known_state`, and are not repeated; `invalidated`: those were declared out of date,
    or may have been. `state` is an encoded `SearchState`. `compared_all`: dense ranks are
    exact, not the index's."""

    hits: tuple[Hit, ...]
    epoch: Epoch
    state: bytes
    unchanged: bool = False
    invalidated: bool = False
    compared_all: bool = False
