"""A stream of documents: each is refused or brought in, and acknowledged."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway import validate
from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.trailers import Books
from quintet_gateway.chain import Chain
from quintet_gateway.concurrently import each
from quintet_gateway.degradation import reason_value
from quintet_gateway.ingest import Ingester
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.spans import working


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of a stream and of its documents; see the settings of the same names."""

    documents_in_flight: int
    chars_in_flight: int
    max_stream_documents: int
    max_document_chars: int
    document_seconds: float


class IngestStream:
    """One call of Ingest, which the caller may end at `deadline`; `meter` adds up what
    its documents cost, each of which is settled in the `books`."""

    def __init__(
        self,
        ingester: Ingester,
        limits: StreamLimits,
        deadline: Deadline,
        meter: Meter,
        books: Books,
    ) -> None:
        self._ingester = ingester
        self._limits = limits
        self._deadline = deadline
        self._meter = meter
        self._books = books
        self._seen: set[bytes] = set()

    async def acknowledgements(
        self, requests: AsyncIterator[pb.IngestRequest]
    ) -> AsyncGenerator[pb.IngestResponse]:
        """Yield an acknowledgement a document, as each is committed or refused."""
        numbered = _numbered(requests)
        work = each(
            numbered,
            self._acknowledge,
            in_flight=self._limits.documents_in_flight,
            weigh=lambda item: len(item[1].document.content),
            max_weight=self._limits.chars_in_flight,
        )
        async with aclosing(work) as responses:
            async for response in responses:
                yield response

    async def _acknowledge(self, item: tuple[int, pb.IngestRequest]) -> pb.IngestResponse:
        index, request = item
        # An id too long to be stored is too long to be sent back whole.
        response = pb.IngestResponse(index=index, document_id=request.document.id[:512])
        meter, is_call = self._meter.part(calls=1), False
        try:
            self._check(request)
            is_call = True
            with working("ingest document", {}):
                deadline = self._deadline.or_after(self._limits.document_seconds)
                chain = Chain(deadline, meter=meter)
                response.ingested.CopyFrom(await self._ingester.ingest(chain, request))
        except ServiceError as error:
            response.refused.CopyFrom(_refused(error))
            if error.reason in (Reason.BUDGET_EXHAUSTED, Reason.RATE_LIMITED):
                meter.calls = 0
        finally:
            if is_call:  # one that breaks its bounds is none
                self._books.settle(meter)
        response.bill.CopyFrom(meter.bill())
        return response

    def _check(self, request: pb.IngestRequest) -> None:
        validate.document(request, max_chars=self._limits.max_document_chars)
        key = hashlib.blake2b(
            f"{request.collection}\0{request.document.id}".encode(), digest_size=16
        ).digest()
        if key in self._seen:
            raise ServiceError(
                Reason.DUPLICATE_ID,
                "the stream has already sent a document with this id",
                metadata={"document_id": request.document.id},
            )
        if len(self._seen) >= self._limits.max_stream_documents:
            raise ServiceError(
                Reason.BATCH_TOO_LARGE,
                "the stream holds too many documents; begin another",
                metadata={"limit": str(self._limits.max_stream_documents)},
            )
        self._seen.add(key)


async def _numbered(
    requests: AsyncIterator[pb.IngestRequest],
) -> AsyncGenerator[tuple[int, pb.IngestRequest]]:
    index = 0
    async for request in requests:
        yield index, request
        index += 1


def _refused(error: ServiceError) -> pb.Refused:
    code: int = error.code.value[0]
    return pb.Refused(
        code=code,
        reason=reason_value(error),
        message=error.message,
    )
