"""Builds a collection anew beside itself, with another embedding model, and lets the new one
take its place.

The old one is read and written as ever meanwhile. Each round brings in what was written
since the last one, until nothing was: at that epoch, and no other, the two exchange their
names. Nothing is remembered between calls but the documents themselves, of which those that
stand as they should are not embedded again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.catalog import Catalog
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.concurrently import each
from quintet_gateway.freshness import Freshness
from quintet_gateway.ingest import Ingester, new_request_id
from quintet_gateway.overlap import Overlap
from quintet_gateway.recipes import set_form
from quintet_servicekit.errors import Reason, ServiceError

MAX_ROUNDS = 20
"""Rounds after which writers are taken to be faster."""
_PAGE = 200
"""Documents that are listed at once."""


State: TypeAlias = tuple[int, int]
"""When a document was made, and its version: versions begin anew with one that was deleted."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A collection, and the one that is built beside it."""

    name: str
    beside: str


class Reembedder:
    """Runs calls of ReembedCollection. `in_flight` documents are brought in at once; a
    collection of more than `max_documents` is refused, as each one's state is remembered
    for the time of a call."""

    def __init__(
        self,
        services: Services,
        catalog: Catalog,
        freshness: Freshness,
        overlap: Overlap,
        ingester: Ingester,
        *,
        in_flight: int,
        max_documents: int,
    ) -> None:
        self._services = services
        self._catalog = catalog
        self._freshness = freshness
        self._overlap = overlap
        self._ingester = ingester
        self._in_flight = in_flight
        self._max_documents = max_documents

    async def events(
        self, request: pb.ReembedCollectionRequest, new_chain: Callable[[], Chain]
    ) -> AsyncGenerator[pb.ReembedCollectionResponse]:
        """Yield what happens. Each document, and each call between, has a chain of its own.

        Raises `ServiceError` COLLECTION_NOT_FOUND, MODEL_NOT_FOUND, COLLECTION_EXISTS
        (`beside` has another model), BATCH_TOO_LARGE, CONFLICT (writers are faster, or
        the overlap is too small), and as a document's way does.
        """
        pair = Pair(request.collection, request.beside or f"{request.collection}-next")
        await self._make(new_chain(), pair, request.embedding_model)
        copied: dict[str, State] = {}
        for rounds in range(MAX_ROUNDS):
            begun = await self._collection(new_chain(), pair.name)
            progress = pb.Copied(total=begun.collection.document_count, rounds=rounds)
            async with aclosing(self._round(pair, copied, new_chain)) as looked_at:
                async for documents in looked_at:
                    progress.documents = documents
                    yield pb.ReembedCollectionResponse(copied=progress)
            if not rounds:
                compared = await self._overlap.between(pair.name, pair.beside, new_chain)
                yield pb.ReembedCollectionResponse(compared=compared)
                if not request.switch:
                    return
                _check(compared, request.least_overlap)
            token = await self._switch(new_chain(), pair, begun.consistency_token)
            if token:
                switched = pb.Switched(consistency_token=token, beside=pair.beside)
                yield pb.ReembedCollectionResponse(switched=switched)
                return
        raise ServiceError(
            Reason.CONFLICT, "the collection is written faster than it is copied; try again later"
        )

    async def _make(self, chain: Chain, pair: Pair, model_name: str) -> None:
        standing = await self._collection(chain, pair.name)
        model = await self._catalog.embedder(chain, model_name)
        self._catalog.forget(pair.beside)
        await chain.unary(
            self._services.peer("retriever"),
            "CreateCollection",
            self._services.retriever.CreateCollection,
            retriever_pb.CreateCollectionRequest(
                name=pair.beside,
                embedding_model=model.name,
                embedding_revision=model.revision,
                dimension=model.dimension,
                description=standing.collection.description,
                language=standing.collection.language,
                request_id=new_request_id(),
            ),
        )

    async def _collection(self, chain: Chain, name: str) -> retriever_pb.GetCollectionResponse:
        found = await chain.unary(
            self._services.peer("retriever"),
            "GetCollection",
            self._services.retriever.GetCollection,
            retriever_pb.GetCollectionRequest(name=name),
        )
        if found.collection.document_count > self._max_documents:
            raise ServiceError(
                Reason.BATCH_TOO_LARGE,
                "the collection has more documents than one call looks at",
                metadata={"limit": str(self._max_documents)},
            )
        return found

    async def _round(
        self, pair: Pair, copied: dict[str, State], new_chain: Callable[[], Chain]
    ) -> AsyncGenerator[int]:
        """Bring in each document that is not `copied` in its present state, then delete
        those that are gone; yield how many were looked at."""
        present: set[str] = set()

        async def copy(document: retriever_pb.Document) -> None:
            present.add(document.id)
            state = (document.create_time.ToNanoseconds(), document.version)
            if copied.get(document.id) != state:
                await self._copy(new_chain(), pair, document.id)
                copied[document.id] = state

        documents = self._documents(pair.name, new_chain)
        async with aclosing(each(documents, copy, in_flight=self._in_flight)) as work:
            async for _ in work:
                yield len(present)
        async with aclosing(self._documents(pair.beside, new_chain)) as standing:
            gone = [document.id async for document in standing if document.id not in present]
        for document_id in gone:
            copied.pop(document_id, None)
            await self._delete(new_chain(), pair.beside, document_id)
        yield len(present)

    async def _documents(
        self, name: str, new_chain: Callable[[], Chain]
    ) -> AsyncGenerator[retriever_pb.Document]:
        token = ""
        while True:
            page = await new_chain().unary(
                self._services.peer("retriever"),
                "ListDocuments",
                self._services.retriever.ListDocuments,
                retriever_pb.ListDocumentsRequest(
                    collection=name, page_size=_PAGE, page_token=token
                ),
            )
            for document in page.documents:
                yield document
            token = page.next_page_token
            if not token:
                return

    async def _copy(self, chain: Chain, pair: Pair, document_id: str) -> None:
        try:
            found = await chain.unary(
                self._services.peer("retriever"),
                "GetDocument",
                self._services.retriever.GetDocument,
                retriever_pb.GetDocumentRequest(
                    collection=pair.name, id=document_id, include_content=True
                ),
                expected=Reason.DOCUMENT_NOT_FOUND,
            )
        except ServiceError as error:
            # Deleted since it was listed: the next round deletes its copy.
            if error.reason is Reason.DOCUMENT_NOT_FOUND:
                return
            raise
        standing = found.document
        document = pb.Document(id=standing.id, title=standing.title, content=standing.content)
        if standing.HasField("metadata"):
            document.metadata.CopyFrom(standing.metadata)
        set_form(document, standing.content_hash)
        await self._ingester.ingest(
            chain, pb.IngestRequest(collection=pair.beside, document=document)
        )

    async def _delete(self, chain: Chain, collection: str, document_id: str) -> None:
        await chain.unary(
            self._services.peer("retriever"),
            "DeleteDocument",
            self._services.retriever.DeleteDocument,
            retriever_pb.DeleteDocumentRequest(
                collection=collection, id=document_id, request_id=new_request_id()
            ),
        )

    async def _switch(self, chain: Chain, pair: Pair, token: str) -> str:
        """Exchange the names; return the collection's new token, or "" if it was written
        since it had the token that is given."""
        mark = self._freshness.mark()
        try:
            switched = await chain.unary(
                self._services.peer("retriever"),
                "SwitchCollections",
                self._services.retriever.SwitchCollections,
                retriever_pb.SwitchCollectionsRequest(
                    name=pair.name, other=pair.beside, consistency_token=token
                ),
            )
        except ServiceError as error:
            if error.reason is Reason.CONFLICT:
                return ""
            raise
        tokens = (switched.consistency_token, switched.other_consistency_token)
        for name, each_token in zip((pair.name, pair.beside), tokens, strict=True):
            self._catalog.forget(name)
            self._freshness.note(name, each_token, mark)
        return switched.consistency_token


def _check(compared: pb.Compared, least: float) -> None:
    if compared.overlap < least:
        raise ServiceError(
            Reason.CONFLICT,
            f"the two find {compared.overlap:.0%} of the same documents, and at least"
            f" {least:.0%} were asked for; nothing was switched",
            metadata={"overlap": f"{compared.overlap:.3f}"},
        )
