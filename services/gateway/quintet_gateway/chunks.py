"""Cuts a document into the chunks that are searched, each with the text that its vector is
made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How documents are cut and embedded; see the settings of the same names."""

    chunk_tokens: int
    chunk_overlap_tokens: int
    heading_chars: int
    embed_batch: int
    embed_calls: int

    @property
    def shape(self) -> tuple[int, ...]:
        """What chunks and their vectors depend on."""
        return self.chunk_tokens, self.chunk_overlap_tokens, self.heading_chars


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk, and what is embedded for it: its text below the headings it stands under."""

    chunk: retriever_pb.Chunk
    embedded: str


async def cut(
    chain: Chain, services: Services, document: pb.Document, plan: ChunkPlan
) -> list[Piece]:
    """Return the document's pieces, without vectors: one if it is to stay whole, and none
    if the tokenizer reads nothing in it. Raises `ServiceError` as the tokenizer does."""
    if document.whole:
        return [await _whole(chain, services, document.content)]
    response = await chain.unary(
        services.peer("tokenizer"),
        "Chunk",
        services.tokenizer.Chunk,
        tokenizer_pb.ChunkRequest(
            texts=[document.content],
            max_tokens=plan.chunk_tokens,
            overlap_tokens=plan.chunk_overlap_tokens,
            format=document.format,
        ),
    )
    return [
        Piece(
            retriever_pb.Chunk(
                text=chunk.text, start=chunk.span.start, end=chunk.span.end, tokens=chunk.tokens
            ),
            under_headings(chunk.text, chunk.headings, plan.heading_chars),
        )
        for chunk in response.texts[0].chunks
    ]


async def _whole(chain: Chain, services: Services, content: str) -> Piece:
    response = await chain.unary(
        services.peer("tokenizer"),
        "Count",
        services.tokenizer.Count,
        tokenizer_pb.CountRequest(texts=[content]),
    )
    tokens = max(1, response.counts[0])
    chunk = retriever_pb.Chunk(text=content, start=0, end=len(content), tokens=tokens)
    return Piece(chunk, content)


def under_headings(text: str, headings: Sequence[str], most_chars: int) -> str:
    """Return the text below the path of its headings, of which the outermost are left out
    where the path would have more than `most_chars` characters."""
    for outermost in range(len(headings)):
        path = " > ".join(headings[outermost:])
        if len(path) <= most_chars:
            return f"{path}\n{text}"
    return text
