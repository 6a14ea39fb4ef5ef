"""Reserved ports, with the kernel's and gRPC's real behaviour."""

from __future__ import annotations

import socket
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from quintet_local.ports import HOST, ReservedPort
from quintet_servicekit.telemetry import serve_metrics


async def serving_health(port: int) -> grpc.aio.Server:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    assert server.add_insecure_port(f"{HOST}:{port}") == port
    await server.start()
    return server


async def test_a_grpc_server_takes_the_reserved_port_again_and_again() -> None:
    reserved = ReservedPort()
    try:
        for _ in range(3):
            server = await serving_health(reserved.number)
            async with grpc.aio.insecure_channel(f"{HOST}:{reserved.number}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                for _ in range(20):
                    # A connection that the reserving socket got would never answer.
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
            await server.stop(grace=None)
    finally:
        reserved.close()


def test_a_metrics_server_takes_the_reserved_port() -> None:
    reserved = ReservedPort()
    server = serve_metrics(HOST, reserved.number)
    try:
        for _ in range(20):
            with urlopen(f"http://{HOST}:{reserved.number}/metrics", timeout=5) as response:
                assert response.status == 200
    finally:
        server.shutdown()
        server.server_close()
        reserved.close()


def test_a_reserved_port_refuses_connections_while_its_server_is_down() -> None:
    reserved = ReservedPort()
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, reserved.number), timeout=5)
    finally:
        reserved.close()


def test_nobody_gets_a_reserved_port_from_the_system_or_by_its_number() -> None:
    reserved = ReservedPort()
    try:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((HOST, reserved.number))
        # The whole range of the system's choice is passed several times.
        for _ in range(100_000):
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind((HOST, 0))
                assert other.getsockname()[1] != reserved.number
    finally:
        reserved.close()


def test_a_port_that_is_taken_cannot_be_reserved() -> None:
    with socket.create_server((HOST, 0)) as other, pytest.raises(OSError, match="in use"):
        ReservedPort(other.getsockname()[1])
