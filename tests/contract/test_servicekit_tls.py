"""TLS between services: who is let in, who is not, and certificates that change under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError
from support.certificates import Identity

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_servicekit.channel import Peer, open_channel
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.server import Application, RunningServer
from quintet_servicekit.settings import ChannelSettings, ServiceSettings, TlsSettings
from quintet_servicekit.tls import CertificateFiles

SERVICE = "quintet.generator.v1.GeneratorService"
NO_TLS = TlsSettings()


class Echo(GeneratorServiceServicer):
    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        (serial,) = context.auth_context().get("x509_pem_cert", [b""])
        return pb.GenerateResponse(text=serial.decode())

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        for _ in range(3):
            delta = pb.TextDelta(text=request.question)
            yield pb.GenerateStreamResponse(text_delta=delta)
            await asyncio.sleep(0.02)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()


@asynccontextmanager
async def serving(tls: TlsSettings, **settings: Any) -> AsyncIterator[RunningServer]:
    async def nothing() -> None:
        pass

    application = Application(
        SERVICE,
        lambda server: add_GeneratorServiceServicer_to_server(Echo(), server),
        warm_up=nothing,
        check=nothing,
    )
    all_settings = ServiceSettings(
        lame_duck_seconds=0, drain_seconds=5, probe_interval_seconds=0.05, tls=tls, **settings
    )
    async with RunningServer(all_settings, application) as server:
        stop = asyncio.Event()
        running = asyncio.create_task(server.until(stop))
        await server.ready()
        yield server
        stop.set()
        assert await running == 0


def opened(server: RunningServer, tls: TlsSettings) -> grpc.aio.Channel:
    settings = ChannelSettings(max_attempts=1)
    return open_channel(f"localhost:{server.port}", SERVICE, settings, tls=tls)


async def call(channel: grpc.aio.Channel) -> str:
    """Return the client's certificate as the server saw it."""
    stub = GeneratorServiceStub(channel)
    response = await Peer("generator", SERVICE).unary(
        "Generate", stub.Generate, pb.GenerateRequest(question="?"), timeout=5
    )
    return response.text


async def reason(server: RunningServer, tls: TlsSettings) -> Reason | None:
    """Why a call is refused, or None."""
    async with opened(server, tls) as channel:
        try:
            await call(channel)
        except ServiceError as error:
            return error.reason
    return None


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_identity(tmp_path: Path, authority: trustme.CA) -> Identity:
    return Identity(tmp_path / "server").issue(authority, "localhost")


@pytest.fixture
def client(tmp_path: Path, authority: trustme.CA) -> Identity:
    return Identity(tmp_path / "client").issue(authority, "gateway")


async def test_who_has_a_certificate_of_the_authority_is_served(
    server_identity: Identity, client: Identity
) -> None:
    async with serving(server_identity.settings()) as server:
        assert await reason(server, client.settings()) is None
        async with opened(server, client.settings()) as channel:
            assert await call(channel) == (client.folder / "tls.crt").read_text()
            stub = GeneratorServiceStub(channel)
            responses = Peer("generator", SERVICE).stream(
                "GenerateStream", stub.GenerateStream, pb.GenerateRequest(question="q"), timeout=5
            )
            assert [it.text_delta.text async for it in responses] == ["q"] * 3


Wrong = Callable[[Path, trustme.CA], TlsSettings]


def of_another_authority(folder: Path, authority: trustme.CA) -> TlsSettings:
    return Identity(folder).issue(trustme.CA(), "gateway", trusted=(authority,)).settings()


def expired(folder: Path, authority: trustme.CA) -> TlsSettings:
    return Identity(folder).issue(authority, "gateway", expired=True).settings()


def without_a_certificate(folder: Path, authority: trustme.CA) -> TlsSettings:
    it = Identity(folder).issue(authority, "gateway").settings()
    return TlsSettings(ca=it.ca)


def trusting_another_authority(folder: Path, authority: trustme.CA) -> TlsSettings:
    return Identity(folder).issue(authority, "gateway", trusted=(trustme.CA(),)).settings()


def without_tls(_: Path, __: trustme.CA) -> TlsSettings:
    return NO_TLS


@pytest.mark.parametrize(
    "wrong",
    [
        of_another_authority,
        expired,
        without_a_certificate,
        trusting_another_authority,
        without_tls,
    ],
)
async def test_a_client_is_refused(
    wrong: Wrong,
    tmp_path: Path,
    authority: trustme.CA,
    server_identity: Identity,
    client: Identity,
) -> None:
    async with serving(server_identity.settings()) as server:
        it = wrong(tmp_path / "wrong", authority)
        assert await reason(server, it) is Reason.DEPENDENCY_UNAVAILABLE
        # And nothing that it did keeps others out.
        assert await reason(server, client.settings()) is None


@pytest.mark.parametrize("flaw", ["name", "expired", "authority", "plain"])
async def test_a_client_refuses_a_server(
    flaw: str, tmp_path: Path, authority: trustme.CA, client: Identity
) -> None:
    identity = Identity(tmp_path / "other").issue(
        trustme.CA() if flaw == "authority" else authority,
        "elsewhere" if flaw == "name" else "localhost",
        trusted=(authority,),
        expired=flaw == "expired",
    )
    async with serving(NO_TLS if flaw == "plain" else identity.settings()) as server:
        assert await reason(server, client.settings()) is Reason.DEPENDENCY_UNAVAILABLE


async def test_only_named_callers_may_call_and_the_others_are_told(
    tmp_path: Path, authority: trustme.CA, server_identity: Identity, client: Identity
) -> None:
    other = Identity(tmp_path / "other").issue(authority, "tokenizer").settings()
    async with serving(server_identity.settings(callers=["gateway", "operator"])) as server:
        assert await reason(server, client.settings()) is None
        async with opened(server, other) as channel:
            with pytest.raises(ServiceError) as caught:
                await call(channel)
            assert caught.value.reason is Reason.PEER_NOT_ALLOWED
            assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
            stub = GeneratorServiceStub(channel)
            responses = Peer("generator", SERVICE).stream(
                "GenerateStream", stub.GenerateStream, pb.GenerateRequest(question="q"), timeout=5
            )
            with pytest.raises(ServiceError, match="no name that may call"):
                await anext(responses)


async def test_a_gateway_may_do_without_its_callers_certificates(
    server_identity: Identity, client: Identity
) -> None:
    tls = client.settings()
    async with serving(server_identity.settings(require_client=False)) as server:
        assert await reason(server, TlsSettings(ca=tls.ca)) is None
        assert await reason(server, NO_TLS) is Reason.DEPENDENCY_UNAVAILABLE


async def test_the_port_for_probes_serves_health_and_nothing_else(
    server_identity: Identity,
) -> None:
    async with (
        serving(server_identity.settings(), health_port=0) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel,
    ):
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await GeneratorServiceStub(channel).Generate(pb.GenerateRequest(question="?"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_certificates_change_under_load_without_a_failed_call(
    tmp_path: Path, authority: trustme.CA, server_identity: Identity, client: Identity
) -> None:
    """Both ends' certificates, and in three steps the authority. Connections end often, so
    that each step meets new handshakes."""
    later = trustme.CA()
    both = (authority, later)
    async with serving(server_identity.settings(), max_connection_seconds=0.2) as server:
        channel = opened(server, client.settings())
        stop = asyncio.Event()
        calls = 0

        async def work() -> None:
            nonlocal calls
            await call(channel)
            stub = GeneratorServiceStub(channel)
            request = pb.GenerateRequest(question="q")
            responses = [it async for it in stub.GenerateStream(request, timeout=5)]
            assert len(responses) == 3
            calls += 1

        async def load() -> None:
            while not stop.is_set():
                await work()

        async def until_seen() -> None:
            """Work until the server sees the client's present certificate, and a while on."""
            wanted = (client.folder / "tls.crt").read_text()
            async with asyncio.timeout(20):
                while await call(channel) != wanted:
                    await work()
            for _ in range(6):
                await work()

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(load()) for _ in range(4)]
            await until_seen()
            # Who trusts both comes first: the other end may still show the old one.
            for signer, trusted in ((authority, both), (later, both), (later, (later,))):
                server_identity.issue(signer, "localhost", trusted=trusted)
                client.issue(signer, "gateway", trusted=trusted)
                await until_seen()
            stop.set()
            await asyncio.gather(*callers)
        assert calls >= 4 * 6
        await channel.close(None)
        # The first authority's certificates are of no use any more.
        old = Identity(tmp_path / "old").issue(authority, "gateway", trusted=both)
        assert await reason(server, old.settings()) is Reason.DEPENDENCY_UNAVAILABLE


async def test_a_certificate_that_expired_is_replaced_without_a_restart(
    authority: trustme.CA, server_identity: Identity, client: Identity
) -> None:
    client.issue(authority, "gateway", expired=True)
    async with (
        serving(server_identity.settings()) as server,
        opened(server, client.settings()) as channel,
    ):
        with pytest.raises(ServiceError):
            await call(channel)
        client.issue(authority, "gateway")
        async with asyncio.timeout(10):
            while True:
                try:
                    await call(channel)
                    break
                except ServiceError:
                    await asyncio.sleep(0.02)


def test_files_that_do_not_belong_together_are_refused_and_the_earlier_ones_kept(
    authority: trustme.CA, client: Identity
) -> None:
    files = CertificateFiles(client.settings())
    before = files.pem
    assert files.changed() is None
    key = client.folder / "tls.key"
    authority.issue_cert("x").private_key_pem.write_to_path(key)
    assert files.changed() is None
    (client.folder / "tls.crt").unlink()
    assert files.changed() is None
    assert files.pem == before
    client.issue(authority, "gateway")
    after = files.changed()
    assert after is not None
    assert after.certificate == (client.folder / "tls.crt").read_bytes()
    assert files.changed() is None


@pytest.mark.parametrize(
    "settings",
    [
        {"certificate": "c"},
        {"certificate": "c", "key": "k"},
        {"callers": ["gateway"]},
        {"certificate": "c", "key": "k", "require_client": False, "callers": ["gateway"]},
    ],
)
def test_settings_that_would_let_in_whom_they_seem_to_keep_out_are_refused(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        TlsSettings.model_validate(settings)
