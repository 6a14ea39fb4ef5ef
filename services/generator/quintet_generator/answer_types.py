"""What kind of thing a question asks for, and whether a sentence has one to offer."""

from __future__ import annotations

import enum
import re
from collections.abc import Set

from quintet_servicekit.words import STOP_WORDS, WORD, stem


class AnswerType(enum.Enum):
    """The kinds that can be told from a sentence's surface."""

    TIME = enum.auto()
    NUMBER = enum.auto()
    NAME = enum.auto()
    REASON = enum.auto()


_QUESTIONS = (
    (
        AnswerType.TIME,
        re.compile(
            r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|century|decade|time)s?\b",
            re.IGNORECASE,
        ),
    ),
    (
        AnswerType.NUMBER,
        re.compile(
            r"\bhow (?:many|much|long|old|far|tall|large|big|high|deep|often|fast|wide|heavy)\b"
            r"|\bwhat (?:percentage|percent|number|proportion|amount|size|age)\b"
            r"|\b(?:percentage|number|population|amount) of\b",
            re.IGNORECASE,
        ),
    ),
    (
        AnswerType.NAME,
        re.compile(
            r"\b(?:who|whose|whom|where)\b|\bwhat (?:is|was|were|are) the names?\b"
            r"|\b(?:what|which) (?:city|country|state|place|location|county|region|continent|river"
            r"|town|area|university|company|team|person|king|queen|president|artist|actor|author"
            r"|scientist|organi[sz]ation|group|network|name|nation|league|school|college|building"
            r"|street)\b",
            re.IGNORECASE,
        ),
    ),
    (
        AnswerType.REASON,
        re.compile(r"\bwhy\b|\bwhat (?:causes?|caused|reason)\b|\breasons?\b", re.IGNORECASE),
    ),
)
"""The first that matches decides: "in what year was he named" asks for a time."""

_YEAR = re.compile(r"(?:1\d|20)\d\ds?")
_TIME_WORDS = frozenset(
    """january february march april may june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday century centuries decade
    decades""".split()
)
_NUMBER_WORDS = frozenset(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred hundreds thousand thousands million millions billion billions trillion half quarter
    third dozen dozens once twice""".split()
)
_REASON_WORDS = frozenset(
    "because due since caused cause causes leads led result therefore reason".split()
)


def answer_type(question: str) -> AnswerType | None:
    """Return what the question asks for, or None where its words don't tell."""
    return next((it for it, pattern in _QUESTIONS if pattern.search(question)), None)


def offers(sentence: str, wanted: AnswerType, asked: Set[str]) -> bool:
    """Tell whether the sentence has something of that kind that is not itself in the
    question; `asked` holds the question's stems."""
    words = WORD.findall(sentence)
    if wanted is AnswerType.NAME:
        # The first word has its capital from the sentence.
        return any(
            it[0].isupper() and it.casefold() not in STOP_WORDS and stem(it) not in asked
            for it in words[1:]
        )
    if wanted is AnswerType.REASON:
        return any(it.casefold() in _REASON_WORDS for it in words)
    new = (it for it in words if stem(it) not in asked)
    if wanted is AnswerType.TIME:
        return any(_YEAR.fullmatch(it) or it.casefold() in _TIME_WORDS for it in new)
    return any(it[0].isdigit() or it.casefold() in _NUMBER_WORDS for it in new)
