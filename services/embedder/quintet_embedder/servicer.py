"""The embedder's RPCs: validate, call the engine, build the response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from quintet.embedder.v1 import embedder_service_pb2 as pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceServicer
from quintet_embedder.engine import Engine
from quintet_embedder.models import Purpose, RerankMethod
from quintet_servicekit.cache_service import use_message
from quintet_servicekit.validation import Checks

Context = grpc.aio.ServicerContext[Any, Any]

_PURPOSES = {
    pb.INPUT_TYPE_UNSPECIFIED: Purpose.PASSAGE,
    pb.INPUT_TYPE_QUERY: Purpose.QUERY,
    pb.INPUT_TYPE_PASSAGE: Purpose.PASSAGE,
}
_TRUNCATES = {
    pb.TRUNCATION_UNSPECIFIED: False,
    pb.TRUNCATION_REJECT: False,
    pb.TRUNCATION_END: True,
}

_METHODS = {
    RerankMethod.MAX_SIM: pb.RERANK_METHOD_MAX_SIM,
    RerankMethod.CROSS_ENCODER: pb.RERANK_METHOD_CROSS_ENCODER,
}


class EmbedderServicer(EmbedderServiceServicer):
    """See the contract for each method."""

    def __init__(self, engine: Engine, *, max_batch: int, max_text_chars: int) -> None:
        self._engine = engine
        self._max_batch = max_batch
        self._max_text_chars = max_text_chars

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        self._check(request)
        embedded = await self._engine.embed(
            request.model,
            list(request.texts),
            _PURPOSES[request.input_type],
            truncate=_TRUNCATES[request.truncation],
        )
        model = embedded.model
        return pb.EmbedResponse(
            model=model.name,
            revision=model.revision,
            dimension=model.dimension,
            embeddings=[
                pb.Embedding(vector=it.vector, tokens=it.tokens, truncated=it.truncated)
                for it in embedded.embeddings
            ],
            cache=use_message(embedded.cache),
        )

    def _check(self, request: pb.EmbedRequest) -> None:
        checks = Checks()
        checks.text("model", request.model, max_chars=200, required=False)
        self._check_texts(checks, "texts", request.texts)
        if request.input_type not in _PURPOSES:
            checks.refuse("input_type", "is not a value of InputType")
        if request.truncation not in _TRUNCATES:
            checks.refuse("truncation", "is not a value of Truncation")
        checks.done()

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        self._check_rerank(request)
        reranked = await self._engine.rerank(
            request.model,
            request.query,
            list(request.passages),
            truncate=_TRUNCATES[request.truncation],
        )
        scores = reranked.scores
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return pb.RerankResponse(
            model=reranked.model,
            revision=reranked.revision,
            method=_METHODS[reranked.method],
            results=[
                pb.RankedPassage(index=index, score=scores[index])
                for index in order[: request.top_n or None]
            ],
            tokens=reranked.tokens,
        )

    def _check_rerank(self, request: pb.RerankRequest) -> None:
        checks = Checks()
        checks.text("model", request.model, max_chars=200, required=False)
        checks.text("query", request.query, max_chars=self._max_text_chars)
        self._check_texts(checks, "passages", request.passages)
        if request.truncation not in _TRUNCATES:
            checks.refuse("truncation", "is not a value of Truncation")
        checks.number("top_n", request.top_n, least=0, most=self._max_batch)
        checks.done()

    def _check_texts(self, checks: Checks, field: str, texts: Sequence[str]) -> None:
        checks.batch(field, texts, max_items=self._max_batch)
        for index, text in enumerate(texts):
            checks.text(f"{field}[{index}]", text, max_chars=self._max_text_chars)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    name=model.name,
                    revision=model.revision,
                    dimension=model.dimension,
                    max_tokens=model.max_tokens,
                    normalized=model.normalized,
                    is_default=model.is_default,
                    backend=model.backend,
                )
                for model in self._engine.models()
            ]
        )
