"""The backend that batches the running requests of a local model, step by step.

Its model runs in a process of its own, see `batch_worker`; this side renders
prompts, and turns tokens into text.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from quintet_generator.answers import Answer
from quintet_generator.batch_messages import BatchConfig, Start
from quintet_generator.batching import BatchingProcess
from quintet_generator.chat_tokenizer import ChatTokenizer, end_tokens
from quintet_generator.json_schema import check_supported
from quintet_generator.limits import check_room
from quintet_generator.model_files import describe, find_openvino_folder
from quintet_generator.models import Event, Feature, ModelInfo, Query
from quintet_generator.prompts import PromptTemplate
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit.breaker import Breaker
from quintet_servicekit.executor import BoundedExecutor


@dataclass(frozen=True)
class _Model:
    tokenizer: ChatTokenizer
    end_tokens: frozenset[int]
    context_tokens: int
    process: BatchingProcess


class OpenVinoBackend:
    """Implements `engine.Backend`. `encoding` reads prompts, on one thread; `breaker` is
    open while the model's process says nothing."""

    def __init__(
        self,
        settings: GeneratorSettings,
        *,
        encoding: BoundedExecutor,
        breaker: Breaker | None = None,
    ) -> None:
        self.name = settings.served_name
        self.operation = "chat"
        self.features = frozenset({Feature.JSON_SCHEMA, Feature.LOGPROBS})
        self.worth_keeping = True
        self._settings = settings
        self._encoding = encoding
        self._breaker = breaker
        self._described: _Model | None = None

    async def describe(self) -> ModelInfo:
        """Find the model, and prepare it if it is the packaged one and never was."""
        info, self._described = await self._encoding.run(self._find)
        return info

    def _find(self) -> tuple[ModelInfo, _Model]:
        settings = self._settings
        folder = find_openvino_folder(settings)
        info = describe(
            "openvino",
            self.name,
            folder,
            settings.openvino_precision,
            tokenizer=self.name,
            most_tokens=settings.kv_cache_tokens,
        )
        config = batch_config(settings, folder)
        process = BatchingProcess(self.name, config, queue=settings.queue, breaker=self._breaker)
        end_tokens = frozenset(config.end_tokens)
        return info, _Model(ChatTokenizer(folder), end_tokens, info.context_tokens, process)

    @property
    def _model(self) -> _Model:
        assert self._described is not None, "described before it is used"
        return self._described

    async def load(self) -> None:
        """Start the process of the model and wait until it is loaded."""
        await self._model.process.start()

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield the answer as it is decoded; the first call loads the model.

        Raises `ServiceError` INPUT_TOO_LONG and UNSUPPORTED_BY_MODEL before it takes a
        place in the queue, OVERLOADED when that is full, and DEPENDENCY_UNAVAILABLE
        when the model's process ends.
        """
        model = self._model
        if query.json_schema:
            check_supported(query.json_schema, self.name)
        prompt = await self._encoding.run(
            lambda: model.tokenizer.encode(template.render(query.question, query.passages))
        )
        check_room(len(prompt), query, model.context_tokens)
        seed = secrets.randbits(64) if query.seed is None else query.seed

        def start(number: int) -> Start:
            return Start(
                number, prompt, query.max_tokens, query.temperature, seed, query.json_schema,
                query.logprobs,
            )  # fmt: skip

        answer = Answer(model.tokenizer.decode, len(prompt), query)
        async with aclosing(model.process.tokens(start)) as pieces:
            async for tokens in pieces:
                own = list(takewhile(lambda it: it.id not in model.end_tokens, tokens))
                for event in answer.push(*own):
                    yield event
                if answer.stopped or len(own) < len(tokens):
                    break
        for event in answer.finish():
            yield event

    async def close(self) -> None:
        """End the model's process."""
        if self._described is not None:
            await self._described.process.close()


def batch_config(settings: GeneratorSettings, folder: Path) -> BatchConfig:
    """Return how the model in `folder` is run by these settings."""
    return BatchConfig(
        folder=str(folder),
        end_tokens=sorted(end_tokens(folder)),
        threads=settings.threads,
        precision=settings.openvino_precision,
        cache_precision=settings.kv_cache_precision,
        slots=settings.slots,
        cache_tokens=settings.kv_cache_tokens,
        step_tokens=settings.step_tokens,
        stream_seconds=settings.stream_seconds,
    )
