"""The wire's side of the links: request → models → engine → response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import grpc

from quintet.retriever.v1 import link_service_pb2 as pb
from quintet.retriever.v1 import link_service_pb2_grpc as pb_grpc
from quintet_retriever.links import requests
from quintet_retriever.links.engine import LinkEngine, Position
from quintet_retriever.links.models import Link
from quintet_retriever.links.responses import (
    link_message,
    passage_message,
    related_message,
    suggestion_message,
)
from quintet_retriever.requests import collection_name, page_size
from quintet_retriever.responses import MAX_PAGE_BYTES
from quintet_servicekit.consistency import encode_token

SERVICE = pb.DESCRIPTOR.services_by_name["LinkService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]
Listing = TypeVar("Listing", pb.ListLinksRequest, pb.ListDanglingLinksRequest)


class LinkServicer(pb_grpc.LinkServiceServicer):
    """Implements quintet.retriever.v1.LinkService; see the contract for each method."""

    def __init__(self, engine: LinkEngine) -> None:
        self._engine = engine

    async def CreateLink(
        self, request: pb.CreateLinkRequest, context: Context
    ) -> pb.CreateLinkResponse:
        new = requests.new_link(request)
        epoch, created = await self._engine.create(request.collection, new)
        return pb.CreateLinkResponse(
            created=created, consistency_token=encode_token(request.collection, epoch)
        )

    async def DeleteLink(
        self, request: pb.DeleteLinkRequest, context: Context
    ) -> pb.DeleteLinkResponse:
        link_type = requests.deletion(request)
        epoch = await self._engine.delete(
            request.collection, request.source_id, request.target_id, link_type
        )
        return pb.DeleteLinkResponse(consistency_token=encode_token(request.collection, epoch))

    async def ListLinks(
        self, request: pb.ListLinksRequest, context: Context
    ) -> pb.ListLinksResponse:
        query = requests.link_query(request)
        size = page_size(request.page_size)
        after = requests.position_of(request.page_token, request)
        found = await self._engine.list_links(request.collection, query, after, size + 1)
        links, token = _page(found, size, request)
        return pb.ListLinksResponse(links=links, next_page_token=token)

    async def ListDanglingLinks(
        self, request: pb.ListDanglingLinksRequest, context: Context
    ) -> pb.ListDanglingLinksResponse:
        collection = collection_name(request.collection)
        size = page_size(request.page_size)
        after = requests.position_of(request.page_token, request)
        found = await self._engine.list_dangling(collection, after, size + 1)
        links, token = _page(found, size, request)
        return pb.ListDanglingLinksResponse(links=links, next_page_token=token)

    async def SuggestLinks(
        self, request: pb.SuggestLinksRequest, context: Context
    ) -> pb.SuggestLinksResponse:
        limit, least = requests.suggestion_bounds(request)
        found = await self._engine.suggest(request.collection, request.document_id, limit, least)
        return pb.SuggestLinksResponse(suggestions=map(suggestion_message, found))

    async def AcceptSuggestion(
        self, request: pb.AcceptSuggestionRequest, context: Context
    ) -> pb.AcceptSuggestionResponse:
        new = requests.new_link(request)
        epoch, created, confidence = await self._engine.accept(request.collection, new)
        return pb.AcceptSuggestionResponse(
            created=created,
            confidence=confidence,
            consistency_token=encode_token(request.collection, epoch),
        )

    async def DismissSuggestion(
        self, request: pb.DismissSuggestionRequest, context: Context
    ) -> pb.DismissSuggestionResponse:
        requests.dismissal(request)
        epoch = await self._engine.dismiss(request.collection, request.source_id, request.target_id)
        return pb.DismissSuggestionResponse(
            consistency_token=encode_token(request.collection, epoch)
        )

    async def Related(self, request: pb.RelatedRequest, context: Context) -> pb.RelatedResponse:
        query = requests.related_query(request)
        found, truncated = await self._engine.related(request.collection, query)
        return pb.RelatedResponse(documents=map(related_message, found), truncated=truncated)

    async def RelatedPassages(
        self, request: pb.RelatedPassagesRequest, context: Context
    ) -> pb.RelatedPassagesResponse:
        query = requests.passage_query(request)
        found = await self._engine.related_passages(request.collection, query)
        return pb.RelatedPassagesResponse(passages=map(passage_message, found))

    async def RenameDocument(
        self, request: pb.RenameDocumentRequest, context: Context
    ) -> pb.RenameDocumentResponse:
        requests.rename(request)
        epoch = await self._engine.rename(request.collection, request.id, request.new_id)
        return pb.RenameDocumentResponse(consistency_token=encode_token(request.collection, epoch))


def _page(
    found: Sequence[tuple[Link, Position]], size: int, request: Listing
) -> tuple[list[pb.Link], str]:
    """Return the messages of the first links, at least one, that fit a page, and the token
    of the next one."""
    messages: list[pb.Link] = []
    taken = 0
    for link, _ in found[:size]:
        message = link_message(link)
        taken += message.ByteSize()
        if messages and taken > MAX_PAGE_BYTES:
            break
        messages.append(message)
    more = len(found) > len(messages)
    return messages, requests.token_of(found[len(messages) - 1][1], request) if more else ""
