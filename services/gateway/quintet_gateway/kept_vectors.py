"""Vectors of a document's standing chunks, so that those that stay are not embedded again."""

from __future__ import annotations

from collections.abc import Mapping

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.chunks import ChunkPlan, cut
from quintet_gateway.clients import Services
from quintet_gateway.recipes import set_form
from quintet_servicekit.errors import Reason, ServiceError

LEAST_CHUNKS = 4
"""Chunks of a document whose vectors are worth being read: to read them takes three calls,
as long as to embed three chunks."""


async def kept_vectors(
    chain: Chain,
    services: Services,
    collection: str,
    standing: retriever_pb.Document,
    model: EmbeddingModel,
    plan: ChunkPlan,
) -> Mapping[str, bytes]:
    """Return the standing chunks' vectors, packed, by the text that was embedded for each.

    The text is found by cutting what stands once more, so `standing` must have been cut
    in the way that is in force. Empty if the document was replaced meanwhile.
    """
    name = {"collection": collection, "id": standing.id}
    peer = services.peer("retriever")
    try:
        document = await chain.unary(
            peer,
            "GetDocument",
            services.retriever.GetDocument,
            retriever_pb.GetDocumentRequest(**name, include_content=True),
            expected=Reason.DOCUMENT_NOT_FOUND,
        )
        stored = await chain.unary(
            peer,
            "GetChunks",
            services.retriever.GetChunks,
            retriever_pb.GetChunksRequest(**name),
        )
    except ServiceError as error:
        if error.reason is Reason.DOCUMENT_NOT_FOUND:
            return {}
        raise
    versions = {standing.version, document.document.version, stored.version}
    if len(versions) > 1 or stored.embedding_revision != model.revision:
        return {}
    old = pb.Document(content=document.document.content)
    set_form(old, standing.content_hash)
    vectors = {(chunk.start, chunk.end): chunk.vector for chunk in stored.chunks}
    places = (
        (piece.embedded, (piece.chunk.start, piece.chunk.end))
        for piece in await cut(chain, services, old, plan)
    )
    return {text: vectors[place] for text, place in places if place in vectors}
