"""Tells how the services behind the gateway are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import grpc

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.chain import BREAKER_STATES, Chain, set_seconds
from quintet_gateway.clients import Services
from quintet_gateway.database import Database
from quintet_servicekit.breaker import Breaker
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.status_service import breaker_message


class StatusTeller:
    """Tells it. `breakers` are the gateway's own, beside those of the services and of its
    database. `is_open` says whether anybody may ask."""

    def __init__(
        self,
        services: Services,
        database: Database | None,
        breakers: Sequence[Breaker],
        *,
        is_open: bool,
    ) -> None:
        self._access = pb.ACCESS_MODE_OPEN if is_open else pb.ACCESS_MODE_KEYS
        self._services = services
        self._database = database
        self._breakers = [*breakers, database.breaker] if database else breakers

    async def status(self, chain: Chain) -> pb.GetStatusResponse:
        """Return every service's state, models and breakers, by name; asked all at once."""
        names = sorted(self._services.connections)
        statuses = await asyncio.gather(*(_service(self._services, chain, it) for it in names))
        return pb.GetStatusResponse(
            services=statuses,
            dependencies=[breaker_message(it.snapshot()) for it in self._breakers],
            database=await self._database_state(),
            access=self._access,
        )

    async def _database_state(self) -> pb.DatabaseState.ValueType:
        if self._database is None:
            return pb.DATABASE_STATE_OFF
        if not self._database.migrated.is_set():
            return pb.DATABASE_STATE_UNREACHABLE
        try:
            await self._database.ping()
        except ServiceError:
            return pb.DATABASE_STATE_UNREACHABLE
        return pb.DATABASE_STATE_SERVING


async def _service(services: Services, chain: Chain, name: str) -> pb.ServiceStatus:
    status = pb.ServiceStatus(service=name, breaker=_breaker(services.connections[name].breaker))
    try:
        serving = await services.connections[name].health()
    except grpc.aio.AioRpcError:
        status.state = pb.SERVICE_STATE_UNREACHABLE
        return status
    status.state = pb.SERVICE_STATE_SERVING if serving else pb.SERVICE_STATE_NOT_SERVING
    # It may leave in between, or be of a release that does not tell.
    with suppress(ServiceError):
        status.dependencies.extend(await services.connections[name].breakers())
    if serving:
        try:
            status.models.extend(await _models(services, chain, name))
        except ServiceError as error:
            if error.reason is not Reason.CIRCUIT_OPEN:
                # It left between the two questions.
                status.state = pb.SERVICE_STATE_UNREACHABLE
    return status


def _breaker(breaker: Breaker) -> pb.Breaker:
    now = breaker.snapshot()
    told = pb.Breaker(state=BREAKER_STATES[now.state], rejections=now.rejections)
    set_seconds(told.in_state, now.seconds_in_state)
    return told


async def _models(services: Services, chain: Chain, name: str) -> list[str]:
    peer = services.peer(name)
    if name == "tokenizer":
        call, request = services.tokenizer.ListModels, tokenizer_pb.ListModelsRequest()
        models = (await chain.unary(peer, "ListModels", call, request)).models
        listed = [(model.is_default, model.name) for model in models]
    elif name == "embedder":
        embedder_models = await chain.unary(
            peer, "ListModels", services.embedder.ListModels, embedder_pb.ListModelsRequest()
        )
        listed = [(model.is_default, model.name) for model in embedder_models.models]
    elif name == "generator":
        generator_models = await chain.unary(
            peer, "ListModels", services.generator.ListModels, generator_pb.ListModelsRequest()
        )
        listed = [(model.is_default, model.name) for model in generator_models.models]
    else:
        return []
    return [model for _, model in sorted(listed, key=lambda item: not item[0])]
