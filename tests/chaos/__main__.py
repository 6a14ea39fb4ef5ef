"""`make chaos`: all suites against a stack of their own, with build/chaos.json as the result."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from support.stack import stack_in_thread

from chaos import report
from chaos.freshness import checks, run
from chaos.journal import Journal, LieError, UnexcusedError

ROOT = Path(__file__).parent.parent.parent
SUITE = "freshness"


def main() -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=420, help="how long that may take")
    parser.add_argument("--seed", type=int, default=1, help="what decides all choices")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json")
    options = parser.parse_args()
    # What is killed on purpose is to be started again, however often.
    os.environ.setdefault("QUINTET_LOCAL_MAX_RESTARTS", "1000")
    os.environ.setdefault("QUINTET_LOCAL_STEADY_SECONDS", "1")
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]freshness"),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with (
        tempfile.TemporaryDirectory(prefix="quintet-chaos-") as folder,
        Progress(*columns, console=console, refresh_per_second=2) as progress,
        stack_in_thread(Path(folder) / "state") as stack,
    ):
        task = progress.add_task("starting", total=options.operations)

        def watch(journal: Journal) -> None:
            failed = sum(journal.failures.values())
            progress.update(
                task,
                completed=journal.operations,
                description=f"{journal.judged} answers judged, {failed} calls failed,"
                f" {len(journal.faults.happened)} faults",
            )

        try:
            journal = asyncio.run(
                run(stack, options.operations, options.seed, options.seconds, watch)
            )
            found = checks(journal)
        except (LieError, UnexcusedError) as error:
            console.print(error, markup=False, highlight=False)
            found = [report.Check(str(error).partition("\n")[0], 1, "none", False)]
    report.write(options.out, SUITE, found)
    console.print(report.table(SUITE, found))
    return 0 if all(check.passed for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
