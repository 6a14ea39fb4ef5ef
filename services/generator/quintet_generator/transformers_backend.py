"""The backend that runs a causal language model through transformers.

One generation at a time, on one thread, because two on the same cores would both
be slower; the others wait in a bounded queue.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from quintet_generator.model_files import describe, find_folder
from quintet_generator.models import Event, ModelInfo, Query
from quintet_generator.prompts import PromptTemplate
from quintet_generator.settings import GeneratorSettings
from quintet_generator.streaming import stream_from_thread
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.executor import BoundedExecutor

if TYPE_CHECKING:
    from quintet_generator.language_model import LanguageModel


class TransformersBackend:
    """Implements `engine.Backend`.

    `encoding` reads prompts, `decoding` runs the model; each has one thread.
    """

    def __init__(
        self, settings: GeneratorSettings, *, encoding: BoundedExecutor, decoding: BoundedExecutor
    ) -> None:
        self.name = settings.served_name
        self.operation = "chat"
        self._settings = settings
        self._encoding = encoding
        self._decoding = decoding
        self._folder: Path | None = None
        self._model: LanguageModel | None = None

    async def describe(self) -> ModelInfo:
        """Find the model, and prepare it if it is the packaged one and never was."""
        settings = self._settings
        self._folder = await self._encoding.run(find_folder, settings)
        return await self._encoding.run(describe, self._folder, settings)

    async def load(self) -> None:
        """Load the model, once, on the thread that will run it. Raises `ServiceError`
        OVERLOADED when the queue is full."""
        await self._ready()

    async def _ready(self) -> LanguageModel:
        if self._model is not None:
            return self._model
        return await self._decoding.run(self._loaded)

    def _loaded(self) -> LanguageModel:
        # The one thread is lock enough: who comes second finds the model there, even
        # if the first has left meanwhile.
        if self._model is None:
            # Imported here for the seconds that it takes: a service that never uses
            # this backend does without torch.
            from quintet_generator.language_model import LanguageModel

            assert self._folder is not None, "described before it is loaded"
            self._model = LanguageModel(
                self.name,
                self._folder,
                dtype=self._settings.dtype,
                threads=self._settings.threads,
            )
        return self._model

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield the answer as it is decoded; the first call loads the model.

        Raises `ServiceError` INPUT_TOO_LONG before it takes a place in the queue, and
        OVERLOADED when the queue is full.
        """
        model = await self._ready()
        tokens = await self._encoding.run(
            lambda: model.encode(template.render(query.question, query.passages))
        )
        limit = model.context_tokens - query.max_tokens
        if len(tokens) > limit:
            raise ServiceError(
                Reason.INPUT_TOO_LONG,
                f"the prompt has {len(tokens)} tokens; with max_tokens of {query.max_tokens}"
                f" this model has room for {max(limit, 0)}",
                metadata={
                    "limit": str(max(limit, 0)),
                    "actual": str(len(tokens)),
                    "unit": "tokens",
                },
            )
        stream = stream_from_thread(
            self._decoding, lambda still_wanted: model.generate(tokens, query, still_wanted)
        )
        async with aclosing(stream) as events:
            async for event in events:
                yield event
