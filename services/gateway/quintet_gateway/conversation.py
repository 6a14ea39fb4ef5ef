"""Understands a question in the light of the turns before it.

What is asked of the documents is one question that stands alone. A question that leaves
its subject to the turns before it ("and who built it?") gets the names and subjects of
the newest of them that has any; a question that names its own is left as it is. By
rules over English words, which cost nothing and always give the same question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_servicekit.words import STOP_WORDS, WORD, stem, stems

_ANAPHORA = frozenset(
    """he him his she her hers it its they them their theirs this that these those there then one
    ones former latter himself herself itself themselves same such""".split()
)
"""Words that stand for something that was named before."""
_CONTINUES = re.compile(
    r"^\W*(?:and|but|or|so|also|then|(?:what|how) about|(?:what|who|where) else|why not|how so"
    r"|since when)\b",
    re.IGNORECASE,
)
_FEW_WORDS = 2
"""Words of its own with which a question that begins as a continuation still needs what was
named before: "and in winter?" does, "and which river flows through Paris?" does not."""
_FILLER = frozenset(
    """tell explain describe give know mean happen exactly actually really please think say said ok
    okay thanks thank yes no well another else more kind type thing things way example year
    number name names""".split()
)
_EMPTY = STOP_WORDS | _FILLER | _ANAPHORA
_MOST_NAMES = 4
"""Names that are taken from an answer: its subject stands first, as a rule."""
_LONGEST = 4_000
"""Characters that a search takes."""
_MOST_SUBJECTS = 12
"""Words that are taken from the turns, beyond which a search loses the question."""
_ANSWER_SENTENCE = re.compile(r".{1,300}?(?:[.!?](?=\s|\Z)|\Z)", re.DOTALL)


def standalone(question: str, turns: Sequence[pb.Turn]) -> str:
    """Return the question with what it leaves to the turns, oldest first; verbatim where
    it leaves nothing to them."""
    if not leans(question):
        return question
    subjects: list[str] = []
    for turn in turns:
        subjects = _after(turn, subjects)
    said = frozenset(stems(question))
    missing = [word for word in _distinct(subjects) if stem(word) not in said][:_MOST_SUBJECTS]
    whole = f"{question} ({' '.join(missing)})"
    return whole if missing and len(whole) <= _LONGEST else question


def _after(turn: pb.Turn, subjects: Sequence[str]) -> list[str]:
    """Return what a question after `turn` may be about, where `subjects` are that of the
    turn itself."""
    first = _ANSWER_SENTENCE.match(turn.answer)
    answered = _names(first[0])[:_MOST_NAMES] if first else []
    if leans(turn.question) and subjects:
        return [*answered, *subjects]
    asked = _names(turn.question)
    if asked:
        return [*asked, *answered]
    own = [word for word in WORD.findall(turn.question) if word.casefold() not in _EMPTY]
    return [*own, *answered]


def leans(question: str) -> bool:
    """Tell whether a question leaves its subject to what was said before it."""
    words = [word.casefold() for word in WORD.findall(question)]
    own = [word for word in words if word not in _EMPTY]
    named = _names(question)
    if any(word in _ANAPHORA for word in words):
        # "Who said that Paris is a city that never sleeps?" names what it is about.
        return not named or len(own) <= _FEW_WORDS
    if _CONTINUES.match(question):
        return len(own) <= _FEW_WORDS
    return len(own) < _FEW_WORDS and not named


def _names(text: str) -> list[str]:
    """Return the words with a capital, but for the first."""
    return [
        word
        for word in WORD.findall(text)[1:]
        if word[0].isupper() and word.casefold() not in STOP_WORDS
    ]


def _distinct(words: Iterable[str]) -> list[str]:
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(stem(word), word)
    return list(found.values())
