"""`quintet up` and `quintet demo` with a stack that only has a gateway that plays back."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.recorded_gateway import RecordedGateway, created, recorded_gateway

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever
from quintet_cli import corpus
from quintet_cli.__main__ import main
from quintet_local import process, supervisor, traces
from quintet_servicekit.errors import Reason, ServiceError

TRACE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedGateway]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUINTET_STATE_DIR", raising=False)
    monkeypatch.delenv("QUINTET_ADDRESS", raising=False)
    monkeypatch.setattr("quintet_cli.commands.trace.SETTLED", 0.1)
    with recorded_gateway() as gateway:
        yield gateway


class Stack:
    """What took the place of the local stack: whether it was stopped, and where it ran."""

    def __init__(self) -> None:
        self.stopped = False
        self.state_dir = Path()
        self.on_up: Callable[[], None] = lambda: None
        self.error: Exception | None = None


@pytest.fixture
def stack(gateway: RecordedGateway, monkeypatch: pytest.MonkeyPatch) -> Stack:
    stack = Stack()

    @asynccontextmanager
    async def running_stack(
        state_dir: Path, *, on_progress: Callable[[Any], None]
    ) -> AsyncIterator[Any]:
        stack.state_dir = state_dir
        for name in ("postgres", "gateway"):
            on_progress(supervisor.Progress(name, "starting"))
            on_progress(supervisor.Progress(name, "ready", 0.25))
        if stack.error:
            raise stack.error
        (state_dir / "traces").mkdir(parents=True)
        span = traces.Span(TRACE_ID, "0123456789abcdef", "", "gateway", "Ask", "server", 1, 2)
        traces.TraceStore(state_dir / "traces", most=9).add([span])
        endpoints = {
            "gateway": {"grpc": gateway.address, "metrics": "http://127.0.0.1:9/metrics"},
            "postgres": {"dsn": "postgresql://127.0.0.1:5/quintet"},
        }
        try:
            stack.on_up()
            yield SimpleNamespace(gateway=gateway.address, endpoints=endpoints)
        finally:
            stack.stopped = True

    monkeypatch.setattr(supervisor, "running_stack", running_stack)
    return stack


def _answer(*, cited: bool) -> list[pb.AskStreamResponse]:
    hit = retriever.Hit(document_id="nonlocal", text="It rebinds.")
    citation = pb.Citation(passage=1, document_id="nonlocal", answer_end=11, document_end=11)
    found = pb.PassagesFound(passages=[pb.Passage(number=1, hit=hit)])
    return [
        pb.AskStreamResponse(passages_found=found),
        pb.AskStreamResponse(text_delta=pb.TextDelta(text="It rebinds.")),
        *([pb.AskStreamResponse(citation=citation)] if cited else []),
        pb.AskStreamResponse(
            completed=pb.Completed(model="extractive", trail=pb.Trail(trace_id=TRACE_ID))
        ),
    ]


@pytest.fixture
def answering(gateway: RecordedGateway) -> RecordedGateway:
    gateway.replies["GetCollection"] = ServiceError(Reason.COLLECTION_NOT_FOUND, "none yet")
    gateway.replies["CreateCollection"] = pb.CreateCollectionResponse()
    gateway.replies["AskStream"] = _answer(cited=True)
    return gateway


class TestDemo:
    def test_it_brings_in_every_topic_asks_each_question_and_stops(
        self, answering: RecordedGateway, stack: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["demo"]) == 0
        assert stack.stopped
        assert stack.state_dir == Path(".quintet/demo")
        assert [request.name for request in answering.asked("CreateCollection")] == ["python"]
        sent = {request.document.id: request.document for request in answering.asked("Ingest")}
        assert len(sent) == len(corpus.documents())
        assert sent["nonlocal"].title == 'The "nonlocal" statement'
        assert [r.question for r in answering.asked("AskStream")] == list(corpus.QUESTIONS)
        out = capsys.readouterr().out
        assert out.count("It rebinds. [1]") == 3
        assert out.count("[1] nonlocal · characters 0-11") == 3
        assert "First answer " in out
        [written] = json.loads(Path(".quintet/demo/trace.json").read_text())["data"]
        assert written["traceID"] == TRACE_ID

    def test_as_json_it_tells_documents_answers_and_phases(
        self, answering: RecordedGateway, stack: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["demo", "--json"]) == 0
        printed = capsys.readouterr()
        lines = [json.loads(line) for line in printed.out.splitlines()]
        assert [line["event"] for line in lines] == ["ingested", *["answer"] * 3, "done"]
        assert lines[0]["created"] == len(corpus.documents())
        assert (lines[-1]["cited"], lines[-1]["asked"]) == (3, 3)
        assert lines[-1]["first_answer"] > lines[-1]["ingest"]
        assert printed.err == ""

    def test_an_answer_without_a_source_ends_it_with_1(
        self, answering: RecordedGateway, stack: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        answering.replies["AskStream"] = _answer(cited=False)
        assert main(["demo"]) == 1
        assert "3 of 3 answers cite no source" in capsys.readouterr().out
        assert stack.stopped

    def test_a_topic_that_is_refused_ends_it_with_1_and_is_named(
        self, answering: RecordedGateway, stack: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def acknowledge(index: int, request: pb.IngestRequest) -> pb.IngestResponse:
            response = created(index, request)
            if request.document.id == "with":
                response.refused.CopyFrom(pb.Refused(message="no room"))
            return response

        answering.acknowledge = acknowledge
        assert main(["demo"]) == 1
        err = capsys.readouterr().err
        assert "failed: with: no room" in err
        assert "1 topics could not be brought in" in err
        assert stack.stopped

    def test_an_error_of_the_gateway_ends_it_with_1_and_stops_the_stack(
        self, answering: RecordedGateway, stack: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        answering.replies["AskStream"] = ServiceError(Reason.NO_PASSAGES, "nothing matches")
        assert main(["demo"]) == 1
        assert "[NO_PASSAGES]" in capsys.readouterr().err
        assert stack.stopped

    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_in_mid_demo_stops_the_stack_and_ends_with_130(
        self,
        answering: RecordedGateway,
        stack: Stack,
        capsys: pytest.CaptureFixture[str],
        signum: signal.Signals,
    ) -> None:
        answering.held_acknowledgements.clear()
        stack.on_up = threading.Timer(0.3, os.kill, (os.getpid(), signum)).start
        assert main(["demo"]) == 130
        assert stack.stopped
        assert capsys.readouterr().err.endswith("interrupted\n")


class TestUp:
    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_it_prints_the_endpoints_stays_up_and_ends_with_0_when_told_to(
        self, stack: Stack, gateway: RecordedGateway, capsys: pytest.CaptureFixture[str],
        signum: signal.Signals,
    ) -> None:  # fmt: skip
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signum))
        stack.on_up = timer.start
        assert main(["up"]) == 0
        assert stack.stopped
        out = capsys.readouterr().out
        assert f"gateway   {gateway.address}" in out
        assert "http://127.0.0.1:9/metrics" in out
        assert "postgresql://127.0.0.1:5/quintet" in out
        assert "250 ms" in out
        assert "quintet ingest PATH" in out
        assert out.endswith("stopping…\nstopped\n")

    def test_as_json_it_prints_one_object_and_nothing_else(
        self, stack: Stack, gateway: RecordedGateway, capsys: pytest.CaptureFixture[str]
    ) -> None:
        stack.on_up = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start
        assert main(["up", "--json"]) == 0
        printed = capsys.readouterr()
        told = json.loads(printed.out)
        assert told["gateway"] == gateway.address
        assert told["endpoints"]["postgres"] == {"dsn": "postgresql://127.0.0.1:5/quintet"}
        assert printed.err == ""

    def test_a_stack_that_does_not_start_is_told_in_one_line(
        self, stack: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        stack.error = process.StartError("the embedder ended while it started")
        assert main(["up"]) == 1
        assert "error: the embedder ended while it started [NOT_STARTED]" in capsys.readouterr().err

    def test_ctrl_c_while_it_starts_ends_with_130(
        self, stack: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        stack.error = KeyboardInterrupt()  # type: ignore[assignment]
        assert main(["up"]) == 130
        assert "interrupted" in capsys.readouterr().err

    def test_without_the_local_stack_it_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def import_module(name: str) -> None:
            raise ModuleNotFoundError(name=name)

        monkeypatch.setattr("quintet_cli.local.importlib.import_module", import_module)
        assert main(["up"]) == 1
        assert "quintet-cli[local]" in capsys.readouterr().err
