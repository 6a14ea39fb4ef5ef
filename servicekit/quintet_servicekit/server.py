"""Runs a service: gRPC server, health, reflection, metrics, and a graceful end.

A service's `__main__` calls `run` with its settings and the context manager that
opens it. The server listens at once and answers NOT_SERVING until the service
has warmed up; after that, health follows what its dependencies say.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from quintet_servicekit import telemetry
from quintet_servicekit.admission import Admission
from quintet_servicekit.background import end
from quintet_servicekit.fault_injection import FaultInjection
from quintet_servicekit.gates import Authenticator, Guard
from quintet_servicekit.identity_token import TokenVerifier
from quintet_servicekit.incoming import Bounds
from quintet_servicekit.interceptor import CallInterceptor
from quintet_servicekit.key_files import KeyFileError
from quintet_servicekit.line import Lines
from quintet_servicekit.settings import ServiceSettings
from quintet_servicekit.tls import server_credentials


@dataclass(frozen=True)
class Application:
    """A service that has been opened.

    `service` is its full protobuf name; `register` adds its servicer to a
    server; `warm_up` loads what is slow (it may raise: the process then ends
    with status 1); `check` raises while a dependency does not answer.
    `more_services` names what `register` adds beside it. `unlimited_methods` names
    methods of its own that are answered however much there is to do: those that tell
    how it is, and streams of which each document is a call of its own. `authenticator`
    tells whom calls are for, where that is not the gateway's token. `guard` decides
    about calls whose caller is known.
    """

    service: str
    register: Callable[[grpc.aio.Server], None]
    warm_up: Callable[[], Awaitable[None]]
    check: Callable[[], Awaitable[None]]
    more_services: tuple[str, ...] = ()
    unlimited_methods: frozenset[str] = frozenset()
    authenticator: Authenticator | None = None
    guard: Guard | None = None

    @property
    def name(self) -> str:
        """The short name of its service: "retriever" of "quintet.retriever.v1.RetrieverService"."""
        return self.service.split(".")[1]

    @property
    def services(self) -> tuple[str, ...]:
        """All services' names, its own first."""
        return (self.service, *self.more_services)


_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_CLOSING_SECONDS = 2.0
"""How long calls that are ended after the drain may take to clean up and to tell it."""

_MOST_IN_LINE = 8192
"""Calls that wait to be begun, some kilobytes each."""

_PROBES = 64
"""Calls at once on the port for probes."""

Opener = Callable[[], AbstractAsyncContextManager[Application]]


def run(name: str, settings: ServiceSettings, open_application: Opener) -> int:
    """Serve until SIGTERM or SIGINT and return the process's exit status."""
    return uvloop.run(_run(name, settings, open_application))


async def _run(name: str, settings: ServiceSettings, open_application: Opener) -> int:
    provider = telemetry.configure(name, settings)
    stop = asyncio.Event()
    for signum in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signum, _stop_or_end, stop)
    try:
        async with open_application() as application, RunningServer(settings, application) as it:
            _check_identity(settings, application)
            telemetry.logger().info("listening", port=it.port, metrics_port=it.metrics_port)
            return await it.until(stop)
    finally:
        # Exports the last spans; it blocks, and nothing else is left to run.
        await asyncio.to_thread(provider.shutdown)


def _check_identity(settings: ServiceSettings, application: Application) -> None:
    """Raise where nobody could call, and say it loudly where anybody can."""
    if application.authenticator is not None:
        return
    if not settings.identity.required:
        telemetry.logger().warning(
            "OPEN: calls without an identity are taken, from anybody who reaches this port"
        )
    elif settings.identity.public_keys is None:
        raise KeyFileError(
            "no public key is set (…_IDENTITY__PUBLIC_KEYS), so nobody could call; "
            "to take calls from anybody, set …_IDENTITY__REQUIRED=false"
        )


def _stop_or_end(stop: asyncio.Event) -> None:
    """Begin the graceful end; the next signal ends the process at once."""
    stop.set()
    for signum in _STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(signum)
        signal.signal(signum, signal.SIG_DFL)


def _verifier(settings: ServiceSettings, application: Application) -> TokenVerifier | None:
    if settings.identity.public_keys is None:
        return None
    return TokenVerifier(settings.identity, application.name)


class RunningServer:
    """A started server of one application.

    Leaving the context ends it so that no caller meets a closed door: health says
    NOT_SERVING while calls are still taken (`lame_duck_seconds`), then none is taken and
    those in flight finish (`drain_seconds`), then the rest end with NOT_READY.
    """

    def __init__(self, settings: ServiceSettings, application: Application) -> None:
        self._settings = settings
        self._application = application
        self._warm = False
        self._serving = asyncio.Event()
        self._health = HealthServicer()
        admission = Admission(settings.admission, most=settings.max_concurrent_calls)

        def admission_of(method: str) -> Admission | None:
            service, _, name = method.rpartition("/")
            limited = service == application.service and name not in application.unlimited_methods
            return admission if limited else None

        self._lines = Lines()
        self._interceptor = CallInterceptor(
            lambda: self._warm,
            FaultInjection() if settings.fault_injection else None,
            admission_of,
            settings.metrics_tenants,
            application.authenticator or _verifier(settings, application),
            application.guard,
            Bounds(
                settings.max_metadata_bytes,
                settings.first_request_seconds,
                settings.idle_stream_seconds,
                settings.untaken_seconds,
            ),
            settings.tls.callers,
            self._lines,
        )
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            # Of those beyond the limit some are being refused, wait in line, or are not
            # limited. What gRPC itself refuses gets no advice when to try again.
            maximum_concurrent_rpcs=2 * settings.max_concurrent_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Beyond ours, so that what is too much is refused by its name.
                ("grpc.max_metadata_size", 4 * settings.max_metadata_bytes),
                ("grpc.absolute_max_metadata_size", 8 * settings.max_metadata_bytes),
                # Calls that gRPC keeps in line before it drops some without a reason: more than
                # we refuse in the time that a call may wait.
                ("grpc.server.max_pending_requests", _MOST_IN_LINE),
                ("grpc.server.max_pending_requests_hard_limit", 2 * _MOST_IN_LINE),
                # Clients may probe idle connections as often as our channels do.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                *_max_age(settings.max_connection_seconds),
            ],
        )
        application.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*application.services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._measuring = AsyncExitStack()
        self._probes: grpc.aio.Server | None = None
        if settings.health_port is not None:
            self._probes = grpc.aio.server(maximum_concurrent_rpcs=_PROBES)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probes)
        self.port = 0
        self.health_port = 0
        self.metrics_port = 0

    async def __aenter__(self) -> RunningServer:
        settings = self._settings
        await self._set_health(serving=False)
        # Health under its own name says that the process answers, whatever it waits for:
        # an orchestrator that restarts by it restarts nobody for an absent database.
        await self._health.set(health.SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        address = f"{settings.host}:{settings.port}"
        if settings.tls.certificate is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, server_credentials(settings.tls))
        if self._probes is not None:
            address = f"{settings.host}:{settings.health_port}"
            self.health_port = self._probes.add_insecure_port(address)
            await self._probes.start()
        self._metrics = telemetry.serve_metrics(settings.host, settings.metrics_port)
        self.metrics_port = self._metrics.server_port
        await self._measuring.enter_async_context(self._lines.measured(self._server))
        await self._server.start()
        return self

    async def ready(self) -> None:
        """Wait until the application has been SERVING for the first time."""
        await self._serving.wait()

    async def until(self, stop: asyncio.Event) -> int:
        """Keep health true until `stop` is set; return the exit status."""
        following = asyncio.create_task(self._follow_dependencies())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failed = following.done()
        stopping.cancel()
        await end(following)
        try:
            await following
        except asyncio.CancelledError:
            pass
        except Exception as error:
            telemetry.logger().error("the service cannot start", exc_info=error)
        return 1 if failed else 0

    async def _follow_dependencies(self) -> None:
        await self._application.warm_up()
        self._warm = True
        pause = self._settings.probe_interval_seconds
        was_ready: bool | None = None
        while True:
            try:
                # A probe that hangs is an answer: not ready.
                async with asyncio.timeout(max(1.0, pause)):
                    await self._application.check()
                ready = True
            except Exception as error:
                ready = False
                if was_ready is not False:
                    telemetry.logger().warning("not ready", cause=type(error).__name__)
            if ready != was_ready:
                await self._set_health(serving=ready)
                telemetry.logger().info("serving" if ready else "not serving")
                was_ready = ready
            await asyncio.sleep(pause)

    async def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        value = status.SERVING if serving else status.NOT_SERVING
        for name in ("", *self._application.services):
            await self._health.set(name, value)
        if serving:
            self._serving.set()

    async def __aexit__(self, *_: Any) -> None:
        await self._health.enter_graceful_shutdown()
        settings = self._settings
        telemetry.logger().info("draining", seconds=settings.drain_seconds)
        # What has not been warm was never called by those who look at its health.
        if self._warm:
            await asyncio.sleep(settings.lame_duck_seconds)
        await self._measuring.aclose()
        grace = settings.drain_seconds + _CLOSING_SECONDS
        stopping = asyncio.create_task(self._server.stop(grace))
        self._interceptor.end_watches()
        await asyncio.wait({stopping}, timeout=settings.drain_seconds)
        if not stopping.done():
            telemetry.logger().warning("ending", calls=self._interceptor.end_calls())
        await stopping
        if self._probes is not None:
            await self._probes.stop(None)
        await asyncio.to_thread(self._metrics.shutdown)
        self._metrics.server_close()


def _max_age(seconds: float) -> list[tuple[str, int]]:
    return [("grpc.max_connection_age_ms", int(seconds * 1000))] if seconds else []


def set_threads(threads: int) -> None:
    """Bound the threads of the numeric libraries; call it before they are imported."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    # OpenMP's threads would spin while they wait for each other. With one other busy
    # process on two cores that made decoding ten times as slow as sleeping does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
