"""No cache ever lies: writers, deleters and readers at once, while processes are killed.

`run` drives real processes with operations that a seed decides, and raises `LieError` at the
first answer that breaks an invariant (`invariants`). What it returns tells what was done,
so that whoever asked can see that every way to be served was taken often enough.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from support.stack import TestStack

from chaos.documents import TOPICS, Question, questions
from chaos.faults import Faults, plan
from chaos.journal import Journal
from chaos.ledger import Ledger
from chaos.readers import Earlier, Reader, vectors_of
from chaos.replicas import RETRIEVER, Replicas, replicas_of
from chaos.report import Check
from chaos.suite import BrokenError, Options, Suite, Tell, own_stack
from chaos.writers import Scribe
from quintet_servicekit.epochs import LEASE_SECONDS

READERS = 6
WRITERS = 3
_READS = 0.75
"""Part of the operations that are reads."""
_OTHER_TENANT = "elsewhere"
_SWITCH_EVERY = 200
"""Operations between two exchanges of a collection for that beside it."""
_AT_ONCE = 4
"""Equal questions that are asked at once."""
_SETTLING_SECONDS = 60.0
_PER_SECOND = 30.0
"""Operations of a run alone: about what two cores do."""

_NEEDED = {
    "l1 hit, memory": 0.02,
    "l1 hit, redis": 0.005,
    "l1 revalidated": 0.02,
    "l1 shared": 0.005,
    "l1 miss": 0.05,
    "l3 hit": 0.005,
    "l1 stale": 0.0005,
    "nothing": 0.01,
    "gone": 0.0005,
    "known state unchanged": 0.002,
}
"""Least part of all operations that must be answered in each way, a quarter of what is usual:
a run in which one of them is missing proves nothing about it. What a short run has but one
or two of is not required of it."""
_NEEDED_CALLS = {"Ingest again": 0.0018, "ReembedCollection": 0.0008}
"""The same of writes by which no document changes."""
_MOST_FAILURES = 0.25
"""Most calls that may fail, as a part of all."""


@dataclass(frozen=True)
class _Scene:
    replicas: Replicas
    journal: Journal
    questions: Sequence[Question]
    vectors: dict[str, bytes]
    earlier: dict[tuple[Ledger, Question], Earlier]
    seed: int
    think: float
    """Mean time between two operations of all together, in seconds."""

    def rng(self, who: str) -> random.Random:
        return random.Random(f"{self.seed} {who}")

    def reader(self, rng: random.Random) -> Reader:
        return Reader(self.replicas, self.journal, self.vectors, self.earlier, rng)

    def question(self, rng: random.Random) -> Question:
        """Return a question; the first are asked often, so that answers are found kept."""
        weights = [1 / (place + 1) for place in range(len(self.questions))]
        return rng.choices(self.questions, weights)[0]

    async def pause(self, rng: random.Random, tasks: int, part: float) -> None:
        """Wait so that so many tasks together do that part of the operations."""
        await asyncio.sleep(rng.expovariate(part / (self.think * tasks)))


async def run(
    stack: TestStack,
    operations: int,
    seed: int,
    seconds: float,
    watch: Callable[[Journal], None] = lambda _: None,
) -> Journal:
    """Do so many operations in about so many seconds and return what happened.

    `watch` is called twice a second. Raises `LieError` and `UnexcusedError`.
    """
    injected = Faults(plan(operations, random.Random(f"{seed} faults")))
    journal = Journal(operations, seed, injected)
    async with replicas_of(stack) as replicas:
        asked = questions(TOPICS)
        vectors, think = await vectors_of(replicas, asked), seconds / operations
        scene = _Scene(replicas, journal, asked, vectors, {}, seed, think)
        watching = asyncio.create_task(_watch(journal, watch))
        try:
            async with asyncio.timeout(4 * seconds + 2 * _SETTLING_SECONDS):
                await _play(scene, injected)
        except* BrokenError as errors:
            # The first one; the others may be its consequences.
            raise _leaves(errors)[0] from None
        finally:
            watching.cancel()
    return journal


async def _play(scene: _Scene, injected: Faults) -> None:
    rng, suffix = scene.rng("start"), secrets.token_hex(4)
    markers = (f"mark{number:06d}" for number in count())

    def scribe(ledger: Ledger, rng: random.Random) -> Scribe:
        return Scribe(scene.replicas, scene.journal, ledger, markers, rng)

    steady = [Ledger(f"chaos-{name}-{suffix}") for name in ("atlas", "boreas")]
    # Another tenant has a collection of the same name, and is asked the same questions.
    steady.append(Ledger(steady[0].name, tenant=_OTHER_TENANT))
    fleeting = Ledger(f"chaos-fleeting-{suffix}")
    names = sorted(scene.replicas.gateways)
    for ledger in (*steady, fleeting):
        await scribe(ledger, rng).create_collection(rng.choice(names))
    owned = [(ledger, topic, letter) for ledger in steady for topic in TOPICS for letter in "ab"]
    rng.shuffle(owned)
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            its = scene.rng(f"writer {number}")
            scribes = {ledger: scribe(ledger, its) for ledger in steady}
            documents = [
                _Owned(scribes[ledger], f"{topic}-{letter}", topic)
                for ledger, topic, letter in owned[number::WRITERS]
            ]
            group.create_task(_write(scene, documents, its, group))
        its = scene.rng("owner")
        group.create_task(_own(scene, scribe(fleeting, its), its))
        for number in range(READERS):
            group.create_task(_read(scene, [*steady, fleeting], scene.rng(f"reader {number}")))
        group.create_task(_switch(scene, scribe(steady[1], scene.rng("switcher"))))
        group.create_task(injected.inject(scene.replicas, scene.journal.reached))
    for ledger in (*steady, fleeting):
        scene.journal.judge(ledger)


@dataclass(eq=False)
class _Owned:
    """A document that one writer writes; `settled` is False while nobody knows its state."""

    scribe: Scribe
    id: str
    topic: str
    there: bool = False
    settled: bool = True


async def _write(
    scene: _Scene, documents: Sequence[_Owned], rng: random.Random, group: asyncio.TaskGroup
) -> None:
    reader = scene.reader(rng)
    new = iter(documents)
    while not scene.journal.is_over:
        await scene.pause(rng, WRITERS + 1, 1 - _READS)
        it = next(new, None) or rng.choice(documents)
        if it.settled:
            await _write_one(scene, it, reader, rng, group)


async def _write_one(
    scene: _Scene, it: _Owned, reader: Reader, rng: random.Random, group: asyncio.TaskGroup | None
) -> None:
    """Write or delete a document, and mostly ask about it at once. Without a group the
    outcome of a failed write is waited for."""
    gateways = sorted(scene.replicas.gateways)
    if rng.random() < 0.04:
        await it.scribe.purge(rng.choice(gateways))
        return
    if rng.random() < 0.08:
        by = rng.choice(gateways)
        await it.scribe.repeat(by)
        await reader.read(it.scribe.ledger, rng.choice(scene.questions))
        return
    deletes = it.there and rng.random() < 0.45
    by = rng.choice([*gateways, RETRIEVER] if deletes else gateways)
    if deletes:
        write, token = await it.scribe.delete(it.id, by)
    else:
        write, token = await it.scribe.put(it.id, it.topic, by)
    it.there = write.version is not None
    if token is None:
        it.settled = False

        async def settle() -> None:
            await it.scribe.settle(write)
            it.there = (write.version is not None) == write.happened
            it.settled = True

        if group is None:
            await settle()
        else:
            group.create_task(settle())
    elif rng.random() < 0.6:
        about = [each for each in scene.questions if each.topic in (None, it.topic)]
        await reader.read_after_write(it.scribe.ledger, rng.choice(about), by, token)


async def _own(scene: _Scene, scribe: Scribe, rng: random.Random) -> None:
    """Write a collection whose only writer this is, and now and then make it anew."""
    reader = scene.reader(rng)
    gateways = sorted(scene.replicas.gateways)

    def documents() -> list[_Owned]:
        return [_Owned(scribe, f"{topic}-{letter}", topic) for topic in TOPICS for letter in "ab"]

    owned = documents()
    while not scene.journal.is_over:
        await scene.pause(rng, WRITERS + 1, 1 - _READS)
        if rng.random() < 0.12:
            await scribe.delete_collection(rng.choice(gateways))
            await scene.pause(rng, WRITERS + 1, 1 - _READS)
            await scribe.create_collection(rng.choice(gateways))
            owned = documents()
        else:
            await _write_one(scene, rng.choice(owned), reader, rng, None)


async def _switch(scene: _Scene, scribe: Scribe) -> None:
    """Let a collection that others write be exchanged for one built beside it, and back."""
    rng, wanted = scene.rng("switcher"), scene.journal.wanted
    every = min(_SWITCH_EVERY, wanted // 3)
    for after in range(every, wanted, every):
        await scene.journal.reached(after)
        await scribe.switch(rng.choice(sorted(scene.replicas.gateways)))


async def _read(scene: _Scene, ledgers: Sequence[Ledger], rng: random.Random) -> None:
    reader = scene.reader(rng)
    (ledger,), question = rng.choices(ledgers), scene.question(rng)
    while not scene.journal.is_over:
        await scene.pause(rng, READERS, _READS)
        # Every third time the same again, before much was written.
        if rng.random() < 0.67:
            (ledger,) = rng.choices(ledgers, (5, 3, 3, 2))
            question = scene.question(rng)
        if rng.random() < 0.05:
            await reader.read_at_once(ledger, question, _AT_ONCE)
        else:
            await reader.read(ledger, question)


async def _watch(journal: Journal, watch: Callable[[Journal], None]) -> None:
    while True:
        watch(journal)
        await asyncio.sleep(0.5)


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def checks(journal: Journal) -> list[Check]:
    """Return what is required of a run that found no lie, and how much of it there was."""
    done = journal.operations
    found = [
        Check("operations", done),
        Check("answers judged, none of them wrong", journal.judged),
        *(Check(f"answers at {it}", journal.reads[it]) for it in sorted(journal.reads)),
    ]
    for way, part in _NEEDED.items():
        least = int(part * done)
        number = sum(it for outcome, it in journal.outcomes.items() if way in outcome)
        required = f"at least {least}" if least else ""
        found.append(Check(f"answers: {way}", number, required, number >= least))
    failures, most = sum(journal.failures.values()), int(_MOST_FAILURES * done)
    lag = max(journal.lags, default=0.0)
    found += [
        Check("calls that faults let fail", failures, f"at most {most}", failures <= most),
        Check("answers without the newest write, within the lease", len(journal.lags)),
        Check(
            "the oldest write that one of them lacked, in seconds",
            round(lag, 3),
            f"at most {LEASE_SECONDS}",
            lag <= LEASE_SECONDS,
        ),
    ]
    for call, part in _NEEDED_CALLS.items():
        least, number = int(part * done), journal.calls[call]
        found.append(Check(call, number, f"at least {least}" if least else "", number >= least))
    kinds = Counter(str(fault) for fault, _, _ in journal.faults.happened)
    found += [Check(f"faults: {kind}", kinds[kind]) for kind in sorted(kinds)]
    return found


def _run_alone(options: Options, tell: Tell) -> list[Check]:
    def watch(journal: Journal) -> None:
        said = (
            f"{journal.judged} answers judged, {sum(journal.failures.values())} calls failed,"
            f" {len(journal.faults.happened)} faults"
        )
        tell(journal.operations, said)

    seconds = options.amount / _PER_SECOND
    with own_stack() as stack:
        return checks(asyncio.run(run(stack, options.amount, options.seed, seconds, watch)))


SUITE = Suite("freshness", 10_000, "operations", _run_alone)
