"""Write and delete documents and collections, and take down what is known to have happened."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import grpc
from google.rpc.code_pb2 import Code

from chaos.documents import SHELVES, Version
from chaos.journal import Journal
from chaos.ledger import EXISTENCE, Ledger, Write
from chaos.replicas import RETRIEVER, Replicas
from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_servicekit.consistency import LAST, Epoch, encode_token
from quintet_servicekit.errors import Reason, ServiceError, from_rpc_error

WRITE_SECONDS = 6.0
"""Deadline of a write; none is under way any more a second later."""

_SWITCH_SECONDS = 30.0
_REPEATABLE = 8
"""Writes that are remembered to be sent again."""

T = TypeVar("T")


class Scribe:
    """Sends writes to one collection. Each method returns the token of its write, or None if
    it failed; `settle` finds out what became of it then. `markers` are those of versions."""

    def __init__(
        self,
        replicas: Replicas,
        journal: Journal,
        ledger: Ledger,
        markers: Iterator[str],
        rng: random.Random,
    ) -> None:
        self.ledger = ledger
        self._replicas = replicas.of(ledger.tenant)
        self._journal = journal
        self._markers = markers
        self._rng = rng
        self._done: deque[pb.IngestRequest] = deque(maxlen=_REPEATABLE)

    async def put(self, document: str, topic: str, by: str) -> tuple[Write, str | None]:
        """Create or replace a document."""
        version = Version(document, topic, self._rng.choice(SHELVES), next(self._markers))
        write = self.ledger.begin(document, version, by, time.monotonic())
        request = pb.IngestRequest(collection=self.ledger.name, document=version.message)
        if self._rng.random() < 0.5:
            request.request_id = str(uuid.uuid4())
        token = await self._sent("Ingest", by, self._ingested(by, request), write)
        if token is not None and request.request_id:
            self._done.append(request)
        return write, token

    async def repeat(self, by: str) -> None:
        """Send a write that was acknowledged once more: nothing changes by it."""
        if not self._done:
            return
        began = time.monotonic()
        try:
            await self._ingested(by, self._rng.choice(self._done))
        except (grpc.aio.AioRpcError, ServiceError) as failure:
            self._journal.fail(
                f"Ingest again by the {by}", _error(failure), began, time.monotonic()
            )
        else:
            self._journal.count("Ingest again")

    async def switch(self, by: str) -> None:
        """Embed the collection anew beside itself and exchange the two; or, where that was
        done before, go back. No document changes."""
        began = time.monotonic()
        request = pb.ReembedCollectionRequest(collection=self.ledger.name, switch=True)
        call = self._replicas.gateways[by].ReembedCollection(request, timeout=_SWITCH_SECONDS)
        try:
            events = [event async for event in call]
        except grpc.aio.AioRpcError as failure:
            error = _error(failure)
            if error.reason is Reason.CONFLICT:  # writers were faster
                self._journal.count("ReembedCollection in vain")
                return
            self._journal.fail(f"ReembedCollection by the {by}", error, began, time.monotonic())
            return
        token = events[-1].switched.consistency_token
        self.ledger.acknowledge(token, by, time.monotonic())
        self._journal.count("ReembedCollection")
        self._journal.judge(self.ledger)

    async def delete(self, document: str, by: str) -> tuple[Write, str | None]:
        """Delete a document that should be there."""
        write = self.ledger.begin(document, None, by, time.monotonic())
        name = self.ledger.name
        if by == RETRIEVER:
            request = retriever_pb.DeleteDocumentRequest(collection=name, id=document)
            call = self._replicas.retriever.DeleteDocument(request, timeout=WRITE_SECONDS)
        else:
            call = self._replicas.gateways[by].DeleteDocument(
                pb.DeleteDocumentRequest(collection=name, id=document), timeout=WRITE_SECONDS
            )
        return write, await self._sent("DeleteDocument", by, _token(call), write)

    async def purge(self, by: str) -> None:
        """Declare out of date what rests on the collection; no document changes."""
        began = time.monotonic()
        call = self._replicas.gateways[by].PurgeCache(
            pb.PurgeCacheRequest(collection=self.ledger.name), timeout=WRITE_SECONDS
        )
        token = await self._sent("PurgeCache", by, _token(call))
        if token is not None:
            self.ledger.declare_outdated(token, began)

    async def create_collection(self, by: str) -> None:
        """Make the collection, however often it takes."""
        version = Version(EXISTENCE, "", "", next(self._markers))
        write = self.ledger.begin(EXISTENCE, version, by, time.monotonic())
        request = pb.CreateCollectionRequest(name=self.ledger.name)
        while True:
            call = self._replicas.gateways[by].CreateCollection(request, timeout=WRITE_SECONDS)
            if await self._sent("CreateCollection", by, _token(call), write) is not None:
                return
            await asyncio.sleep(0.2)

    async def delete_collection(self, by: str) -> None:
        """Delete the collection, with all that is in it; return when it is gone."""
        ledger, now = self.ledger, time.monotonic()
        gone = [ledger.begin(it, None, by, now) for it in (EXISTENCE, *ledger.documents)]
        incarnation = ledger.latest.collection
        request = pb.DeleteCollectionRequest(name=ledger.name)
        while True:
            call = self._replicas.gateways[by].DeleteCollection(request, timeout=WRITE_SECONDS)
            try:
                if await self._sent("DeleteCollection", by, _token(call), *gone) is not None:
                    return
            except _GoneError:
                # An attempt that failed did it all the same.
                token = encode_token(ledger.name, Epoch(incarnation, LAST))
                ledger.acknowledge(token, by, time.monotonic(), *gone)
                return
            await asyncio.sleep(0.2)

    async def settle(self, write: Write) -> None:
        """Find out whether a write of a document happened, once it cannot happen any more."""
        await asyncio.sleep(write.began + WRITE_SECONDS + 1 - time.monotonic())
        name = self.ledger.name
        request = retriever_pb.GetDocumentRequest(
            collection=name, id=write.document, include_content=True
        )
        while True:
            try:
                found = await self._replicas.retriever.GetDocument(request, timeout=2)
                token, content = found.consistency_token, found.document.content
                break
            except grpc.aio.AioRpcError as failure:
                if _error(failure).reason is Reason.DOCUMENT_NOT_FOUND:
                    token, content = "", ""
                    break
            await asyncio.sleep(0.2)
        there = write.version.content == content if write.version else not content
        while not token:
            # What is not there tells no epoch; a search, which begins later, does.
            search = retriever_pb.SearchRequest(
                collection=name,
                text="nothing",
                consistency=retriever_pb.Consistency(fully_consistent=True),
            )
            try:
                token = (await self._replicas.retriever.Search(search, timeout=2)).consistency_token
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)
        self.ledger.settle(token, there, write)
        self._journal.judge(self.ledger)

    async def _ingested(self, by: str, request: pb.IngestRequest) -> str:
        call = self._replicas.gateways[by].Ingest(iter([request]), timeout=WRITE_SECONDS)
        responses = [response async for response in call]
        if not responses:
            raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "no acknowledgement")
        if responses[0].HasField("refused"):
            raise _refusal(responses[0].refused)
        return str(responses[0].ingested.consistency_token)

    async def _sent(self, what: str, by: str, call: Awaitable[str], *writes: Write) -> str | None:
        began = time.monotonic()
        try:
            token = await call
        except (grpc.aio.AioRpcError, ServiceError) as failure:
            error = (
                failure
                if isinstance(failure, ServiceError)
                else from_rpc_error(failure, service="quintet")
            )
            if what == "DeleteCollection" and error.reason is Reason.COLLECTION_NOT_FOUND:
                raise _GoneError from None
            if what == "DeleteDocument" and error.reason is Reason.DOCUMENT_NOT_FOUND:
                # The second attempt of one whose first did it and could not tell.
                error = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "deleted already")
            self._journal.fail(f"{what} by the {by}", error, began, time.monotonic())
            return None
        self.ledger.acknowledge(token, by, time.monotonic(), *writes)
        self._journal.count(what)
        self._journal.judge(self.ledger)
        return token


class _GoneError(Exception):
    """The collection is not there."""


def _error(failure: grpc.aio.AioRpcError | ServiceError) -> ServiceError:
    if isinstance(failure, ServiceError):
        return failure
    return from_rpc_error(failure, service="quintet")


async def _token(call: Awaitable[T]) -> str:
    response = await call
    return str(response.consistency_token)  # type: ignore[attr-defined]


def _refusal(refused: pb.Refused) -> ServiceError:
    name = error_reason_pb2.ErrorReason.Name(refused.reason).removeprefix("ERROR_REASON_")
    return ServiceError(Reason(name), f"{Code.Name(refused.code)}: {refused.message}")
