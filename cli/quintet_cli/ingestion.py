"""Documents into a collection over the Ingest stream, bounded and accounted for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from quintet.errors.v1.error_reason_pb2 import ErrorReason
from quintet.gateway.v1.gateway_service_pb2 import Document as DocumentMessage
from quintet.gateway.v1.gateway_service_pb2 import (
    IngestOutcome,
    IngestRequest,
    IngestResponse,
)
from quintet.tokenizer.v1.tokenizer_service_pb2 import TEXT_FORMAT_MARKDOWN as MARKDOWN
from quintet.tokenizer.v1.tokenizer_service_pb2 import TEXT_FORMAT_PLAIN as PLAIN
from quintet_cli import files
from quintet_cli.connection import Gateway
from quintet_cli.consistency import Newest
from quintet_cli.files import Document, Rejected, Source

WINDOW_DOCUMENTS = 16
"""Most documents that are sent and not yet acknowledged: enough to keep every
hop busy, few enough to lose little work to an interruption."""
WINDOW_BYTES = 32 * 2**20
"""Most bytes of them: two of the largest."""

_OUTCOMES = {
    IngestOutcome.INGEST_OUTCOME_CREATED: "created",
    IngestOutcome.INGEST_OUTCOME_REPLACED: "replaced",
    IngestOutcome.INGEST_OUTCOME_UNCHANGED: "unchanged",
}
Item = Source | Document | Rejected
"""What is brought in: a file to read when its turn comes, a document, or a failure
that was known before."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one document.

    `outcome` is "created", "replaced", "unchanged" or "failed"; a failure has its
    `reason` (a name of the closed set, or "UNREADABLE" for a file that never left)
    and `message`.
    """

    name: str
    id: str
    outcome: str
    version: int = 0
    chunks: int = 0
    tokens: int = 0
    consistency_token: str = ""
    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class Summary:
    """Counts of documents by outcome, and what they took."""

    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    failed: int = 0
    chunks: int = 0
    tokens: int = 0
    seconds: float = 0.0
    _began: float = field(default_factory=time.perf_counter, repr=False)

    def add(self, result: Result) -> None:
        """Count one result."""
        setattr(self, result.outcome, getattr(self, result.outcome) + 1)
        self.chunks += result.chunks
        self.tokens += result.tokens
        self.seconds = time.perf_counter() - self._began

    def counts(self) -> dict[str, int | float]:
        """Return the counts as a mapping, seconds rounded to milliseconds."""
        names = ("created", "replaced", "unchanged", "failed", "chunks", "tokens")
        return {name: getattr(self, name) for name in names} | {"seconds": round(self.seconds, 3)}


class Ingestion:
    """One stream of documents into `collection`; `on_result` is told of each."""

    def __init__(
        self, gateway: Gateway, collection: str, on_result: Callable[[Result], None]
    ) -> None:
        self._gateway = gateway
        self.collection = collection
        self._on_result = on_result
        self._in_flight: dict[int, tuple[str, int]] = {}
        self._room = asyncio.Event()
        self.summary = Summary()
        self.newest = Newest(collection)
        """Of what was acknowledged; see `Newest`."""

    async def run(self, items: Iterable[Item]) -> Summary:
        """Send `items`, reading files as the stream drains; return the summary.

        Raises `ServiceError` when the stream itself fails; what was acknowledged
        until then is in `summary` and `newest`.
        """
        requests = self._requests(items)
        stub = self._gateway.stub
        async for response in self._gateway.exchange("Ingest", stub.Ingest, requests):
            name, _ = self._in_flight.pop(response.index)
            self._room.set()
            self._tell(_result(name, response))
        for name, _ in self._in_flight.values():
            self._tell(_failure(name, name, "CANCELLED", "it was never acknowledged"))
        return self.summary

    async def _requests(self, items: Iterable[Item]) -> AsyncIterator[IngestRequest]:
        index = 0
        for item in items:
            if isinstance(item, Source):
                document = await asyncio.to_thread(files.read, item)
            else:
                document = item
            if isinstance(document, Rejected):
                reason = document.reason
                self._tell(_failure(document.name, document.id, "UNREADABLE", reason))
                continue
            request = self._request(document)
            size = request.ByteSize()
            await self._has_room(size)
            name = item.name if isinstance(item, Source) else document.id
            self._in_flight[index] = (name, size)
            index += 1
            yield request

    async def _has_room(self, size: int) -> None:
        while self._in_flight and (
            len(self._in_flight) >= WINDOW_DOCUMENTS
            or sum(other for _, other in self._in_flight.values()) + size > WINDOW_BYTES
        ):
            self._room.clear()
            await self._room.wait()

    def _request(self, document: Document) -> IngestRequest:
        message = DocumentMessage(
            id=document.id,
            title=document.title,
            content=document.content,
            # Of HTML the text is left, in which a "#" is one.
            format=PLAIN if document.metadata.get("type") == "html" else MARKDOWN,
        )
        message.metadata.update(document.metadata)
        return IngestRequest(collection=self.collection, document=message)

    def _tell(self, result: Result) -> None:
        self.summary.add(result)
        self.newest.add(result.consistency_token)
        self._on_result(result)


def _result(name: str, response: IngestResponse) -> Result:
    if response.WhichOneof("result") == "refused":
        reason = ErrorReason.Name(response.refused.reason).removeprefix("ERROR_REASON_")
        return _failure(name, response.document_id, reason, response.refused.message)
    done = response.ingested
    return Result(
        name,
        response.document_id,
        _OUTCOMES[done.outcome],
        version=done.version,
        chunks=done.chunks,
        tokens=done.tokens,
        consistency_token=done.consistency_token,
    )


def _failure(name: str, document_id: str, reason: str, message: str) -> Result:
    return Result(name, document_id, "failed", reason=reason, message=message)
