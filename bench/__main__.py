"""`python -m bench [NAME…] [--quick] [--out FILE] [--publish]`, or `make bench BENCH=…`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from bench.report import Report
from bench.runner import NAMES, run_benches
from bench.worker import ROOT


def main() -> int:
    """Run the benches that are named, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="one tiny round, no peers")
    parser.add_argument("--no-peers", action="store_true", help="leave out what is not ours")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.md from it")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(
            f"no bench is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}"
        )
    report = Report.load(options.out)
    if not (options.publish and not options.names):
        asyncio.run(
            run_benches(
                options.names or NAMES,
                report,
                quick=options.quick,
                peers=not (options.quick or options.no_peers),
            )
        )
    if options.publish:
        report.publish(ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
