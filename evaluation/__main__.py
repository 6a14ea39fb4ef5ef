"""`python -m evaluation [SET…] [--publish]`, or `make eval EVAL=scifact`."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import grpc

from bench.run import NO_CACHES
from bench.worker import ROOT
from evaluation.chunking import articles, compare, sections
from evaluation.report import ANSWERS, CHUNKING, Evaluated, Report
from evaluation.scoring import score
from evaluation.sets import SOURCES, load
from evaluation.through_gateway import MODES, ingested, run_of
from evaluation.ways import compared
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_local.supervisor import OPEN, running_stack

NAMES = [*SOURCES, CHUNKING, ANSWERS]
"""What can be evaluated."""


async def evaluate(names: Sequence[str], data: Path, report: Report) -> None:
    """Evaluate the sets one after the other in a stack of their own, without caches."""
    if not names:
        return
    date = commit_date()
    with tempfile.TemporaryDirectory(prefix="quintet-evaluation-") as folder:
        async with (
            running_stack(Path(folder) / "state", environment=NO_CACHES | OPEN) as stack,
            grpc.aio.insecure_channel(stack.gateway) as channel,
        ):
            stub = GatewayServiceStub(channel)
            for name in names:
                found = load(data / SOURCES[name].folder)
                print(f"{name}: {len(found.documents)} documents come in", flush=True)
                async with ingested(stub, found.documents) as collection:
                    scores = {
                        mode: score(
                            found.judgements, await run_of(stub, collection, found.queries, mode)
                        )
                        for mode in MODES
                    }
                for mode, it in scores.items():
                    means = ", ".join(f"{key} {value:.4f}" for key, value in it.means.items())
                    print(f"{name}, {mode}: {means}", flush=True)
                counts = len(found.documents), len(found.queries)
                report.put(name, Evaluated(date, *counts, scores))


async def compare_chunking(data: Path, report: Report) -> None:
    """Compare ways to cut documents, each in a stack of its own."""
    tasks = [sections(data / "notes-foam"), articles(data / "xquad32-dev")]
    with tempfile.TemporaryDirectory(prefix="quintet-evaluation-") as folder:
        shares = await compare(tasks, Path(folder))
    report.put_chunking(commit_date(), {it.name: len(it.queries) for it in tasks}, shares)


async def compare_answers(data: Path, report: Report, kept: Path, seconds: float) -> None:
    """Compare what is answered in several ways; answers are added to `kept`."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quintet-evaluation-") as folder:
        report.put_answers(commit_date(), await compared(data, kept, seconds, Path(folder)))


def commit_date() -> str:
    """Return the date of the checked-out commit, in ISO 8601."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%cs"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Evaluate the sets that are named, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SET", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "eval.json")
    parser.add_argument("--publish", action="store_true", help="write the pages in docs as well")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no answers after that")
    parser.add_argument("--resume", action="store_true", help="keep the answers of an earlier run")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no set is called {', '.join(sorted(unknown))}: {', '.join(NAMES)}")
    data = os.environ.get("QUINTET_EVAL_DATA", "")
    if not data:
        parser.error("QUINTET_EVAL_DATA names no folder with evaluation data")
    report = Report(options.out)
    names = options.names or NAMES
    asyncio.run(evaluate([name for name in names if name in SOURCES], Path(data), report))
    if CHUNKING in names:
        asyncio.run(compare_chunking(Path(data), report))
    if ANSWERS in names:
        kept = options.out.with_name("answers.jsonl")
        if not options.resume:
            kept.unlink(missing_ok=True)
        asyncio.run(compare_answers(Path(data), report, kept, options.seconds))
    if options.publish:
        report.publish(ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
