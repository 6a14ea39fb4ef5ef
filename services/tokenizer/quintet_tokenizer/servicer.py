"""The gRPC face of the tokenizer: validates, asks the engine, builds the response."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceServicer
from quintet_servicekit.cache_service import use_message
from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.validation import Checks
from quintet_tokenizer.engine import Engine
from quintet_tokenizer.models import Side
from quintet_tokenizer.settings import Settings

Context = grpc.aio.ServicerContext[Any, Any]

_MAX_NAME_CHARS = 200


class TokenizerServicer(TokenizerServiceServicer):
    """Serves `quintet.tokenizer.v1.TokenizerService`."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    async def Count(self, request: pb.CountRequest, context: Context) -> pb.CountResponse:
        """Count the tokens of each text."""
        texts = list(request.texts)
        self._checks(request.model, texts).done()
        counted = await self._engine.count(request.model, texts, special=request.add_special_tokens)
        return pb.CountResponse(
            model=counted.model.name,
            revision=counted.model.revision,
            counts=counted.counts,
            estimated=counted.estimated,
            cache=use_message(counted.cache) if counted.cache else None,
        )

    async def Encode(self, request: pb.EncodeRequest, context: Context) -> pb.EncodeResponse:
        """Turn each text into token ids."""
        texts = list(request.texts)
        self._checks(request.model, texts, self._settings.max_encode_chars).done()
        model, encoded = await self._engine.encode(
            request.model,
            texts,
            special=request.add_special_tokens,
            offsets=request.return_offsets,
        )
        return pb.EncodeResponse(
            model=model.name,
            revision=model.revision,
            encodings=[
                pb.Encoding(
                    ids=tokens.ids, offsets=[_span(offset) for offset in tokens.offsets or ()]
                )
                for tokens in encoded
            ],
        )

    async def Decode(self, request: pb.DecodeRequest, context: Context) -> pb.DecodeResponse:
        """Turn token ids back into text."""
        checks = _named(request.model)
        checks.batch("sequences", request.sequences, max_items=self._settings.max_batch)
        sequences = [list(sequence.ids) for sequence in request.sequences]
        _check_total("sequences", map(len, sequences), self._settings.max_encode_chars, "tokens")
        checks.done()
        model, texts = await self._engine.decode(
            request.model, sequences, keep_special=request.keep_special_tokens
        )
        return pb.DecodeResponse(model=model.name, revision=model.revision, texts=texts)

    async def Truncate(self, request: pb.TruncateRequest, context: Context) -> pb.TruncateResponse:
        """Cut each text to a number of tokens."""
        texts = list(request.texts)
        checks = self._checks(request.model, texts)
        if request.max_tokens < 1:
            checks.refuse("max_tokens", "must be at least 1")
        if request.side not in pb.TruncationSide.values():
            checks.refuse("side", "is no side that this server knows")
        checks.done()
        model, truncated = await self._engine.truncate(
            request.model,
            texts,
            max_tokens=request.max_tokens,
            side=Side.START if request.side == pb.TRUNCATION_SIDE_START else Side.END,
        )
        return pb.TruncateResponse(
            model=model.name,
            revision=model.revision,
            texts=[
                pb.TruncatedText(
                    text=text[slice(*it.span)],
                    span=_span(it.span),
                    tokens=it.tokens,
                    original_tokens=it.original_tokens,
                )
                for text, it in zip(texts, truncated, strict=True)
            ],
        )

    async def Chunk(self, request: pb.ChunkRequest, context: Context) -> pb.ChunkResponse:
        """Cut each text into overlapping windows of tokens."""
        max_tokens = request.max_tokens or self._settings.chunk_max_tokens
        overlap = self._overlap(request, max_tokens)
        texts = list(request.texts)
        checks = self._checks(request.model, texts)
        checks.number("max_tokens", max_tokens, least=8, most=8_192)
        if 2 * overlap >= max_tokens:
            checks.refuse("overlap_tokens", "must be less than half of max_tokens")
        if request.format not in pb.TextFormat.values():
            checks.refuse("format", "is no format that this server knows")
        checks.done()
        model, chunked = await self._engine.chunk(
            request.model,
            texts,
            max_tokens=max_tokens,
            overlap=overlap,
            markdown=request.format != pb.TEXT_FORMAT_PLAIN,
        )
        return pb.ChunkResponse(
            model=model.name,
            revision=model.revision,
            texts=[
                pb.ChunkedText(
                    tokens=it.tokens,
                    chunks=[
                        pb.Chunk(
                            span=_span(chunk.span),
                            text=text[slice(*chunk.span)],
                            tokens=chunk.tokens,
                            headings=chunk.headings,
                        )
                        for chunk in it.chunks
                    ],
                )
                for text, it in zip(texts, chunked, strict=True)
            ],
        )

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models whose tokenizers this service has."""
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    name=model.name,
                    revision=model.revision,
                    vocabulary_size=model.vocabulary_size,
                    is_default=model.is_default,
                    loaded=model.loaded,
                )
                for model in self._engine.models()
            ]
        )

    def _overlap(self, request: pb.ChunkRequest, max_tokens: int) -> int:
        if request.HasField("overlap_tokens"):
            return request.overlap_tokens
        # The default fits the default size; a caller's smaller chunks get what fits them.
        return min(self._settings.chunk_overlap_tokens, (max_tokens - 1) // 2)

    def _checks(self, model: str, texts: Sequence[str], max_chars: int | None = None) -> Checks:
        limit = max_chars or self._settings.max_chars
        checks = _named(model)
        checks.batch("texts", texts, max_items=self._settings.max_batch)
        for index, text in enumerate(texts):
            checks.text(f"texts[{index}]", text, max_chars=limit, required=False)
        _check_total("texts", map(len, texts), limit, "characters")
        return checks


def _named(model: str) -> Checks:
    checks = Checks()
    checks.text("model", model, max_chars=_MAX_NAME_CHARS, required=False)
    return checks


def _check_total(field: str, sizes: Iterable[int], limit: int, unit: str) -> None:
    """Raise INPUT_TOO_LONG unless the sizes sum up to at most `limit`."""
    total = sum(sizes)
    if total > limit:
        raise ServiceError(
            Reason.INPUT_TOO_LONG,
            f"{field} hold {total} {unit} together, and at most {limit} are accepted",
            metadata={"limit": str(limit), "actual": str(total), "unit": unit},
            violations=[Violation(field, f"must hold at most {limit} {unit} together")],
        )


def _span(span: tuple[int, int]) -> pb.Span:
    return pb.Span(start=span[0], end=span[1])
