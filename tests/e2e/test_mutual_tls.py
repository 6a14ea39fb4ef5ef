"""The five processes with mutual TLS: the whole chain, who is kept out, new certificates."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.certificates import Identity
from support.stack import TestStack, stack_in_thread

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from quintet_local.supervisor import SERVICES
from quintet_servicekit.channel import Peer, open_channel
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.settings import ChannelSettings, TlsSettings

GATEWAY = "quintet.gateway.v1.GatewayService"
TOKENIZER = "quintet.tokenizer.v1.TokenizerService"


class Secured:
    """A stack in which only the gateway may call the four, and the gateway takes any caller."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.identities = {
            name: Identity(folder / name).issue(self.authority, *self._names(name))
            for name in SERVICES
        }
        self.environment: dict[str, str] = {}
        for name, identity in self.identities.items():
            prefix = f"QUINTET_{name.upper()}_"
            self.environment |= identity.variables(f"{prefix}TLS__")
            self.environment |= {
                f"{prefix}HEALTH_PORT": "0",
                f"{prefix}MAX_CONNECTION_SECONDS": "1",
                f"{prefix}TLS__RELOAD_SECONDS": "0.2",
            }
            if name == "gateway":
                self.environment[f"{prefix}TLS__REQUIRE_CLIENT"] = "false"
            else:
                self.environment[f"{prefix}TLS__CALLERS"] = json.dumps(["gateway"])

    def _names(self, service: str) -> tuple[str, ...]:
        return service, "127.0.0.1"

    def renew(self) -> None:
        """Give every service a new certificate."""
        for name, identity in self.identities.items():
            identity.issue(self.authority, *self._names(name))

    @property
    def outside(self) -> TlsSettings:
        """What a caller of the gateway has."""
        return TlsSettings(ca=self.identities["gateway"].settings().ca)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return Secured(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_stack(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestStack]:
    with stack_in_thread(tmp_path_factory.mktemp("tls") / "state", secured.environment) as stack:
        yield stack


def command_line(stack: TestStack, secured: Secured, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "quintet_cli", "--json", *arguments],
        env={
            "QUINTET_ADDRESS": stack.gateway,
            "QUINTET_TLS_CA": str(secured.outside.ca),
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_documents_come_in_and_questions_are_answered_over_tls(
    tls_stack: TestStack, secured: Secured, tmp_path: Path
) -> None:
    (tmp_path / "tides.md").write_text("# Tides\n\nTides are caused by the gravity of the moon.\n")
    command_line(tls_stack, secured, "ingest", str(tmp_path), "--collection", "tides")
    channel = open_channel(
        tls_stack.gateway, GATEWAY, ChannelSettings(), only_healthy=False, tls=secured.outside
    )
    async with channel:
        answer = await GatewayServiceStub(channel).Ask(
            pb.AskRequest(collection="tides", question="What causes tides?"), timeout=30
        )
    assert [it.hit.document_id for it in answer.passages] == ["tides.md"]
    assert not answer.degradations


async def test_only_the_gateway_is_let_in(tls_stack: TestStack, secured: Secured) -> None:
    """Not another service with a certificate of the same authority, and nobody without one."""
    for tls, expected in (
        (secured.identities["gateway"].settings(), None),
        (secured.identities["retriever"].settings(), Reason.PEER_NOT_ALLOWED),
        (secured.outside, Reason.DEPENDENCY_UNAVAILABLE),
        (TlsSettings(), Reason.DEPENDENCY_UNAVAILABLE),
    ):
        address = tls_stack.endpoints["tokenizer"]["grpc"]
        settings = ChannelSettings(max_attempts=1)
        async with open_channel(
            address, TOKENIZER, settings, only_healthy=False, tls=tls
        ) as channel:
            stub = TokenizerServiceStub(channel)
            request = tokenizer_pb.ListModelsRequest()
            found = None
            try:
                await Peer("tokenizer", TOKENIZER).unary(
                    "ListModels", stub.ListModels, request, timeout=10
                )
            except ServiceError as error:
                found = error.reason
            assert found is expected


async def test_all_certificates_change_while_questions_are_asked(
    tls_stack: TestStack, secured: Secured
) -> None:
    log = tls_stack.state_dir / "logs" / "gateway.log"
    before = log.read_text().count("certificates read anew")
    async with open_channel(
        tls_stack.gateway, GATEWAY, ChannelSettings(), tls=secured.outside
    ) as channel:
        stub = GatewayServiceStub(channel)
        asked = 0

        async def search() -> None:
            nonlocal asked
            request = pb.SearchRequest(collection="tides", query=f"tides {asked}")
            response = await stub.Search(request, timeout=30)
            assert response.hits
            assert not response.degradations
            asked += 1

        await search()
        secured.renew()
        # Its own server, and a channel or two to each of the four.
        async with asyncio.timeout(60):
            while log.read_text().count("certificates read anew") < before + 8:
                await asyncio.gather(*(search() for _ in range(4)))
        for _ in range(10):
            await search()
    assert asked > 10
