"""Documents into a collection over the Ingest stream, bounded and accounted for.

What a service that is away has not acknowledged is sent again, in another stream. Each
document has a request id, so it is written once however often that is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field

import grpc

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
from quintet_cli.connection import Gateway, new_request_id
from quintet_cli.consistency import Newest
from quintet_cli.files import Document, Rejected, Source
from quintet_servicekit.errors import ServiceError

WINDOW_DOCUMENTS = 16
"""Most documents that are sent and not yet acknowledged: enough to keep every
hop busy, few enough to lose little work to an interruption."""
WINDOW_BYTES = 32 * 2**20
"""Most bytes of them: two of the largest."""

RETRIES = 6
"""Streams in a row that may bring nothing before it is given up: ten seconds, in
which a service is started again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds before the first of these, twice as long before each of the next, at most."""

_UNAVAILABLE: int = grpc.StatusCode.UNAVAILABLE.value[0]

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


@dataclass(frozen=True, slots=True)
class _Sent:
    """A document that is on its way, and what its user knows it by."""

    name: str
    request: IngestRequest
    size: int


class Ingestion:
    """A stream of documents into `collection`; `on_result` is told of each."""

    def __init__(
        self, gateway: Gateway, collection: str, on_result: Callable[[Result], None]
    ) -> None:
        self._gateway = gateway
        self.collection = collection
        self._on_result = on_result
        self._items: Iterator[Item] = iter(())
        self._next: Item | None = None
        self._in_flight: dict[int, _Sent] = {}
        self._again: list[_Sent] = []
        self._failures = 0
        self._room = asyncio.Event()
        self.summary = Summary()
        self.newest = Newest(collection)
        """Of what was acknowledged; see `Newest`."""

    async def run(self, items: Iterable[Item]) -> Summary:
        """Send `items`, reading files as the stream drains; return the summary.

        Raises `ServiceError` when the stream itself fails for good; what was
        acknowledged until then is in `summary` and `newest`.
        """
        self._items = iter(items)
        self._next = next(self._items, None)
        while True:
            try:
                await self._stream()
            except ServiceError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE or self._failures >= RETRIES:
                    raise
                self._again += self._in_flight.values()
            if not self._again:
                return self.summary
            pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
            self._failures += 1
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311

    async def _stream(self) -> None:
        """Send what is to be sent again, and then what comes next, in one stream."""
        again, self._again, self._in_flight = self._again, [], {}
        requests = self._requests(again, self._in_flight)
        stub = self._gateway.stub
        async for response in self._gateway.exchange("Ingest", stub.Ingest, requests):
            sent = self._in_flight.pop(response.index)
            self._room.set()
            refused = response.WhichOneof("result") == "refused"
            if refused and response.refused.code == _UNAVAILABLE and self._failures < RETRIES:
                self._again.append(sent)
                continue
            if not refused:
                self._failures = 0
            self._tell(_result(sent.name, response))
        for sent in self._in_flight.values():
            self._tell(_failure(sent.name, sent.name, "CANCELLED", "it was never acknowledged"))

    async def _requests(
        self, again: list[_Sent], in_flight: dict[int, _Sent]
    ) -> AsyncIterator[IngestRequest]:
        index = 0
        for sent in again:
            in_flight[index] = sent
            index += 1
        for sent in again:
            yield sent.request
        # What is to be sent again is held in memory, so it is not to grow.
        while self._next is not None and len(self._again) < WINDOW_DOCUMENTS:
            # It stays the next one until it is under way: the stream may break here.
            item = self._next
            if isinstance(item, Source):
                document = await asyncio.to_thread(files.read, item)
            else:
                document = item
            if isinstance(document, Rejected):
                self._next = next(self._items, None)
                reason = document.reason
                self._tell(_failure(document.name, document.id, "UNREADABLE", reason))
                continue
            request = self._request(document)
            size = request.ByteSize()
            await self._has_room(size)
            name = item.name if isinstance(item, Source) else document.id
            in_flight[index] = _Sent(name, request, size)
            index += 1
            self._next = next(self._items, None)
            yield request

    async def _has_room(self, size: int) -> None:
        while self._in_flight and (
            len(self._in_flight) >= WINDOW_DOCUMENTS
            or sum(other.size for other in self._in_flight.values()) + size > WINDOW_BYTES
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
        return IngestRequest(
            collection=self.collection, document=message, request_id=new_request_id()
        )

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
