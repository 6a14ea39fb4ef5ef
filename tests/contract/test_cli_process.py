"""The command as a process of its own: signals, terminals, what it loads."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.recorded_gateway import RecordedGateway, created, recorded_gateway

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever

COMMAND = [sys.executable, "-m", "quintet_cli"]


@pytest.fixture
def gateway() -> Iterator[RecordedGateway]:
    with recorded_gateway() as gateway:
        gateway.replies["GetCollection"] = pb.GetCollectionResponse()
        yield gateway


def _environment(gateway: RecordedGateway | None = None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("QUINTET_")}
    return own | ({"QUINTET_ADDRESS": gateway.address} if gateway else {})


def test_help_is_quick_and_loads_neither_grpc_nor_any_model_library() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
        return time.perf_counter() - began

    # The best of a few: the machine may be busy with other tests.
    assert min(seconds() for _ in range(5)) < 0.4
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "quintet_cli", "--help"],
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    assert not re.search(r"\| +(grpc|google\.protobuf|torch|transformers)\b", loaded)


def test_no_command_loads_a_model_library() -> None:
    code = (
        "import pkgutil, sys, importlib, quintet_cli.commands as c\n"
        "for m in pkgutil.iter_modules(c.__path__):\n"
        "    importlib.import_module(f'quintet_cli.commands.{m.name}')\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'tokenizers') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_in_mid_ingest_ends_with_what_was_acknowledged(
    gateway: RecordedGateway, tmp_path: Path, as_json: bool
) -> None:
    for number in range(50):
        (tmp_path / f"{number:02}.md").write_text("text")

    def acknowledge(index: int, request: pb.IngestRequest) -> pb.IngestResponse:
        if index == 3:
            gateway.held_acknowledgements.clear()
        return created(index, request)

    gateway.acknowledge = acknowledge
    process = subprocess.Popen(
        [*COMMAND, "ingest", ".", *(["--json"] if as_json else [])],
        cwd=tmp_path,
        env=_environment(gateway),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    shown = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert gateway.left.wait(timeout=5)
    if as_json:
        lines = [json.loads(line) for line in [*shown, *out.splitlines()]]
        assert [line["event"] for line in lines] == ["document"] * 4 + ["summary"]
        assert (lines[-1]["created"], lines[-1]["documents"]) == (4, 50)
        assert err == ""
    else:
        assert "4 of 50 documents: 4 created" in out
        assert err == "interrupted\n"


def test_a_reader_that_leaves_ends_the_command_quietly(
    gateway: RecordedGateway, tmp_path: Path
) -> None:
    documents = [retriever.Document(id=f"{number:05}.md") for number in range(20_000)]
    gateway.replies["ListDocuments"] = pb.ListDocumentsResponse(documents=documents)
    process = subprocess.Popen(
        [*COMMAND, "documents", "--json"],
        cwd=tmp_path,
        env=_environment(gateway),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["id"] == "00000.md"
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=20) == 1


def _in_a_terminal(
    arguments: list[str], environment: dict[str, str], cwd: Path, typed: bytes = b""
) -> tuple[int, str]:
    """Run the command on a terminal of 80 columns where `typed` was typed; return its
    status and the text shown."""
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execvpe(
            COMMAND[0],
            [*COMMAND, *arguments],
            environment | {"TERM": "xterm-256color", "COLUMNS": "80"},
        )
    os.write(descriptor, typed)
    shown = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(descriptor)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_a_terminal_gets_colours_and_wrapped_text(gateway: RecordedGateway, tmp_path: Path) -> None:
    sentence = "This sentence is repeated to be longer than one line of the terminal. "
    gateway.replies["AskStream"] = [
        pb.AskStreamResponse(
            passages_found=pb.PassagesFound(
                passages=[pb.Passage(number=1, hit=retriever.Hit(document_id="a", text="cited"))]
            )
        ),
        *(pb.AskStreamResponse(text_delta=pb.TextDelta(text=sentence)) for _ in range(4)),
        pb.AskStreamResponse(citation=pb.Citation(passage=1, document_id="a", document_end=5)),
        pb.AskStreamResponse(completed=pb.Completed(model="m")),
    ]
    status, shown = _in_a_terminal(["ask", "why"], _environment(gateway), tmp_path)
    assert status == 0
    assert "\x1b[1m" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    lines = plain.replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()).count(sentence.strip()) == 4
    assert "“cited”" in plain


def test_a_collection_is_deleted_only_after_a_yes_in_a_terminal(
    gateway: RecordedGateway, tmp_path: Path
) -> None:
    process = subprocess.run(
        [*COMMAND, "collections", "delete", "mine"],
        cwd=tmp_path,
        env=_environment(gateway),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "give --yes" in process.stderr
    assert gateway.requests == []


@pytest.mark.parametrize("subject", ["--collection-all", "--everything"])
def test_a_no_in_a_terminal_keeps_what_the_caches_keep(
    gateway: RecordedGateway, tmp_path: Path, subject: str
) -> None:
    arguments = ["cache", "purge", subject]
    status, shown = _in_a_terminal(arguments, _environment(gateway), tmp_path, b"n\n")
    assert status == 1
    assert "Answers are slow until it is made anew. [y/N]" in " ".join(shown.split())
    assert gateway.requests == []


def test_a_yes_in_a_terminal_empties_the_caches(gateway: RecordedGateway, tmp_path: Path) -> None:
    gateway.replies["PurgeCache"] = pb.PurgeCacheResponse(dropped=5)
    arguments = ["cache", "purge", "--everything"]
    status, shown = _in_a_terminal(arguments, _environment(gateway), tmp_path, b"y\n")
    assert status == 0
    assert shown.endswith("dropped 5 results\r\n")
    [request] = gateway.asked("PurgeCache")
    assert request.everything


def test_an_answer_that_may_be_out_of_date_is_told_in_yellow(
    gateway: RecordedGateway, tmp_path: Path
) -> None:
    use = cache_pb.CacheUse(tier="l1", outcome=cache_pb.CACHE_OUTCOME_STALE)
    completed = pb.Completed(cache=pb.AnswerCache(use=use, possibly_stale=True))
    gateway.replies["AskStream"] = [
        pb.AskStreamResponse(text_delta=pb.TextDelta(text="It was so.")),
        pb.AskStreamResponse(completed=completed),
    ]
    _, shown = _in_a_terminal(["ask", "why"], _environment(gateway), tmp_path)
    assert "\x1b[1;33mPOSSIBLY OUT OF DATE\x1b[0m" in shown
