"""The decode loop: one token after another out of a causal language model.

Written out, rather than left to `generate()`, so that each step can be counted,
cancelled and streamed. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

from quintet_generator.metrics import DECODE_STEPS
from quintet_generator.models import Token
from quintet_generator.streaming import StillWanted

PREFILL_TOKENS = 512
"""Tokens of the prompt that are read in one step: some half a second on two cores,
and so the longest that a cancelled call still holds the thread."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: at temperature 0 the likeliest, above it by
    chance, from `seed` (0 to 2**64 - 1)."""

    temperature: float
    seed: int


class Decoder:
    """A loaded model and the tokens that end an answer."""

    def __init__(self, name: str, model: PreTrainedModel, end_tokens: frozenset[int]) -> None:
        self._model = model
        self._end_tokens = end_tokens
        self._prefills = DECODE_STEPS.labels(name, "prefill")
        self._decodes = DECODE_STEPS.labels(name, "decode")

    @torch.inference_mode()
    def tokens(
        self, prompt: Sequence[int], max_tokens: int, sampling: Sampling, still_wanted: StillWanted
    ) -> Iterator[Token]:
        """Yield at most `max_tokens` tokens after `prompt`.

        Ends early at an end token, which is not yielded, and within one step of
        `still_wanted` turning false.
        """
        cache = DynamicCache(config=self._model.config)
        choose = _Chooser(sampling)
        logits = None
        for start in range(0, len(prompt), PREFILL_TOKENS):
            if not still_wanted():
                return
            self._prefills.inc()
            logits = self._forward(prompt[start : start + PREFILL_TOKENS], cache)
        for number in range(1, max_tokens + 1):
            if logits is None or not still_wanted():
                return
            token = choose(logits)
            if token in self._end_tokens:
                return
            yield Token(token, float(torch.log_softmax(logits, dim=-1)[token]))
            if number < max_tokens and still_wanted():
                self._decodes.inc()
                logits = self._forward([token], cache)

    def _forward(self, tokens: Sequence[int], cache: DynamicCache) -> torch.Tensor:
        """Return the logits after the last of `tokens`, as float32 of shape (vocabulary,),
        in the processor's memory: a seed means the same whatever the model computes on."""
        output = self._model(
            input_ids=torch.tensor([tokens], device=self._model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[0, -1].float().cpu()
        return logits


class _Chooser:
    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._random = torch.Generator().manual_seed(sampling.seed)

    def __call__(self, logits: torch.Tensor) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        # The greatest is brought to 0 first: divided by a tiny temperature it would
        # become infinite, and the probabilities NaN.
        probabilities = torch.softmax((logits - logits.max()) / self._temperature, dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=self._random))
