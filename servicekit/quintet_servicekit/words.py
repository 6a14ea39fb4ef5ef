"""Words of a text, brought to a form in which question and passage agree."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
"""A run of letters and digits, with an apostrophe within."""

STOP_WORDS = frozenset(
    """a about after all also an and any are as at be because been before being between both but
    by can could did do does doing during each for from had has have having he her here him his
    how i if in into is it its just many may me might more most much must my no nor not of on
    one only or other our out over own same shall she should so some such than that the their
    them then there these they this those through to too under until up us very was we were
    what when where which while who whom whose why will with would you your""".split()
)
"""Words that say nothing about what a question is about."""


def stems(text: str) -> list[str]:
    """Return the stems of the text's words, stop words left out, in order."""
    return [stem(word) for word in WORD.findall(text) if word.casefold() not in STOP_WORDS]


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return a word without case, accents and the commonest English endings.

    Cruder than Porter's stemmer, and enough here: the same word in question and
    passage must meet, and a wrong meeting within a few passages is rare.
    """
    word = unicodedata.normalize("NFKD", word.casefold().replace("’", "'"))
    word = "".join(it for it in word if not unicodedata.combining(it)).removesuffix("'s")
    if not word.isalpha():
        return word
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) + len(replacement) >= _SHORTEST:
            word = word[: len(word) - len(ending)] + replacement
            break
    if len(word) > _SHORTEST and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]  # "planned" and "plan"
    if len(word) >= _LONG:
        word = word.removesuffix("at")  # "computation" and "computed"
    return word.removesuffix("e") if len(word) > _SHORTEST else word


_SHORTEST = 3
_LONG = 7
_ENDINGS = (
    ("ations", "at"), ("ation", "at"), ("itions", "it"), ("ition", "it"),
    ("ies", "y"), ("ied", "y"), ("sses", "ss"), ("ions", ""), ("ion", ""),
    ("ments", ""), ("ment", ""), ("ings", ""), ("ing", ""), ("edly", ""), ("ed", ""),
    ("ers", ""), ("er", ""), ("ors", ""), ("or", ""), ("ally", "al"), ("ly", ""),
    ("es", ""), ("ss", "ss"), ("us", "us"), ("is", "is"), ("s", ""),
)  # fmt: skip
