"""The gateway's connections to the four services behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quintet.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet.retriever.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from quintet.status.v1 import status_service_pb2 as status_pb
from quintet.status.v1.status_service_pb2_grpc import StatusServiceStub
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from quintet_gateway.settings import Settings
from quintet_servicekit.breaker import Breaker
from quintet_servicekit.breaker_policy import BreakerSettings, Outcome, outcome_of
from quintet_servicekit.cache_service import SERVICE as CACHE_SERVICE
from quintet_servicekit.channel import Peer, open_channel
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.hedging import Hedging
from quintet_servicekit.identity_token import Signer
from quintet_servicekit.settings import ChannelSettings, TlsSettings
from quintet_servicekit.status_service import SERVICE as STATUS_SERVICE

if TYPE_CHECKING:
    from quintet.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub
    from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceAsyncStub
    from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceAsyncStub
    from quintet.retriever.v1.link_service_pb2_grpc import LinkServiceAsyncStub
    from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceAsyncStub
    from quintet.status.v1.status_service_pb2_grpc import StatusServiceAsyncStub
    from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceAsyncStub

HEDGED = frozenset({"Count", "Embed", "Search"})
"""Methods of which there may be a second attempt: they only read, and take little."""

LINK_SERVICE = "quintet.retriever.v1.LinkService"
HEALTH_SECONDS = 1.0
"""How long a service may take to say how it is."""
SILENCE_SECONDS = 2 * HEALTH_SECONDS
"""How long a service that did not say it is not called: until it has been asked again."""


class Connection:
    """One service behind the gateway: its channel, and who it is in trails and spans."""

    def __init__(
        self,
        name: str,
        address: str,
        settings: ChannelSettings,
        breaker: BreakerSettings,
        tls: TlsSettings,
        signer: Signer | None = None,
    ) -> None:
        self.service = f"quintet.{name}.v1.{name.capitalize()}Service"
        self.breaker = Breaker(name, breaker, classify=self._judged)
        self._asking: asyncio.Task[None] | None = None
        hedging = None
        if settings.hedging_ratio:
            hedging = Hedging(self.service, HEDGED, ratio=settings.hedging_ratio)
        self.peer = Peer(name, self.service, self.breaker, hedging, signer=signer, target=address)
        # What operators ask of a cache tells nothing of the calls that questions make.
        self.cache_peer = Peer(name, CACHE_SERVICE, signer=signer, target=address)
        self._status_peer = Peer(name, STATUS_SERVICE, signer=signer, target=address)
        self.address = address
        self.channel = open_channel(address, self.service, settings, tls=tls)
        self.caches: CacheServiceAsyncStub = CacheServiceStub(self.channel)
        # Asking a service that is not ready how it is needs a channel that does
        # not shun services that are not ready.
        self._plain = open_channel(address, self.service, settings, only_healthy=False, tls=tls)
        self._statuses: StatusServiceAsyncStub = StatusServiceStub(self._plain)

    def is_ready(self) -> bool:
        """Whether at least one replica reports itself SERVING; asks nobody."""
        state = self.channel.get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.READY

    async def health(self) -> bool:
        """Ask the service whether it is SERVING; raises AioRpcError if it is away."""
        response = await health_pb2_grpc.HealthStub(self._plain).Check(
            health_pb2.HealthCheckRequest(service=self.service),
            timeout=HEALTH_SECONDS,
            # It may be between two attempts to connect to a service that is back.
            wait_for_ready=True,
        )
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def breakers(self) -> Sequence[status_pb.Breaker]:
        """Ask one replica for its breakers. Raises `ServiceError` if it is away."""
        response = await self._status_peer.unary(
            "ListBreakers",
            self._statuses.ListBreakers,
            status_pb.ListBreakersRequest(),
            timeout=HEALTH_SECONDS,
        )
        return response.breakers

    def _judged(self, error: Exception) -> Outcome:
        outcome = outcome_of_call(self.peer.name, error)
        if outcome is Outcome.TIMED_OUT and (self._asking is None or self._asking.done()):
            # A caller's haste, a model that needs its time, or a service that hangs: the
            # last does not even say how it is.
            self._asking = asyncio.create_task(self._suspend_while_silent())
        return outcome

    async def _suspend_while_silent(self) -> None:
        """Let no call through while the service does not say how it is."""
        silent = False
        while not await self._answers():
            silent = True
            self.breaker.trip(SILENCE_SECONDS, "it does not say how it is")
        if silent:
            self.breaker.reset("it says how it is")

    async def _answers(self) -> bool:
        try:
            await self.health()
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        return True

    async def close(self) -> None:
        """Close both channels."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self.channel.close(None)
        await self._plain.close(None)


@dataclass(frozen=True)
class Services:
    """The four services: connections by name, and their stubs."""

    connections: Mapping[str, Connection]
    tokenizer: TokenizerServiceAsyncStub
    embedder: EmbedderServiceAsyncStub
    retriever: RetrieverServiceAsyncStub
    links: LinkServiceAsyncStub
    generator: GeneratorServiceAsyncStub
    signer: Signer | None

    def peer(self, name: str) -> Peer:
        """Return the peer that calls to service `name` go through."""
        return self.connections[name].peer

    def link_peer(self) -> Peer:
        """Return the peer that calls to the retriever's links go through, with the breaker
        of its other calls."""
        retriever = self.connections["retriever"]
        return Peer(
            "retriever",
            LINK_SERVICE,
            retriever.breaker,
            signer=self.signer,
            target=retriever.address,
        )


class Readiness:
    """Whether a gateway is ready: at first when all services are, or after
    `start_seconds`, and from then on while any is.

    What it serves without the others is marked. Were it not ready, all its replicas
    would leave at once with any service.
    """

    def __init__(self, services: Services, *, start_seconds: float) -> None:
        self._connections = services.connections
        self._all_until = time.monotonic() + start_seconds

    def check(self) -> None:
        """Raise `ServiceError` DEPENDENCY_UNAVAILABLE while it is not."""
        away = [name for name, it in self._connections.items() if not it.is_ready()]
        starting = time.monotonic() < self._all_until
        if not away:
            self._all_until = 0.0
        elif starting or len(away) == len(self._connections):
            raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, f"not ready: {', '.join(away)}")


def outcome_of_call(service: str, error: Exception) -> Outcome:
    """Return what an error says about a service: nothing, where the service says that
    something behind it is away or late. Its other models, or its cache, may well answer."""
    if isinstance(error, ServiceError):
        if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
            its_own = error.metadata.get("dependency") == service
            return Outcome.FAILED if its_own else Outcome.NEUTRAL
        if error.reason is Reason.DEADLINE_EXCEEDED and error.metadata.get("hop") != service:
            return Outcome.NEUTRAL
    return outcome_of(error)


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open the connections; they connect when first used, and again after a loss."""
    signing = settings.signing
    signer = Signer(signing.key, signing) if signing.key else None
    async with AsyncExitStack() as stack:
        connections: dict[str, Connection] = {}
        for name, address, breaker in (
            ("tokenizer", settings.tokenizer_address, settings.breaker),
            ("embedder", settings.embedder_address, settings.breaker),
            ("retriever", settings.retriever_address, settings.breaker),
            ("generator", settings.generator_address, settings.generator_breaker),
        ):
            connections[name] = Connection(
                name, address, settings.channel, breaker, settings.tls, signer
            )
            stack.push_async_callback(connections[name].close)
        channels: dict[str, Any] = {name: it.channel for name, it in connections.items()}
        yield Services(
            connections=connections,
            tokenizer=TokenizerServiceStub(channels["tokenizer"]),
            embedder=EmbedderServiceStub(channels["embedder"]),
            retriever=RetrieverServiceStub(channels["retriever"]),
            links=LinkServiceStub(channels["retriever"]),
            generator=GeneratorServiceStub(channels["generator"]),
            signer=signer,
        )
