"""Counts what a run does and sees, and judges each answer as soon as it can be judged."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque

from chaos.faults import Faults
from chaos.invariants import Answer, faults
from chaos.ledger import EXISTENCE, Ledger
from chaos.suite import BrokenError
from quintet_servicekit.errors import Reason, ServiceError

_EXCUSED = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
_REMEMBERED = 8
"""Answers to a question that are shown with one that is wrong."""


class LieError(BrokenError):
    """Something was told that is not so; the message has all that is known of it."""


class UnexcusedError(BrokenError):
    """A call failed that had no cause to."""


class Journal:
    """What happened in a run of so many operations."""

    def __init__(self, operations: int, seed: int, injected: Faults) -> None:
        self.wanted = operations
        self.seed = seed
        self.faults = injected
        self.operations = 0
        self.calls: Counter[str] = Counter()
        """Calls that were answered, by RPC or write."""
        self.reads: Counter[str] = Counter()
        """Answers that were judged, by consistency."""
        self.outcomes: Counter[str] = Counter()
        """Answers by what caches did."""
        self.failures: Counter[str] = Counter()
        """Calls that faults let fail, by RPC and code."""
        self.judged = 0
        self.lags: list[float] = []
        """Ages of acknowledged writes that answers lacked within the lease, in seconds."""
        self._waiting: defaultdict[Ledger, deque[Answer]] = defaultdict(deque)
        self._before: defaultdict[tuple[Ledger, str], deque[Answer]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )
        self._moved = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether all operations have been done."""
        return self.operations >= self.wanted

    async def reached(self, operations: int) -> None:
        """Wait until so many operations have been done."""
        while self.operations < operations:
            self._moved.clear()
            await self._moved.wait()

    def count(self, what: str) -> None:
        """Count an operation that was done."""
        self.calls[what] += 1
        self._count()

    def fail(self, what: str, error: ServiceError, began: float, ended: float) -> None:
        """Count an operation that failed. Raises `UnexcusedError` unless a fault explains it."""
        code = error.code.name
        if code not in _EXCUSED or not self.faults.excuse(began, ended):
            raise UnexcusedError(
                f"seed {self.seed}, operation {self.operations}: {what}: {error.reason}: {error}"
                f" after {ended - began:.3f} s; faults: {self.faults.around(began, ended)}"
            )
        self.failures[f"{what} {code}"] += 1
        self._count()

    def take(self, ledger: Ledger, answer: Answer) -> None:
        """Take an answer. Raises `LieError` when it, or an earlier one, is wrong."""
        self.outcomes[answer.outcome] += 1
        self.reads[answer.call.consistency] += 1
        if answer.kept and answer.epoch is not None and answer.epoch < answer.call.least:
            self.lags.append(ledger.lag(answer.epoch, answer.call.began))
        self._waiting[ledger].append(answer)
        self.count(answer.call.rpc)
        self.judge(ledger)

    def judge(self, ledger: Ledger) -> None:
        """Judge the answers that wait for nothing any more."""
        waiting = self._waiting[ledger]
        for _ in range(len(waiting)):
            answer = waiting.popleft()
            if answer.ended >= ledger.settled_until:
                waiting.append(answer)
                continue
            for fault in faults(ledger, answer):
                raise LieError(self._told(ledger, answer, fault))
            self.judged += 1
            self._before[ledger, answer.call.question.text].append(answer)

    def _count(self) -> None:
        self.operations += 1
        self._moved.set()

    def _told(self, ledger: Ledger, answer: Answer, fault: str) -> str:
        call = answer.call
        documents = {document for document, _ in answer.passages} | {
            it for it in ledger.documents if call.question.topic in (None, it.partition("-")[0])
        }
        lines = [
            fault,
            f"seed {self.seed}, operation {self.operations}, collection {ledger.name} of"
            f" {ledger.tenant}, trace {answer.trace_id or 'unknown'}",
            f"{call.rpc} of the {call.replica} at {call.consistency}, {call.began:.3f} to"
            f" {answer.ended:.3f}: {call.question}",
            f"had to be of {answer.least} at least, is of {answer.epoch}: {answer.outcome}"
            f"{', possibly stale' if answer.stale else ''}, made {answer.age:.3f} s before",
            *(f"  passage of {document}: {text}" for document, text in answer.passages),
            f"  answer: {answer.text}",
            "earlier answers to this question:",
            *(
                f"  {it.call.began:.3f} to {it.ended:.3f} by the {it.call.replica}: {it.outcome},"
                f" {it.epoch}, {sorted(document for document, _ in it.passages)}"
                for it in self._before[ledger, call.question.text]
            ),
            "writes:",
            *(f"  {it}" for each in sorted(documents) for it in ledger.history(each)),
            *(f"  {it}" for it in ledger.history(EXISTENCE)),
            "faults:",
            *(f"  {it}" for it in self.faults.around(call.began, answer.ended)),
        ]
        return "\n".join(lines)


def nothing_there(error: ServiceError) -> str | None:
    """Return what an error that is an answer says: "nothing" was found, or the collection
    is "gone"."""
    if error.reason is Reason.NO_PASSAGES:
        return "nothing"
    return "gone" if error.reason is Reason.COLLECTION_NOT_FOUND else None
