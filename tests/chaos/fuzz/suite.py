"""No message, metadata or stream makes a service fail: what is required, and the run.

Each RPC is called as often as any other: with nearly valid messages, hostile ones, and bytes of
valid ones with some changed; with odd metadata and deadlines; by callers who leave, send
nothing or too much, or read slowly. A call may be refused; it may not end as INTERNAL or
UNKNOWN, hang, or end without a reason of the closed set, but for what gRPC itself says.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from support.stack import TestStack

from chaos.fuzz import vitals
from chaos.fuzz.calls import WROTE_TOO_LATE, Call, Outcome, Planner, made
from chaos.fuzz.scene import Scene, scene_of
from chaos.fuzz.vitals import Vitals
from chaos.report import Check
from chaos.suite import BrokenError, Options, Suite, Tell, own_stack
from quintet_servicekit.errors import Reason

_AT_ONCE = 8
_REST_SECONDS = 40.0
"""Beyond the deadline that a service gives a caller who gave none."""
_WARM_UP = 0.4
"""Part of the calls after which memory is looked at for the first time: all models have
been loaded, and caches and pools have been used."""

_LONG_RUN = 5_000
"""Calls from which on each method must have succeeded at least once."""
_KEYS_AND_VALUES = 360
"""MB of the language model's own cache, 16,384 tokens of 23,040 bytes, which is filled by and
by."""
_MOST_GROWTH = {
    "tokenizer": 64, "embedder": 64, "retriever": 64, "generator": 64 + _KEYS_AND_VALUES,
    "gateway": 64,
}  # fmt: skip
"""MB. The caches keep at most 64 MB a service, and a run fills none of them."""
_MOST_FILES = 16
"""Connections of a pool that grew; a leak of one a hundred calls would be 120."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes.fromhex("000000040000000000")

_NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
_OF_GRPC = {
    grpc.StatusCode.CANCELLED: "the caller left",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the caller's deadline passed",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "a message or metadata is too large",
}
"""Codes that gRPC ends calls with by itself, and when."""


@dataclass
class Journal:
    """What happened so far."""

    amount: int
    seed: int
    done: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    of_grpc: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    before: Vitals | None = None
    warm: Vitals | None = None
    after: Vitals | None = None
    left: str = ""

    def note(self, call: Call, outcome: Outcome) -> None:
        """Count a call. Raises `BrokenError` for an outcome that may not be."""
        self.done += 1
        self.kinds[call.kind] += 1
        self.kinds[call.manner] += 1
        self.methods[call.method.path] += 1
        too_late = outcome.details == WROTE_TOO_LATE
        self.codes["while its caller still sent" if too_late else outcome.code.name] += 1
        if outcome.code is grpc.StatusCode.OK:
            self.succeeded[call.method.path] += 1
        if outcome.reason:
            self.reasons[outcome.reason] += 1
        if wrong := _wrong(call, outcome):
            told = f"{wrong}\nseed {self.seed}, {outcome.seconds:.3f} s, {outcome.details!r}"
            raise BrokenError(f"{told}\n{call.told()}")
        if outcome.code is not grpc.StatusCode.OK and outcome.reason is None and not too_late:
            self.of_grpc[outcome.code.name] += 1


def _wrong(call: Call, outcome: Outcome) -> str:
    """Return what is wrong with an outcome, or nothing."""
    code, name = outcome.code, call.method.path
    if outcome.hung:
        return f"{name} hangs"
    if outcome.details == WROTE_TOO_LATE:
        return ""
    if code in _NEVER:
        return f"{name} ended as {code.name}"
    if code is grpc.StatusCode.OK:
        # Who leaves in the moment of the answer may see its status and not the answer.
        least = 0 if call.cancel_after is not None else 1
        if call.method.is_unary and not least <= outcome.responses <= 1:
            return f"{name} ended well with {outcome.responses} responses"
        return ""
    if outcome.reason is None:
        return "" if code in _OF_GRPC else f"{name} ended as {code.name} without a reason"
    return "" if outcome.reason in Reason.__members__ else f"{name} gave reason {outcome.reason}"


async def run(stack: TestStack, amount: int, seed: int, tell: Tell = lambda *_: None) -> Journal:
    """Make so many calls and return what happened. Raises `BrokenError`."""
    journal = Journal(amount, seed)
    async with scene_of(stack) as scene:
        journal.before = vitals.taken(stack)
        planner = Planner(seed, scene.methods, scene.words)
        numbers = iter(range(amount))
        told = [time.monotonic()]

        async def work() -> None:
            for number in numbers:
                call = planner.call(number)
                outcome = await made(call, scene.channels)
                journal.note(call, outcome)
                planner.learn(call, outcome)
                if journal.warm is None and journal.done >= _WARM_UP * amount:
                    journal.warm = vitals.taken(stack)
                if time.monotonic() > told[0] + 0.5:
                    told[0] = time.monotonic()
                    tell(journal.done, f"{journal.codes['OK']} succeeded, none failed inside")

        await _together(work, _AT_ONCE)
        for name in vitals.SERVICES:
            await _junk(stack.endpoints[name]["grpc"], random.Random(f"{seed} {name}"))
        journal.left = await vitals.at_rest(stack, _REST_SECONDS)
        journal.after = vitals.taken(stack)
        if wrong := await _well_again(scene):
            raise BrokenError(f"a good question is not answered after the run: {wrong}")
    return journal


async def _together(work: Callable[[], Coroutine[Any, Any, None]], times: int) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(times):
                group.create_task(work())
    except* BrokenError as errors:
        raise errors.exceptions[0] from None


async def _well_again(scene: Scene) -> str:
    """Return what is wrong with the answer to a good question, within the time that a
    breaker may need to close again."""
    wrong = "nobody asked"
    for _ in range(25):
        wrong = await scene.is_well()
        if not wrong:
            return ""
        await asyncio.sleep(0.2)
    return wrong


async def _junk(address: str, rng: random.Random) -> None:
    """Connect and send what is no gRPC, or only its beginning."""
    host, _, port = address.rpartition(":")
    for start in (b"", b"GET / HTTP/1.1\r\n\r\n", _PREFACE, _PREFACE + _SETTINGS):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(start + rng.randbytes(rng.choice((0, 9, 5_000))))
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()


def checks(journal: Journal) -> list[Check]:
    """Return what is required of a run in which no call ended as it may not."""
    before, warm, after = journal.before, journal.warm, journal.after
    assert before and warm and after
    failed = sum(after.failed.values()) - sum(before.failed.values())
    moved = sum(after.pids[name] != pid for name, pid in before.pids.items())
    never = sorted(path for path in journal.methods if not journal.succeeded[path])
    # A short run has a method only a dozen times.
    most = 0 if journal.amount >= _LONG_RUN else len(journal.methods)
    found = [
        Check("calls, none of which hung, failed inside or lacked a reason", journal.done),
        Check("methods", len(journal.methods)),
        Check(
            f"methods that never succeeded: {', '.join(never) or 'none'}",
            len(never),
            f"at most {most}",
            len(never) <= most,
        ),
        Check("calls that the services count as failed inside", failed, "none", not failed),
        Check("processes that ended", moved, "none", not moved),
        Check(f"left at rest: {journal.left or 'nothing'}", 0, "nothing", not journal.left),
        *(Check(f"calls: {kind}", count) for kind, count in sorted(journal.kinds.items())),
        *(Check(f"ended: {code}", count) for code, count in sorted(journal.codes.items())),
        *(
            Check(f"ended by gRPC itself, without a reason: {code}", count)
            for code, count in sorted(journal.of_grpc.items())
        ),
    ]
    for name in vitals.SERVICES:
        grown = after.megabytes[name] - warm.megabytes[name]
        more = after.files[name] - warm.files[name]
        found += [
            Check(
                f"MB that the {name} grew by after the first {_WARM_UP:.0%} of calls",
                round(grown, 1),
                f"at most {_MOST_GROWTH[name]}",
                grown <= _MOST_GROWTH[name],
            ),
            Check(
                f"files that the {name} has open more",
                more,
                f"at most {_MOST_FILES}",
                more <= _MOST_FILES,
            ),
        ]
    return found


def _run_alone(options: Options, tell: Tell) -> Sequence[Check]:
    with own_stack() as stack:
        try:
            return checks(asyncio.run(run(stack, options.amount, options.seed, tell)))
        except BrokenError as error:
            raise BrokenError(f"{error}\n{vitals.logged(stack)}") from None


SUITE = Suite("fuzz", 20_000, "calls", _run_alone)
