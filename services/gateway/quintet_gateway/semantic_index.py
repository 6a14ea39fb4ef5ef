"""Questions that were answered lately, to find one that asks the same in other words.

For the answer cache, which holds the answers; this only knows their keys. It never
leads from one scope to another. Not thread-safe: of one event loop.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from operator import mul

from quintet_gateway.question_guard import Signature, same_meaning_possible, signature

MOST_ALIKE = 8
"""Questions of one scope and signature that are kept: each is compared, at 10 µs."""


@dataclass(frozen=True, slots=True)
class Near:
    """A question whose answer may be served, and how similar it is (cosine, 0 to 1)."""

    key: bytes
    question: str
    similarity: float


@dataclass(frozen=True, slots=True)
class _Question:
    key: bytes
    text: str
    signature: Signature
    vector: array[float]


@dataclass(frozen=True, slots=True)
class _Scope:
    """The questions by key, least recently used first, and again by signature."""

    questions: OrderedDict[bytes, _Question] = field(default_factory=OrderedDict)
    alike: dict[Signature, dict[bytes, _Question]] = field(default_factory=dict)

    def put(self, question: _Question) -> None:
        self.questions[question.key] = question
        self.alike.setdefault(question.signature, {})[question.key] = question

    def drop(self, key: bytes) -> None:
        question = self.questions.pop(key)
        alike = self.alike[question.signature]
        del alike[key]
        if not alike:
            del self.alike[question.signature]


class SemanticIndex:
    """Finds the most similar question of a scope that passes `question_guard`.

    The guard wants equal signatures, so these are the index: what may pass is a handful,
    and a cosine is taken of these only. The result is that of comparing with all.

    Holds at most `max_questions`, of one scope `max_scope_questions`; the least recently
    used go, of the least recently used scope first. A question of ten words with 384
    dimensions takes about 4 KB, the longest possible (4,000 characters) about 40 KB:
    10,000 ordinary questions are 40 MB. `threshold` is the least cosine.
    """

    def __init__(self, *, max_questions: int, max_scope_questions: int, threshold: float) -> None:
        self._max_questions = max_questions
        self._max_scope_questions = max_scope_questions
        self._threshold = threshold
        self._scopes: OrderedDict[bytes, _Scope] = OrderedDict()
        self._scope_of: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._scope_of)

    def add(self, scope: bytes, key: bytes, vector: bytes, question: str) -> None:
        """Remember a question by the key of its answer; one that had the key goes.

        `vector` is packed little-endian float32 of any length but zero. A question that
        the guard can compare with no other, or without a direction, is not remembered.
        """
        self.discard(key)
        direction, said = _normalised(vector), signature(question)
        if direction is None or not said.comparable:
            return
        held = self._scopes.setdefault(scope, _Scope())
        self._scopes.move_to_end(scope)
        held.put(_Question(key, question, said, direction))
        self._scope_of[key] = scope
        if len(held.alike[said]) > MOST_ALIKE:
            self.discard(next(iter(held.alike[said])))
        if len(held.questions) > self._max_scope_questions:
            self.discard(next(iter(held.questions)))
        if len(self) > self._max_questions:
            eldest = next(iter(self._scopes.values()))
            self.discard(next(iter(eldest.questions)))

    def nearest(self, scope: bytes, vector: bytes, asked: Signature) -> Near | None:
        """Return the most similar question that may stand for the one that is asked."""
        held = self._scopes.get(scope)
        alike = held.alike.get(asked) if held is not None else None
        direction = _normalised(vector) if alike else None
        if held is None or not alike or direction is None:
            return None
        passing = (it for it in alike.values() if same_meaning_possible(asked, it.signature))
        found = [(_cosine(direction, it.vector), it) for it in passing]
        similarity, best = max(found, key=lambda each: each[0], default=(-1.0, None))
        if best is None or similarity < self._threshold:
            return None
        held.questions.move_to_end(best.key)
        self._scopes.move_to_end(scope)
        return Near(best.key, best.text, min(similarity, 1.0))

    def discard(self, key: bytes) -> None:
        """Forget a question, if it is known."""
        scope = self._scope_of.pop(key, None)
        if scope is None:
            return
        self._scopes[scope].drop(key)
        if not self._scopes[scope].questions:
            del self._scopes[scope]


def _normalised(vector: bytes) -> array[float] | None:
    """Return the vector at length 1; None for one that has no direction."""
    values = struct.unpack(f"<{len(vector) // 4}f", vector)
    length = math.hypot(*values)
    if not length or not math.isfinite(length):
        return None
    return array("f", [value / length for value in values])


def _cosine(one: array[float], other: array[float]) -> float:
    """Return the cosine of normalised vectors; of unlike dimensions, that is none: -1."""
    return sum(map(mul, one, other)) if len(one) == len(other) else -1.0
