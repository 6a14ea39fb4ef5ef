"""A causal language model with its tokenizer: a prompt in, events out.

Importing this module takes seconds (torch, transformers): only a thread that loads
a model does.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from quintet_generator.answers import Answer
from quintet_generator.decoding import Decoder, Sampling
from quintet_generator.models import Event, Prompt, Query
from quintet_generator.special_tokens import SpecialTokens
from quintet_generator.streaming import StillWanted


class LanguageModel:
    """A loaded model. `encode` and `generate` may run on one thread each."""

    def __init__(
        self, name: str, folder: Path, *, dtype: str, threads: int, device: str = "cpu"
    ) -> None:
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=_dtype(dtype, device), attn_implementation="sdpa"
        )
        model.to(device).eval()
        self.context_tokens = int(model.config.max_position_embeddings)
        added = self._tokenizer.added_tokens_decoder.values()
        self._special = SpecialTokens(it.content for it in added if it.special)
        self._decoder = Decoder(name, model, _end_tokens(model, self._tokenizer))

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the prompt's tokens, in the model's own chat form."""
        tokens: list[int] = self._tokenizer.apply_chat_template(
            [
                {"role": "system", "content": self._special.broken(prompt.system)},
                {"role": "user", "content": self._special.broken(prompt.user)},
            ],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        return tokens

    def generate(
        self, prompt: Sequence[int], query: Query, still_wanted: StillWanted
    ) -> Iterator[Event]:
        """Yield the answer as it is decoded, and `Finished` last."""
        answer = Answer(self._decode, len(prompt), query)
        seed = secrets.randbits(64) if query.seed is None else query.seed
        sampling = Sampling(query.temperature, seed)
        for token in self._decoder.tokens(prompt, query.max_tokens, sampling, still_wanted):
            yield from answer.push(token)
            if answer.stopped:
                break
        yield from answer.finish()

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _dtype(name: str, device: str) -> torch.dtype:
    """Return the named dtype; "auto" is bfloat16 where the device computes with it."""
    if name == "auto":
        is_native = (
            torch.cpu._is_avx512_bf16_supported()
            if device == "cpu"
            else device.startswith("cuda") and torch.cuda.is_bf16_supported()
        )
        return torch.bfloat16 if is_native else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(it for it in [*listed, tokenizer.eos_token_id] if it is not None)
