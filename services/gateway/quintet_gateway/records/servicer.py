"""The gateway's RPC of records: validate, find, build the response."""

from __future__ import annotations

from typing import Any

import grpc

from quintet.gateway.v1 import explain_service_pb2 as pb
from quintet.gateway.v1 import explain_service_pb2_grpc as pb_grpc
from quintet_gateway.records.explaining import Explainer
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import current
from quintet_servicekit.validation import Checks

SERVICE = pb.DESCRIPTOR.services_by_name["ExplainService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class ExplainServicer(pb_grpc.ExplainServiceServicer):
    """See the contract. `explainer` is None where no records are kept."""

    def __init__(self, explainer: Explainer | None) -> None:
        self._explainer = explainer

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        checks = Checks()
        checks.request_id("answer_id", request.answer_id)
        checks.done()
        if self._explainer is None:
            raise ServiceError(Reason.NO_DATABASE, "this gateway keeps no records of answers")
        record = await self._explainer.record(current(), request.answer_id)
        return pb.ExplainResponse(record=record)
