"""Keeps a model's own instructions out of its answer.

Whoever asks a model to repeat what stands above gets the system prompt, as a rule. So
a run of words that stands there too is not sent on, once it is too long for chance.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from quintet_generator.models import Event, Finished, TextDelta

_RUN = 8
"""Words in a row that are the instructions' own: XQuAD's and ClapNQ's passages have three
at most in common with the packaged template."""
_PIECE = re.compile(r"\W*\w+(?=\W)")
_WORD = re.compile(r"\w+")


class Disclosure:
    """Filters one answer as its text comes in; `found` tells whether it left out any."""

    def __init__(self, instructions: str) -> None:
        self.found = False
        self._secret = f" {' '.join(_words(instructions))} "
        self._rest = ""
        self._held: list[str] = []

    def feed(self, text: str) -> str:
        """Take the next piece; return what may be sent on."""
        self._rest += text
        sent: list[str] = []
        at = 0
        for piece in _PIECE.finditer(self._rest):
            sent += self._take(piece[0])
            at = piece.end()
        self._rest = self._rest[at:]
        if not self._held and not _WORD.search(self._rest):
            sent.append(self._rest)
            self._rest = ""
        return "".join(sent)

    def finish(self) -> str:
        """Return the rest."""
        rest, self._rest = self._rest, ""
        word = _WORD.search(rest)
        sent = self._take(rest[: word.end()]) if word else []
        end = rest[word.end() :] if word else rest
        if self._is_leak():
            self.found = True
            return "".join(sent)
        return "".join([*sent, *self._held, end])

    def _take(self, piece: str) -> list[str]:
        """Take a word with what stands before it; return what it shows to be harmless."""
        leaks = self._is_leak()
        self._held.append(piece)
        sent: list[str] = []
        while self._held and f" {' '.join(_words(''.join(self._held)))} " not in self._secret:
            if leaks:
                self.found = True
                self._held = self._held[-1:]
                leaks = False
            else:
                sent.append(self._held.pop(0))
        return sent

    def _is_leak(self) -> bool:
        return len(self._held) >= _RUN


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


async def undisclosed(events: AsyncGenerator[Event], instructions: str) -> AsyncGenerator[Event]:
    """Yield a model's answer without runs of its instructions. If there were any, its
    tokens are left out of the end too, for they are the same words."""
    disclosure = Disclosure(instructions)
    async with aclosing(events) as told:
        async for event in told:
            match event:
                case TextDelta():
                    if text := disclosure.feed(event.text):
                        yield TextDelta(text)
                case Finished():
                    if text := disclosure.finish():
                        yield TextDelta(text)
                    yield replace(event, logprobs=()) if disclosure.found else event
                case _:
                    yield event
