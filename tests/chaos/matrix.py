"""Each part broken in each way, under light load: what callers get, and how soon it is over.

Required of each call: it does not outlive its deadline by more than 50 ms, and a success is
correct or flagged. Required of each fault: within 5 s of its end all is answered, and
nothing flagged. What was measured makes docs/what-is-down.md (`what_is_down`).
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import grpc

from chaos import measured as kept
from chaos import what_is_down
from chaos.broken_stack import DISK, FAULTS, KILLED, PARTS, BrokenStack, broken_stack
from chaos.callers import DEADLINES, KINDS, RPCS, Callers, Seen
from chaos.heartbeat import heartbeat
from chaos.measured import Measured, Row
from chaos.replicas import OPTIONS
from chaos.report import Check
from chaos.suite import BrokenError, Options, Suite, Tell
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub

LATE_SECONDS = 0.05
"""By how much a call may outlive its deadline."""
RECOVERY_SECONDS = 5.0
"""How long after a fault's end something may still be flagged or fail."""
FAULT_SECONDS = 3.5
"""How long a fault lasts: kept answers are known to hold for 1.5 s of it."""
ROUND_SECONDS = 0.35
"""Time between two rounds; each is one call of each kind."""
_GIVE_UP_SECONDS = 8.0
_SETTLED = 2
"""Good calls of each kind in a row after which a fault counts as over."""
_HEALTHY_SECONDS = 30.0
_UNFORESEEN = ("INTERNAL", "UNKNOWN")

Cell = tuple[str, str]
"""A part and what is done to it."""
CELLS: Sequence[Cell] = tuple(
    (part, fault) for part in PARTS for fault in FAULTS if fault != DISK or part == PARTS[0]
)


class Matrix:
    """Runs cells, one after the other, on one stack."""

    def __init__(self, stack: BrokenStack, callers: Callers, seconds: float) -> None:
        self._stack = stack
        self._callers = callers
        self._seconds = seconds
        self._round = 0

    async def run(self, part: str, fault: str) -> Measured:
        """Break a part, mend it, and return what callers saw."""
        await self._until_healthy()
        seen: list[Seen] = []
        before = {each: self._stack.pid(each) for each in PARTS}
        async with asyncio.TaskGroup() as group:
            over = asyncio.Event()
            calling = group.create_task(self._keep_calling(seen, over, group))
            async with self._stack.broken(part, fault):
                await asyncio.sleep(self._seconds)
            ended = time.monotonic()
            while not over.is_set():
                settled = all(_recovered(seen, ended, *kind) is not None for kind in KINDS)
                if settled or time.monotonic() > ended + _GIVE_UP_SECONDS:
                    over.set()
                await asyncio.sleep(0.02)
            await calling
        measured = _measured(part, fault, seen, ended)
        measured.wrong += await self._callers.look()
        measured.wrong += [
            f"{each} was started again"
            for each in PARTS
            if self._stack.pid(each) != before[each] and (each, KILLED) != (part, fault)
        ]
        return measured

    async def _until_healthy(self) -> None:
        """Wait until all is answered, and kept what is asked again."""
        until = time.monotonic() + _HEALTHY_SECONDS
        good = 0
        while good < 2 * len(DEADLINES) and time.monotonic() < until:
            self._round += 1
            found = [await self._callers.call(*kind, DEADLINES[-1]) for kind in KINDS]
            good = good + 1 if all(it.is_good for it in found) else 0
        if not good:
            told = [f"{it.rpc} {it.which}: {it.outcome}" for it in found if not it.is_good]
            raise BrokenError(f"not healthy before a fault\n{told}")

    async def _keep_calling(
        self, seen: list[Seen], over: asyncio.Event, group: asyncio.TaskGroup
    ) -> None:
        async def call(rpc: str, which: str, seconds: float) -> None:
            seen.append(await self._callers.call(rpc, which, seconds))

        while not over.is_set():
            self._round += 1
            for kind in KINDS:
                group.create_task(call(*kind, DEADLINES[self._round % len(DEADLINES)]))
                await asyncio.sleep(ROUND_SECONDS / len(KINDS))


def _recovered(seen: Sequence[Seen], ended: float, rpc: str, which: str) -> float | None:
    """Return how long after a fault's end calls of a kind were answered as they should, in
    seconds: until the end of the first good one after the last bad one, 0 if none was bad.
    None: they have not been yet."""
    after = [it for it in seen if (it.rpc, it.which) == (rpc, which) and it.began >= ended]
    after.sort(key=lambda it: it.began)
    bad = [place for place, it in enumerate(after) if not it.is_good]
    good = after[bad[-1] + 1 :] if bad else after
    if len(good) < _SETTLED:
        return None
    return good[0].ended - ended if bad else 0.0


def _measured(part: str, fault: str, seen: Sequence[Seen], ended: float) -> Measured:
    measured = Measured(part, fault, calls=len(seen))
    during: defaultdict[str, list[Seen]] = defaultdict(list)
    for it in seen:
        if it.began < ended:
            during[f"{it.rpc} {it.which}"].append(it)
        measured.wrong += [f"{it.rpc} {it.which}: {fault}" for fault in it.wrong]
        measured.unforeseen += it.outcome in _UNFORESEEN
    measured.late_ms = 1000 * max(it.late - it.own for it in seen)
    measured.late_raw_ms = 1000 * max(it.late for it in seen)
    for rpc, which in KINDS:
        calls = during[f"{rpc} {which}"]
        took = [1000 * it.seconds for it in calls]
        outcomes = dict(Counter(it.outcome for it in calls).most_common())
        measured.rows[f"{rpc} {which}"] = Row(outcomes, median(took), max(took))
    for rpc in RPCS:
        times = [_recovered(seen, ended, *kind) for kind in KINDS if kind[0] == rpc]
        if None not in times:
            measured.recovery[rpc] = max(it for it in times if it is not None)
    return measured


def checks(found: Sequence[Measured], impossible: Sequence[Cell]) -> list[Check]:
    """Return what is required of cells, and what was found."""
    late = max((it.late_ms for it in found), default=0.0)
    slowest = max((max(it.recovery.values(), default=0.0) for it in found), default=0.0)
    most = f"at most {RECOVERY_SECONDS}"
    result = [
        Check("faults", len(found)),
        Check("faults that cannot be done here", len(impossible)),
        Check("calls", sum(it.calls for it in found)),
        Check(
            "longest that a call outlived its deadline, in ms",
            round(late, 1),
            f"at most {1000 * LATE_SECONDS:.0f}",
            late <= 1000 * LATE_SECONDS,
        ),
        Check(
            "the same with what the caller itself was late",
            round(max((it.late_raw_ms for it in found), default=0.0), 1),
        ),
        Check("slowest recovery, in seconds", round(slowest, 2), most, slowest <= RECOVERY_SECONDS),
    ]
    wrong, unforeseen = sum(len(it.wrong) for it in found), sum(it.unforeseen for it in found)
    result += [
        Check("what was wrong: successes, documents, processes", wrong, "none", not wrong),
        Check("calls that ended as INTERNAL or UNKNOWN", unforeseen, "none", not unforeseen),
    ]
    for it in found:
        for rpc in RPCS:
            seconds = it.recovery.get(rpc)
            if seconds is None or seconds > RECOVERY_SECONDS:
                name = f"{it.part} {it.fault}: recovery of {rpc}, in seconds (0: none)"
                result.append(Check(name, round(seconds or 0.0, 2), most, False))
        result += [Check(f"{it.part} {it.fault}: {each}", 1, "none", False) for each in it.wrong]
    return result


async def run(
    folder: Path,
    cells: Sequence[Cell],
    seed: int,
    told: Callable[[Measured], None],
    seconds: float = FAULT_SECONDS,
) -> list[Cell]:
    """Run cells on a stack in a folder; `told` is called after each. `seconds`: how long each
    fault lasts. Returns the cells that cannot be run here."""
    async with (
        broken_stack(folder, seed) as stack,
        heartbeat() as beats,
        grpc.aio.insecure_channel(stack.gateway, options=OPTIONS) as channel,
    ):
        callers = Callers(GatewayServiceStub(channel), beats, secrets.token_hex(4))
        await callers.prepare()
        matrix = Matrix(stack, callers, seconds)
        for cell in cells:
            if stack.can(*cell):
                told(await matrix.run(*cell))
        return [cell for cell in cells if not stack.can(*cell)]


def chosen(options: Options) -> list[Cell]:
    """Return the cells that are asked for, by part ("gateway"), fault ("frozen") or both
    ("gateway frozen")."""
    names = options.only or PARTS
    return [cell for cell in CELLS if {*cell, " ".join(cell)} & set(names)][: options.amount]


def _run_alone(options: Options, tell: Tell) -> list[Check]:
    found: list[Measured] = []
    cells = chosen(options)
    tell(0, "starting", len(cells))
    header = {
        "seconds": str(FAULT_SECONDS),
        "deadlines": ", ".join(f"{1000 * seconds:.0f} ms" for seconds in DEADLINES),
    }

    def told(measured: Measured) -> None:
        found.append(measured)
        what_is_down.FILE.write_text(what_is_down.page(kept.merge([measured]), CELLS, header))
        recovery = max(measured.recovery.values(), default=float("nan"))
        tell(len(found), f"{measured.part} {measured.fault}: recovered after {recovery:.1f} s")

    with tempfile.TemporaryDirectory(prefix="quintet-chaos-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        impossible = asyncio.run(run(Path(folder), cells, options.seed, told))
    return checks(found, impossible)


SUITE = Suite("matrix", len(CELLS), "faults", _run_alone)
