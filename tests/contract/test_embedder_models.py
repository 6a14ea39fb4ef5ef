"""An embedder with two models."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from pydantic import ValidationError
from sentence_transformers import SentenceTransformer
from support.gateway import reason
from support.grpc_service import serving
from support.second_model import DIMENSION, SECOND_MODEL, prepared_folder, second_model

from quintet.embedder.v1 import embedder_service_pb2 as pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet_embedder.app import open_application
from quintet_embedder.checkpoint import revision_of
from quintet_embedder.settings import EMBEDDED_MODEL, Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = ["Bees make honey.", "A ship on the sea.", "Honey comes from a beehive.", "x"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Any]:
    settings = Settings(
        more_models={SECOND_MODEL: second_model()}, prepared_dir=prepared_folder(), threads=1
    )
    async with open_application(settings) as application, serving(application) as channel:
        yield EmbedderServiceStub(channel)


async def embed(stub: Any, model: str) -> tuple[pb.EmbedResponse, Any]:
    response = await stub.Embed(pb.EmbedRequest(model=model, texts=TEXTS))
    return response, np.stack([np.frombuffer(it.vector, "<f4") for it in response.embeddings])


async def test_each_is_told_of_and_one_serves_who_names_none(stub: Any) -> None:
    models = (await stub.ListModels(pb.ListModelsRequest())).models
    assert [(it.name, it.dimension, it.is_default) for it in models] == [
        (EMBEDDED_MODEL, 384, True),
        (SECOND_MODEL, DIMENSION, False),
    ]
    assert models[0].revision != models[1].revision


async def test_each_text_has_a_vector_of_the_model_that_was_named(stub: Any) -> None:
    # The second time from what is kept.
    for _ in range(2):
        for name, dimension in ((EMBEDDED_MODEL, 384), (SECOND_MODEL, DIMENSION), ("", 384)):
            response, vectors = await embed(stub, name)
            assert response.model == (name or EMBEDDED_MODEL)
            assert (response.dimension, vectors.shape[1]) == (dimension, dimension)
    reference = SentenceTransformer(str(second_model()), device="cpu").encode(TEXTS)
    _, vectors = await embed(stub, SECOND_MODEL)
    assert (reference * vectors).sum(1).min() > 0.999


async def test_passages_are_reranked_by_the_model_that_was_named(stub: Any) -> None:
    scores = []
    for name in (EMBEDDED_MODEL, SECOND_MODEL):
        request = pb.RerankRequest(model=name, query="Who makes honey?", passages=TEXTS)
        response = await stub.Rerank(request)
        assert response.model == name
        assert response.results[0].index in (0, 2)
        scores.append([it.score for it in response.results])
    assert scores[0] != scores[1]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Embed(pb.EmbedRequest(model="a third", texts=TEXTS))
    assert reason(caught.value) == "MODEL_NOT_FOUND"


async def test_two_models_have_two_names() -> None:
    with pytest.raises(ValidationError, match="more_models must not name"):
        Settings(more_models={EMBEDDED_MODEL: second_model()})


async def test_models_that_differ_in_their_last_layer_alone_have_two_revisions(
    tmp_path: Path,
) -> None:
    revisions = set()
    for number in range(2):
        folder = tmp_path / str(number)
        shutil.copytree(second_model(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
        # As libraries of before 2024 wrote them.
        (folder / "2_Dense" / "pytorch_model.bin").write_bytes(bytes([number]))
        revisions.add(revision_of(folder))
    assert len(revisions) == 2
