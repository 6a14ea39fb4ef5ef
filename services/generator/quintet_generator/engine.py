"""Chooses the backend for a request and passes on what it yields."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import replace
from typing import Protocol

from quintet_generator import spans
from quintet_generator.disclosure import undisclosed
from quintet_generator.models import (
    Citation,
    Completed,
    Event,
    Feature,
    Finished,
    Generation,
    ModelInfo,
    Query,
    TextDelta,
)
from quintet_generator.prompts import PromptTemplate, Templates
from quintet_servicekit.breaker import Breaker, State
from quintet_servicekit.cache.use import note_use
from quintet_servicekit.errors import Reason, ServiceError


class Backend(Protocol):
    """Something that answers.

    `name` is the model's name; `operation` the GenAI name of what it does, "chat" or
    "text_completion"; `features` what it has of those that not every backend has.
    `worth_keeping` tells whether an answer takes longer than to ask Redis for it.
    """

    name: str
    operation: str
    features: frozenset[Feature]
    worth_keeping: bool

    async def describe(self) -> ModelInfo:
        """Return what the model is. Called once, at start."""
        ...

    async def load(self) -> None:
        """Make it ready. May take long; a backend that is not loaded yet when
        `generate` is called loads itself."""
        ...

    def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield the answer: text, citations of text already yielded, `Finished` last.

        Closing it ends the work within one decode step.
        """
        ...


class Kept(Protocol):
    """The answers that are kept, see `completion_cache.CompletionCache`."""

    def stream(
        self,
        query: Query,
        model: ModelInfo,
        compute: Callable[[], AsyncGenerator[Event]],
        *,
        keep: bool,
    ) -> AsyncGenerator[TextDelta | Citation | Completed]:
        """Yield the answer that `compute` yields, or the one that is kept, `Completed` last."""
        ...


class Engine:
    """Answers from the backends given, the first of which is the default.

    `breakers` are those of the backends that stand on something that can fail, by name;
    a kept answer needs none of them.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        templates: Templates,
        kept: Kept,
        breakers: Mapping[str, Breaker] | None = None,
    ) -> None:
        self._backends = {backend.name: backend for backend in backends}
        self._default = backends[0].name
        self._templates = templates
        self._kept = kept
        self._breakers = breakers or {}
        self._infos: dict[str, ModelInfo] = {}

    async def load(self, *, load_all: bool) -> None:
        """Describe every backend, and load the default or all of them."""
        for backend in self._backends.values():
            info = await backend.describe()
            self._infos[backend.name] = replace(info, prompt_revision=self._templates.revision)
            if load_all or backend.name == self._default:
                await backend.load()

    def models(self) -> list[ModelInfo]:
        """Return the models in their order of preference; the first is the default."""
        return list(self._infos.values())

    @property
    def templates(self) -> Templates:
        """The prompt templates."""
        return self._templates

    def is_suspended(self, name: str) -> bool:
        """Whether requests for the model of that name are refused for now."""
        breaker = self._breakers.get(name)
        return breaker is not None and breaker.state is State.OPEN

    async def generate(self, query: Query) -> Generation:
        """Return the answer as a whole. Raises as `stream` does."""
        text: list[str] = []
        citations: list[Citation] = []
        completed = None
        async with aclosing(self.stream(query)) as events:
            async for event in events:
                match event:
                    case TextDelta():
                        text.append(event.text)
                    case Citation():
                        citations.append(event)
                    case Completed():
                        completed = event
        assert completed is not None
        citations.sort(key=lambda it: it.answer_start)
        return Generation("".join(text), tuple(citations), completed)

    async def stream(self, query: Query) -> AsyncGenerator[TextDelta | Citation | Completed, None]:
        """Yield the answer in pieces, `Completed` last; one that is kept in one piece.

        Raises `ServiceError` MODEL_NOT_FOUND, TEMPLATE_NOT_FOUND, UNSUPPORTED_BY_MODEL,
        INPUT_TOO_LONG or OVERLOADED before the first piece, and CIRCUIT_OPEN while what its
        backend stands on is known to fail; DEPENDENCY_UNAVAILABLE or DEADLINE_EXCEEDED at
        any, when that fails.
        """
        backend = self._backend(query.model)
        _check_features(backend, query)
        template = self._templates.get(query.template)
        query = replace(query, template_revision=template.revision)
        info = self._infos[backend.name]

        breaker = self._breakers.get(backend.name)

        async def compute() -> AsyncGenerator[Event]:
            made = backend.generate(query, template)
            if backend.operation == "chat":
                made = undisclosed(made, template.instructions)
            with (
                breaker.guard() if breaker else nullcontext() as guard,
                spans.generation(backend.operation, info, query, template) as observation,
            ):
                async with aclosing(made) as events:
                    async for event in events:
                        if guard is not None:
                            guard.first_message()
                        match event:
                            case TextDelta():
                                observation.text(event.text)
                            case Finished():
                                observation.finished(event)
                        yield event

        kept = self._kept.stream(query, info, compute, keep=backend.worth_keeping)
        async with aclosing(kept) as told:
            async for event in told:
                if isinstance(event, Completed):
                    event = replace(
                        event, template=template.name, template_revision=template.revision
                    )
                    if event.cache is not None:
                        note_use(event.cache)
                    spans.ANSWERS.labels(info.name, template.name).inc()
                yield event

    def _backend(self, name: str) -> Backend:
        backend = self._backends.get(name or self._default)
        if backend is None:
            raise ServiceError(
                Reason.MODEL_NOT_FOUND,
                f"there is no model {name!r}",
                metadata={"model": name},
            )
        return backend


def _check_features(backend: Backend, query: Query) -> None:
    for feature in sorted(query.features - backend.features):
        raise ServiceError(
            Reason.UNSUPPORTED_BY_MODEL,
            f"the model {backend.name} has no {feature.value}",
            metadata={"model": backend.name, "feature": feature.value},
        )
