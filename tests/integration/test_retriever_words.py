"""Lexical search: BM25 over counts that are renewed, languages, phrases."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from support.postgres import new_database
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
from quintet_retriever.database import SCHEMA
from quintet_retriever.tables import Tables
from quintet_servicekit.errors import Reason
from quintet_servicekit.postgres.migrator import migrate

if TYPE_CHECKING:
    from support.retriever import Stub

pytestmark = pytest.mark.asyncio(loop_scope="module")

url, stub, name = module_fixtures()

WORDS = [f"w{i}" for i in range(40)]


async def search(stub: Stub, collection: str, text: str, **fields: Any) -> list[pb.Hit]:
    request = pb.SearchRequest(collection=collection, text=text, **fields)
    return list((await stub.Search(request)).hits)


def ids(hits: list[pb.Hit]) -> list[str]:
    return [hit.document_id for hit in hits]


def texts(count: int, seed: int) -> dict[str, str]:
    """Return texts of 3 to 30 words, of which the first are much more frequent."""
    chosen = random.Random(seed)
    weights = [1 / (i + 1) for i in range(len(WORDS))]
    return {
        f"d{seed}-{i}": " ".join(chosen.choices(WORDS, weights, k=chosen.randint(3, 30)))
        for i in range(count)
    }


def inputs(some: dict[str, str]) -> list[pb.DocumentInput]:
    documents = [document(id_, [text], half=int(id_[-1]) % 2) for id_, text in some.items()]
    for it in documents:
        it.chunks[0].tokens = len(it.content.split())
    return documents


def bm25(some: dict[str, str], words: Sequence[str], counted: dict[str, str]) -> dict[str, float]:
    """Return the score of each text that has a word, by Robertson's formula."""
    holding = Counter(word for text in counted.values() for word in set(text.split()))
    mean = sum(len(text.split()) for text in counted.values()) / len(counted)
    found = {}
    for id_, text in some.items():
        frequency, length = Counter(text.split()), len(text.split())
        score = sum(
            math.log(1 + (len(counted) - holding[word] + 0.5) / (holding[word] + 0.5))
            * frequency[word]
            / (frequency[word] + 1.5 * (0.25 + 0.75 * length / mean))
            for word in set(words)
        )
        if score:
            found[id_] = score
    return found


def assert_scored(hits: list[pb.Hit], expected: dict[str, float]) -> None:
    assert {hit.document_id: hit.score for hit in hits} == pytest.approx(expected)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_scores_are_bm25_after_writes_and_deletions(stub: Stub, url: str, name: str) -> None:
    # 16, 33 and 52 changes are counted at once: 44 + 8 are all of them.
    first, second = texts(44, 1), texts(8, 2)
    await upsert(stub, name, *inputs(first))
    gone = list(first)[:4]
    for id_ in gone:
        await stub.DeleteDocument(pb.DeleteDocumentRequest(collection=name, id=id_))
    await upsert(stub, name, *inputs(second))
    left = {id_: text for id_, text in (first | second).items() if id_ not in gone}
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT counted_chunks, uncounted_chunks FROM retriever.collection WHERE name = %s",
            [name],
        ).fetchone()
    assert row is not None
    # The last writes may not be counted yet.
    written = list((first | second).items())
    counted = {id_: text for id_, text in written[: len(written) - row[1]] if id_ not in gone}
    assert row[0] == len(counted) and row[1] < 20
    for words in (["w0"], ["w3", "w20"], ["w1", "w7", "w30", "w39"]):
        expected = bm25(left, words, counted)
        assert_scored(await search(stub, name, " ".join(words), k=200), expected)
        only = pb.Filter()
        only.equals.key, only.equals.value.number_value = "half", 1
        some = {id_: score for id_, score in expected.items() if int(id_[-1]) % 2 == 1}
        assert_scored(await search(stub, name, " ".join(words), k=200, filter=only), some)


async def test_hits_by_words_do_not_stand_once_the_words_were_counted_anew(
    stub: Stub, name: str
) -> None:
    await upsert(stub, name, *inputs(texts(16, 1)))
    vector = packed([1, 0])
    queries: dict[str, dict[str, Any]] = {
        "lexical": {"text": "w1"},
        "hybrid": {"text": "w1", "vector": vector},
        "dense": {"vector": vector, "k": 5},
    }
    states = {
        mode: (await stub.Search(pb.SearchRequest(collection=name, **fields))).state
        for mode, fields in queries.items()
    }
    # None of these has a word of the question or a vector near it.
    far = [document(f"far{i}", ["other"], [[-1, 0]]) for i in range(17)]
    for so_far, expected in ((far[:16], True), (far[16:], False)):
        await upsert(stub, name, *so_far)
        for mode in ("lexical", "dense"):
            request = pb.SearchRequest(collection=name, known_state=states[mode], **queries[mode])
            assert (await stub.Search(request)).unchanged is (expected or mode == "dense")


async def test_a_large_collection_is_counted_beside_its_writers(url: str) -> None:
    async with retriever_on(url, word_count_interval_seconds=0.05) as stub:
        name = (await create(stub, new_name())).name
        some = texts(1_200, 3)
        waiting = inputs(some)
        for first in range(0, len(waiting), 50):
            await upsert(stub, name, *waiting[first : first + 50])
        async with asyncio.timeout(60):
            while True:
                async with await psycopg.AsyncConnection.connect(url) as connection:
                    cursor = await connection.execute(
                        "SELECT counted_chunks, uncounted_chunks, epoch,"
                        " (SELECT count(*) FROM retriever.change WHERE collection_id = c.id)"
                        " FROM retriever.collection AS c WHERE name = %s",
                        [name],
                    )
                    row = await cursor.fetchone()
                assert row is not None
                counted, uncounted, epoch, changes = row
                # Each epoch has its change: what is kept can be judged across counts.
                assert epoch == changes
                if counted > 1_000 and uncounted < 16 + counted / 10:
                    break
                await asyncio.sleep(0.05)
        assert epoch > 1_200
        hits = await search(stub, name, "w39 w0", k=3)
        assert all("w39" in hit.text for hit in hits)


async def test_a_collection_from_before_there_were_counts_is_counted(
    postgres_server: str,
) -> None:
    with new_database(postgres_server) as url:
        first = SCHEMA.shipped()[:6]
        await migrate(url, SCHEMA, connect_timeout=5, lock_timeout=10, migrations=first)
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "INSERT INTO retriever.collection (name, embedding_model, embedding_revision,"
                " dimension, description, document_count, chunk_count)"
                " VALUES ('old', 'm', 'r1', 2, '', 20, 20) RETURNING id"
            ).fetchone()
            assert row is not None
            connection.execute("SELECT retriever.create_collection_tables(%s, 2, 16, 64)", row)
            (key,) = row
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} (id, title, content, content_length, content_hash, metadata,"
                    " chunk_count) SELECT 'd' || i, '', 'bee', 3, '', '{{}}', 1"
                    " FROM generate_series(1, 20) AS i"
                ).format(Tables.of(key).document)
            )
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} (document_key, chunk_index, start_char, end_char, tokens, text,"
                    " embedding) SELECT key, 0, 0, 3, 3,"
                    " CASE key WHEN 7 THEN 'bee queen' ELSE 'bee' END, '[1,0]' FROM {}"
                ).format(Tables.of(key).chunk, Tables.of(key).document)
            )
        async with retriever_on(url, word_count_interval_seconds=0.05) as stub:
            async with asyncio.timeout(30):
                while True:
                    # A rare word weighs more once it is known to be rare.
                    if (await search(stub, "old", "queen"))[0].score > 1:
                        break
                    await asyncio.sleep(0.05)
            assert ids(await search(stub, "old", "bee queen", k=1)) == ["d7"]
            found = await stub.GetCollection(pb.GetCollectionRequest(name="old"))
            assert found.collection.language == "english"


@pytest.mark.parametrize(
    ("language", "text", "question"),
    [
        ("", "They were running home.", "run"),
        ("german", "Die Häuser der Stadt", "haus"),
        ("french", "Les élections présidentielles", "ELECTION"),
        ("simple", "Running and the running", "the"),
        ("russian", "большие города", "город"),
    ],
)
async def test_words_are_stemmed_by_the_collections_language(
    stub: Stub, language: str, text: str, question: str
) -> None:
    request = pb.CreateCollectionRequest(
        name=new_name(),
        embedding_model="m",
        embedding_revision="r1",
        dimension=2,
        language=language,
    )
    made = (await stub.CreateCollection(request)).collection
    assert made.language == (language or "english")
    await upsert(stub, made.name, document("d", [text]), document("x", ["something else"]))
    assert ids(await search(stub, made.name, question)) == ["d"]


async def test_a_language_is_known_and_stays(stub: Stub, name: str) -> None:
    def request(**fields: str) -> pb.CreateCollectionRequest:
        return pb.CreateCollectionRequest(
            embedding_model="m", embedding_revision="r1", dimension=2, **fields
        )

    error = await failure(stub.CreateCollection(request(name=new_name(), language="klingon")))
    assert error.reason is Reason.INVALID_FIELD
    assert (await stub.CreateCollection(request(name=name, language="english"))).collection
    error = await failure(stub.CreateCollection(request(name=name, language="german")))
    assert error.reason is Reason.COLLECTION_EXISTS


async def test_what_is_quoted_must_appear_in_a_row(stub: Stub, name: str) -> None:
    await upsert(
        stub,
        name,
        document("row", ["a queen bee lives long"]),
        document("apart", ["the bee and her queen"], [[0, 1]]),
        document("none", ["long life"]),
    )
    assert set(ids(await search(stub, name, "queen bee"))) == {"row", "apart"}
    for quoted in (
        '"queen bee"',
        "“Queen bees” long",
        'long "queen" "bee lives"',
        "„queen bee“ and „bee lives“",
        "„queen bee” long",
        "«\u00a0queen bee\u00a0»",
    ):
        assert ids(await search(stub, name, quoted)) == ["row"]
        assert ids(await search(stub, name, quoted, vector=packed([0, 1]))) == ["row"]
    dense = await search(
        stub, name, '"queen bee"', vector=packed([0, 1]), mode=pb.SEARCH_MODE_DENSE
    )
    assert len(dense) == 3
    # No phrase: nothing in it is indexed, or it does not end.
    assert set(ids(await search(stub, name, 'bee "the"'))) == {"row", "apart"}
    assert set(ids(await search(stub, name, 'bee "queen'))) == {"row", "apart"}
