"""Tells how easy a question is: whether the passages' own sentences will do for an answer.

A logistic regression over three features of the question's words and of what was found. It
was fitted on half of the questions of XQuAD and of those of ClapNQ that have an answer, to
whether the extractive answer holds it; docs/prompts.md has what it does on the other half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.support import Evidence
from quintet_servicekit.words import STOP_WORDS, WORD, stems

VERSION = 1
"""Raise it with each change of what `ease` returns: it is in keys of kept answers."""
MOST_WORDS = 12
"""Words of a question beyond which more make no difference; 99 % of those that it was fitted on
have at most ten."""

_WEIGHTS = {"sentence": 2.7, "words": 0.4, "documents": -0.56}
_BIAS = -0.86


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature's name and value, and what it adds to the logit."""

    name: str
    value: float
    weight: float


@dataclass(frozen=True, slots=True)
class Ease:
    """How likely the extractive answer holds what is asked for, 0 to 1, and why."""

    ease: float
    features: tuple[Feature, ...]


def ease(question: str, hits: Sequence[retriever_pb.Hit]) -> Ease:
    """Return how easy a question is whose search found `hits`; 0 without features for one
    that cannot be judged: one without an English function word, or without any other.

    `sentence` is the share of the question's words, weighted by rarity, in the best
    sentence; `words` the number of the question's words; `documents` how many documents it
    takes to have all of those that any has.
    """
    words = frozenset(stems(question))
    if not words or all(it.casefold() not in STOP_WORDS for it in WORD.findall(question)):
        return Ease(0.0, ())
    evidence = Evidence([it.text for it in hits], [it.title for it in hits])
    values = {
        "sentence": evidence.coverage(question).sentence,
        "words": float(min(len(words), MOST_WORDS)),
        "documents": float(_spanned(words, hits)),
    }
    features = tuple(Feature(name, it, _WEIGHTS[name] * it) for name, it in values.items())
    logit = math.fsum((_BIAS, *(it.weight for it in features)))
    return Ease(1 / (1 + math.exp(-logit)), features)


def _spanned(words: frozenset[str], hits: Sequence[retriever_pb.Hit]) -> int:
    """Return the number of documents, of each time the one that has most of the words left,
    that have all words which any has."""
    held: dict[str, set[str]] = {}
    for hit in hits:
        held.setdefault(hit.document_id, set()).update(words.intersection(stems(hit.text)))
    left, number = set().union(*held.values()), 0
    while left:
        left -= max(held.values(), key=lambda its: len(its & left))
        number += 1
    return number
