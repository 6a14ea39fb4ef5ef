"""What is told of a call: metrics, exemplars and its one log line."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import REGISTRY

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from quintet_servicekit import identity
from quintet_servicekit.cache.use import CacheUse, note_use
from quintet_servicekit.call_notes import MOST, note_degradation, note_tier
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.server import Application, RunningServer
from quintet_servicekit.settings import ServiceSettings

SERVICE = "quintet.generator.v1.GeneratorService"
CANARY = "the canary sings at 4711"


class Noting(GeneratorServiceServicer):
    """Does for `tenant` what leaves notes; fails where it is told to."""

    tenant = "acme"
    failure: Exception | None = None

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        identity._current.set(identity.Identity(self.tenant))
        note_use(CacheUse("l1", "miss"))
        await asyncio.create_task(self._in_a_task())
        note_degradation("embedder", "CIRCUIT_OPEN", "LEXICAL_SEARCH")
        if self.failure is not None:
            raise self.failure
        return pb.GenerateResponse(text=request.question)

    async def _in_a_task(self) -> None:
        note_use(CacheUse("l2", "hit"))

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        yield pb.GenerateStreamResponse()

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> Any:
        return pb.ListModelsResponse()


async def nothing() -> None:
    return None


class Server:
    def __init__(self, running: RunningServer, stub: Any, servicer: Noting) -> None:
        self.stub = stub
        self.servicer = servicer
        self._metrics = f"http://127.0.0.1:{running.metrics_port}/metrics"

    async def generate(self) -> str | None:
        """Call, and return the trace's id."""
        call = self.stub.Generate(pb.GenerateRequest(question=CANARY))
        with suppress(grpc.aio.AioRpcError):
            await call
        trailers = dict(await call.trailing_metadata())
        # What is told of a call is told just after its answer.
        await self.stub.ListModels(pb.ListModelsRequest())
        return trailers.get("quintet-trace-id")

    async def scrape(self, accept: str = "text/plain") -> str:
        request = urllib.request.Request(self._metrics, headers={"Accept": accept})

        def read() -> str:
            with urllib.request.urlopen(request, timeout=5) as response:
                text: str = response.read().decode()
            return text

        return await asyncio.to_thread(read)


@asynccontextmanager
async def noting(**settings: Any) -> AsyncIterator[Server]:
    servicer = Noting()
    application = Application(
        service=SERVICE,
        register=lambda server: add_GeneratorServiceServicer_to_server(servicer, server),
        warm_up=nothing,
        check=nothing,
    )
    values = ServiceSettings(lame_duck_seconds=0, drain_seconds=1, **settings)
    async with RunningServer(values, application) as running:
        stop = asyncio.Event()
        until = asyncio.create_task(running.until(stop))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            await running.ready()
            yield Server(running, GeneratorServiceStub(channel), servicer)
        stop.set()
        await until


@pytest.fixture
async def server() -> AsyncGenerator[Server]:
    async with noting() as it:
        yield it


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record every trace."""
    tracer = TracerProvider().get_tracer("quintet")
    monkeypatch.setattr("quintet_servicekit.telemetry.tracer", lambda: tracer)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


OF_GENERATE = {"grpc_service": SERVICE, "grpc_method": "Generate"}


async def test_a_call_is_counted_by_reason_and_once_as_degraded(server: Server) -> None:
    server.servicer.failure = ServiceError(Reason.OVERLOADED, "too many")
    reasons = value("grpc_server_errors_total", reason="OVERLOADED", **OF_GENERATE)
    degraded = value("grpc_server_degraded_total", **OF_GENERATE)
    await server.generate()
    assert value("grpc_server_errors_total", reason="OVERLOADED", **OF_GENERATE) == reasons + 1
    assert value("grpc_server_degraded_total", **OF_GENERATE) == degraded + 1


async def test_the_line_of_a_call_tells_tenant_tiers_and_degradations_and_no_text(
    server: Server, recorded: None
) -> None:
    server.servicer.failure = ValueError(CANARY)
    with structlog.testing.capture_logs() as lines:
        await server.generate()
    (line,) = [it for it in lines if it["event"] == "call" and it["method"].endswith("/Generate")]
    assert line.pop("seconds") > 0
    assert line == {
        "event": "call",
        "log_level": "info",
        "method": f"{SERVICE}/Generate",
        "code": "INTERNAL",
        "reason": "INTERNAL",
        "tenant": "acme",
        "tiers": {"l1": "miss", "l2": "hit"},
        "degradations": ["embedder:CIRCUIT_OPEN:LEXICAL_SEARCH"],
    }
    assert CANARY not in json.dumps(line)


async def test_notes_of_one_call_are_bounded_and_not_those_of_another(server: Server) -> None:
    with structlog.testing.capture_logs() as lines:
        for number in range(3 * MOST):
            note_tier(f"t{number}", "hit")  # of no call
        await server.generate()
        await server.generate()
    first, second = [it for it in lines if it.get("method") == f"{SERVICE}/Generate"]
    assert first["tiers"] == second["tiers"] == {"l1": "miss", "l2": "hit"}
    assert len(first["degradations"]) == 1


async def test_openmetrics_has_the_trace_id_of_a_recorded_call_as_exemplar(
    server: Server, recorded: None
) -> None:
    trace_id = await server.generate()
    text = await server.scrape("application/openmetrics-text;version=1.0.0")
    assert f'trace_id="{trace_id}"' in text
    assert text.endswith("# EOF\n")
    assert "trace_id" not in await server.scrape()


async def test_a_call_that_is_not_recorded_leaves_no_exemplar(server: Server) -> None:
    assert not trace.get_current_span().get_span_context().trace_flags.sampled
    trace_id = await server.generate()
    assert f'"{trace_id}"' not in await server.scrape("application/openmetrics-text;version=1.0.0")


async def test_tenants_are_no_label_unless_a_setting_names_them(server: Server) -> None:
    server.servicer.tenant = "a-tenant-of-nobody"
    await server.generate()
    assert "a-tenant-of-nobody" not in await server.scrape()


async def test_tenants_that_are_not_named_are_counted_together() -> None:
    async with noting(metrics_tenants=("acme", "globex")) as server:
        for tenant in ("acme", *(f"stranger-{number}" for number in range(50))):
            server.servicer.tenant = tenant
            await server.generate()
        lines = (await server.scrape()).splitlines()
    of_tenants = [it for it in lines if it.startswith("quintet_tenant_handled_total{")]
    generated = {it.split('tenant="')[1].split('"')[0]: it for it in of_tenants if "Generate" in it}
    assert generated.keys() == {"acme", "other"}
    assert generated["other"].endswith(" 50.0")
