"""The backend that runs a causal language model through transformers.

One generation at a time, on one thread, because two on the same cores would both
be slower; the others wait in a bounded queue.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from quintet_generator.lazily import Lazy
from quintet_generator.limits import check_room
from quintet_generator.model_files import describe, find_folder
from quintet_generator.models import Event, Feature, ModelInfo, Query
from quintet_generator.prompts import PromptTemplate
from quintet_generator.settings import GeneratorSettings
from quintet_generator.streaming import stream_from_thread
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.loading import Loading

if TYPE_CHECKING:
    from quintet_generator.language_model import LanguageModel


class TransformersBackend:
    """Implements `engine.Backend`.

    `encoding` reads prompts, `decoding` runs the model; each has one thread.
    """

    def __init__(
        self, settings: GeneratorSettings, *, encoding: BoundedExecutor, decoding: BoundedExecutor
    ) -> None:
        self.name = settings.transformers_name
        self.operation = "chat"
        self.features = frozenset({Feature.LOGPROBS})
        self.worth_keeping = True
        self._settings = settings
        self._encoding = encoding
        self._decoding = decoding
        self._folder: Path | None = None
        # Loaded on the thread that will run it.
        self._model = Lazy(decoding, self._loaded, Loading("language model", self.name))

    async def describe(self) -> ModelInfo:
        """Find the model, and prepare it if it is the packaged one and never was."""
        self._folder = await self._encoding.run(find_folder, self._settings)
        return await self._encoding.run(
            lambda: describe(
                "transformers",
                self.name,
                self._folder_of_model(),
                self._settings.dtype,
                tokenizer=self._settings.served_name,
            )
        )

    async def load(self) -> None:
        """Load the model, once, on the thread that will run it. Raises `ServiceError`
        OVERLOADED when the queue is full."""
        await self._model.get()

    def _folder_of_model(self) -> Path:
        assert self._folder is not None, "described before it is loaded"
        return self._folder

    def _loaded(self) -> LanguageModel:
        # Imported here for the seconds that it takes: a service that never uses this
        # backend does without torch.
        from quintet_generator.language_model import LanguageModel

        settings = self._settings
        return LanguageModel(
            self.name,
            self._folder_of_model(),
            dtype=settings.dtype,
            threads=settings.threads,
            device=settings.device,
        )

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield the answer as it is decoded; the first call loads the model.

        Raises `ServiceError` INPUT_TOO_LONG before it takes a place in the queue, and
        OVERLOADED when the queue is full.
        """
        model = await self._model.get()
        tokens = await self._encoding.run(
            lambda: model.encode(template.render(query.question, query.passages))
        )
        check_room(len(tokens), query, model.context_tokens)
        stream = stream_from_thread(
            self._decoding, lambda still_wanted: model.generate(tokens, query, still_wanted)
        )
        async with aclosing(stream) as events:
            async for event in events:
                yield event
