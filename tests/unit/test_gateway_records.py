"""Records of answers without a database: their ids, what they hold, and how they are noted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import routing_pb2 as routing_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.records.composing import Composer
from quintet_gateway.records.entry import Entry, milliseconds_of, new_id
from quintet_gateway.records.recorder import Recorder
from quintet_gateway.records.store import RefusedError, Row
from quintet_gateway.records.writer import BATCH, RECORDS, RecordWriter
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as

SECRET = "the-text-that-nobody-records"


def composer(*, texts: bool = False, max_bytes: int = 32_768) -> Composer:
    return Composer(
        texts=texts,
        max_bytes=max_bytes,
        default_passages=5,
        abstain_below=0.2,
        min_citation_support=0.6,
        duplicate_similarity=0.7,
        semantic_similarity=0.9,
    )


def answered(passages: int = 2) -> pb.AskResponse:
    response = pb.AskResponse(
        answer=SECRET,
        model="m",
        model_revision="r",
        prompt_hash="h",
        resolved_question=SECRET,
        cache=pb.AnswerCache(question=SECRET, similarity=0.95),
        abstention=pb.Abstention(answerability=0.7, threshold=0.2),
        sentences=[pb.Sentence(answer_end=5, support=0.8, supported=True)],
        trail=pb.Trail(
            hops=[pb.Hop(service="embedder", method="Embed", breaker=pb.BREAKER_STATE_CLOSED)],
            left_out=[pb.LeftOut(document_id=f"left-{n}") for n in range(passages)],
        ),
        citations=[pb.Citation(passage=1), pb.Citation(passage=1)],
    )
    for number in range(1, passages + 1):
        response.passages.add(
            number=number,
            hit=retriever_pb.Hit(
                document_id=f"d{number}",
                document_version=3,
                title=SECRET,
                text=SECRET,
                chunk_index=number,
                score=0.5,
                scores=retriever_pb.Scores(dense=0.4),
            ),
        )
    return response


def entry(response: pb.AskResponse | None = None, **fields: Any) -> Entry:
    given: dict[str, Any] = {
        "id": new_id(),
        "tenant": "a",
        "key": "k",
        "streamed": False,
        "request": pb.AskRequest(
            collection="c",
            question=SECRET,
            turns=[pb.Turn(question=SECRET, answer=SECRET)],
            trial_unit=SECRET,
        ),
        "response": answered() if response is None else response,
        "embedding_model": "e",
        "embedding_revision": "er",
    }
    return Entry(**(given | fields))


def test_an_id_is_a_uuid_of_version_7_that_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(1_000)]
    assert len(set(made)) == 1_000
    assert {it.version for it in made} == {7}
    assert {it.variant for it in made} == {"specified in RFC 4122"}
    assert all(before <= milliseconds_of(it) <= time.time_ns() // 1_000_000 for it in made)


def test_a_record_tells_how_an_answer_came_about_and_no_text() -> None:
    data = composer().packed(entry())
    assert SECRET.encode() not in data
    record = explain_pb.AnswerRecord.FromString(data)
    assert [(it.document_id, it.document_version) for it in record.passages] == [
        ("d1", 3),
        ("d2", 3),
    ]
    assert [it.citations for it in record.passages] == [2, 0]
    assert record.passages[0].scores.dense == 0.4
    assert record.trail.hops[0].breaker == pb.BREAKER_STATE_CLOSED
    assert (record.model_revision, record.prompt_hash) == ("r", "h")
    assert (record.embedding_model, record.embedding_revision) == ("e", "er")
    assert (record.request.passages, record.request.abstain_below) == (5, 0.2)
    assert record.thresholds.min_citation_support == 0.6
    assert record.cache.similarity == 0.95
    assert len(record.answer_hash) == 64
    assert not record.truncated


def test_texts_are_recorded_where_that_is_set() -> None:
    record = composer(texts=True).record(entry())
    assert record.request.question == record.answer == record.resolved_question == SECRET
    assert record.request.turns[0].question == record.request.trial_unit == SECRET


def test_a_record_pins_the_template_that_was_assigned() -> None:
    response = answered()
    response.template, response.template_revision = "brief", "br"
    response.routing.CopyFrom(routing_pb.Routing(model="m", easy=True, ease=0.9, threshold=0.8))
    record = composer().record(entry(response))
    assert (record.request.template, record.template_revision) == ("brief", "br")
    assert record.routing == response.routing


@pytest.mark.parametrize("passages", [0, 50, 500])
def test_no_record_is_larger_than_it_may_be(passages: int) -> None:
    data = composer(max_bytes=2_048).packed(entry(answered(passages)))
    assert len(data) <= 2_048
    record = explain_pb.AnswerRecord.FromString(data)
    assert record.truncated == (passages > 0)
    assert record.model == "m"
    assert record.trail.hops


class Notes:
    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def put(self, entry: Entry) -> None:
        self.entries.append(entry)


class Asker:
    """Answers, fails after the passages, or never ends."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self._failure = failure

    async def whole(self, chain: Chain, request: pb.AskRequest) -> pb.AskResponse:
        if self._failure is not None:
            raise self._failure
        return answered()

    async def stream(
        self, chain: Chain, request: pb.AskRequest
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        passages = pb.PassagesFound(passages=answered().passages)
        yield pb.AskStreamResponse(passages_found=passages)
        if self._failure is not None:
            raise self._failure
        yield pb.AskStreamResponse(text_delta=pb.TextDelta(text="x"))
        yield pb.AskStreamResponse(completed=pb.Completed(model="m"))


def chain() -> Chain:
    made = Chain(Deadline.after(10))
    made.embedding_model, made.embedding_revision = "e", "er"
    return made


async def test_each_call_has_an_id_of_its_own_and_is_noted_for_who_asked() -> None:
    notes = Notes()
    recorder = Recorder(Asker(), notes)
    request = pb.AskRequest(question="q")
    with acting_as(Identity("acme", "key-1")):
        whole = await recorder.whole(chain(), request)
        events = [it async for it in recorder.stream(chain(), request)]
    ids = [whole.answer_id, events[-1].completed.answer_id]
    assert [str(it.id) for it in notes.entries] == ids
    assert len(set(ids)) == 2
    assert {(it.tenant, it.key) for it in notes.entries} == {("acme", "key-1")}
    assert [it.streamed for it in notes.entries] == [False, True]
    assert len(notes.entries[1].response.passages) == 2
    assert {it.failure for it in notes.entries} == {error_reason_pb2.ERROR_REASON_UNSPECIFIED}


async def test_a_failure_is_noted_and_tells_its_id_without_touching_what_others_are_told() -> None:
    shared = ServiceError(
        Reason.DEPENDENCY_UNAVAILABLE, "away", metadata={"dependency": "generator"}
    )
    notes = Notes()
    recorder = Recorder(Asker(shared), notes)
    told = []
    with pytest.raises(ServiceError) as caught:
        await recorder.whole(chain(), pb.AskRequest())
    told.append(caught.value)
    with pytest.raises(ServiceError) as caught:
        async for _ in recorder.stream(chain(), pb.AskRequest()):
            pass
    told.append(caught.value)
    assert [it.metadata["answer_id"] for it in told] == [str(it.id) for it in notes.entries]
    assert {it.reason for it in told} == {Reason.DEPENDENCY_UNAVAILABLE}
    assert all(it.retry_after == shared.retry_after for it in told)
    assert shared.metadata == {"dependency": "generator"}
    assert {it.failed_at for it in notes.entries} == {"generator"}
    # What had been told before it is noted, too.
    assert [len(it.response.passages) for it in notes.entries] == [0, 2]


async def test_a_caller_who_leaves_and_a_failure_that_nobody_foresaw_are_noted() -> None:
    notes = Notes()
    stream = Recorder(Asker(), notes).stream(chain(), pb.AskRequest())
    await anext(stream)
    await stream.aclose()
    with pytest.raises(RuntimeError):
        await Recorder(Asker(RuntimeError()), notes).whole(chain(), pb.AskRequest())
    assert [it.failure for it in notes.entries] == [
        error_reason_pb2.ERROR_REASON_CANCELLED,
        error_reason_pb2.ERROR_REASON_INTERNAL,
    ]


class Shelf:
    """Takes rows without `refused` ones, or is away while `away` is set."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.batches: list[int] = []
        self.away = False
        self.refused: set[UUID] = set()
        self.asked = asyncio.Event()
        self.has_rest = asyncio.Event()
        self.written = asyncio.Event()

    async def insert(self, rows: Sequence[Row]) -> None:
        self.asked.set()
        if self.away:
            raise ServiceError(Reason.CIRCUIT_OPEN, "away")
        if self.refused & {it.id for it in rows}:
            raise RefusedError
        self.rows.extend(rows)
        self.batches.append(len(rows))
        if len(rows) < BATCH:
            self.has_rest.set()

    async def renew_days(self, kept: int, *, waits: bool) -> None:
        pass

    async def trim(self, most: int, at_once: int) -> int:
        return 0


def count(outcome: str) -> float:
    return float(RECORDS.labels(outcome)._value.get())


async def test_records_are_written_in_batches_and_found_until_they_are() -> None:
    shelf = Shelf()
    writer = RecordWriter(shelf, composer().packed, most=1_000, interval=0.05)
    entries = [entry() for _ in range(BATCH + 1)]
    for it in entries:
        writer.put(it)
    assert writer.waiting("a", entries[0].id) is entries[0]
    assert writer.waiting("b", entries[0].id) is None
    assert writer.newest("a", "k") is entries[-1]
    assert writer.newest("a", "other") is None
    running = asyncio.create_task(writer.run())
    async with asyncio.timeout(10):
        await shelf.has_rest.wait()
    running.cancel()
    assert shelf.batches == [BATCH, 1]
    assert writer.waiting("a", entries[0].id) is None


async def test_what_comes_while_a_batch_is_written_waits_for_more() -> None:
    writing, written = asyncio.Event(), asyncio.Event()

    class Slow(Shelf):
        async def insert(self, rows: Sequence[Row]) -> None:
            writing.set()
            await written.wait()
            await super().insert(rows)
            self.written.set()

        async def batch(self) -> None:
            """Wait for the next batch."""
            await self.written.wait()
            self.written.clear()

    shelf = Slow()
    writer = RecordWriter(shelf, composer().packed, most=1_000, interval=60)
    for _ in range(BATCH):
        writer.put(entry())
    running = asyncio.create_task(writer.run())
    async with asyncio.timeout(10):
        await writing.wait()
        writer.put(entry())
        written.set()
        await shelf.batch()
        for _ in range(BATCH - 2):
            writer.put(entry())
            await asyncio.sleep(0)
        assert shelf.batches == [BATCH]
        writer.put(entry())
        await shelf.batch()
    running.cancel()
    assert shelf.batches == [BATCH, BATCH]


async def test_a_database_that_is_away_is_asked_after_a_pause_however_many_come() -> None:
    shelf = Shelf()
    shelf.away = True
    asked = 0

    class Counted(Shelf):
        async def insert(self, rows: Sequence[Row]) -> None:
            nonlocal asked
            asked += 1
            await shelf.insert(rows)

    writer = RecordWriter(Counted(), composer().packed, most=1_000, interval=60)
    for _ in range(BATCH):
        writer.put(entry())
    running = asyncio.create_task(writer.run())
    async with asyncio.timeout(10):
        await shelf.asked.wait()
    for _ in range(BATCH):
        writer.put(entry())
        await asyncio.sleep(0)
    running.cancel()
    assert asked == 1


async def test_while_the_database_is_away_records_wait_and_those_beyond_the_queue_are_counted() -> (
    None
):
    shelf = Shelf()
    shelf.away = True
    writer = RecordWriter(shelf, composer().packed, most=3, interval=0.01)
    full, ended, written = count("queue_full"), count("ended"), count("written")
    for _ in range(5):
        writer.put(entry())
    running = asyncio.create_task(writer.run())
    async with asyncio.timeout(10):
        await shelf.asked.wait()
    assert count("queue_full") == full + 2
    running.cancel()
    await asyncio.wait({running})
    shelf.away = False
    await writer.end(5)
    assert len(shelf.rows) == 3
    assert count("written") == written + 3
    shelf.away = True
    writer.put(entry())
    await writer.end(5)
    assert count("ended") == ended + 1


async def test_a_record_that_cannot_be_made_or_is_refused_takes_no_others_with_it() -> None:
    shelf = Shelf()
    entries = [entry() for _ in range(7)]
    unmade, shelf.refused = entries[2], {entries[5].id}

    def packed(it: Entry) -> bytes:
        if it is unmade:
            raise ValueError
        return composer().packed(it)

    writer = RecordWriter(shelf, packed, most=10, interval=60)
    refused, ended = count("refused"), count("ended")
    for it in entries:
        writer.put(it)
    with capture_logs() as logs:
        await writer.end(5)
    wanted = [it.id for it in entries if it is not unmade and it.id not in shelf.refused]
    assert [it.id for it in shelf.rows] == wanted
    assert count("refused") == refused + 2
    assert count("ended") == ended
    assert [it["many"] for it in logs] == [2]


async def test_records_that_a_process_drops_at_its_end_are_in_its_log() -> None:
    shelf = Shelf()
    shelf.away = True
    writer = RecordWriter(shelf, composer().packed, most=10, interval=60)
    writer.put(entry())
    with capture_logs() as logs:
        await writer.end(5)
    assert [(it["event"], it["many"]) for it in logs] == [("records were dropped at the end", 1)]
