"""Tells whether a question may be answered with the answer to another one.

Vectors can't: "import" and "export", "2019" and "2020", a "not" more or less leave two
questions as near as two wordings of one. So here every word has to be accounted for.
A question is brought to a form in which only harmless differences are gone (articles,
politeness, punctuation, contractions, plurals, who asks how something is done, the
place of a prepositional phrase), and the forms of two questions must then be equal.
Numbers, dates, names, negations, comparatives, quantifiers, opposites, code and the
kind of question are among what stays.

`semantic_index` asks this about questions that are near. It is meant to refuse too
much; docs/semantic-cache.md has the measurements that chose it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from quintet_gateway.question_words import (
    AUXILIARIES,
    PREPOSITIONS,
    QUESTION_WORDS,
    singular,
    words,
)

MAX_CHARS = 4_000
"""A longer question is like no other."""
MAX_WORDS = 100
"""So is one of more words: two that long are hardly ever the same by chance, and what
is kept of each stays small."""

_POLITELY = re.compile(
    r"""\s*(?:(?:hi|hello|hey)\b[,!.\s]*)?(?:please\s+)?
    (?:(?:can|could|would)\ (?:you|anyone|anybody|someone|somebody)\s+(?:please\s+)?
        (?:tell\ me|explain(?:\ to\ me)?)
    | tell\ me | do\ you\ know | does\ any(?:one|body)\ know
    | i(?:'d|’d|\ would)?\ (?:like|want)\ to\ know),?\s+
    (?=(?:what|which|who|whom|whose|when|where|why|how)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_ASKING = frozenset("i we one someone".split())
"""Who wants to do what they ask about. Not "you": "How do you store my data?" asks for
what somebody else does."""
_SUBJECTS = _ASKING | frozenset("you he she it they people".split())
_YES_OR_NO, _HOW_TO = "yes or no", "how to"


@dataclass(frozen=True, slots=True)
class Signature:
    """What is equal in two questions of which one may answer the other.

    `asks` is the question word, "how to", "yes or no" or "". `auxiliary` is the only
    auxiliary verb in its tense, or "". `core` are the words that no preposition leads,
    in their order; `phrases` the prepositional phrases, sorted by preposition. A
    question of several clauses is all `core`, as nothing in it may change places.
    Signatures with different articles are equal: those are for `same_meaning_possible`.
    """

    asks: str
    auxiliary: str
    core: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    definite: frozenset[str] = field(default=frozenset(), compare=False)
    indefinite: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def comparable(self) -> bool:
        """Whether it says anything that another question could say, too."""
        return bool(self.core or self.phrases)


def same_meaning_possible(one: Signature, other: Signature) -> bool:
    """Tell whether two questions differ in nothing that could change the answer."""
    if one != other or not one.comparable:
        return False
    # An article more or less is nothing; "the matrix" instead of "a matrix" is.
    return one.definite.isdisjoint(other.indefinite) and one.indefinite.isdisjoint(other.definite)


def signature(question: str) -> Signature:
    """Return what identifies the question's meaning; some 40 µs for one of ten words."""
    if len(question) > MAX_CHARS:
        return Signature("", "", (), ())
    opening = _POLITELY.match(question)
    found, *articles = words(question[opening.end() :] if opening else question)
    if not found or len(found) > MAX_WORDS:
        return Signature("", "", (), ())
    if found[0] == "how" and (length := _how_to(found)):
        rest = [singular(it) for it in found[length:]]
        return Signature(_HOW_TO, "", *_parts(rest), *articles)
    verbs = _auxiliaries(found, statement=opening is not None)
    asked = [place for place, word in enumerate(found) if word in QUESTION_WORDS]
    # "Is it so? Why?" has two clauses, too.
    if len(verbs) > 1 or len(asked) > 1 or (asked and 0 in verbs):
        ordered = (AUXILIARIES[it] if at in verbs else singular(it) for at, it in enumerate(found))
        return Signature("", "", tuple(ordered), (), *articles)
    asks = found[asked[0]] if asked else _YES_OR_NO if verbs == [0] else ""
    rest = ["" if at in (*verbs, *asked) else singular(it) for at, it in enumerate(found)]
    auxiliary = AUXILIARIES[found[verbs[0]]] if verbs else ""
    return Signature(asks, auxiliary, *_parts(rest), *articles)


def _how_to(found: Sequence[str]) -> int:
    """Return the length of "how to" or "how can I" at the start; 0 without."""
    if found[1:2] == ["to"]:
        return 2
    can = found[1:2] in (["do"], ["can"], ["could"])
    simple = not any(it in QUESTION_WORDS or it in AUXILIARIES for it in found[3:])
    return 3 if can and simple and found[2:3] and found[2] in _ASKING else 0


def _auxiliaries(found: Sequence[str], *, statement: bool) -> list[int]:
    """Return the places of the auxiliary verbs."""
    places: list[int] = []
    for place, word in enumerate(found):
        if word in ("do", "did"):
            # A verb of its own in "what can I do" and "tell me what lawyers do".
            before = found[place - 1] if place else ""
            last = place == len(found) - 1
            if statement or places or last or before in _SUBJECTS or before == "to":
                continue
        if word in AUXILIARIES:
            places.append(place)
    return places


def _parts(found: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the core and the phrases; an empty word ends a phrase."""
    core: list[str] = []
    phrases: list[list[str]] = []
    current = core
    for word in found:
        if not word:
            current = core
        elif word in PREPOSITIONS:
            current = [word]
            phrases.append(current)
        else:
            current.append(word)
    ordered = sorted(phrases, key=lambda phrase: phrase[0])
    return tuple(core), tuple(tuple(_either_way(it)) for it in ordered)


def _either_way(phrase: list[str]) -> list[str]:
    """Order what "between A and B" names, which is the same as between B and A."""
    if phrase[0] != "between" or phrase.count("and") != 1:
        return phrase
    place = phrase.index("and")
    first, second = sorted((phrase[1:place], phrase[place + 1 :]))
    return ["between", *first, "and", *second]
