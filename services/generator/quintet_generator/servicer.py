"""The RPCs: checks a request, asks the engine, builds the response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2_grpc as pb_grpc
from quintet_generator import wire
from quintet_generator.engine import Engine
from quintet_generator.models import Passage, Query
from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.validation import Checks

Context = grpc.aio.ServicerContext[Any, Any]

MAX_NAME_CHARS = 200
MAX_QUESTION_CHARS = 10_000
MAX_TITLE_CHARS = 1_000
MAX_PASSAGES = 64
MAX_TOKENS = 4_096
MAX_TEMPERATURE = 2
MAX_STOPS = 8
MAX_STOP_CHARS = 64
MAX_SCHEMA_CHARS = 16_384
DEFAULT_MAX_TOKENS = 256
DEFAULT_TEMPLATE = "answer"


class GeneratorServicer(pb_grpc.GeneratorServiceServicer):
    """Implements quintet.generator.v1.GeneratorService."""

    def __init__(self, engine: Engine, *, max_passages_chars: int) -> None:
        self._engine = engine
        self._max_passages_chars = max_passages_chars

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Answer whole."""
        return wire.response(await self._engine.generate(self._query(request)))

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Answer in pieces as they come."""
        async with aclosing(self._engine.stream(self._query(request))) as events:
            async for event in events:
                yield wire.stream_response(event)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models by preference, and the templates."""
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    name=model.name,
                    revision=model.revision,
                    context_tokens=model.context_tokens,
                    backend=model.backend,
                    is_default=index == 0,
                    tokenizer=model.tokenizer,
                    prompt_revision=model.prompt_revision,
                    suspended=self._engine.is_suspended(model.name),
                )
                for index, model in enumerate(self._engine.models())
            ],
            templates=[
                pb.Template(name=it.name, version=it.version, revision=it.revision)
                for it in self._engine.templates
            ],
        )

    def _query(self, request: pb.GenerateRequest) -> Query:
        """Return the request as a query. Raises `ServiceError` for a bad one."""
        checks = Checks()
        checks.text("model", request.model, max_chars=MAX_NAME_CHARS, required=False)
        checks.text("template", request.template, max_chars=MAX_NAME_CHARS, required=False)
        checks.text("question", request.question, max_chars=MAX_QUESTION_CHARS)
        checks.batch("passages", request.passages, max_items=MAX_PASSAGES)
        self._check_total(request)
        for index, passage in enumerate(request.passages):
            field = f"passages[{index}]"
            checks.text(f"{field}.title", passage.title, max_chars=MAX_TITLE_CHARS, required=False)
            checks.text(f"{field}.text", passage.text, max_chars=self._max_passages_chars)
        checks.number("max_tokens", request.max_tokens, least=0, most=MAX_TOKENS)
        checks.number("temperature", request.temperature, least=0, most=MAX_TEMPERATURE)
        if len(request.stop) > MAX_STOPS:
            checks.refuse("stop", f"must hold at most {MAX_STOPS} items")
        for index, stop in enumerate(request.stop[:MAX_STOPS]):
            checks.text(f"stop[{index}]", stop, max_chars=MAX_STOP_CHARS, blank_ok=True)
        checks.text("json_schema", request.json_schema, max_chars=MAX_SCHEMA_CHARS, required=False)
        if request.json_schema and not _is_json_object(request.json_schema):
            checks.refuse("json_schema", "must be a JSON object")
        checks.done()
        return Query(
            model=request.model,
            question=request.question,
            passages=tuple(Passage(it.title, it.text) for it in request.passages),
            template=request.template or DEFAULT_TEMPLATE,
            max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=request.temperature,
            seed=request.seed if request.HasField("seed") else None,
            stop=tuple(request.stop),
            json_schema=request.json_schema,
            logprobs=request.logprobs,
            no_cache=request.no_cache,
        )

    def _check_total(self, request: pb.GenerateRequest) -> None:
        total, limit = sum(len(it.text) for it in request.passages), self._max_passages_chars
        if total > limit:
            raise ServiceError(
                Reason.INPUT_TOO_LONG,
                f"passages have {total} characters together, and at most {limit} are accepted",
                metadata={"limit": str(limit), "actual": str(total), "unit": "characters"},
                violations=[Violation("passages", f"must have at most {limit} characters")],
            )


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
