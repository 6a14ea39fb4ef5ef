"""Gives each answer its id, and notes it for its record.

Nothing here waits: what an answer's caller pays for is the id and a reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.chain import Chain
from quintet_gateway.degradation import reason_value
from quintet_gateway.events import Collector
from quintet_gateway.records.entry import Entry, new_id
from quintet_servicekit.errors import ServiceError
from quintet_servicekit.identity import current

ANSWERED = error_reason_pb2.ERROR_REASON_UNSPECIFIED
CANCELLED = error_reason_pb2.ERROR_REASON_CANCELLED
INTERNAL = error_reason_pb2.ERROR_REASON_INTERNAL

ANSWER_ID = "answer_id"
"""Where a failure's ErrorInfo has the id."""


class Answers(Protocol):
    """Who answers; see `ask.Asker`."""

    async def whole(self, chain: Chain, request: pb.AskRequest) -> pb.AskResponse: ...
    def stream(
        self, chain: Chain, request: pb.AskRequest
    ) -> AsyncGenerator[pb.AskStreamResponse]: ...


class Notes(Protocol):
    """Who takes notes, and never waits."""

    def put(self, entry: Entry) -> None: ...


class Recorder:
    """Answers as `asker` does; `notes` is None where no records are kept."""

    def __init__(self, asker: Answers, notes: Notes | None) -> None:
        self._asker = asker
        self._notes = notes

    async def whole(self, chain: Chain, request: pb.AskRequest) -> pb.AskResponse:
        """Return an answer with its id; raises as the asker does, with the id."""
        noted = _Noted(self._notes, chain, request, streamed=False)
        try:
            response = await self._asker.whole(chain, request)
        except ServiceError as error:
            raise noted.failed(error, pb.AskResponse()) from error
        except BaseException as error:
            noted.ended(error, pb.AskResponse())
            raise
        response.answer_id = noted.id
        noted.put(response)
        return response

    async def stream(
        self, chain: Chain, request: pb.AskRequest
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        """Yield the events of an answer, the last with its id; raises as the asker does,
        with the id."""
        noted = _Noted(self._notes, chain, request, streamed=True)
        told = Collector()
        try:
            async with aclosing(self._asker.stream(chain, request)) as events:
                async for event in events:
                    if event.HasField("completed"):
                        event.completed.answer_id = noted.id
                        told.add(event)
                        noted.put(told.response)
                    else:
                        told.add(event)
                    yield event
        except ServiceError as error:
            raise noted.failed(error, told.response) from error
        except BaseException as error:
            noted.ended(error, told.response)
            raise


class _Noted:
    """One answer, which is noted once."""

    def __init__(
        self, notes: Notes | None, chain: Chain, request: pb.AskRequest, *, streamed: bool
    ) -> None:
        self._uuid = new_id()
        self.id = str(self._uuid)
        self._notes = notes
        self._chain = chain
        self._request = request
        self._streamed = streamed

    def put(
        self,
        response: pb.AskResponse,
        failure: error_reason_pb2.ErrorReason.ValueType = ANSWERED,
        failed_at: str = "",
    ) -> None:
        """Note what the caller was told."""
        notes, self._notes = self._notes, None
        if notes is not None:
            asker = current()
            chain = self._chain
            notes.put(
                Entry(
                    self._uuid,
                    asker.tenant,
                    asker.key,
                    self._streamed,
                    self._request,
                    response,
                    chain.embedding_model,
                    chain.embedding_revision,
                    failure,
                    failed_at,
                )
            )

    def failed(self, error: ServiceError, told: pb.AskResponse) -> ServiceError:
        """Note a failure after what was `told`; return it with the answer's id. It is
        another object, since all who wait for one answer get the same failure."""
        failed_at = error.metadata.get("dependency") or error.metadata.get("hop", "")
        self._put_failure(told, reason_value(error), failed_at)
        return ServiceError(
            error.reason,
            error.message,
            metadata={**error.metadata, ANSWER_ID: self.id},
            retry_after=error.retry_after,
            violations=error.violations,
        )

    def ended(self, error: BaseException, told: pb.AskResponse) -> None:
        """Note that the caller left, or that nobody knows what happened."""
        left = isinstance(error, asyncio.CancelledError | GeneratorExit)
        self._put_failure(told, CANCELLED if left else INTERNAL, "")

    def _put_failure(
        self,
        told: pb.AskResponse,
        failure: error_reason_pb2.ErrorReason.ValueType,
        failed_at: str,
    ) -> None:
        if self._notes is not None:
            told.trail.CopyFrom(self._chain.trail())
            told.bill.CopyFrom(self._chain.meter.bill())
            told.degradations.extend(self._chain.degradations.messages)
            self.put(told, failure, failed_at)
