"""Turns models into the contract's messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.protobuf import struct_pb2, timestamp_pb2

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_retriever.models import (
    Collection,
    Document,
    DocumentChunks,
    Hit,
    Metadata,
    Mode,
    WrittenDocument,
)

MAX_PAGE_BYTES = 3 * 2**20
"""Most bytes of a page of documents, whose metadata may be 64 KiB each. gRPC's
clients accept messages of 4 MiB unless they are told otherwise."""

MODES = {
    Mode.DENSE: pb.SEARCH_MODE_DENSE,
    Mode.LEXICAL: pb.SEARCH_MODE_LEXICAL,
    Mode.HYBRID: pb.SEARCH_MODE_HYBRID,
}


def collection_message(collection: Collection) -> pb.Collection:
    """Return the collection's message."""
    return pb.Collection(
        name=collection.name,
        embedding_model=collection.embedding_model,
        embedding_revision=collection.key.embedding_revision,
        dimension=collection.key.dimension,
        create_time=_timestamp(collection.create_time),
        document_count=collection.document_count,
        chunk_count=collection.chunk_count,
        description=collection.description,
        language=collection.key.language,
    )


def document_message(document: Document) -> pb.Document:
    """Return the document's message."""
    return pb.Document(
        id=document.id,
        title=document.title,
        content=document.content,
        metadata=_struct(document.metadata),
        content_hash=document.content_hash,
        version=document.version,
        create_time=_timestamp(document.create_time),
        update_time=_timestamp(document.update_time),
        chunk_count=document.chunk_count,
        content_length=document.content_length,
    )


def chunks_message(found: DocumentChunks) -> pb.GetChunksResponse:
    """Return the message of a document's chunks."""
    return pb.GetChunksResponse(
        version=found.version,
        embedding_revision=found.embedding_revision,
        chunks=[
            pb.Chunk(text=it.text, start=it.start, end=it.end, tokens=it.tokens, vector=it.vector)
            for it in found.chunks
        ],
    )


def page_of_documents(documents: Sequence[Document]) -> list[pb.Document]:
    """Return the messages of the first documents, at least one, that fit a page."""
    messages: list[pb.Document] = []
    size = 0
    for document in documents:
        message = document_message(document)
        size += message.ByteSize()
        if messages and size > MAX_PAGE_BYTES:
            break
        messages.append(message)
    return messages


def upserted_message(written: WrittenDocument) -> pb.UpsertedDocument:
    """Return the message about a written document."""
    return pb.UpsertedDocument(
        id=written.id,
        version=written.version,
        created=written.version == 1,
        chunk_count=written.chunk_count,
        link_count=written.link_count,
        omitted_links=written.omitted_links,
    )


def hit_message(hit: Hit) -> pb.Hit:
    """Return the hit's message."""
    return pb.Hit(
        document_id=hit.document_id,
        document_version=hit.document_version,
        title=hit.title,
        chunk_index=hit.chunk_index,
        text=hit.text,
        start=hit.start,
        end=hit.end,
        tokens=hit.tokens,
        score=hit.score,
        scores=pb.Scores(
            dense=hit.dense,
            dense_rank=hit.dense_rank,
            lexical=hit.lexical,
            lexical_rank=hit.lexical_rank,
        ),
        metadata=_struct(hit.metadata),
    )


def _struct(metadata: Metadata) -> struct_pb2.Struct | None:
    if not metadata:
        return None
    message = struct_pb2.Struct()
    message.update(metadata)
    return message


def _timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(moment)
    return message
