"""What operators rely on: health, reflection, metrics and the end of every service."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from support.gateway import gateway_stub
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")


def full_name(service: str) -> str:
    return f"quintet.{service}.v1.{service.capitalize()}Service"


def scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
    return text


@pytest.mark.parametrize("service", SERVICES)
async def test_health_answers_for_the_process_and_by_service_name(
    stack: TestStack, service: str
) -> None:
    async with grpc.aio.insecure_channel(stack.endpoints[service]["grpc"]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", full_name(service)):
            response = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", SERVICES)
def test_reflection_describes_the_service(stack: TestStack, service: str) -> None:
    with grpc.insecure_channel(stack.endpoints[service]["grpc"]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert full_name(service) in database.get_services()
        described = database.FindFileContainingSymbol(full_name(service))
        assert described.package == f"quintet.{service}.v1"


@pytest.mark.parametrize("service", SERVICES)
async def test_metrics_count_the_calls_of_the_service(stack: TestStack, service: str) -> None:
    async with gateway_stub(stack.gateway) as stub:
        await stub.GetStatus(pb.GetStatusRequest())
        await stub.ListCollections(pb.ListCollectionsRequest())
    text = scraped(stack.endpoints[service]["metrics"])
    assert 'grpc_server_handled_total{grpc_code="OK",grpc_method="' in text
    assert f'grpc_service="{full_name(service)}"' in text
    assert "grpc_server_handling_seconds_bucket" in text
    assert "grpc_server_in_flight" in text


async def test_a_service_that_was_restarted_is_used_again_within_five_seconds(
    stack: TestStack,
) -> None:
    async with gateway_stub(stack.gateway) as stub:
        stack.restart("tokenizer")
        async with asyncio.timeout(5):
            states: set[int] = set()
            while states != {pb.SERVICE_STATE_SERVING}:
                status = await stub.GetStatus(pb.GetStatusRequest())
                states = {service.state for service in status.services}


@pytest.mark.parametrize("service", SERVICES)
def test_sigterm_ends_a_service_with_status_0_even_without_its_dependencies(service: str) -> None:
    prefix = f"QUINTET_{service.upper()}_"
    environment = {
        **os.environ,
        # Nobody listens there: the service is up, and not ready.
        f"{prefix}DATABASE_URL": "postgresql://127.0.0.1:1/none",
        f"{prefix}TOKENIZER_ADDRESS": "127.0.0.1:1",
        f"{prefix}PORT": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"quintet_{service}"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        try:
            assert any('"listening"' in line for line in process.stderr)
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(30) == 0, rest
            assert '"draining"' in rest
        finally:
            process.kill()
