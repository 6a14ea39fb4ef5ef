"""Characters that a reader does not see and a model or a terminal does.

Control characters, those that turn the direction of writing, those without width, and
the tags and runs of variation selectors with which whole texts can be hidden. Joiners
between letters that are not ASCII stay: Persian, Hindi and emoji are written with them.
Controls that separate words, such as the form feed between pages, count as spaces.
"""

from __future__ import annotations

import re

_ALWAYS = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls but tab, line ends and separators
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(
    f"[{_ALWAYS}]+"
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
    "|[\ufe00-\ufe0f]{2,}"
)
"""A run of them."""
_ANY = re.compile(f"[{_ALWAYS}\u200c\u200d\ufe00-\ufe0f]")
"""What each run has one of: a set of characters alone is found many times as fast, and most
texts have none."""
_SEPARATORS = re.compile("[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")


def spaced(text: str) -> str:
    """Return the text, as long as before, with spaces for unseen separators of words."""
    return _SEPARATORS.sub(" ", text) if _SEPARATORS.search(text) else text


def invisible_spans(text: str) -> list[tuple[int, int]]:
    """Return where runs of them stand in the text, ends exclusive, in order."""
    return [it.span() for it in _INVISIBLE.finditer(text)] if _ANY.search(text) else []


def visible(text: str) -> str:
    """Return the text without invisible characters."""
    text = spaced(text)
    return _INVISIBLE.sub("", text) if _ANY.search(text) else text
