"""Documents whose text tells which write it is of, and questions whose passages are known.

Each write of a document bears a marker that no other write has, in every sentence, so that
an answer and a passage tell which write they saw. Each question is such that it can be said
of any document whether it must be, or may not be, among the passages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.protobuf.struct_pb2 import Struct, Value

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

TOPICS = ("violin", "volcano", "penguin", "submarine")
"""Far apart in meaning: a document is nearer to a question of its topic than any other."""
UNWRITTEN = "zeppelin"
"""A topic of which nothing is ever written."""
SHELVES = ("north", "south")
MARKER = re.compile(r"mark\d{6}")

_LEXICAL = retriever_pb.SEARCH_MODE_LEXICAL
_DENSE = retriever_pb.SEARCH_MODE_DENSE
_HYBRID = retriever_pb.SEARCH_MODE_HYBRID


@dataclass(frozen=True, slots=True)
class Version:
    """A document as one write leaves it."""

    document: str
    topic: str
    shelf: str
    marker: str

    @property
    def content(self) -> str:
        """The text; every sentence has the marker."""
        return (
            f"Report {self.marker} is about the {self.topic}. "
            f"The keeper of the {self.topic} lives at {self.marker}. "
            f"Whoever asks for the {self.topic} is sent to {self.marker}."
        )

    @property
    def message(self) -> pb.Document:
        """What is sent."""
        metadata = Struct()
        metadata.update({"shelf": self.shelf})
        return pb.Document(id=self.document, content=self.content, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a topic, or of all, on one shelf or on both.

    `only`: nothing else can be among its passages. `near`: it may be served the answer to
    a question that means the same.
    """

    text: str
    mode: retriever_pb.SearchMode.ValueType
    k: int
    topic: str | None = None
    shelf: str | None = None
    only: bool = False
    near: bool = False

    def wants(self, version: Version) -> bool:
        """Whether that version must be among the passages."""
        return self.topic in (None, version.topic) and self.shelf in (None, version.shelf)

    def admits(self, version: Version) -> bool:
        """Whether that version may be among the passages."""
        return self.wants(version) or not (self.only or self.shelf)

    @property
    def filter(self) -> retriever_pb.Filter | None:
        """The filter to search with."""
        if self.shelf is None:
            return None
        shelf = Value(string_value=self.shelf)
        return retriever_pb.Filter(equals=retriever_pb.Filter.Equals(key="shelf", value=shelf))


def questions(topics: tuple[str, ...]) -> list[Question]:
    """Return the questions of a collection, the most often asked first."""
    found: list[Question] = []
    for topic in topics:
        about = f"What is said about the {topic}?"
        found += [
            # Other documents have none of its words, so that their writes leave it as it is.
            Question(topic.capitalize(), _LEXICAL, 5, topic, only=True),
            # Two documents are all of the topic: what else is written is too far away.
            Question(about, _DENSE, 2, topic),
            Question(about, _HYBRID, 3, topic),
            Question(f"What is said of the {topic}?", _HYBRID, 3, topic, near=True),
        ]
    everything = [
        Question("Who is the keeper?", _HYBRID, 50),
        *(Question("Who asks for what?", _HYBRID, 50, shelf=shelf) for shelf in SHELVES),
        Question(UNWRITTEN.capitalize(), _LEXICAL, 5, UNWRITTEN, only=True),
    ]
    return [*found[:4], *everything, *found[4:]]
