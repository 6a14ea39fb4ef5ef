"""`quintet trace`: one answer's trace from the local store, for Jaeger's UI."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from quintet_cli.errors import CliError
from quintet_cli.local import installed
from quintet_cli.settings import Settings
from quintet_cli.terminal import console, print_json

PATIENCE = 5.0
"""Seconds that a trace may take to appear."""
SETTLED = 0.8
"""Seconds without a new span after which a trace is complete: the services export
theirs every half second."""


def run(settings: Settings, trace_id: str, *, out: Path | None) -> None:
    """Write a trace in the JSON that Jaeger's UI opens; "-" is standard output."""
    trace_id = trace_id.lower()
    if len(trace_id) != 32 or set(trace_id) - set("0123456789abcdef"):
        raise CliError(f"{trace_id!r} is no trace id: those have 32 hex digits", usage=True)
    path = out or Path(f"trace-{trace_id}.json")
    spans = asyncio.run(write(settings.state_dir, trace_id, path))
    if str(path) == "-":
        return
    if settings.json:
        print_json({"trace_id": trace_id, "file": str(path), "spans": spans})
    else:
        tell(console(), path, spans)


async def write(state_dir: Path, trace_id: str, path: Path) -> int:
    """Write a trace to `path` and return the number of its spans.

    It waits until no more spans come. Raises `CliError` when the store of the
    stack in `state_dir` hasn't got the trace, or `path` cannot be written.
    """
    traces = installed("traces")
    spans: list[Any] = []
    began = changed = time.monotonic()
    while (now := time.monotonic()) - began < PATIENCE:
        try:
            found = await asyncio.to_thread(traces.load_trace, state_dir, trace_id)
        except (traces.TraceNotFoundError, ValueError):
            found = []  # not yet there, or a line of it only half written
        if len(found) > len(spans):
            spans, changed = found, now
        elif spans and now - changed >= SETTLED:
            break
        await asyncio.sleep(0.1)
    if not spans:
        raise CliError(
            f"{state_dir} has no trace {trace_id}",
            reason="TRACE_NOT_FOUND",
            advice="only a stack started with `quintet up` keeps its newest traces, in its folder",
        )
    text = json.dumps(traces.to_jaeger(spans)) + "\n"
    if str(path) == "-":
        print(text, end="")  # noqa: T201
        return len(spans)
    try:
        await asyncio.to_thread(path.write_text, text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}") from error
    return len(spans)


def tell(out: Console, path: Path, spans: int) -> None:
    """Print where a trace was written and what to do with it."""
    out.print(f"wrote {spans} spans to {path}; drop that file onto Jaeger's UI to see it")
