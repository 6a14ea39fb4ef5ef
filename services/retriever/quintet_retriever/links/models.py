"""What passes between the layers of the links."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quintet_retriever.filters import Condition
    from quintet_retriever.models import Hit


class LinkType(enum.IntEnum):
    """What a link says of its target. The numbers are kept in the database."""

    RELATED = 1
    REFERENCES = 2
    EXPANDS_ON = 3
    CONTRADICTS = 4
    SUPPORTS = 5
    FOLLOWS = 6
    PRECEDES = 7


class Status(enum.IntEnum):
    """Where a link comes from. The numbers are kept in the database."""

    STATED = 1
    """It stands in the source's text."""
    CREATED = 2
    """A caller made it."""
    ACCEPTED = 3
    """It was suggested, and a caller agreed."""
    DISMISSED = 4
    """It was suggested, and a caller disagreed: never a link, and never suggested again."""


class Rank(enum.IntEnum):
    """How well a name names its document: of those that share a name, the least rank
    has it, and of equal ranks the first by id. Kept in the database."""

    EXACT = 0
    """The id, or its whole path."""
    SUFFIX = 1
    """The end of its path, the file's name alone included."""
    INDEX = 2
    """The folder whose index file it is."""
    README = 3
    """The folder whose README it is."""
    TITLE = 4
    ALIAS = 5
    FORMER = 6
    """A name from before it was renamed."""


class Direction(enum.Enum):
    """Which links of a document are meant."""

    BOTH = "both"
    FROM = "from"
    TO = "to"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One place of a link in its source: characters `start` to `end` of the content.

    `sentence` is the one that it stands in, verbatim, cut around the link if it is
    long. `label` is the text that readers see instead of the target's name, and
    `fragment` the heading, or with "^" the block, that it points at; both may be empty.
    """

    start: int
    end: int
    sentence: str
    label: str = ""
    fragment: str = ""
    embed: bool = False


@dataclass(frozen=True, slots=True)
class FoundLink:
    """A link of a document's text. `name` is what it is looked up by, `target` as its
    author wrote it; `count` is the number of all its occurrences."""

    name: str
    target: str
    occurrences: tuple[Occurrence, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a document is found by."""

    name: str
    rank: Rank


@dataclass(frozen=True, slots=True)
class DocumentLinks:
    """A document's names and the links of its text; `omitted` is the number of links
    beyond the most that are kept."""

    names: tuple[Name, ...] = ()
    links: tuple[FoundLink, ...] = ()
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link that a caller states."""

    source_id: str
    target_id: str
    type: LinkType
    note: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A link as it is kept. `target_id` is empty while no document has the name
    `target`; `source_key` and `target_key` are keys of the database."""

    source_key: int
    source_id: str
    source_title: str
    target_key: int | None
    target_id: str
    target_title: str
    target: str
    type: LinkType
    status: Status
    note: str
    confidence: float | None
    create_time: datetime
    occurrences: Sequence[Occurrence]
    occurrence_count: int


@dataclass(frozen=True, slots=True)
class LinkQuery:
    """Which links to list: of a document, or of the whole collection if its id is
    empty; of the types, or of all types if there are none."""

    document_id: str
    direction: Direction
    types: frozenset[LinkType] = frozenset()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A document that is near in meaning and not linked yet, with the two passages that
    are nearest to each other. `confidence` lies between 0 and 1."""

    document_id: str
    title: str
    confidence: float
    source_chunk: int
    source_text: str
    target_chunk: int
    target_text: str


@dataclass(frozen=True, slots=True)
class Seed:
    """A document to start from, or a stretch of it: characters `start` to `end`; `end`
    0 is the whole document."""

    document_id: str
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class RelatedQuery:
    """What to relate to what: see `Related` in the contract for the bounds."""

    seeds: Sequence[Seed]
    hops: int
    fan_out: int
    limit: int
    direction: Direction = Direction.BOTH
    types: frozenset[LinkType] = frozenset()


@dataclass(frozen=True, slots=True)
class RelatedDocument:
    """A document in the neighbourhood. `path` leads to it from a seed, link by link."""

    document_id: str
    title: str
    score: float
    path: tuple[Link, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class PassageQuery:
    """Which passages to find through links. `seeds`: what a search found, best first;
    `vector` is packed, and empty where passages are chosen by words."""

    seeds: Sequence[Seed]
    text: str
    vector: bytes
    embedding_revision: str
    condition: Condition | None
    limit: int


@dataclass(frozen=True, slots=True)
class RelatedPassage:
    """The best passage of a document, and the link that leads there from a seed, with
    one place at most."""

    hit: Hit
    link: Link
