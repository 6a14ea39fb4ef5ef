"""The last spans of a process: exported, and not waited for where nobody takes them."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider

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
