"""Usage: what is due of meters, and an outbox that loses nothing and counts nothing twice."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_gateway.billing.meter import Meter
from quintet_gateway.billing.prices import Price, PriceTable
from quintet_gateway.billing.spent import Spent
from quintet_gateway.usage import spool as spool_module
from quintet_gateway.usage.entry import Entry, Row, Sums, Used
from quintet_gateway.usage.ledger import Ledger
from quintet_gateway.usage.spool import SUFFIX, Segment, Spool
from quintet_gateway.usage.store import CountedError
from quintet_gateway.usage.writer import UsageWriter
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.identity import Identity, acting_as

PRICES = PriceTable(
    currency="USD",
    prices=(
        # Of a nano-unit a token some hundredths, so that there is much to round off.
        Price(hop="generator", model="m", input_per_million=1_377, output_per_million=777),
        Price(hop="embedder", model="e", embedding_per_million=333),
    ),
)


class Kept(list[Entry]):
    def put(self, entry: Entry) -> None:
        self.append(entry)


calls = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 5_000), st.booleans()), max_size=40
)
"""Which part counts (0: the whole), of which hop, how many tokens, and whether it is settled."""


@given(calls=calls)
def test_what_is_settled_is_the_bill_to_the_nano_unit_whoever_settles_when(
    calls: list[tuple[int, bool, int, bool]],
) -> None:
    kept = Kept()
    ledger = Ledger(kept)
    whole = Meter(PRICES, collection="c")
    parts = [whole, *(whole.part() for _ in range(3))]
    for number, is_generator, tokens, settles in calls:
        if is_generator:
            parts[number].called("generator", "m", 0, Spent(input=tokens, output=tokens // 3))
        else:
            parts[number].called("embedder", "e", 0, Spent(embedding=tokens))
        if settles:
            ledger.settle(parts[(number + tokens) % 4])
    ledger.settle(whole)
    bill = whole.bill()
    used = [used for entry in kept for used in entry.used]
    assert sum(entry.calls for entry in kept) == 1
    for field, place in (("input_tokens", 1), ("output_tokens", 3), ("embedding_tokens", 4)):
        assert sum(int(it[place]) for it in used) == sum(getattr(it, field) for it in bill.lines)
    # Each part is rounded on its own: by half a nano-unit a part and line.
    assert abs(sum(it.cost for it in used) - bill.cost_nanos) <= len(parts)
    if all(number == 0 for number, *_ in calls):
        assert sum(it.cost for it in used) == bill.cost_nanos


def entry(tenant: str = "acme", cost: int = 1) -> Entry:
    return Entry(tenant, "k", "c", "2026-11-01", "USD", 1, [Used("m", 1, 2, 3, 4, cost, 6)])


class Books:
    """Stands for the database, whose answers are lost on demand, before or after it has
    done what it was asked."""

    def __init__(self) -> None:
        self.sums: Counter[Row] = Counter()
        self.marks: dict[UUID, int] = {}
        self.away = False
        self.loses_answers = False

    async def counted(self, spool: UUID) -> int:
        self._answer()
        return self.marks.get(spool, 0)

    async def count(self, spool: UUID, before: int, now: int, sums: Sums) -> None:
        if self.away:
            self._answer()
        if self.marks.get(spool, 0) != before:
            raise CountedError
        self.marks[spool] = now
        for row, numbers in sums.rows.items():
            self.sums[row] += numbers[5]
        if self.loses_answers:
            raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "lost")

    async def forget_marks(self) -> None:
        pass

    def _answer(self) -> None:
        if self.away:
            raise ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away")


@contextmanager
def short_segments() -> Iterator[None]:
    whole, spool_module.SEGMENT_BYTES = spool_module.SEGMENT_BYTES, 300
    try:
        yield
    finally:
        spool_module.SEGMENT_BYTES = whole


def killed(spool: Spool, torn: bytes = b"") -> None:
    """Leave the files as a process that is killed does."""
    for segment in (*spool.older, spool.current):
        if torn and segment is spool.current:
            os.write(segment._descriptor, torn)
        segment.close()


events = st.lists(
    st.sampled_from(["call", "call", "call", "write", "kill", "tear", "away", "lose", "back"]),
    max_size=60,
)


@given(events=events)
async def test_whatever_ends_when_each_call_is_counted_once(events: list[str]) -> None:
    executor, books, put = BoundedExecutor("test", threads=1, queue=3), Books(), 0
    with tempfile.TemporaryDirectory() as folder, short_segments():
        spool = Spool.opened(Path(folder))
        writer = UsageWriter(books, spool, executor, interval=1)
        for event in events:
            books.away = event == "away" or (books.away and event != "back")
            books.loses_answers = event == "lose" or (books.loses_answers and event != "back")
            if event == "call":
                put += 1
                writer.put(entry(cost=put))
            elif event in ("write", "away", "lose"):
                await writer.once()
            elif event in ("kill", "tear"):
                killed(spool, torn=b'["acme","k' if event == "tear" else b"")
                spool = Spool.opened(Path(folder))
                writer = UsageWriter(books, spool, executor, interval=1)
        books.away = books.loses_answers = False
        await writer.once()
        assert sum(cost for row, cost in books.sums.items() if row.model == "m") == sum(
            range(1, put + 1)
        )
        await writer.end(5)
    await executor.close()


def test_a_file_of_a_living_process_is_left_to_it(tmp_path: Path) -> None:
    living = Segment.new(tmp_path)
    living.append(entry().packed())
    spool = Spool.opened(tmp_path)
    assert spool.older == []
    living.close()
    spool.adopt()
    assert [it.id for it in spool.older] == [living.id]


def _files(folder: Path) -> int:
    return len(list(folder.glob(f"*{SUFFIX}")))


async def test_what_is_counted_leaves_no_files(tmp_path: Path) -> None:
    executor, books = BoundedExecutor("test", threads=1, queue=3), Books()
    with short_segments():
        writer = UsageWriter(books, Spool.opened(tmp_path), executor, interval=1)
        for _ in range(20):
            writer.put(entry())
        await writer.once()
        assert _files(tmp_path) == 1
        await writer.end(5)
    await executor.close()
    assert sum(books.sums.values()) == 20


async def test_what_comes_while_it_is_counted_waits_for_more(tmp_path: Path) -> None:
    executor = BoundedExecutor("test", threads=1, queue=3)
    counted = []

    class Busy(Books):
        async def count(self, spool: UUID, before: int, now: int, sums: Sums) -> None:
            await super().count(spool, before, now, sums)
            counted.append(now - before)
            if len(counted) < 5:
                writer.put(entry())

    books = Busy()
    writer = UsageWriter(books, Spool.opened(tmp_path), executor, interval=1)
    writer.put(entry())
    await writer.once()
    assert len(counted) == 1
    await writer.once()
    assert len(counted) == 2
    await writer.end(5)
    await executor.close()


def test_a_disk_that_is_full_costs_no_answer_and_leaves_no_half_of_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment.new(tmp_path)
    segment.append(entry().packed())
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(OSError, match="no more"):
        segment.append(entry().packed())
    monkeypatch.undo()
    segment.append(entry("other").packed())
    found, end = segment.read(0, 10_000)
    assert [it.tenant for it in found] == ["acme", "other"]
    assert end == segment.size


def test_a_call_is_in_each_models_calls_and_once_in_all() -> None:
    used = [Used("m", 1), Used("e", 0, 0, 0, 5), Used("", cost=7), Used("m", 2)]
    sums = Sums().add([Entry("t", "k", "c", "2026-11-01", "USD", 1, used)])
    by_model = {row.model: numbers for row, numbers in sums.rows.items()}
    assert {model: numbers[0] for model, numbers in by_model.items()} == {"m": 1, "e": 1, "": 1}
    assert by_model["m"][1] == 3


def test_whoever_calls_is_noted_in_what_any_database_takes() -> None:
    kept = Kept()
    with acting_as(Identity("acme", "a\0b\ud800")):
        Ledger(kept).settle(Meter(collection="c"))
    with acting_as(Identity("acme", "x" * 8_000)):
        Ledger(kept).settle(Meter(collection="c"))
    assert kept[0].key == "a?b?"
    assert len(kept[1].key) == 32
    assert all(Entry.unpacked(it.packed()) == it for it in kept)
