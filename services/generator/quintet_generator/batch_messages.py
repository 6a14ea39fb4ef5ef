"""What the service and its batching process say to each other: lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How the process runs its model.

    `slots` requests run at once; `cache_tokens` is what the KV cache holds of all of
    them; a step reads at most `step_tokens` tokens. What steps give is told at least
    every `stream_seconds`.
    """

    folder: str
    end_tokens: Sequence[int]
    threads: int
    precision: str
    cache_precision: str
    slots: int
    cache_tokens: int
    step_tokens: int
    stream_seconds: float


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a request. `seed` is 0 to 2**64 - 1; `json_schema` may be empty."""

    id: int
    prompt: Sequence[int]
    max_tokens: int
    temperature: float
    seed: int
    json_schema: str
    logprobs: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a request, of which nothing more is told; unknown ones have ended already. It is
    answered by `CONFIRMED` at least."""

    id: int


Ending = Literal["done", "no_room"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step, or several, gave one request. `logprobs` is as long as `tokens`, or empty.

    `ending` is set once, last: its slot is free.
    """

    id: int
    tokens: Sequence[int]
    logprobs: Sequence[float]
    ending: Ending | None


def line(value: Any) -> bytes:
    """Return a message's fields as a line."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def command_line(command: Start | Cancel) -> bytes:
    """Return a command as a line."""
    return line({"do": type(command).__name__, **asdict(command)})


def command(text: bytes) -> Start | Cancel:
    """Read `command_line` back."""
    fields = json.loads(text)
    return Start(**fields) if fields.pop("do") == "Start" else Cancel(**fields)


@dataclass(frozen=True, slots=True)
class Told:
    """What is told at once: what `steps` steps gave the requests, one entry each."""

    steps: int
    progress: Sequence[Progress]


CONFIRMED = Told(0, ())
"""Says that a cancellation has been read, and so that the process is at work."""


def told_line(told: Told) -> bytes:
    """Return what steps gave as a line."""
    return line([told.steps, [[it.id, it.tokens, it.logprobs, it.ending] for it in told.progress]])


def told(text: bytes) -> Told:
    """Read `told_line` back."""
    steps, progress = json.loads(text)
    return Told(steps, [Progress(*fields) for fields in progress])
