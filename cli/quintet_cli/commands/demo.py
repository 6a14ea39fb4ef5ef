"""`quintet demo`: from nothing to three answers with their sources, and away again."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import typer
from rich.console import Console

from quintet.gateway.v1.gateway_service_pb2 import AskRequest, AskResponse
from quintet_cli import corpus, render
from quintet_cli.answering import answer
from quintet_cli.commands import ask, trace, up
from quintet_cli.commands.ingest import ensure
from quintet_cli.connection import Gateway, api_key, connected
from quintet_cli.errors import FAILED, CliError
from quintet_cli.ingestion import Ingestion, Result, Summary
from quintet_cli.live import Progress
from quintet_cli.local import StartBoard, started
from quintet_cli.local import run as run_with_stack
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json, seconds, shown


@dataclass(slots=True)
class Phases:
    """Seconds that each phase took; `first_answer` is from the start to the end of
    the first answer, `first_text` of it only to its first word."""

    start: float = 0.0
    ingest: float = 0.0
    first_answer: float = 0.0
    questions: float = 0.0
    stop: float = 0.0


def run(settings: Settings) -> None:
    """Run the demo; exit with 1 unless every question got an answer with a source."""
    # Beside the user's own stack, never in it.
    settings = replace(settings, state_dir=settings.state_dir / "demo", address=None, api_key="")
    cited = run_with_stack(_Demo(settings).run())
    if cited < len(corpus.QUESTIONS):
        raise typer.Exit(FAILED)


class _Demo:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._out: Console = console()
        self._began = time.perf_counter()
        self._phases = Phases()

    async def run(self) -> int:
        """Return the number of questions that got an answer with a source."""
        board = StartBoard(silent=self._settings.json)
        self._head("Starting PostgreSQL, Valkey and the five services")
        async with started(self._settings, board) as stack:
            self._phases.start = self._elapsed()
            if not self._settings.json:
                up.endpoints(self._out, stack.endpoints, board.took)
            own = replace(self._settings, address=stack.gateway, api_key=api_key(self._settings))
            async with connected(own) as gateway:
                summary = await self._ingest(gateway)
                responses = await self._ask_all(gateway)
                path = self._settings.state_dir / "trace.json"
                spans = await trace.write(
                    self._settings.state_dir, responses[-1].trail.trace_id, path
                )
            stopping = time.perf_counter()
            self._head("Stopping")
        self._phases.stop = time.perf_counter() - stopping
        cited = sum(bool(response.citations) for response in responses)
        self._close(summary, cited, path, spans)
        return cited

    async def _ingest(self, gateway: Gateway) -> Summary:
        documents = corpus.documents()
        self._head(f"Bringing in the Python language reference: {len(documents)} topics")
        began = time.perf_counter()
        await ensure(gateway, corpus.COLLECTION, corpus.DESCRIPTION)
        with Progress("chunk, embed, store", total=len(documents), unit="topics") as progress:

            def on_result(result: Result) -> None:
                progress.advance()
                if result.outcome == "failed":
                    progress.print(f"failed: {shown(result.id)}: {result.message}", style="red")

            summary = await Ingestion(gateway, corpus.COLLECTION, on_result).run(documents)
        self._phases.ingest = time.perf_counter() - began
        if summary.failed:
            raise CliError(f"{summary.failed} topics could not be brought in")
        if self._settings.json:
            print_json({"event": "ingested", **summary.counts()})
        else:
            self._out.print(_told(summary))
        return summary

    async def _ask_all(self, gateway: Gateway) -> list[AskResponse]:
        responses: list[AskResponse] = []
        began = time.perf_counter()
        for question in corpus.QUESTIONS:
            request = AskRequest(collection=corpus.COLLECTION, question=question)
            if self._settings.json:
                response = await answer(gateway, request)
                print_json({"event": "answer", "question": question, **as_json(response)})
            else:
                self._head(question)
                response = await ask.printed(gateway, request, self._out)
                self._out.print()
                render.waterfall(self._out, response.trail, response.cache)
            if not responses:
                self._phases.first_answer = self._elapsed()
            responses.append(response)
        self._phases.questions = time.perf_counter() - began
        return responses

    def _close(self, summary: Summary, cited: int, path: Path, spans: int) -> None:
        phases, asked = self._phases, len(corpus.QUESTIONS)
        if self._settings.json:
            print_json(
                {"event": "done", "cited": cited, "asked": asked, "trace": str(path)}
                | {name: round(value, 3) for name, value in asdict(phases).items()}
            )
            return
        out = self._out
        out.print(
            f"started in {seconds(phases.start)}, ingested in {seconds(phases.ingest)}, "
            f"{asked} questions in {seconds(phases.questions)}, stopped in {seconds(phases.stop)}"
        )
        out.print(f"First answer {seconds(phases.first_answer)} after the start.", style="bold")
        trace.tell(out, path, spans)
        if cited < asked:
            out.print(f"{asked - cited} of {asked} answers cite no source", style="bold red")
        out.print(f"Now with your own documents: {up.command_name()} up")

    def _head(self, text: str) -> None:
        if not self._settings.json:
            self._out.print()
            self._out.print(f"▶ {text}", style="bold cyan")

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


def _told(summary: Summary) -> str:
    if summary.unchanged and not summary.chunks:
        return f"{summary.unchanged} topics are there already, unchanged"
    made = summary.created + summary.replaced
    return (
        f"{made} topics → {summary.chunks} chunks, {summary.tokens} tokens embedded, "
        f"{seconds(summary.seconds)}; {summary.unchanged} unchanged"
    )
