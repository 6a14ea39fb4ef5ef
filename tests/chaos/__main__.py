"""`make chaos`: all suites against a stack of their own, with build/chaos.json as the result."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from support.stack import stack_in_thread

from chaos import report
from chaos.freshness import checks, run
from chaos.journal import Journal, LieError, UnexcusedError

ROOT = Path(__file__).parent.parent.parent
SUITE = "freshness"
TELL_SECONDS = 15.0
"""Time between two lines where no bar can be shown."""


class Screen:
    """Shows how far a run is: as a bar, or as lines where there is no terminal."""

    def __init__(self, operations: int) -> None:
        self.console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
        self.progress = Progress(
            TextColumn(f"[bold]{SUITE}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self.console,
            refresh_per_second=2,
        )
        self._task = self.progress.add_task("starting", total=operations)
        self._told = time.monotonic()

    def watch(self, journal: Journal) -> None:
        """Show the present state of a run."""
        said = (
            f"{journal.judged} answers judged, {sum(journal.failures.values())} calls failed,"
            f" {len(journal.faults.happened)} faults"
        )
        self.progress.update(self._task, completed=journal.operations, description=said)
        now = time.monotonic()
        if not self.console.is_terminal and now > self._told + TELL_SECONDS:
            self._told = now
            self.console.print(f"{journal.operations} operations, {said}")


def main() -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=330, help="about how long that takes")
    parser.add_argument("--seed", type=int, default=1, help="what decides all choices")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json")
    options = parser.parse_args()
    # What is killed on purpose is to be started again, however often, and at once.
    os.environ.setdefault("QUINTET_LOCAL_MAX_RESTARTS", "1000")
    os.environ.setdefault("QUINTET_LOCAL_STEADY_SECONDS", "1")
    screen = Screen(options.operations)
    with (
        tempfile.TemporaryDirectory(prefix="quintet-chaos-") as folder,
        screen.progress,
        stack_in_thread(Path(folder) / "state") as stack,
    ):
        running = run(stack, options.operations, options.seed, options.seconds, screen.watch)
        try:
            found = checks(asyncio.run(running))
        except (LieError, UnexcusedError) as error:
            screen.console.print(error, markup=False, highlight=False)
            found = [report.Check(str(error).partition("\n")[0], 1, "none", False)]
    report.write(options.out, SUITE, found)
    screen.console.print(report.table(SUITE, found))
    return 0 if all(check.passed for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
