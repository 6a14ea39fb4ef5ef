"""What tests read of traces: the tree as text, and spans once they have come in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from quintet_local.traces import Span, TraceNotFoundError, load_trace

SETTLED_SECONDS = 0.8
"""Longer than a process keeps a span before it exports it."""

RENEWED = "/ListModels"
"""Calls that are left out: whoever asks when what is known of the models is old makes one."""


def tree(spans: Sequence[Span]) -> str:
    """Draw a trace: service and name of each span, children under their parents."""
    children: dict[str, list[Span]] = {}
    known = {span.span_id for span in spans}
    for span in sorted(spans, key=lambda span: span.start_ns):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)

    def draw(parent: str, indent: str) -> list[str]:
        return [
            line
            for span in children.get(parent, [])
            for line in (f"{indent}{span.service} {span.name}", *draw(span.span_id, indent + "  "))
        ]

    return "\n".join(draw("", ""))


async def spans_of(state_dir: Path, trace_id: str, least: int) -> list[Span]:
    """Return the spans of a trace once `least` of them, and any too many, have come in."""

    def come_in() -> list[Span]:
        with suppress(TraceNotFoundError):
            loaded = load_trace(state_dir, trace_id)
            return [it for it in loaded if not it.name.endswith(RENEWED)]
        return []

    async with asyncio.timeout(15):
        while True:
            if len(come_in()) >= least:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(SETTLED_SECONDS)
    return come_in()


def named(spans: Sequence[Span], service: str, name: str) -> Span:
    """Return the only span of that service whose name begins so."""
    [span] = [it for it in spans if it.service == service and it.name.startswith(name)]
    return span
