"""Splits a question into words, and brings each to a form that rewordings share.

For `question_guard` only. What is not known here to be harmless is kept: symbols, quoted
text and code verbatim, names as they are written, and everything that isn't English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

QUESTION_WORDS = frozenset("what who whose when where why how".split())
AUXILIARIES = {"is": "be", "are": "be", "am": "be", "was": "was", "were": "was"} | {
    it: it for it in "do did can could will would shall should may might must".split()
}
"""By form: the auxiliary in its tense, whatever its number."""
PREPOSITIONS = frozenset(
    """about after against at before between by during for from in into of on over per since
    than through to under until via with within without""".split()
)

_KEPT_WHOLE = (
    QUESTION_WORDS
    | AUXILIARIES.keys()
    | PREPOSITIONS
    | frozenset(
        """arms as customs forces glasses goods has his its minutes news ours series shorts
        species theirs this thus times us windows yes yours""".split()
    )
)
"""Words whose last "s" is no plural, or whose singular means something else."""

_TOKEN = re.compile(
    r"""
    "[^"]{0,200}" | “[^”]{0,200}” | «[^»]{0,200}» | `[^`]{0,200}`  # quoted, one token each
    | (?<![^\s(])[-.]\w+(?:[.,]\w+)*              # -5, .NET
    | \d{1,3}(?:,\d{3})+(?:\.\d+)?\w*             # 20,000
    | \d+(?:[.:/]\d+)+\w*                         # 2.5, 10:30, 24/7
    | \w+(?:[._]\w+)+                             # node.js, v1.2
    | \w+'\w+                                     # don't
    | \w+[+\#]*                                   # C, C++, C#
    | [^\w\s]+                                    # % & != ()
    """,
    re.VERBOSE,
)
_PUNCTUATION = "?.!,;:'()[]…–—-¿¡？！。，、"
_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_SPELLINGS = {
    "can't": "can not", "cannot": "can not", "cant": "can not", "won't": "will not",
    "dont": "do not", "doesnt": "do not", "didnt": "did not", "isnt": "is not",
    "whats": "what is", "im": "i am", "whom": "who", "which": "what", "does": "do",
    "has": "have", "first": "1st", "second": "2nd", "third": "3rd", "%": "percent", "&": "and",
} | {word: str(number) for number, word in enumerate(_NUMBERS) if word != "one"}  # fmt: skip
_BEFORE_IS = frozenset("what who how where when why that there here it he she which".split())
_CONTRACTED = {"re": "are", "m": "am", "ve": "have", "ll": "will", "d": "would"}
_COURTESY = frozenset("please kindly".split())
_EMPHASIS = frozenset("actually exactly really".split())
_FEW = frozenset("few little bit lot".split())


class Words(NamedTuple):
    """The words that say something, in order, and which of them one kind of article leads."""

    said: list[str]
    definite: frozenset[str]
    indefinite: frozenset[str]


def words(question: str) -> Words:
    """Return the question's words in a common spelling.

    They are lower-case, but for a capitalised one within a sentence: that is a name or
    an acronym, and stays as it is written.
    """
    text = unicodedata.normalize("NFC", question).replace("’", "'")
    end = len(text.rstrip(" ?.!…"))
    found = list(_TOKEN.finditer(text))
    # Where most words have a capital, it tells no names.
    initials = [it[0][0] for it in found[1:]]
    titled = 2 * sum(it.isupper() for it in initials) > len(initials)
    spelled: list[str] = []
    for number, match in enumerate(found):
        token = match[0]
        if not (token[0].isalnum() or _means_something(match, text, end)):
            continue
        if (
            token[0].isupper()
            and number
            and not titled
            and token.partition("'")[0] != "I"
            and text[max(0, match.start() - 3) : match.start()].rstrip()[-1:] not in "?!.:"
        ):
            spelled.append(token.removesuffix("'s"))
        else:
            spelled += _spelled(token)
    led: dict[str, set[str]] = {"the": set(), "a": set(), "an": set()}
    for article, word in pairwise(spelled):
        if article in led:
            led[article].add(singular(word))
    definite, indefinite = led["the"], led["a"] | led["an"]
    return Words(
        [it for place, it in enumerate(spelled) if not _says_nothing(spelled, place)],
        definite=frozenset(definite - indefinite),
        indefinite=frozenset(indefinite - definite),
    )


def _means_something(match: re.Match[str], text: str, end: int) -> bool:
    """Tell whether what begins with no letter is more than punctuation.

    At `end` nothing follows but what ends a sentence.
    """
    if match[0].strip(_PUNCTUATION):
        return True
    # Alone between two words it is what they speak of: "What does ! mean".
    around = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
    return match.start() < end and not around.strip()


def _spelled(token: str) -> Sequence[str]:
    if token[0] in '"“«`':
        return (token,)
    word = token.lower()
    if not token[0].isalnum():
        word = word.rstrip("?!,;:") or word
    common = _SPELLINGS.get(word)
    if common is not None:
        return common.split()
    if word[0].isdigit():
        return (re.sub(r",(?=\d{3})", "", word),)
    stem, apostrophe, ending = word.partition("'")
    if not apostrophe:
        return (word,)
    if word.endswith("n't"):
        verb = word.removesuffix("n't")
        return _SPELLINGS.get(verb, verb), "not"
    if ending == "s":
        stem = _SPELLINGS.get(stem, stem)
        return (stem, "is") if stem in _BEFORE_IS else (stem,)
    return (stem, _CONTRACTED[ending]) if ending in _CONTRACTED else (word,)


def _says_nothing(spelled: Sequence[str], place: int) -> bool:
    word = spelled[place]
    before = spelled[place - 1] if place else ""
    after = spelled[place + 1] if place + 1 < len(spelled) else ""
    if word in ("a", "an", "the"):
        # "hepatitis a" ends in a name, and "a few" are more than "few".
        ends = not after or after in AUXILIARIES or after in PREPOSITIONS
        return not ends and after not in _FEW
    if word == "some":
        # In "what are some ways", but not in "why are some people rich".
        return before in ("is", "are") and place > 1 and spelled[place - 2] == "what"
    return word in _COURTESY or (word in _EMPHASIS and before != "not")


def singular(word: str) -> str:
    """Return a lower-case English word without its plural's or third person's "s".

    No other ending goes: an engineer is not engineering, nor a market marketing.
    """
    if len(word) < 4 or word in _KEPT_WHOLE or not (word.isascii() and word.islower()):
        return word
    if not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
