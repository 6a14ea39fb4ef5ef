"""The identity token between gateway and services, over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.gateway import reason
from support.grpc_service import serving

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_servicekit import key_files
from quintet_servicekit.channel import Peer
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, Scope, acting_as, current
from quintet_servicekit.identity_token import (
    AUDIENCE,
    IDENTITY_KEY,
    ISSUER,
    Signer,
    audience_of,
)
from quintet_servicekit.key_files import read_private_key, write_key_pair
from quintet_servicekit.server import Application
from quintet_servicekit.settings import IdentitySettings, ServiceSettings, SigningSettings

SERVICE = "quintet.generator.v1.GeneratorService"
BEES = Identity("bees", "k1", Scope.READ)
ANTS = Identity("ants", "k2", Scope.WRITE)


class Told(GeneratorServiceServicer):
    """Answers with whom the call is for."""

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        await asyncio.sleep(0)
        now = current()
        return pb.GenerateResponse(text=f"{now.tenant} {now.key} {now.scope}")

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        for _ in range(2):
            await asyncio.sleep(0)
            delta = pb.TextDelta(text=current().tenant)
            yield pb.GenerateStreamResponse(text_delta=delta)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()


async def nothing() -> None:
    return None


@asynccontextmanager
async def told(**settings: Any) -> AsyncIterator[Any]:
    """Yield the stub of a service with those identity settings."""
    application = Application(
        service=SERVICE,
        register=lambda server: add_GeneratorServiceServicer_to_server(Told(), server),
        warm_up=nothing,
        check=nothing,
    )
    identity = IdentitySettings(**settings)
    own = ServiceSettings(lame_duck_seconds=0, drain_seconds=1, identity=identity)
    async with serving(application, own) as channel:
        yield GeneratorServiceStub(channel)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "one.key", tmp_path / "keys" / "one.pem"
    public.parent.mkdir()
    write_key_pair(private, public)
    return private, public


def signer_of(private: Path, **settings: float) -> Signer:
    return Signer(private, SigningSettings(**settings))


async def ask(stub: Any, signer: Signer, identity: Identity) -> str:
    with acting_as(identity):
        peer = Peer("generator", SERVICE, signer=signer)
        response = await peer.unary("Generate", stub.Generate, pb.GenerateRequest(), timeout=5)
    return str(response.text)


async def refusal(stub: Any, *metadata: tuple[str, str | bytes]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Generate(pb.GenerateRequest(), timeout=5, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    return reason(refused.value)


async def test_a_service_acts_for_whom_the_caller_acts(pair: tuple[Path, Path]) -> None:
    private, public = pair
    signer = signer_of(private)
    async with told(public_keys=public) as stub:
        answers = await asyncio.gather(*(ask(stub, signer, it) for it in (BEES, ANTS) * 20))
        assert answers == ["bees k1 read", "ants k2 write"] * 20


async def test_a_stream_acts_for_its_caller_to_its_end(pair: tuple[Path, Path]) -> None:
    private, public = pair
    async with told(public_keys=public.parent) as stub:
        peer = Peer("generator", SERVICE, signer=signer_of(private))
        with acting_as(ANTS):
            stream = peer.stream(
                "GenerateStream", stub.GenerateStream, pb.GenerateRequest(), timeout=5
            )
            told_tenants = [response.text_delta.text async for response in stream]
    assert told_tenants == ["ants", "ants"]


async def test_a_call_without_a_token_is_refused_but_for_health(pair: tuple[Path, Path]) -> None:
    async with told(public_keys=pair[1]) as stub:
        assert await refusal(stub) == "UNAUTHENTICATED"


async def test_who_was_refused_is_told_and_counted_as_no_tenant(pair: tuple[Path, Path]) -> None:
    with structlog.testing.capture_logs() as logs:
        async with told(public_keys=pair[1]) as stub:
            await refusal(stub)
    [line] = [it for it in logs if it["event"] == "call"]
    assert (line["code"], line["tenant"]) == ("UNAUTHENTICATED", "")


async def test_health_is_told_to_those_without_a_token(pair: tuple[Path, Path]) -> None:
    application = Application(SERVICE, lambda _: None, warm_up=nothing, check=nothing)
    own = ServiceSettings(
        lame_duck_seconds=0, drain_seconds=1, identity=IdentitySettings(public_keys=pair[1])
    )
    async with serving(application, own) as channel:
        response = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
    assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_without_a_requirement_a_call_without_a_token_is_the_default_tenants(
    pair: tuple[Path, Path],
) -> None:
    private, public = pair
    async with told(public_keys=public, required=False) as stub:
        assert (await stub.Generate(pb.GenerateRequest())).text == "default  admin"
        assert await ask(stub, signer_of(private), BEES) == "bees k1 read"
        assert await refusal(stub, (IDENTITY_KEY, "forged")) == "UNAUTHENTICATED"


def claims(**others: Any) -> dict[str, Any]:
    told = {"iss": ISSUER, "aud": AUDIENCE, "iat": 1, "exp": 2**33, "sub": "k"}
    return {**told, "tenant": "bees", "scope": "read", **others}


async def test_tokens_that_are_not_the_gateways_are_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = pair
    stranger = tmp_path / "stranger.key"
    write_key_pair(stranger, tmp_path / "stranger.pem")
    own, foreign = read_private_key(private), read_private_key(stranger)
    kid = {"kid": key_files.key_id(own.public_key())}
    right = jwt.encode(claims(), own, "EdDSA", headers=kid)
    head, _, signature = right.split(".")
    other_body = jwt.encode(claims(tenant="ants"), own, "EdDSA", headers=kid).split(".")[1]
    public_text = own.public_key().public_bytes_raw()
    forged = {
        "another key under its name": jwt.encode(claims(), foreign, "EdDSA", headers=kid),
        "another key": signer_of(stranger).token(BEES, "generator"),
        "no name of a key": jwt.encode(claims(), own, "EdDSA"),
        "no signature": jwt.encode(claims(), "", "none", headers=kid),
        "a shared secret": jwt.encode(claims(), public_text, "HS256", headers=kid),
        "another body": f"{head}.{other_body}.{signature}",
        "another audience": jwt.encode(claims(aud="others"), own, "EdDSA", headers=kid),
        "another service": jwt.encode(
            claims(aud=[AUDIENCE, audience_of("retriever")]), own, "EdDSA", headers=kid
        ),
        "another issuer": jwt.encode(claims(iss="others"), own, "EdDSA", headers=kid),
        "expired": jwt.encode(claims(exp=1), own, "EdDSA", headers=kid),
        "of the future": jwt.encode(claims(iat=2**33), own, "EdDSA", headers=kid),
        "a tenant with a quote": jwt.encode(claims(tenant="a'b"), own, "EdDSA", headers=kid),
        "an unknown scope": jwt.encode(claims(scope="all"), own, "EdDSA", headers=kid),
        "too long": right + "A" * 3_000,
        "empty": "",
    }
    async with told(public_keys=public) as stub:
        for what, token in forged.items():
            assert await refusal(stub, (IDENTITY_KEY, token)) == "UNAUTHENTICATED", what
        assert await refusal(stub, (IDENTITY_KEY, right), (IDENTITY_KEY, right))
        response = await stub.Generate(pb.GenerateRequest(), metadata=((IDENTITY_KEY, right),))
        assert response.text == "bees k read"


async def test_what_one_service_was_sent_is_of_no_use_at_another(pair: tuple[Path, Path]) -> None:
    signer = signer_of(pair[0])
    async with told(public_keys=pair[1]) as stub:
        for service, is_taken in (("generator", True), ("retriever", False)):
            sent = ((IDENTITY_KEY, signer.token(BEES, service)),)
            if is_taken:
                assert (await stub.Generate(pb.GenerateRequest(), metadata=sent)).text
            else:
                assert await refusal(stub, *sent) == "UNAUTHENTICATED"


async def test_a_token_ends_and_the_clocks_may_be_apart(pair: tuple[Path, Path]) -> None:
    own = read_private_key(pair[0])
    kid = {"kid": key_files.key_id(own.public_key())}
    ended = jwt.encode(claims(exp=int(time.time()) - 20), own, "EdDSA", headers=kid)
    async with told(public_keys=pair[1], leeway_seconds=5) as stub:
        assert await refusal(stub, (IDENTITY_KEY, ended))
    async with told(public_keys=pair[1], leeway_seconds=120) as stub:
        assert await stub.Generate(pb.GenerateRequest(), metadata=((IDENTITY_KEY, ended),))


async def test_keys_are_exchanged_while_a_service_runs(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "LOOK_SECONDS", 0.0)
    private, public = pair
    signer = signer_of(private, reuse_seconds=0)
    following = tmp_path / "two.key"
    async with told(public_keys=public.parent) as stub:
        old = signer.token(BEES, "generator")
        assert await ask(stub, signer, BEES) == "bees k1 read"
        write_key_pair(following, public.with_name("two.pem"))
        following.replace(private)
        assert await ask(stub, signer, BEES) == "bees k1 read"
        assert signer.token(BEES, "generator") != old
        await stub.Generate(pb.GenerateRequest(), metadata=((IDENTITY_KEY, old),))
        public.unlink()
        assert await refusal(stub, (IDENTITY_KEY, old)) == "UNAUTHENTICATED"
        assert await ask(stub, signer, BEES) == "bees k1 read"
        # What cannot be read changes nothing.
        public.with_name("three.pem").write_text("no key")
        assert await ask(stub, signer, BEES) == "bees k1 read"


async def test_a_service_that_does_not_believe_the_gateway_is_away_to_its_caller(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.key"
    write_key_pair(stranger, tmp_path / "stranger.pem")
    async with told(public_keys=pair[1]) as stub:
        with pytest.raises(ServiceError) as failed:
            await ask(stub, signer_of(stranger), BEES)
    assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert failed.value.metadata == {"dependency": "generator"}


def test_a_token_is_signed_once_for_many_calls(pair: tuple[Path, Path]) -> None:
    signer = signer_of(pair[0])
    assert signer.token(BEES, "generator") is signer.token(
        Identity("bees", "k1", Scope.READ), "generator"
    )
    assert signer.token(BEES, "generator") != signer.token(ANTS, "generator")


def test_a_private_key_is_for_its_owner_alone(pair: tuple[Path, Path]) -> None:
    assert pair[0].stat().st_mode & 0o777 == 0o600
    assert pair[1].stat().st_mode & 0o400


async def test_too_much_metadata_is_refused_by_name(pair: tuple[Path, Path]) -> None:
    async with told() as stub:
        padding = [(f"x-padding-{number}", "A" * 1_000) for number in range(9)]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(pb.GenerateRequest(), metadata=padding)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason(refused.value) == "INPUT_TOO_LONG"
        assert await stub.Generate(pb.GenerateRequest(), metadata=padding[:7])
