"""One of the five services as a process of this machine."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quintet_local import process
from quintet_local.ports import HOST, ReservedPort
from quintet_local.process import StartError
from quintet_local.settings import LocalSettings


class Service:
    """`python -m quintet_<name>` on two ports that are its own until `close`.

    `environment` is the whole environment but for the service's addresses. A
    port that it sets (`QUINTET_<NAME>_PORT`, `…_METRICS_PORT`) is taken.

    Raises `StartError` when such a port is not free.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], *, log_file: Path, settings: LocalSettings
    ) -> None:
        self.name = name
        self._environment = dict(environment)
        self._log = log_file
        self._settings = settings
        self._port = self._reserve("PORT")
        self._metrics_port = self._reserve("METRICS_PORT")
        # Where the service has one: it then speaks TLS, for which we have no certificate.
        self._health_port = self._port
        if self._variable("HEALTH_PORT") in self._environment:
            self._health_port = self._reserve("HEALTH_PORT")
        self._environment.setdefault(self._variable("HOST"), HOST)
        # There is no other replica that callers could move to.
        self._environment.setdefault(self._variable("LAME_DUCK_SECONDS"), "0")

    @property
    def address(self) -> str:
        """Address of the gRPC server."""
        return f"{HOST}:{self._port.number}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{HOST}:{self._metrics_port.number}/metrics"

    def _variable(self, name: str) -> str:
        return f"QUINTET_{self.name.upper()}_{name}"

    def _reserve(self, which: str) -> ReservedPort:
        variable = self._variable(which)
        wanted = self._environment.get(variable) or "0"
        try:
            port = ReservedPort(int(wanted))
        except (OSError, ValueError, OverflowError) as error:
            raise StartError(f"{variable}={wanted}: this port cannot be taken: {error}") from error
        self._environment[variable] = str(port.number)
        return port

    def configure(self, values: Mapping[str, str]) -> None:
        """Set variables of the environment where the user has not."""
        self._environment = {**values, **self._environment}

    async def start(self) -> Process:
        """Start the service and return its process once it reports SERVING.

        Raises `StartError`, with the end of its log, when it does not.
        """
        child = await process.start(
            # -P: modules of the current folder must not shadow ours.
            [sys.executable, "-P", "-m", f"quintet_{self.name}"],
            log_file=self._log,
            # It keeps nothing, and nobody is left to wait for its drain.
            death_signal=signal.SIGKILL,
            environment=self._environment,
        )
        try:
            await self._until_serving(child)
        except BaseException:
            await self.stop(child)
            raise
        return child

    async def stop(self, child: Process) -> None:
        """End the service; calls in flight have their time to finish."""
        await process.stop(child, signal.SIGTERM, grace=self._settings.stop_seconds)

    async def _until_serving(self, child: Process) -> None:
        until = time.monotonic() + self._settings.start_seconds
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 100),
        ]
        async with grpc.aio.insecure_channel(
            f"{HOST}:{self._health_port.number}", options=options
        ) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while child.returncode is None:
                try:
                    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=2)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                except grpc.aio.AioRpcError:
                    # Not listening yet, or busy loading: time alone decides.
                    pass
                if time.monotonic() > until:
                    raise StartError(
                        f"the {self.name} is not ready after {self._settings.start_seconds:.0f} s; "
                        f"its log ends:\n{process.last_lines(self._log)}"
                    )
                await asyncio.sleep(0.05)
        raise StartError(
            f"the {self.name} ended with status {child.returncode} while it started; "
            f"its log ends:\n{process.last_lines(self._log)}"
        )

    def close(self) -> None:
        """Give the ports back."""
        self._port.close()
        self._health_port.close()
        self._metrics_port.close()
