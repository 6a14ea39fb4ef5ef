"""The pieces of an answer that streams in OpenAI's chat completions protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from quintet_generator.models import FinishReason, TokenLogprob

_FINISH_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class ChunkError(ValueError):
    """The server sent something that the protocol does not know; says what, and never
    the server's own words."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event brought; None and empty for what it did not."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_prompt_tokens: int = 0


def parse(data: str) -> Chunk:
    """Return the chunk of an event's data. Raises `ChunkError`."""
    try:
        value = json.loads(data)
        if value.get("error"):
            raise ChunkError("failed while it answered")
        return _chunk(value)
    except ChunkError:
        raise
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise ChunkError("sent a malformed piece of the answer") from error


def _chunk(value: dict[str, Any]) -> Chunk:
    usage = value.get("usage") or {}
    prompt_tokens, completion_tokens = (
        _count(usage.get(f"{side}_tokens")) for side in ("prompt", "completion")
    )
    cached = _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")) or 0
    choices = value.get("choices")
    if not choices:
        if not usage and choices is None:
            raise ChunkError("sent a malformed piece of the answer")
        return Chunk(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_prompt_tokens=cached,
        )
    choice = choices[0]
    text = (choice.get("delta") or {}).get("content") or ""
    if not isinstance(text, str):
        raise ChunkError("sent a malformed piece of the answer")
    finish = choice.get("finish_reason")
    if finish is not None and finish not in _FINISH_REASONS:
        raise ChunkError("ended the answer before it was done")
    listed = (choice.get("logprobs") or {}).get("content") or ()
    return Chunk(
        text,
        tuple(TokenLogprob(str(it["token"]), float(it["logprob"])) for it in listed),
        _FINISH_REASONS[finish] if finish else None,
        prompt_tokens,
        completion_tokens,
        cached,
    )


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < 2**32:
        raise ChunkError("sent a usage that is none")
    return value
