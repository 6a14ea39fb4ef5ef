"""Whether a cut would fall inside what a reader takes for one character.

The rules of Unicode Standard Annex 29 (extended grapheme clusters) that matter for
running text, told from the characters at the cut. The `regex` library's `\\X` knows
them all, but takes quadratic time on a long row of flags.
"""

from __future__ import annotations

import unicodedata

_ZERO_WIDTH_JOINER = "\u200d"


def splits_grapheme(text: str, at: int, floor: int) -> bool:
    """Return whether `text[:at]` ends inside a grapheme cluster, where 0 < at < len(text)
    and no cluster that matters began before `floor`."""
    before, after = text[at - 1], text[at]
    if after < "\u0300":
        return before == "\r" and after == "\n"
    if before == _ZERO_WIDTH_JOINER or _extends(after):
        return True
    if _is_regional_indicator(after):
        run = at
        while run > floor and _is_regional_indicator(text[run - 1]):
            run -= 1
        # A flag is a pair of them.
        return (at - run) % 2 == 1
    return False


def _extends(character: str) -> bool:
    """Return whether a character belongs with the one before it."""
    return (
        unicodedata.category(character)[0] == "M"
        or "\u200c" <= character <= _ZERO_WIDTH_JOINER
        or "\u1160" <= character <= "\u11ff"  # vowels and finals of decomposed Hangul
        or "\ud7b0" <= character <= "\ud7fb"
        or "\uff9e" <= character <= "\uff9f"  # sound marks of half-width Katakana
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags, which end in a flag
    )


def _is_regional_indicator(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
