"""What the retriever refuses before it does anything."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import pytest

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_retriever import requests
from quintet_retriever.models import Mode
from quintet_retriever.settings import Settings
from quintet_servicekit.errors import Reason, ServiceError

SETTINGS = Settings(max_documents=3, max_chunks=4, max_content_chars=100, max_chunk_chars=50)
VECTOR = struct.pack("<2f", 1, 0)


def document(change: Callable[[pb.DocumentInput], object] = lambda it: None) -> pb.DocumentInput:
    message = pb.DocumentInput(id="d", content="naïve 東京 text")
    message.chunks.add(text="naïve 東京", start=0, end=8, tokens=3, vector=VECTOR)
    message.chunks.add(text="東京 text", start=6, end=13, tokens=2, vector=VECTOR)
    change(message)
    return message


def upsert(*documents: pb.DocumentInput, collection: str = "c") -> pb.UpsertDocumentsRequest:
    return pb.UpsertDocumentsRequest(collection=collection, documents=documents)


def refusal(act: Callable[[], object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        act()
    return caught.value


def test_offsets_count_code_points() -> None:
    (found,) = requests.documents(upsert(document()), SETTINGS)
    assert [(chunk.start, chunk.end) for chunk in found.chunks] == [(0, 8), (6, 13)]


def set_chunk(index: int, **values: object) -> Callable[[pb.DocumentInput], object]:
    def change(message: pb.DocumentInput) -> None:
        for name, value in values.items():
            setattr(message.chunks[index], name, value)

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda it: setattr(it, "id", ""), "documents[0].id"),
        (lambda it: setattr(it, "id", "x" * 513), "documents[0].id"),
        (lambda it: setattr(it, "id", "a\nb"), "documents[0].id"),
        (lambda it: setattr(it, "id", "a\0"), "documents[0].id"),
        (lambda it: setattr(it, "title", "\0"), "documents[0].title"),
        (lambda it: setattr(it, "content_hash", "\0"), "documents[0].content_hash"),
        (lambda it: setattr(it, "content", ""), "documents[0].content"),
        (lambda it: it.ClearField("chunks"), "documents[0].chunks"),
        (set_chunk(0, text=""), "documents[0].chunks[0].text"),
        (set_chunk(0, text="naive 東京"), "documents[0].chunks[0].text"),
        (set_chunk(0, start=8), "documents[0].chunks[0]"),
        (set_chunk(0, start=9), "documents[0].chunks[0]"),
        (set_chunk(1, end=14), "documents[0].chunks[1]"),
        (set_chunk(1, start=2**32 - 2, end=2**32 - 1), "documents[0].chunks[1]"),
        (set_chunk(0, tokens=0), "documents[0].chunks[0].tokens"),
        (set_chunk(0, tokens=2**31), "documents[0].chunks[0].tokens"),
        (set_chunk(0, vector=b""), "documents[0].chunks[0].vector"),
        (set_chunk(0, vector=b"12345"), "documents[0].chunks[0].vector"),
        (lambda it: it.chunks.reverse(), "documents[0].chunks[1]"),
        (lambda it: it.metadata.update({"a": math.nan}), "documents[0].metadata"),
        (lambda it: it.metadata.update({"a": [{"b": -math.inf}]}), "documents[0].metadata"),
        (lambda it: it.metadata.update({"a\0": 1}), "documents[0].metadata"),
        (lambda it: it.metadata.update({"a": {"b\0": 1}}), "documents[0].metadata"),
        (lambda it: it.metadata.update({"a": ["\0"]}), "documents[0].metadata"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused_by_name(
    change: Callable[[pb.DocumentInput], object], field: str
) -> None:
    error = refusal(lambda: requests.documents(upsert(document(change)), SETTINGS))
    assert error.reason is Reason.INVALID_FIELD
    assert field in [violation.field for violation in error.violations]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: setattr(it, "content", "x" * 101), Reason.INPUT_TOO_LONG),
        (lambda it: setattr(it, "title", "x" * 1001), Reason.INPUT_TOO_LONG),
        (set_chunk(0, text="x" * 51), Reason.INPUT_TOO_LONG),
        (lambda it: it.metadata.update({"a": "é" * 33_000}), Reason.INPUT_TOO_LONG),
        (lambda it: it.chunks.extend(list(it.chunks) * 2), Reason.BATCH_TOO_LARGE),
    ],
)
def test_what_is_too_large_is_refused_with_its_own_reason(
    change: Callable[[pb.DocumentInput], object], reason: Reason
) -> None:
    error = refusal(lambda: requests.documents(upsert(document(change)), SETTINGS))
    assert error.reason is reason
    assert int(error.metadata["actual"]) > int(error.metadata["limit"])


def test_a_50_mb_document_is_too_long() -> None:
    huge = document(lambda it: setattr(it, "content", "x" * 50_000_000))
    error = refusal(lambda: requests.documents(upsert(huge), Settings()))
    assert error.reason is Reason.INPUT_TOO_LONG
    assert error.metadata == {"limit": "8388608", "actual": "50000000", "unit": "characters"}


def test_an_id_that_occurs_twice_is_refused() -> None:
    error = refusal(lambda: requests.documents(upsert(document(), document()), SETTINGS))
    assert (error.reason, error.metadata) == (Reason.DUPLICATE_ID, {"document_id": "d"})


def test_a_batch_has_its_bounds() -> None:
    assert refusal(lambda: requests.documents(upsert(), SETTINGS)).reason is Reason.INVALID_FIELD
    too_many = upsert(*[document()] * 4)
    error = refusal(lambda: requests.documents(too_many, SETTINGS))
    assert error.reason is Reason.BATCH_TOO_LARGE


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a b", "a" * 64, "a\n", "é", "a;"])
def test_a_collection_with_another_name_than_the_contracts_is_refused(name: str) -> None:
    for act in (
        lambda: requests.collection_name(name),
        lambda: requests.document_id(name, "d"),
        lambda: requests.documents(upsert(document(), collection=name), SETTINGS),
        lambda: requests.search_request(pb.SearchRequest(collection=name, text="x")),
    ):
        error = refusal(act)
        assert error.reason is Reason.INVALID_FIELD
        assert error.violations[0].field == "collection"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "A"}, "name"),
        ({"embedding_model": ""}, "embedding_model"),
        ({"embedding_revision": " "}, "embedding_revision"),
        ({"embedding_model": "\0"}, "embedding_model"),
        ({"dimension": 0}, "dimension"),
        ({"dimension": 4001}, "dimension"),
        ({"description": "\0"}, "description"),
    ],
)
def test_a_new_collection_is_checked(change: dict[str, str | int], field: str) -> None:
    good = pb.CreateCollectionRequest(
        name="a", embedding_model="m", embedding_revision="r", dimension=4000
    )
    assert requests.new_collection(good).dimension == 4000
    for name, value in change.items():
        setattr(good, name, value)
    error = refusal(lambda: requests.new_collection(good))
    assert field in [violation.field for violation in error.violations]


@pytest.mark.parametrize(
    ("request_", "mode"),
    [
        (pb.SearchRequest(text="x"), Mode.LEXICAL),
        (pb.SearchRequest(vector=VECTOR), Mode.DENSE),
        (pb.SearchRequest(vector=VECTOR, text=" "), Mode.DENSE),
        (pb.SearchRequest(vector=VECTOR, text="x"), Mode.HYBRID),
        (pb.SearchRequest(vector=VECTOR, text="x", mode=pb.SEARCH_MODE_DENSE), Mode.DENSE),
        (pb.SearchRequest(vector=VECTOR, text="x", mode=pb.SEARCH_MODE_LEXICAL), Mode.LEXICAL),
    ],
)
def test_the_mode_follows_what_the_search_has(request_: pb.SearchRequest, mode: Mode) -> None:
    request_.collection = "c"
    found = requests.search_request(request_)
    assert (found.mode, found.k) == (mode, 10)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.SearchRequest(), Reason.INVALID_FIELD),
        (pb.SearchRequest(text="  "), Reason.INVALID_FIELD),
        (pb.SearchRequest(text="x", mode=pb.SEARCH_MODE_DENSE), Reason.INVALID_FIELD),
        (pb.SearchRequest(text="x", mode=pb.SEARCH_MODE_HYBRID), Reason.INVALID_FIELD),
        (pb.SearchRequest(vector=VECTOR, mode=pb.SEARCH_MODE_LEXICAL), Reason.INVALID_FIELD),
        (pb.SearchRequest(vector=VECTOR, mode=pb.SEARCH_MODE_HYBRID), Reason.INVALID_FIELD),
        (pb.SearchRequest(text="x", mode=9), Reason.INVALID_FIELD),  # type: ignore[arg-type]
        (pb.SearchRequest(text="x", k=201), Reason.INVALID_FIELD),
        (pb.SearchRequest(text="x\0"), Reason.INVALID_FIELD),
        (pb.SearchRequest(vector=b"123"), Reason.INVALID_FIELD),
        (pb.SearchRequest(text="x" * 10_001), Reason.INPUT_TOO_LONG),
        (pb.SearchRequest(text="x", filter=pb.Filter()), Reason.INVALID_FILTER),
    ],
)
def test_a_search_is_checked(request_: pb.SearchRequest, reason: Reason) -> None:
    request_.collection = "c"
    assert refusal(lambda: requests.search_request(request_)).reason is reason


def test_a_page_has_1_to_1000_items_and_100_unless_told() -> None:
    assert [requests.page_size(size) for size in (0, 1, 1000)] == [100, 1, 1000]
    assert refusal(lambda: requests.page_size(1001)).reason is Reason.INVALID_FIELD
