"""The gateway's RPCs of links: each is the retriever's, within the caller's deadline.

Every field is the retriever's to check: it knows the rules, and nothing is done before.
"""

from __future__ import annotations

from typing import Any, TypeVar

import grpc

from quintet.gateway.v1 import link_service_pb2_grpc as pb_grpc
from quintet.retriever.v1 import link_service_pb2 as pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.freshness import Freshness
from quintet_servicekit.deadline import Deadline

SERVICE = "quintet.gateway.v1.LinkService"

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")
Writing = TypeVar(
    "Writing",
    pb.CreateLinkRequest,
    pb.DeleteLinkRequest,
    pb.AcceptSuggestionRequest,
    pb.DismissSuggestionRequest,
    pb.RenameDocumentRequest,
)


class LinkServicer(pb_grpc.LinkServiceServicer):
    """See the contract for each method. `seconds` is the deadline of a call whose caller
    gave none."""

    def __init__(self, services: Services, freshness: Freshness, *, seconds: float) -> None:
        self._stub = services.links
        self._peer = services.link_peer()
        self._freshness = freshness
        self._seconds = seconds

    async def CreateLink(
        self, request: pb.CreateLinkRequest, context: Context
    ) -> pb.CreateLinkResponse:
        return await self._write("CreateLink", self._stub.CreateLink, request, context)

    async def DeleteLink(
        self, request: pb.DeleteLinkRequest, context: Context
    ) -> pb.DeleteLinkResponse:
        return await self._write("DeleteLink", self._stub.DeleteLink, request, context)

    async def ListLinks(
        self, request: pb.ListLinksRequest, context: Context
    ) -> pb.ListLinksResponse:
        return await self._read("ListLinks", self._stub.ListLinks, request, context)

    async def ListDanglingLinks(
        self, request: pb.ListDanglingLinksRequest, context: Context
    ) -> pb.ListDanglingLinksResponse:
        call = self._stub.ListDanglingLinks
        return await self._read("ListDanglingLinks", call, request, context)

    async def SuggestLinks(
        self, request: pb.SuggestLinksRequest, context: Context
    ) -> pb.SuggestLinksResponse:
        return await self._read("SuggestLinks", self._stub.SuggestLinks, request, context)

    async def AcceptSuggestion(
        self, request: pb.AcceptSuggestionRequest, context: Context
    ) -> pb.AcceptSuggestionResponse:
        return await self._write("AcceptSuggestion", self._stub.AcceptSuggestion, request, context)

    async def DismissSuggestion(
        self, request: pb.DismissSuggestionRequest, context: Context
    ) -> pb.DismissSuggestionResponse:
        call = self._stub.DismissSuggestion
        return await self._write("DismissSuggestion", call, request, context)

    async def Related(self, request: pb.RelatedRequest, context: Context) -> pb.RelatedResponse:
        return await self._read("Related", self._stub.Related, request, context)

    async def RenameDocument(
        self, request: pb.RenameDocumentRequest, context: Context
    ) -> pb.RenameDocumentResponse:
        return await self._write("RenameDocument", self._stub.RenameDocument, request, context)

    async def _read(
        self,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        context: Context,
    ) -> Response:
        chain = Chain(Deadline.of_call(context, self._seconds))
        return await chain.unary(self._peer, method, call, request)

    async def _write(
        self,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Writing, Response],
        request: Writing,
        context: Context,
    ) -> Response:
        """Hand a write on, and take in its epoch before it is acknowledged."""
        mark = self._freshness.mark()
        written: Any = await self._read(method, call, request, context)
        self._freshness.note(request.collection, written.consistency_token, mark)
        return written  # type: ignore[no-any-return]
