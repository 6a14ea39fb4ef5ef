"""The backend behind which another server runs the model: vLLM, TGI, llama.cpp's
server, a hosted endpoint; whoever speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2

from quintet_generator import openai_errors
from quintet_generator.models import (
    Event,
    Feature,
    Finished,
    FinishReason,
    ModelInfo,
    Prompt,
    Query,
    TextDelta,
    TokenLogprob,
)
from quintet_generator.openai_chunks import Chunk, ChunkError, parse
from quintet_generator.prompts import PromptTemplate
from quintet_generator.settings import GeneratorSettings
from quintet_generator.stops import StopMatcher
from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError

MAX_EVENT_BYTES = 256 * 1024
"""Longest event of a stream; a piece of an answer with its logprobs is some 500 bytes."""
MAX_ERROR_BYTES = 64 * 1024
MAX_SENT_STOPS = 4
"""As many as the protocol takes. All are looked for here as well."""
CHARS_A_TOKEN = 4
"""Of English text, for the estimate of a usage that a server does not tell."""

_CONTROL = re.compile(r"<(?=\|)|<(?=/?s>)|<(?=(?:start|end)_of_turn>)|\[(?=/?INST\])")
"""Where the special tokens of common chat forms begin. Servers read them in contents
too, and a passage could otherwise speak as the system."""


class OpenAiBackend:
    """Implements `engine.Backend`."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self.name = settings.openai_served_name
        self.operation = "chat"
        self.features = frozenset(Feature)
        self.worth_keeping = True
        self._settings = settings
        self._url = f"{str(settings.openai_base_url).rstrip('/')}/chat/completions"
        key = settings.openai_api_key.get_secret_value()
        self._client = httpx2.AsyncClient(
            headers={
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",  # what is bounded are bytes as they come
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
            proxy=settings.openai_proxy or None,
            trust_env=False,
            timeout=httpx2.Timeout(None, connect=settings.openai_connect_seconds),
            limits=httpx2.Limits(max_connections=settings.openai_max_concurrent),
        )
        self._admitted = 0

    async def describe(self) -> ModelInfo:
        """Return what ListModels tells, by the settings: the server need not be up."""
        told = f"{self._settings.openai_base_url} {self._settings.openai_model}"
        return ModelInfo(
            name=self.name,
            revision=hashlib.sha256(told.encode()).hexdigest(),
            backend="openai",
            context_tokens=self._settings.openai_context_tokens,
            tokenizer=self._settings.openai_tokenizer,
        )

    async def load(self) -> None:
        """Nothing to load."""

    async def generate(self, query: Query, template: PromptTemplate) -> AsyncGenerator[Event, None]:
        """Yield the answer as the server streams it; leaving closes the HTTP request.

        Raises `ServiceError` OVERLOADED, INPUT_TOO_LONG, MODEL_NOT_FOUND,
        UNSUPPORTED_BY_MODEL, INVALID_FIELD, DEPENDENCY_UNAVAILABLE or
        DEADLINE_EXCEEDED, also in the middle of an answer that breaks off.
        """
        prompt = template.render(query.question, query.passages)
        answer = _Answer(prompt, query)
        try:
            async with (
                self._admission(),
                self._response(prompt, query) as response,
                aclosing(self._chunks(response, query)) as chunks,
            ):
                async for chunk in chunks:
                    for event in answer.push(chunk):
                        yield event
                    if answer.stopped:
                        break
        except ChunkError as error:
            raise openai_errors.unavailable(self.name, str(error)) from error
        except httpx2.TimeoutException as error:
            raise openai_errors.timed_out(self.name, "did not take the connection") from error
        except httpx2.SSEError as error:
            raise openai_errors.unavailable(self.name, "sent too long an event") from error
        except httpx2.HTTPError as error:
            raise openai_errors.unavailable(self.name, "cannot be reached, or hung up") from error
        if not answer.is_complete:
            raise openai_errors.unavailable(self.name, "broke off the answer")
        for event in answer.finish():
            yield event

    @asynccontextmanager
    async def _admission(self) -> AsyncIterator[None]:
        settings = self._settings
        if self._admitted >= settings.openai_max_concurrent + settings.queue:
            raise ServiceError(Reason.OVERLOADED, f"the queue of {self.name} is full")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    @asynccontextmanager
    async def _response(self, prompt: Prompt, query: Query) -> AsyncIterator[httpx2.Response]:
        request = self._client.build_request("POST", self._url, json=self._body(prompt, query))
        seconds = self._settings.openai_first_byte_seconds
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise openai_errors.timed_out(self.name, "took too long to begin") from error
        try:
            if response.status_code != httpx2.codes.OK:
                body = await self._beginning(response)
                failure = openai_errors.of_status(
                    response.status_code, response.headers, body, self.name, query
                )
                telemetry.logger().warning(
                    "the model's server refused a request",
                    model=self.name,
                    status=response.status_code,
                    reason=failure.reason.value,
                )
                raise failure
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise ChunkError("did not answer with a stream")
            yield response
        finally:
            await response.aclose()

    async def _beginning(self, response: httpx2.Response) -> bytes:
        body = b""
        try:
            async with asyncio.timeout(self._settings.openai_idle_seconds):
                async for data in response.aiter_bytes():
                    body += data
                    if len(body) > MAX_ERROR_BYTES:
                        break
        except (TimeoutError, httpx2.HTTPError):
            pass  # the status alone says enough
        return body[:MAX_ERROR_BYTES]

    async def _chunks(self, response: httpx2.Response, query: Query) -> AsyncGenerator[Chunk, None]:
        events = aiter(httpx2.EventSource(response, max_event_size=MAX_EVENT_BYTES))
        # An answer has about as many pieces as tokens; a server that never ends has more.
        for _ in range(4 * query.max_tokens + 64):
            try:
                async with asyncio.timeout(self._settings.openai_idle_seconds):
                    event = await anext(events, None)
            except TimeoutError as error:
                raise openai_errors.timed_out(self.name, "fell silent") from error
            if event is None or event.data.strip() == "[DONE]":
                return
            if event.data:
                yield parse(event.data)
        raise ChunkError("does not end its answer")

    def _body(self, prompt: Prompt, query: Query) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._settings.openai_model,
            "messages": [
                {"role": "system", "content": _as_text(prompt.system)},
                {"role": "user", "content": _as_text(prompt.user)},
            ],
            "max_tokens": query.max_tokens,
            "temperature": query.temperature,
            "stream": True,
        }
        if self._settings.openai_stream_usage:
            body["stream_options"] = {"include_usage": True}
        if query.seed is not None:
            body["seed"] = query.seed & 0x7FFF_FFFF  # what all servers take
        if query.stop:
            body["stop"] = list(query.stop[:MAX_SENT_STOPS])
        if query.logprobs:
            body["logprobs"] = True
        if query.json_schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "strict": True,
                    "schema": json.loads(query.json_schema),
                },
            }
        return body

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _Answer:
    """Puts the chunks of one answer together."""

    def __init__(self, prompt: Prompt, query: Query) -> None:
        self._prompt_chars = len(prompt.system) + len(prompt.user)
        self._stops = StopMatcher(query.stop)
        self._pieces = 0
        self._logprobs: list[TokenLogprob] = []
        self._reason: FinishReason | None = None
        self._prompt_tokens: int | None = None
        self._completion_tokens: int | None = None
        self._cached_prompt_tokens = 0

    @property
    def stopped(self) -> bool:
        return self._stops.stopped

    @property
    def is_complete(self) -> bool:
        """Whether the server said that, or we saw where, the answer ends."""
        return self.stopped or self._reason is not None

    def push(self, chunk: Chunk) -> Iterator[Event]:
        self._pieces += bool(chunk.text)
        self._logprobs += chunk.logprobs
        self._reason = chunk.finish_reason or self._reason
        if chunk.completion_tokens is not None:
            self._prompt_tokens = chunk.prompt_tokens
            self._completion_tokens = chunk.completion_tokens
            self._cached_prompt_tokens = chunk.cached_prompt_tokens
        if text := self._stops.push(chunk.text):
            yield TextDelta(text)

    def finish(self) -> Iterator[Event]:
        if text := self._stops.flush():
            yield TextDelta(text)
        prompt_tokens, completion_tokens = self._prompt_tokens, self._completion_tokens
        is_estimate = prompt_tokens is None or completion_tokens is None
        if prompt_tokens is None or completion_tokens is None:
            prompt_tokens = math.ceil(self._prompt_chars / CHARS_A_TOKEN)
            completion_tokens = self._pieces
        reason = FinishReason.STOP if self.stopped else self._reason or FinishReason.STOP
        yield Finished(
            reason,
            prompt_tokens,
            completion_tokens,
            is_estimate,
            tuple(self._logprobs),
            self._cached_prompt_tokens,
        )


def _as_text(content: str) -> str:
    return _CONTROL.sub(lambda it: f"{it[0]} ", content)
