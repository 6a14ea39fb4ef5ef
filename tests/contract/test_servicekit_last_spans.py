"""Which spans a process exports, and that its end waits for the last ones, but not for ever."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterable

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from support.scripted_service import scripted_process

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet_local.otlp import running_receiver
from quintet_local.traces import Span
from quintet_servicekit import telemetry

WITHOUT_A_BOUND_SECONDS = 30
"""What the library waits."""


def test_a_receiver_that_does_not_answer_does_not_hold_the_end_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "END_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        exporter = OTLPSpanExporter(f"http://127.0.0.1:{silent.getsockname()[1]}", insecure=True)
        provider = TracerProvider()
        provider.add_span_processor(telemetry.SpanExport(exporter))
        # Three batches, each of which waits ten seconds.
        for _ in range(1_500):
            provider.get_tracer("test").start_span("work").end()
        began = time.monotonic()
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(WITHOUT_A_BOUND_SECONDS - 10)
        assert not ending.is_alive(), time.monotonic() - began


class Received:
    """Takes spans."""

    def __init__(self) -> None:
        self.traces: list[str] = []

    def add(self, spans: Iterable[Span]) -> None:
        self.traces += [it.trace_id for it in spans]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_share_of_the_traces_is_recorded_unless_their_caller_has_decided(
    ratio: float,
) -> None:
    received, wanted, unwanted = Received(), f"{1:032x}", f"{2:032x}"
    async with running_receiver(received) as address:
        settings: dict[str, float | str] = {
            "trace_ratio": ratio,
            "otlp_endpoint": f"http://{address}",
            "lame_duck_seconds": 0,
        }
        with scripted_process(**settings) as (process, service):
            async with grpc.aio.insecure_channel(service) as channel:
                call = GeneratorServiceStub(channel).Generate
                asked = pb.GenerateRequest(question="0")
                metadata = [
                    (("traceparent", f"00-{trace_id}-b7ad6b7169203331-0{flag}"),)
                    for trace_id, flag in ((wanted, 1), (unwanted, 0))
                ]
                for each in (*metadata, ()):
                    await call(asked, metadata=each, wait_for_ready=True, timeout=30)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 60) == 0
    # The caller's own, and by the ratio the one of whom nobody had decided.
    assert wanted in received.traces
    assert unwanted not in received.traces
    assert len(received.traces) == 1 + ratio
