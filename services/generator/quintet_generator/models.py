"""What passes between the layers of the generator."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from quintet_servicekit.cache.use import CacheUse


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that the answer may rest on."""

    title: str
    text: str


class Feature(enum.StrEnum):
    """What some backends have and others don't; the values are the request's fields."""

    JSON_SCHEMA = "json_schema"
    LOGPROBS = "logprobs"


@dataclass(frozen=True, slots=True)
class Query:
    """A checked request, defaults filled in.

    An empty `model` means the first. `temperature` is 0 to 2; a `seed` of None
    draws a new one. `json_schema` is a JSON Schema as text, empty for none. `no_cache`
    forbids that a kept answer is served and that this one is kept.
    """

    model: str
    question: str
    passages: tuple[Passage, ...]
    template: str
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: str = ""
    logprobs: bool = False
    no_cache: bool = False
    template_revision: str = ""
    """Filled in by the engine."""

    @property
    def features(self) -> frozenset[Feature]:
        """What it asks for that not every backend has."""
        asked = {Feature.JSON_SCHEMA: bool(self.json_schema), Feature.LOGPROBS: self.logprobs}
        return frozenset(feature for feature, is_asked in asked.items() if is_asked)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A filled template: what the system says and what the user says."""

    system: str
    user: str


class FinishReason(enum.StrEnum):
    """Why an answer ended; the values are those of OpenTelemetry's GenAI conventions."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text to append to the answer; not empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A stretch of the answer and the stretch of a passage that it rests on, in
    characters, ends exclusive. `support` is 1 for verbatim, 0 for none at all."""

    passage_index: int
    answer_start: int
    answer_end: int
    passage_start: int
    passage_end: int
    support: float


@dataclass(frozen=True, slots=True)
class Token:
    """A decoded token and the natural logarithm of its probability, before
    temperature and schema had their say."""

    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token as text, which may be a part of a character, and its logprob."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer and what it took, in the model's own tokens.

    `is_estimate` tells that the counts are one, and `logprobs` has the answer's tokens
    if they were asked for. `cached_prompt_tokens` are those of the prompt that another
    server had cached.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    is_estimate: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_prompt_tokens: int = 0


Event = TextDelta | Citation | Finished
"""What a backend yields: exactly one `Finished`, last."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What ListModels tells. `context_tokens` of 0 means no limit; an empty
    `tokenizer` that the tokenizer service has none for it. `prompt_revision`, that of
    the templates, is filled in by the engine."""

    name: str
    revision: str
    backend: str
    context_tokens: int
    tokenizer: str
    prompt_revision: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer as it is kept, whichever model gave it."""

    text: str
    citations: tuple[Citation, ...]
    finished: Finished


@dataclass(frozen=True, slots=True)
class Completed:
    """`Finished`, with the model that answered, and what the cache did: None where it
    did not come into question. The template is filled in by the engine."""

    model: ModelInfo
    finished: Finished
    cache: CacheUse | None = None
    template: str = ""
    template_revision: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer as a whole; citations by `answer_start`."""

    text: str
    citations: tuple[Citation, ...]
    completed: Completed
