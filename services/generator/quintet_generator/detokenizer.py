"""Text from tokens, as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are not, or not yet, UTF-8."""


class IncrementalDetokenizer:
    """Turns one token after another into text that joins up to the whole.

    A token may hold half a character, and what one adds may depend on the one
    before it (the space of SentencePiece models). So a short window is decoded
    twice, without and with the new token, and the difference is the text; it is
    held back while it ends in an unfinished character. This is the method of
    text-generation-inference (`Model.decode_token`).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._window = 0
        self._told = 0

    def push(self, token: int) -> str:
        """Return the text that `token` completes; empty while it completes none."""
        self._tokens.append(token)
        text = self._pending()
        if text.endswith(REPLACEMENT):
            return ""
        self._window, self._told = self._told, len(self._tokens)
        return text

    def flush(self) -> str:
        """Return the text still held back, without a character cut off at the end."""
        text = self._pending().rstrip(REPLACEMENT)
        self._window = self._told = len(self._tokens)
        return text

    def _pending(self) -> str:
        told = self._decode(self._tokens[self._window : self._told])
        return self._decode(self._tokens[self._window :])[len(told) :]
