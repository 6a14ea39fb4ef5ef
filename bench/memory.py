"""How the services' memory grows while a large folder is ingested."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

from bench.corpus import documents
from bench.figures import Figure, alone
from bench.ingest import ingest
from bench.run import Run
from quintet_local.supervisor import Stack

SERVICES = ("tokenizer", "embedder", "retriever", "gateway")


async def bench(run: Run) -> list[Figure]:
    """Measure resident memory by the megabytes that have gone through."""
    async with run.stack() as stack:
        return await _memory(run, stack)


async def _memory(run: Run, stack: Stack) -> list[Figure]:
    """Ingest a large folder and see how the services' memory grows with it.

    The text is made wide with white space, as tables are: the services see and store
    all of its megabytes, and the arithmetic is that of a twelfth of them.
    """
    wide = [
        "\n".join((" " * 24).join(line.split()) for line in text.splitlines())
        for text in documents(200_000).values()
    ]
    megabytes, number, sent = run.size(30, 1) / run.size(1, 5), itertools.count(), 0.0
    seen: list[tuple[float, dict[str, float]]] = []
    run.say(f"a folder of {megabytes:g} MB")
    began = time.perf_counter()
    while sent < megabytes:
        batch: dict[str, str] = {}
        while sum(map(len, batch.values())) < min(2e6, megabytes * 5e5):
            index = next(number)
            batch[f"wide-{index}"] = f"Document {index}.\n{wide[index % len(wide)]}"
        await ingest(stack, batch, "wide")
        sent += sum(map(len, batch.values())) / 1e6
        seen.append((sent, {name: _rss_mib(stack.process(name).pid) for name in SERVICES}))
        run.say(f"{sent:.0f} of {megabytes:g} MB")
    seconds = time.perf_counter() - began
    # The first third fills pools and caches that are bounded.
    later = seen[len(seen) // 3 :]
    figures = [alone(f"memory: folder of {megabytes:g} MB", "kB/s", [sent * 1000 / seconds])]
    for name in SERVICES:
        points = [(at, rss[name]) for at, rss in later]
        slope = statistics.linear_regression(*zip(*points, strict=True)).slope if points[1:] else 0
        figures.append(alone(f"memory: {name}, by 1 MB of text", "MiB", [slope], at_most=0.1))
    return figures


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20
