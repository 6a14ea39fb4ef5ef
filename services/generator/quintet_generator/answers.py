"""Puts an answer together from the tokens that a model decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from quintet_generator.detokenizer import IncrementalDetokenizer
from quintet_generator.models import (
    Event,
    Finished,
    FinishReason,
    Query,
    TextDelta,
    Token,
    TokenLogprob,
)
from quintet_generator.stops import StopMatcher


class Answer:
    """One answer in the making: text as its tokens come, ended by a stop text.

    `decode` turns tokens into text. Once `stopped`, nothing more is taken.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], prompt_tokens: int, query: Query
    ) -> None:
        self._decode = decode
        self._detokenizer = IncrementalDetokenizer(decode)
        self._stops = StopMatcher(query.stop)
        self._prompt_tokens = prompt_tokens
        self._max_tokens = query.max_tokens
        self._wants_logprobs = query.logprobs
        self._count = 0
        self._logprobs: list[TokenLogprob] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop text came."""
        return self._stops.stopped

    def push(self, *tokens: Token) -> Iterator[Event]:
        """Yield the text that the tokens complete together, if any."""
        text = ""
        for token in tokens:
            if self.stopped:
                break
            self._count += 1
            if self._wants_logprobs:
                self._logprobs.append(TokenLogprob(self._decode([token.id]), token.logprob))
            text += self._stops.push(self._detokenizer.push(token.id))
        if text:
            yield TextDelta(text)

    def finish(self) -> Iterator[Event]:
        """Yield the text still held back, and `Finished`."""
        if text := self._stops.push(self._detokenizer.flush()) + self._stops.flush():
            yield TextDelta(text)
        is_cut = self._count == self._max_tokens and not self.stopped
        yield Finished(
            FinishReason.LENGTH if is_cut else FinishReason.STOP,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._count,
            logprobs=tuple(self._logprobs),
        )
