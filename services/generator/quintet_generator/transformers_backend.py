"""The backend that runs a causal language model through transformers.

One generation at a time, on one thread, because two on the same cores would both
be slower; the others wait in a bounded queue.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

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
        self._model: LanguageModel | None = None

    async def load(self) -> ModelInfo:
        """Load the model, on the thread that will run it."""
        self._model = await self._decoding.run(self._load)
        return ModelInfo(
            name=self.name,
            revision=self._model.revision,
            backend="transformers",
            context_tokens=self._model.context_tokens,
            tokenizer=self.name,
        )

    def _load(self) -> LanguageModel:
        # Imported here for the seconds that it takes: the server listens meanwhile,
        # and a service without this backend does without torch.
        from quintet_generator.language_model import LanguageModel
        from quintet_generator.model_files import find_folder

        settings = self._settings
        return LanguageModel(
            self.name, find_folder(settings), dtype=settings.dtype, threads=settings.threads
        )

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield the answer as it is decoded.

        Raises `ServiceError` INPUT_TOO_LONG before it takes a place in the queue, and
        OVERLOADED when the queue is full.
        """
        model = self._model
        if model is None:
            raise ServiceError(Reason.NOT_READY, "the model is not loaded yet")
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
