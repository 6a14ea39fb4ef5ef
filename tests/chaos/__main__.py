"""`make chaos`: one suite after the other, with build/chaos.json as the result."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chaos import durability, freshness, isolation, matrix, report, rolling, start_order
from chaos.fuzz import suite as fuzz
from chaos.suite import BrokenError, Options, Suite
from quintet_local.supervisor import OPEN

ROOT = Path(__file__).parent.parent.parent
SUITES = {
    it.name: it
    for it in (
        freshness.SUITE,
        matrix.SUITE,
        durability.SUITE,
        rolling.SUITE,
        start_order.SUITE,
        fuzz.SUITE,
        isolation.SUITE,
    )
}
TELL_SECONDS = 15.0
"""Time between two lines where no bar can be shown."""


class Screen:
    """Shows how far a suite is: as a bar, or as lines where there is no terminal."""

    def __init__(self, suite: Suite, amount: int) -> None:
        self.console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
        self.progress = Progress(
            TextColumn(f"[bold]{suite.name}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self.console,
            refresh_per_second=2,
        )
        self._unit = suite.unit
        self._task = self.progress.add_task("starting", total=amount)
        self._told = time.monotonic()

    def tell(self, done: int, said: str, of: int | None = None) -> None:
        """Show the present state of a run."""
        self.progress.update(self._task, completed=done, description=said)
        if of is not None:
            self.progress.update(self._task, total=of)
        now = time.monotonic()
        if not self.console.is_terminal and now > self._told + TELL_SECONDS:
            self._told = now
            self.console.print(f"{done} {self._unit}, {said}", markup=False, highlight=False)


def run(suite: Suite, options: Options, out: Path) -> bool:
    """Run a suite, write what it found, and return whether all was as required."""
    screen = Screen(suite, options.amount)
    try:
        with screen.progress:
            found = suite.run(options, screen.tell)
    except BrokenError as error:
        screen.console.print(error, markup=False, highlight=False)
        found = [report.Check(str(error).partition("\n")[0], 1, "none", False)]
    report.write(out, suite.name, found)
    screen.console.print(report.table(suite.name, found))
    return all(check.passed for check in found)


def main() -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument(
        "--suite", default=",".join(SUITES), help=f"some of {','.join(SUITES)}; default: all"
    )
    parser.add_argument("--seed", type=int, default=1, help="what decides all choices")
    amounts = ", ".join(f"{it.name} {it.amount:,} {it.unit}" for it in SUITES.values())
    parser.add_argument("--amount", type=int, help=f"how much is done; default: {amounts}")
    parser.add_argument("--only", default="", help="names of parts of a run, with commas between")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json")
    arguments = parser.parse_args()
    names = arguments.suite.split(",")
    if unknown := set(names) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    only = tuple(filter(None, arguments.only.split(",")))
    # It breaks services, and calls them directly; who may ask is tested elsewhere.
    os.environ.update(OPEN)
    passed = True
    for suite in (SUITES[name] for name in names):
        options = Options(arguments.seed, arguments.amount or suite.amount, only)
        passed &= run(suite, options, arguments.out)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
