"""One document's way: chunk, embed, upsert."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from google.protobuf import json_format

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.catalog import Catalog, EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.concurrently import each
from quintet_gateway.freshness import Freshness
from quintet_servicekit.errors import Reason, ServiceError

METHOD_VERSION = 1
"""Raise it when documents are cut or embedded in another way, so that the next
ingest makes them anew."""


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How documents are cut and embedded; see the settings of the same names."""

    chunk_tokens: int
    chunk_overlap_tokens: int
    embed_batch: int
    embed_calls: int


class Ingester:
    """Brings one document in."""

    def __init__(
        self, services: Services, catalog: Catalog, freshness: Freshness, plan: ChunkPlan
    ) -> None:
        self._services = services
        self._catalog = catalog
        self._freshness = freshness
        self._plan = plan

    async def ingest(self, chain: Chain, collection: str, document: pb.Document) -> pb.Ingested:
        """Commit a document whole, or raise and leave what stood there.

        Raises `ServiceError` as the tokenizer, the embedder and the retriever do.
        """
        try:
            return await self._ingest(chain, collection, document)
        except ServiceError as error:
            if error.reason is not Reason.MODEL_MISMATCH:
                raise
        # The collection was made anew since we last looked.
        self._catalog.forget(collection)
        return await self._ingest(chain, collection, document)

    async def _ingest(self, chain: Chain, collection: str, document: pb.Document) -> pb.Ingested:
        model = await self._catalog.embedding_model(chain, collection)
        digest = content_hash(document, model, self._plan)
        standing = await self._standing(chain, collection, document.id)
        if standing is not None and standing.document.content_hash == digest:
            return pb.Ingested(
                outcome=pb.INGEST_OUTCOME_UNCHANGED,
                version=standing.document.version,
                chunks=standing.document.chunk_count,
                consistency_token=standing.consistency_token,
            )
        if document.whole:
            chunks = await self._one_chunk(chain, document.content)
        else:
            chunks = await self._chunks(chain, document.content)
        if not chunks:
            raise ServiceError(Reason.INVALID_FIELD, "document.content must not be empty")
        revision, tokens = await self._embed(chain, model, chunks, truncate=document.whole)
        written = retriever_pb.DocumentInput(
            id=document.id,
            title=document.title,
            content=document.content,
            content_hash=digest,
            chunks=chunks,
        )
        if document.HasField("metadata"):
            written.metadata.CopyFrom(document.metadata)
        mark = self._freshness.mark()
        response = await chain.unary(
            self._services.peer("retriever"),
            "UpsertDocuments",
            self._services.retriever.UpsertDocuments,
            retriever_pb.UpsertDocumentsRequest(
                collection=collection, documents=[written], embedding_revision=revision
            ),
        )
        self._freshness.note(collection, response.consistency_token, mark)
        result = response.documents[0]
        return pb.Ingested(
            outcome=pb.INGEST_OUTCOME_CREATED if result.created else pb.INGEST_OUTCOME_REPLACED,
            version=result.version,
            chunks=result.chunk_count,
            tokens=tokens,
            consistency_token=response.consistency_token,
        )

    async def _standing(
        self, chain: Chain, collection: str, document_id: str
    ) -> retriever_pb.GetDocumentResponse | None:
        try:
            return await chain.unary(
                self._services.peer("retriever"),
                "GetDocument",
                self._services.retriever.GetDocument,
                retriever_pb.GetDocumentRequest(collection=collection, id=document_id),
            )
        except ServiceError as error:
            if error.reason is Reason.DOCUMENT_NOT_FOUND:
                return None
            raise

    async def _chunks(self, chain: Chain, content: str) -> list[retriever_pb.Chunk]:
        response = await chain.unary(
            self._services.peer("tokenizer"),
            "Chunk",
            self._services.tokenizer.Chunk,
            tokenizer_pb.ChunkRequest(
                texts=[content],
                max_tokens=self._plan.chunk_tokens,
                overlap_tokens=self._plan.chunk_overlap_tokens,
            ),
        )
        return [
            retriever_pb.Chunk(
                text=chunk.text, start=chunk.span.start, end=chunk.span.end, tokens=chunk.tokens
            )
            for chunk in response.texts[0].chunks
        ]

    async def _one_chunk(self, chain: Chain, content: str) -> list[retriever_pb.Chunk]:
        response = await chain.unary(
            self._services.peer("tokenizer"),
            "Count",
            self._services.tokenizer.Count,
            tokenizer_pb.CountRequest(texts=[content]),
        )
        tokens = max(1, response.counts[0])
        return [retriever_pb.Chunk(text=content, start=0, end=len(content), tokens=tokens)]

    async def _embed(
        self,
        chain: Chain,
        model: EmbeddingModel,
        chunks: list[retriever_pb.Chunk],
        *,
        truncate: bool,
    ) -> tuple[str, int]:
        """Give each chunk its vector, of its first tokens if it may be truncated; return
        the model's revision and the tokens read."""
        size = self._plan.embed_batch
        batches = [chunks[start : start + size] for start in range(0, len(chunks), size)]
        revisions: set[str] = set()
        tokens = 0

        async def embed(batch: list[retriever_pb.Chunk]) -> embedder_pb.EmbedResponse:
            response = await chain.unary(
                self._services.peer("embedder"),
                "Embed",
                self._services.embedder.Embed,
                embedder_pb.EmbedRequest(
                    model=model.name,
                    texts=[chunk.text for chunk in batch],
                    input_type=embedder_pb.INPUT_TYPE_PASSAGE,
                    truncation=(
                        embedder_pb.TRUNCATION_END if truncate else embedder_pb.TRUNCATION_REJECT
                    ),
                ),
            )
            for chunk, embedding in zip(batch, response.embeddings, strict=True):
                chunk.vector = embedding.vector
            return response

        work = each(_stream(batches), embed, in_flight=self._plan.embed_calls)
        async with aclosing(work) as responses:
            async for response in responses:
                revisions.add(response.revision)
                tokens += sum(embedding.tokens for embedding in response.embeddings)
        if len(revisions) > 1:
            raise ServiceError(
                Reason.CONFLICT, "the embedding model changed while the document was embedded"
            )
        return revisions.pop(), tokens


async def _stream(
    batches: Sequence[list[retriever_pb.Chunk]],
) -> AsyncIterator[list[retriever_pb.Chunk]]:
    for batch in batches:
        yield batch


def content_hash(document: pb.Document, model: EmbeddingModel, plan: ChunkPlan) -> str:
    """Return a digest of all that a document's chunks are made from, in hex.

    Equal digests mean that ingesting again would change nothing.
    """
    made_from = {
        "version": METHOD_VERSION,
        "title": document.title,
        "content": document.content,
        "metadata": json_format.MessageToDict(document.metadata),
        "model": [model.name, model.revision],
        "plan": "whole" if document.whole else [plan.chunk_tokens, plan.chunk_overlap_tokens],
    }
    canonical = json.dumps(made_from, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
