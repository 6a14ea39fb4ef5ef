"""The wire's side of the retriever: request → models → engine → response."""

from __future__ import annotations

from typing import Any

import grpc

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet_retriever import requests, responses
from quintet_retriever.engine import Engine
from quintet_retriever.filter_parsing import parse_filter
from quintet_retriever.pages import key_of_token, page_token
from quintet_retriever.request_keys import request_key
from quintet_retriever.settings import Settings
from quintet_servicekit.cache_service import use_message
from quintet_servicekit.consistency import encode_token

Context = grpc.aio.ServicerContext[Any, Any]


class RetrieverServicer(pb_grpc.RetrieverServiceServicer):
    """Implements quintet.retriever.v1.RetrieverService."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: Context
    ) -> pb.CreateCollectionResponse:
        """See the contract."""
        new = requests.new_collection(request)
        made = await self._engine.create_collection(new, request_key(request))
        return pb.CreateCollectionResponse(
            collection=responses.collection_message(made),
            consistency_token=encode_token(made.name, made.epoch),
        )

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: Context
    ) -> pb.GetCollectionResponse:
        """See the contract."""
        name = requests.collection_name(request.name, "name")
        found = await self._engine.get_collection(name)
        return pb.GetCollectionResponse(
            collection=responses.collection_message(found),
            consistency_token=encode_token(name, found.epoch),
        )

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: Context
    ) -> pb.ListCollectionsResponse:
        """See the contract."""
        size = requests.page_size(request.page_size)
        after = key_of_token(request.page_token, "collections")
        found = await self._engine.list_collections(after, size + 1)
        page = found[:size]
        more = len(found) > len(page)
        return pb.ListCollectionsResponse(
            collections=map(responses.collection_message, page),
            next_page_token=page_token(page[-1].name, "collections") if more else "",
        )

    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: Context
    ) -> pb.DeleteCollectionResponse:
        """See the contract."""
        name = requests.collection_name(request.name, "name")
        deleted = await self._engine.delete_collection(name, request_key(request))
        return pb.DeleteCollectionResponse(
            deleted_documents=deleted.document_count,
            consistency_token=encode_token(name, deleted.epoch),
        )

    async def SwitchCollections(
        self, request: pb.SwitchCollectionsRequest, context: Context
    ) -> pb.SwitchCollectionsResponse:
        """See the contract."""
        name, other, expected = requests.switch(request)
        epochs = await self._engine.switch_collections(name, other, expected)
        return pb.SwitchCollectionsResponse(
            consistency_token=encode_token(name, epochs[name]),
            other_consistency_token=encode_token(other, epochs[other]),
        )

    async def UpsertDocuments(
        self, request: pb.UpsertDocumentsRequest, context: Context
    ) -> pb.UpsertDocumentsResponse:
        """See the contract."""
        documents = requests.documents(request, self._settings)
        written = await self._engine.upsert(
            request.collection, documents, request.embedding_revision, request_key(request)
        )
        return pb.UpsertDocumentsResponse(
            documents=map(responses.upserted_message, written),
            consistency_token=encode_token(request.collection, written[-1].epoch),
        )

    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: Context
    ) -> pb.GetDocumentResponse:
        """See the contract."""
        collection, identifier = requests.document_id(request.collection, request.id)
        found, epoch = await self._engine.get_document(
            collection, identifier, include_content=request.include_content
        )
        return pb.GetDocumentResponse(
            document=responses.document_message(found),
            consistency_token=encode_token(collection, epoch),
        )

    async def GetChunks(
        self, request: pb.GetChunksRequest, context: Context
    ) -> pb.GetChunksResponse:
        """See the contract."""
        collection, identifier = requests.document_id(request.collection, request.id)
        found = await self._engine.get_chunks(collection, identifier)
        return responses.chunks_message(found)

    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: Context
    ) -> pb.ListDocumentsResponse:
        """See the contract."""
        collection = requests.collection_name(request.collection)
        size = requests.page_size(request.page_size)
        condition = parse_filter(request.filter) if request.HasField("filter") else None
        query = ("documents", collection, request.filter.SerializeToString(deterministic=True))
        after = key_of_token(request.page_token, *query)
        found = await self._engine.list_documents(collection, after, size + 1, condition)
        page = responses.page_of_documents(found[:size])
        more = len(found) > len(page)
        return pb.ListDocumentsResponse(
            documents=page, next_page_token=page_token(page[-1].id, *query) if more else ""
        )

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        """See the contract."""
        collection, identifier = requests.document_id(request.collection, request.id)
        deleted = await self._engine.delete_document(collection, identifier, request_key(request))
        return pb.DeleteDocumentResponse(
            deleted_chunks=deleted.chunk_count,
            consistency_token=encode_token(collection, deleted.epoch),
        )

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        """See the contract."""
        search = requests.search_request(request)
        result, use = await self._engine.search(request.collection, search)
        return pb.SearchResponse(
            hits=map(responses.hit_message, result.hits),
            mode=responses.MODES[search.mode],
            state=result.state,
            unchanged=result.unchanged,
            invalidated=result.invalidated,
            exhausted=not result.unchanged and len(result.hits) < search.k,
            compared_all=result.compared_all,
            consistency_token=encode_token(request.collection, result.epoch),
            cache=use_message(use),
        )

    async def InvalidateCollection(
        self, request: pb.InvalidateCollectionRequest, context: Context
    ) -> pb.InvalidateCollectionResponse:
        """See the contract."""
        collection, identifier = requests.invalidation(request)
        epoch = await self._engine.invalidate(collection, identifier)
        return pb.InvalidateCollectionResponse(consistency_token=encode_token(collection, epoch))
