"""One document's way: chunk, embed, upsert."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.admission.admission import Admission
from quintet_gateway.billing.bounds import most
from quintet_gateway.catalog import OUTDATED, Catalog, EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.chunks import ChunkPlan, Piece, cut
from quintet_gateway.clients import Services
from quintet_gateway.concurrently import each
from quintet_gateway.freshness import Freshness
from quintet_gateway.kept_vectors import LEAST_CHUNKS, kept_vectors
from quintet_gateway.recipes import content_hash, is_cut_alike
from quintet_servicekit.errors import Reason, ServiceError


class Ingester:
    """Brings one document in."""

    def __init__(
        self,
        services: Services,
        catalog: Catalog,
        freshness: Freshness,
        plan: ChunkPlan,
        admission: Admission,
    ) -> None:
        self._services = services
        self._catalog = catalog
        self._freshness = freshness
        self._plan = plan
        self._admission = admission

    async def ingest(self, chain: Chain, request: pb.IngestRequest) -> pb.Ingested:
        """Commit a document whole, or raise and leave what stood there.

        Raises `ServiceError` as the tokenizer, the embedder and the retriever do.
        """
        try:
            return await self._ingest(chain, request)
        except ServiceError as error:
            if error.reason not in OUTDATED:
                raise
        # The collection was made anew since we last looked.
        self._catalog.forget(request.collection)
        return await self._ingest(chain, request)

    async def _ingest(self, chain: Chain, request: pb.IngestRequest) -> pb.Ingested:
        collection, document = request.collection, request.document
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
        pieces = await cut(chain, self._services, document, self._plan)
        if not pieces:
            raise ServiceError(Reason.INVALID_FIELD, "document.content must not be empty")
        if standing is not None and self._has_vectors(standing.document, digest):
            kept = await kept_vectors(
                chain, self._services, collection, standing.document, model, self._plan
            )
            for piece in pieces:
                piece.chunk.vector = kept.get(piece.embedded, b"")
        new = [piece for piece in pieces if not piece.chunk.vector]
        expected = sum(piece.chunk.tokens for piece in new)
        # Documents can wait for tokens as long as they have time.
        left = chain.left()
        limit = most(
            chain.meter.prices,
            chain.meter.day,
            seconds=left,
            embedded=expected,
            at_once=self._plan.embed_calls,
        )
        async with self._admission.reserved(
            expected, chain.meter, most=limit, patience_seconds=left
        ):
            revision, tokens = await self._embed(chain, model, new, truncate=document.whole)
        written = retriever_pb.DocumentInput(
            id=document.id,
            title=document.title,
            content=document.content,
            content_hash=digest,
            chunks=[piece.chunk for piece in pieces],
            plain=document.format == tokenizer_pb.TEXT_FORMAT_PLAIN,
        )
        if document.HasField("metadata"):
            written.metadata.CopyFrom(document.metadata)
        mark = self._freshness.mark()
        response = await chain.unary(
            self._services.peer("retriever"),
            "UpsertDocuments",
            self._services.retriever.UpsertDocuments,
            retriever_pb.UpsertDocumentsRequest(
                collection=collection,
                documents=[written],
                embedding_revision=revision,
                request_id=request.request_id or new_request_id(),
            ),
        )
        self._freshness.wrote(collection, response.consistency_token, mark, request.request_id)
        result = response.documents[0]
        return pb.Ingested(
            outcome=pb.INGEST_OUTCOME_CREATED if result.created else pb.INGEST_OUTCOME_REPLACED,
            version=result.version,
            chunks=result.chunk_count,
            tokens=tokens,
            consistency_token=response.consistency_token,
            links=result.link_count,
            omitted_links=result.omitted_links,
        )

    @staticmethod
    def _has_vectors(standing: retriever_pb.Document, digest: str) -> bool:
        alike = is_cut_alike(standing.content_hash, digest)
        return alike and standing.chunk_count >= LEAST_CHUNKS

    async def _standing(
        self, chain: Chain, collection: str, document_id: str
    ) -> retriever_pb.GetDocumentResponse | None:
        try:
            return await chain.unary(
                self._services.peer("retriever"),
                "GetDocument",
                self._services.retriever.GetDocument,
                retriever_pb.GetDocumentRequest(collection=collection, id=document_id),
                expected=Reason.DOCUMENT_NOT_FOUND,
            )
        except ServiceError as error:
            if error.reason is Reason.DOCUMENT_NOT_FOUND:
                return None
            raise

    async def _embed(
        self,
        chain: Chain,
        model: EmbeddingModel,
        pieces: Sequence[Piece],
        *,
        truncate: bool,
    ) -> tuple[str, int]:
        """Give each chunk its vector, of its first tokens if it may be truncated; return
        the model's revision and the tokens read."""
        size = self._plan.embed_batch
        batches = [pieces[start : start + size] for start in range(0, len(pieces), size)]
        revisions = set() if batches else {model.revision}
        tokens = 0

        async def vectors(texts: Sequence[str]) -> embedder_pb.EmbedResponse:
            return await chain.unary(
                self._services.peer("embedder"),
                "Embed",
                self._services.embedder.Embed,
                embedder_pb.EmbedRequest(
                    model=model.name,
                    texts=texts,
                    input_type=embedder_pb.INPUT_TYPE_PASSAGE,
                    truncation=(
                        embedder_pb.TRUNCATION_END if truncate else embedder_pb.TRUNCATION_REJECT
                    ),
                ),
            )

        async def embed(batch: Sequence[Piece]) -> embedder_pb.EmbedResponse:
            try:
                response = await vectors([piece.embedded for piece in batch])
            except ServiceError as error:
                if error.reason is not Reason.INPUT_TOO_LONG:
                    raise
                # With its headings one has more tokens than the model reads.
                response = await vectors([piece.chunk.text for piece in batch])
            for piece, embedding in zip(batch, response.embeddings, strict=True):
                piece.chunk.vector = embedding.vector
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


def new_request_id() -> str:
    """Return an id for a write whose caller gave none, so that our channel may send it
    again without its being applied twice."""
    return str(uuid.uuid4())


async def _stream(
    batches: Sequence[Sequence[Piece]],
) -> AsyncIterator[Sequence[Piece]]:
    for batch in batches:
        yield batch
