"""Search over gRPC: dense, lexical and hybrid, exact where it must be, through filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytest_asyncio
from google.protobuf import struct_pb2
from numpy.typing import NDArray
from support.retriever import (
    create,
    document,
    failure,
    module_fixtures,
    new_name,
    packed,
    retriever_on,
    upsert,
)

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_servicekit.errors import Reason

if TYPE_CHECKING:
    from support.retriever import Stub

APPROXIMATE = {"exact_chunks": 0}
"""Settings under which even a small collection is searched through the index."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


url, stub, name = module_fixtures()


async def search(stub: Stub, name: str, **fields: Any) -> list[pb.Hit]:
    return list((await stub.Search(pb.SearchRequest(collection=name, **fields))).hits)


def ids(hits: list[pb.Hit]) -> list[str]:
    return [hit.document_id for hit in hits]


# --- dense ---------------------------------------------------------------------------

DIMENSION = 32
CHUNKS = 2_000


def clustered() -> NDArray[np.float32]:
    """2,000 vectors around 50 centres, as embeddings of a corpus are."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(50, DIMENSION))
    near = centres[random.integers(0, 50, CHUNKS)] + 0.5 * random.normal(size=(CHUNKS, DIMENSION))
    return near.astype(np.float32)


VECTORS = clustered()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clusters(stub: Stub) -> str:
    """A collection of the vectors, 20 a document; document "7" holds 140 to 159."""
    name = (await create(stub, new_name(), dimension=DIMENSION)).name
    documents = [
        document(str(i), [f"chunk {j}" for j in range(20)], rows, number=i, percent=i % 100)
        for i, rows in enumerate(VECTORS.reshape(-1, 20, DIMENSION))
    ]
    for first in range(0, len(documents), 50):
        await upsert(stub, name, *documents[first : first + 50])
    return name


def rows_of(hits: list[pb.Hit]) -> list[int]:
    return [int(hit.document_id) * 20 + hit.chunk_index for hit in hits]


def nearest(query: NDArray[np.floating[Any]], k: int, first: int = 0) -> list[int]:
    """Return the rows of the vectors nearest to the query, from the row `first` on."""
    unit = VECTORS[first:] / np.linalg.norm(VECTORS[first:], axis=1, keepdims=True)
    return [first + int(row) for row in np.argsort(-(unit @ query))[:k]]


def with_number(key: str, number: int) -> pb.Filter:
    return equal(key, number_value=number)


async def test_the_index_finds_what_comparing_all_finds(url: str, clusters: str) -> None:
    random = np.random.default_rng(8)
    found = 0
    async with retriever_on(url, **APPROXIMATE) as stub:
        for _ in range(50):
            query = VECTORS[random.integers(CHUNKS)] + 0.3 * random.normal(size=DIMENSION)
            hits = await search(stub, clusters, vector=packed(query * 1000))
            assert len(hits) == 10
            found += len(set(rows_of(hits)) & set(nearest(query, 10)))
            for rank, hit in enumerate(hits, start=1):
                row = VECTORS[rows_of([hit])[0]]
                cosine = float(row @ query) / float(np.linalg.norm(row) * np.linalg.norm(query))
                assert hit.score == pytest.approx(cosine, abs=1e-5)
                assert hit.scores.dense == hit.score
                assert hit.scores.dense_rank == rank
                assert not hit.scores.HasField("lexical")
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
    assert found / 500 >= 0.98


@pytest.mark.parametrize("settings", [{}, APPROXIMATE])
async def test_a_filter_of_one_percent_still_gives_k_hits(
    url: str, clusters: str, settings: dict[str, int]
) -> None:
    query = VECTORS[0]
    async with retriever_on(url, **settings) as stub:
        for k in (10, 200):
            hits = await search(
                stub, clusters, vector=packed(query), filter=with_number("percent", 99), k=k
            )
            assert rows_of(hits) == nearest(query, k, first=1980)


@pytest.mark.parametrize("settings", [{}, APPROXIMATE])
async def test_a_filter_of_half_the_chunks_gives_as_many_hits_as_asked_for(
    url: str, clusters: str, settings: dict[str, int]
) -> None:
    half = between("number", lt=50)
    async with retriever_on(url, **settings) as stub:
        hits = await search(stub, clusters, vector=packed(VECTORS[0]), filter=half, k=200)
    assert len(hits) == 200 and max(rows_of(hits)) < 1000


async def test_a_scan_that_gives_up_early_is_made_good_by_comparing(
    url: str, clusters: str
) -> None:
    early = {"hnsw_max_scan_tuples": 1, "hnsw_ef_search": 1}
    async with retriever_on(url, **early, **APPROXIMATE) as stub:
        request = pb.SearchRequest(
            collection=clusters, vector=packed(VECTORS[0]), filter=with_number("number", 99)
        )
        response = await stub.Search(request)
    assert rows_of(list(response.hits)) == nearest(VECTORS[0], 10, first=1980)
    assert response.compared_all and not response.exhausted


async def test_fewer_hits_than_asked_for_are_all_that_match_whatever_the_scan_reached(
    url: str, clusters: str
) -> None:
    early = {"hnsw_max_scan_tuples": 1, "hnsw_ef_search": 1}
    for settings in (early, {}):
        async with retriever_on(url, **settings, **APPROXIMATE) as stub:
            for k, exhausted in ((20, False), (21, True)):
                request = pb.SearchRequest(
                    collection=clusters,
                    vector=packed(VECTORS[0]),
                    filter=with_number("number", 99),
                    k=k,
                )
                # From the database, then from the cache.
                for _ in range(2):
                    response = await stub.Search(request)
                    assert (len(response.hits), response.exhausted) == (20, exhausted)
                    assert response.compared_all or not (exhausted or settings)


async def test_fewer_chunks_than_asked_for_are_all_found(stub: Stub, name: str) -> None:
    assert await search(stub, name, vector=packed([1, 0])) == []
    assert await search(stub, name, vector=packed([1, 0]), text="word") == []
    await upsert(stub, name, document("a", ["one", "two"], [[1, 0], [-1, 0]]))
    hits = await search(stub, name, vector=packed([2, 0]), k=200)
    assert [(hit.text, hit.score) for hit in hits] == [("one", 1.0), ("two", -1.0)]


async def test_a_hit_tells_where_it_is_from(stub: Stub, name: str) -> None:
    await upsert(stub, name, document("a", ["naïve 東京", "𝕊econd"], [[1, 0], [0, 1]], lang="ja"))
    await upsert(stub, name, document("a", ["naïve 東京", "𝕊econd"], [[1, 0], [0, 1]], lang="ja"))
    (hit,) = await search(stub, name, vector=packed([0, 1]), k=1)
    assert (hit.document_id, hit.document_version, hit.title) == ("a", 2, "Title of a")
    assert (hit.chunk_index, hit.text, hit.start, hit.end, hit.tokens) == (1, "𝕊econd", 9, 15, 1)
    assert hit.metadata["lang"] == "ja"


async def test_equal_chunks_come_in_the_same_order_each_time(stub: Stub, name: str) -> None:
    await upsert(stub, name, *[document(f"{i}", ["same word"]) for i in range(30)])
    for fields in ({"vector": packed([1, 0])}, {"text": "word"}):
        first = ids(await search(stub, name, k=7, **fields))
        for _ in range(5):
            assert ids(await search(stub, name, k=7, **fields)) == first


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([1, 2, 3], Reason.DIMENSION_MISMATCH),
        ([0, 0], Reason.INVALID_FIELD),
        ([math.nan, 1], Reason.INVALID_FIELD),
        ([-math.inf, 1], Reason.INVALID_FIELD),
    ],
)
async def test_a_vector_without_a_direction_is_refused(
    stub: Stub, name: str, vector: list[float], reason: Reason
) -> None:
    error = await failure(search(stub, name, vector=packed(vector)))
    assert error.reason is reason
    if reason is Reason.DIMENSION_MISMATCH:
        assert error.metadata == {"expected": "2", "actual": "3"}


# --- lexical -------------------------------------------------------------------------


async def test_a_question_finds_chunks_that_have_any_of_its_words(stub: Stub, name: str) -> None:
    texts = {
        "both": "Bees are making honey in their hives.",
        "one": "Honey badgers dig.",
        "none": "Nothing of that.",
    }
    await upsert(stub, name, *[document(name, [text]) for name, text in texts.items()])
    hits = await search(stub, name, text="What does a bee make honey from?")
    assert ids(hits) == ["both", "one"]
    assert [hit.scores.lexical_rank for hit in hits] == [1, 2]
    assert hits[0].score == hits[0].scores.lexical > hits[1].score > 0
    assert not hits[0].scores.HasField("dense")


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Crème brûlée", "creme brulee"),
        ("naive", "NAÏVE"),
        ("Привет мир", "мир"),
        ("東京 日本", "東京"),
        ("İstanbul", "istanbul"),
        ("five o'clock", "o'clock"),
        ("x = a'b\\c", "'b\\c'"),
        ("e-mail to foo@example.com", "foo@example.com"),
    ],
)
async def test_words_of_any_script_are_found(
    stub: Stub, name: str, text: str, question: str
) -> None:
    await upsert(stub, name, document("d", [text]))
    assert ids(await search(stub, name, text=question)) == ["d"]


@pytest.mark.parametrize(
    "question", ["the of and", "?!", "& | ! <-> :* ()", "'", "\\", "🐝", "a" * 10_000]
)
async def test_a_question_without_a_usable_word_finds_nothing(
    stub: Stub, name: str, question: str
) -> None:
    await upsert(stub, name, document("d", ["some text"]))
    assert await search(stub, name, text=question) == []


# --- hybrid --------------------------------------------------------------------------


async def test_hybrid_orders_by_the_weighted_sum_of_both_scores_scaled(
    stub: Stub, name: str
) -> None:
    angles = {"first": 0.0, "second": 0.3, "third": 0.6, "fourth": 0.9}
    words = {"first": "none", "second": "bee", "third": "bee honey", "fourth": "none"}
    await upsert(
        stub,
        name,
        *[
            document(name, [words[name]], [[math.cos(angle), math.sin(angle)]])
            for name, angle in angles.items()
        ],
    )
    by_words = await search(stub, name, text="bee honey")
    lexical = dict.fromkeys(angles, 0.0) | {hit.document_id: hit.score for hit in by_words}
    hits = await search(stub, name, vector=packed([1, 0]), text="bee honey")
    least, most = math.cos(0.9), 1.0
    expected = {
        it: 0.6 * (math.cos(angles[it]) - least) / (most - least)
        + 0.4 * lexical[it] / max(lexical.values())
        for it in angles
    }
    assert ids(hits) == sorted(expected, key=lambda name: -expected[name])
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.document_id])
        assert hit.scores.dense == pytest.approx(math.cos(angles[hit.document_id]))
        assert hit.scores.lexical == pytest.approx(lexical[hit.document_id])
        assert hit.scores.HasField("lexical_rank") == (words[hit.document_id] != "none")
        assert hit.scores.dense_rank == list(angles).index(hit.document_id) + 1


async def test_hybrid_finds_the_only_chunk_whether_or_not_it_has_the_words(
    stub: Stub, name: str
) -> None:
    await upsert(stub, name, document("d", ["bee"]))
    for text in ("bee", "wasp", "?!"):
        assert ids(await search(stub, name, vector=packed([1, 0]), text=text)) == ["d"]


async def test_the_response_tells_the_mode_that_was_used(stub: Stub, name: str) -> None:
    vector = packed([1, 0])
    cases: list[tuple[dict[str, Any], int]] = [
        ({"text": "x"}, pb.SEARCH_MODE_LEXICAL),
        ({"vector": vector}, pb.SEARCH_MODE_DENSE),
        ({"vector": vector, "text": "x"}, pb.SEARCH_MODE_HYBRID),
        ({"vector": vector, "text": "x", "mode": pb.SEARCH_MODE_LEXICAL}, pb.SEARCH_MODE_LEXICAL),
    ]
    for fields, mode in cases:
        request = pb.SearchRequest(collection=name, **fields)
        assert (await stub.Search(request)).mode == mode


# --- filters -------------------------------------------------------------------------

DOCUMENTS: dict[str, dict[str, Any]] = {
    "empty": {},
    "number": {"v": 1},
    "float": {"v": 1.5},
    "string": {"v": "1"},
    "true": {"v": True},
    "null": {"v": None},
    "list": {"v": [1, "1"]},
    "nested": {"v": {"w": 1, "0": "zero"}},
    "date": {"v": "2024-05-01"},
    "quoted": {"v": 'it\'s "quoted" \\ %s $1'},
    "accent": {"v": "é"},
}


def condition(build: Callable[[pb.Filter], object]) -> pb.Filter:
    message = pb.Filter()
    build(message)
    return message


def equal(key: str, **value: Any) -> pb.Filter:
    message = pb.Filter()
    message.equals.key = key
    for kind, it in value.items():
        setattr(message.equals.value, kind, it)
    return message


def one_of(key: str, *values: float | str | None) -> pb.Filter:
    message = pb.Filter()
    message.one_of.key = key
    for value in values:
        added = message.one_of.values.add()
        if value is None:
            added.null_value = struct_pb2.NULL_VALUE
        elif isinstance(value, str):
            added.string_value = value
        else:
            added.number_value = value
    return message


def between(key: str, **bounds: float | str) -> pb.Filter:
    message = pb.Filter()
    message.range.key = key
    for name, value in bounds.items():
        bound = getattr(message.range, name)
        setattr(bound, "string_value" if isinstance(value, str) else "number_value", value)
    return message


def exists(key: str) -> pb.Filter:
    return pb.Filter(exists=pb.Filter.Exists(key=key))


def all_but(*names: str) -> set[str]:
    return set(DOCUMENTS) - set(names)


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (equal("v", number_value=1), {"number"}),
        (equal("v", string_value="1"), {"string"}),
        (equal("v", bool_value=True), {"true"}),
        (equal("v", null_value=0), {"null"}),
        (equal("v.w", number_value=1), {"nested"}),
        (equal("v.0", number_value=1), set()),
        (equal("v.0", string_value="zero"), {"nested"}),
        (equal("v", string_value='it\'s "quoted" \\ %s $1'), {"quoted"}),
        (equal("v", string_value="' OR TRUE --"), set()),
        (equal("' OR TRUE --", string_value="x"), set()),
        (equal("w", number_value=1), set()),
        (one_of("v", 1, 1.5, "2024-05-01", None), {"number", "float", "date", "null"}),
        (one_of("v.0", 1, "1"), set()),
        (one_of("missing", None), set()),
        (between("v", gte=1), {"number", "float"}),
        (between("v", gt=1), {"float"}),
        (between("v", gte=1, lt=1.5), {"number"}),
        (between("v", lte=1.5), {"number", "float"}),
        (between("v", gte="2024", lt="2025"), {"date"}),
        (between("v", gte="é"), {"accent"}),
        (between("v", gt="z"), {"accent"}),
        (between("v", gte="' OR TRUE --"), {"string", "date", "quoted", "accent"}),
        (exists("v"), all_but("empty")),
        (exists("v.w"), {"nested"}),
        (exists("v.0"), {"nested"}),
        (exists("v.w.x"), set()),
        (pb.Filter(negated=exists("v")), {"empty"}),
        (pb.Filter(negated=equal("v", number_value=1)), all_but("number")),
        (pb.Filter(negated=one_of("v", 1, "1")), all_but("number", "string")),
        (pb.Filter(negated=between("v", gte=1)), all_but("number", "float")),
        (pb.Filter(negated=pb.Filter(negated=exists("v.w"))), {"nested"}),
        (
            condition(
                lambda it: it.all_of.filters.extend([exists("v"), between("v", lt="2024-06")])
            ),
            {"string", "date"},
        ),
        (
            condition(
                lambda it: it.any_of.filters.extend(
                    [equal("v.w", number_value=1), equal("v", number_value=1.5)]
                )
            ),
            {"nested", "float"},
        ),
    ],
)
async def test_a_filter_means_the_same_in_lists_and_in_every_search(
    stub: Stub, filled: str, filter_: pb.Filter, expected: set[str]
) -> None:
    listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection=filled, filter=filter_))
    assert {it.id for it in listed.documents} == expected
    vector = packed([1, 0])
    for fields in ({"vector": vector}, {"text": "text"}, {"vector": vector, "text": "text"}):
        hits = await search(stub, filled, filter=filter_, k=50, **fields)
        assert sorted(ids(hits)) == sorted(expected)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(stub: Stub) -> str:
    """A collection of the documents."""
    name = (await create(stub, new_name())).name
    await upsert(stub, name, *[document(it, **data) for it, data in DOCUMENTS.items()])
    return name


@pytest.mark.parametrize("settings", [{}, APPROXIMATE])
async def test_the_largest_filter_is_answered(url: str, settings: dict[str, int]) -> None:
    async with retriever_on(url, **settings) as stub:
        name = (await create(stub, new_name())).name
        await upsert(stub, name, document("d", n=7))
        wide = pb.Filter()
        for i in range(99):
            wide.any_of.filters.append(one_of("n" if i == 98 else f"k{i}", *range(1_000)))
        assert ids(await search(stub, name, vector=packed([1, 0]), filter=wide)) == ["d"]


async def test_a_bad_filter_is_refused_with_its_path(stub: Stub, name: str) -> None:
    bad = pb.Filter(all_of=pb.Filter.AllOf(filters=[exists("a"), exists("a..b")]))
    for call in (
        search(stub, name, text="x", filter=bad),
        stub.ListDocuments(pb.ListDocumentsRequest(collection=name, filter=bad)),
    ):
        error = await failure(call)
        assert error.reason is Reason.INVALID_FILTER
        assert error.metadata == {"path": "all_of.filters[1].exists.key"}
