"""What makes a message nearly valid: values that mean something here, by a field's name.

A field of a new RPC that has the name of an old one gets its values; others get such
values as their type has.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

STEADY = "fuzz-steady"
"""The collection that is always there."""
SCRATCH = tuple(f"fuzz-scratch-{number}" for number in range(3))
"""Collections that come and go."""
IDS = tuple(f"document-{number}" for number in range(40))
MAX_LEARNED = 64

LEARNED = {
    "answer_id": "answer_id",
    "consistency_token": "at_least_as_fresh",
    "next_page_token": "page_token",
    "state": "known_state",
}
"""Fields of responses, and the fields of requests that take what stands there."""

TEXTS = (
    "What do bees make in summer?",
    "Bees make honey. Honey is sweet, and it keeps for years.",
    "The moon has no air. Its days are a month long.\n\nNobody lives there.",
    "Rivers carry sand to the sea. Deltas grow where they slow down.",
    "Où est la bibliothèque? 图书馆在哪里? Где библиотека?",
    "honey",
    "See [[document-3]] and [the moon](document-2.md#air); [[nothing]] is known of the rest.",
)

_SELDOM = {"page_token": 0.3, "known_state": 0.5, "filter": 0.3, "template": 0.1}
"""How often a field is set that makes little sense in most requests."""

Choose = Callable[[random.Random], Any]


def _of(*values: Any) -> Choose:
    return lambda rng: rng.choice(values)


class Lexicon:
    """Values by the name of a field, and whole messages by the name of their type."""

    def __init__(self) -> None:
        self.collections: tuple[str, ...] = (STEADY,)
        self._by_name: dict[str, Choose] = {
            "collection": self._collection,
            "name": self._collection,
            "id": _of(*IDS, "gone"),
            "document_id": _of("", *IDS[:3]),
            "question": _of(*TEXTS),
            "query": _of(*TEXTS),
            "text": _of(*TEXTS),
            "texts": _of(*TEXTS),
            "title": _of("Bees", "The moon", ""),
            "content": lambda rng: " ".join(rng.choices(TEXTS, k=rng.randint(1, 6))),
            "description": _of("", "What the fuzzer made."),
            "model": _of("", "", "", "", "extractive"),
            "template": _of("", "", "answer"),
            "embedding_model": _of("", ""),
            "embedding_revision": _of("", ""),
            "dimension": _of(2, 384),
            "k": _of(0, 1, 5, 200),
            "passages": _of(0, 1, 5),
            "top_n": _of(0, 1, 3),
            "page_size": _of(0, 1, 3, 1_000),
            "max_tokens": _of(8, 8, 16),
            "overlap_tokens": _of(0, 1, 3),
            "documents": _of(),
            "sequences": _of(),
            "temperature": _of(0.0, 0.7, 2.0),
            "stop": _of(".", "honey", "\n"),
            "json_schema": _of("", "", '{"type":"object","properties":{"a":{"type":"string"}}}'),
            "key": _of("year", "language", "tags.kind", "score"),
            "string_value": _of("en", "2024", "insects"),
            "number_value": _of(0.0, 1.5, 2024.0),
            "seconds": _of(0, 1, 60, 86_400),
            "tiers": _of("l1", "l2", "l3", "counts", "completions"),
            "vector": _of(b"\0\0\x80\x3f" + bytes(1532), b"\0\0\x80\x3f" + bytes(4)),
            # Few, so that requests are repeated, and others come under the same id.
            "request_id": _of("", "", *(str(UUID(int=number)) for number in range(9))),
            "ids": _of(0, 1, 101, 102, 2_000),
            # Few, so that links are deleted that were made.
            "source_id": _of(*IDS[:3]),
            "target_id": _of(*IDS[:3]),
            "new_id": lambda rng: f"document-{rng.randrange(80)}",
            "note": _of("", "Both are about honey."),
            "other": _of(*SCRATCH),
            "beside": _of("", "", *SCRATCH),
            "language": _of("", "english"),
            # In open mode there is one tenant.
            "tenant": _of("", "default"),
            "least_overlap": _of(0.0, 0.0, 0.5, 1.0),
        }
        self._tokens: dict[str, str] = {}
        self._learned: dict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=MAX_LEARNED))
        self.templates: dict[str, Callable[[random.Random], Message]] = {}

    def _collection(self, rng: random.Random) -> str:
        return rng.choice(self.collections) if rng.random() < 0.85 else rng.choice(SCRATCH)

    def add(self, field: str, *values: Any, often: float) -> None:
        """Let a field have one of `values` so `often`, and else what it had."""
        before = self._by_name[field]
        self._by_name[field] = lambda rng: (
            rng.choice(values) if rng.random() < often else before(rng)
        )

    def often(self, name: str) -> float:
        """Return how often a field of that name is set where a message should be valid."""
        return _SELDOM.get(name, 0.97 if name in self._by_name else 0.8)

    def value(self, field: FieldDescriptor, rng: random.Random) -> Any:
        """Return a value for a field, or None if it has none of its own name."""
        learned = self._learned.get(field.name)
        if learned and rng.random() < 0.9:
            return rng.choice(learned)
        choose = self._by_name.get(field.name)
        value = choose(rng) if choose else None
        return value if type(value) is _type_of(field) else None

    def learn(self, response: Message) -> None:
        """Take from a response what later requests may name."""
        for field, value in response.ListFields():
            if field.name in LEARNED and value:
                self._learned[LEARNED[field.name]].append(value)

    def learned_now(self, field: str, value: Any) -> None:
        """Let a field of requests have this value, too."""
        self._learned[field].append(value)

    def learn_token(self, collection: str, token: str) -> None:
        """Keep a consistency token as the newest one of a collection."""
        if collection in SCRATCH:
            self._tokens[collection] = token

    def token(self, collection: str) -> str:
        """Return the newest token of a collection that comes and goes; "" if none is known."""
        return self._tokens.get(collection, "")

    def learned(self, name: str, rng: random.Random) -> Any:
        """Return what a response told for request fields of that name; "" if none did."""
        return rng.choice(self._learned.get(name) or [""])


_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def _type_of(field: FieldDescriptor) -> type:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return bytes if field.type == FieldDescriptor.TYPE_BYTES else str
    return float if field.cpp_type in _FLOATS else int
