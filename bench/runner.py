"""Runs benches one after the other and shows how far they are."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.figures import Figure
from bench.machine import circumstances
from bench.report import Report, table
from bench.run import Run

NAMES = (
    "limits",
    "embedder",
    "queries",
    "tokenizer",
    "ingest",
    "search",
    "memory",
    "chain",
    "chain_model",
    "generator",
    "caches",
    "answers",
    "admission",
    "freshness",
    "overload",
    "yielding",
)
"""Modules of this package with an `async def bench(run: Run) -> list[Figure]`."""


async def run_benches(
    names: Sequence[str], report: Report, *, quick: bool, peers: bool
) -> list[Figure]:
    """Run the benches and put each one's figures into the report as it ends."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.fields[bench]}"),
        BarColumn(20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    found: list[Figure] = []
    # Once a second: what is shown must not cost what is measured.
    with Progress(*columns, console=console, refresh_per_second=1) as progress:
        task = progress.add_task("", total=len(names), bench="")

        def say(what: str) -> None:
            progress.update(task, description=what)
            if not console.is_terminal:
                console.print(what)

        # What is quick may share the services; what is measured gets its own.
        for group in [names] if quick else [[name] for name in names]:
            async with AsyncExitStack() as resources:
                folder = tempfile.TemporaryDirectory(prefix="quintet-bench-")
                run = Run(
                    Path(resources.enter_context(folder)),
                    quick=quick,
                    peers=peers,
                    say=say,
                    resources=resources,
                )
                for name in group:
                    progress.update(task, bench=name)
                    figures = await import_module(f"bench.{name}").bench(run)
                    report.put(name, figures, circumstances())
                    found += figures
                    progress.advance(task)
    console.print(table(found))
    return found
