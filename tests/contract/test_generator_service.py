"""The generator's RPCs with the extractive backend, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from support.gateway import reason
from support.grpc_service import serving

from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet_generator.app import open_application
from quintet_generator.prompts import TemplateError
from quintet_generator.settings import GeneratorSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

BRIDGE = pb.Passage(title="Bridge", text="The bridge is of steel. It was opened in 1981 🙂.")
FERRY = pb.Passage(text="A ferry crossed the river before the bridge. Its captain was Ann.")
METHOD = "/quintet.generator.v1.GeneratorService/"


def request(**fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        **{"question": "When was the bridge opened?", "passages": [BRIDGE, FERRY], **fields}
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    settings = GeneratorSettings(backends=("extractive",), max_passages_chars=20_000)
    async with open_application(settings) as application, serving(application) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return GeneratorServiceStub(channel)


async def test_the_model_is_listed_with_its_revision(stub: Any) -> None:
    [model] = (await stub.ListModels(pb.ListModelsRequest())).models
    assert (model.name, model.backend, model.is_default) == ("extractive", "extractive", True)
    assert (model.context_tokens, model.tokenizer) == (0, "")
    assert len(bytes.fromhex(model.revision)) == 32


async def test_an_answer_is_made_of_cited_verbatim_slices(stub: Any) -> None:
    response = await stub.Generate(request())
    assert response.model == "extractive"
    assert response.finish_reason == pb.FINISH_REASON_STOP
    assert response.usage.prompt_tokens > response.usage.completion_tokens > 0
    assert response.citations
    for it in response.citations:
        text = (BRIDGE, FERRY)[it.passage_index].text
        assert (
            response.text[it.answer_start : it.answer_end]
            == text[it.passage_start : it.passage_end]
        )
        assert it.support == 1


async def test_a_stream_joins_up_to_the_whole_and_completes_last(stub: Any) -> None:
    whole = await stub.Generate(request())
    events = [it async for it in stub.GenerateStream(request())]
    assert "".join(it.text_delta.text for it in events) == whole.text
    assert [it.citation for it in events if it.HasField("citation")] == list(whole.citations)
    assert [it.WhichOneof("event") for it in events].count("completed") == 1
    completed = events[-1].completed
    assert (completed.model, completed.revision) == (whole.model, whole.revision)
    assert completed.usage == whole.usage


async def test_a_citation_comes_after_its_text(stub: Any) -> None:
    sent = 0
    async for event in stub.GenerateStream(request(question="the bridge")):
        sent += len(event.text_delta.text)
        assert event.citation.answer_end <= sent


async def test_nothing_supported_is_an_empty_answer(stub: Any) -> None:
    response = await stub.Generate(request(question="What is love?"))
    assert response.text == ""
    assert response.finish_reason == pb.FINISH_REASON_STOP


BAD = {
    "empty question": (request(question=""), "INVALID_FIELD"),
    "blank question": (request(question=" \n"), "INVALID_FIELD"),
    "long question": (request(question="x" * 10_001), "INPUT_TOO_LONG"),
    "NUL in the question": (request(question="a\0b"), "INVALID_FIELD"),
    "NUL in a passage": (request(passages=[pb.Passage(text="a\0b")]), "INVALID_FIELD"),
    "NUL in a title": (request(passages=[pb.Passage(title="\0", text="b")]), "INVALID_FIELD"),
    "NUL in a stop text": (request(stop=["\0"]), "INVALID_FIELD"),
    "no passages": (request(passages=[]), "INVALID_FIELD"),
    "65 passages": (request(passages=[BRIDGE] * 65), "BATCH_TOO_LARGE"),
    "empty passage": (request(passages=[pb.Passage(title="T")]), "INVALID_FIELD"),
    "long passages": (request(passages=[pb.Passage(text="x" * 10_001)] * 2), "INPUT_TOO_LONG"),
    "long title": (request(passages=[pb.Passage(title="x" * 1_001, text="y")]), "INPUT_TOO_LONG"),
    "too many tokens": (request(max_tokens=4_097), "INVALID_FIELD"),
    "negative temperature": (request(temperature=-0.1), "INVALID_FIELD"),
    "high temperature": (request(temperature=2.1), "INVALID_FIELD"),
    "temperature not a number": (request(temperature=float("nan")), "INVALID_FIELD"),
    "nine stop texts": (request(stop=list("123456789")), "INVALID_FIELD"),
    "empty stop text": (request(stop=[""]), "INVALID_FIELD"),
    "long stop text": (request(stop=["x" * 65]), "INPUT_TOO_LONG"),
    "unknown model": (request(model="gpt"), "MODEL_NOT_FOUND"),
    "unknown template": (request(template="nope"), "TEMPLATE_NOT_FOUND"),
    "path as a template": (request(template="../answer"), "TEMPLATE_NOT_FOUND"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_request_is_refused_alike_by_both_methods(stub: Any, name: str) -> None:
    bad, expected = BAD[name]
    with pytest.raises(grpc.aio.AioRpcError) as whole:
        await stub.Generate(bad)
    with pytest.raises(grpc.aio.AioRpcError) as streamed:
        [it async for it in stub.GenerateStream(bad)]
    assert reason(whole.value) == reason(streamed.value) == expected
    assert whole.value.code() == streamed.value.code()


@pytest.mark.parametrize("field", [2, 4], ids=["question", "template"])
async def test_text_that_is_not_utf8_is_the_callers_fault(
    channel: grpc.aio.Channel, field: int
) -> None:
    call = channel.unary_unary(METHOD + "Generate", bytes, bytes)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bytes([field << 3 | 2, 2, 0xC3, 0x28]))
    assert reason(caught.value) == "INVALID_FIELD"


async def test_the_largest_values_are_accepted(stub: Any) -> None:
    response = await stub.Generate(
        request(
            question="bridge " * 1_428,
            passages=[BRIDGE] * 64,
            max_tokens=4_096,
            temperature=2,
            seed=2**64 - 1,
            stop=["\n" * 64] * 8,
        )
    )
    assert response.text


async def test_answers_and_models_tell_the_revision_of_the_prompts(stub: Any) -> None:
    [model] = (await stub.ListModels(pb.ListModelsRequest())).models
    events = [it async for it in stub.GenerateStream(request())]
    assert events[-1].completed.prompt_revision == model.prompt_revision
    assert len(bytes.fromhex(model.prompt_revision)) == 32


async def test_templates_are_listed_and_each_answer_tells_its_own(stub: Any) -> None:
    listed = (await stub.ListModels(pb.ListModelsRequest())).templates
    assert [it.name for it in listed] == ["answer", "answer-full"]
    for template in listed:
        assert template.version >= 1
        events = [it async for it in stub.GenerateStream(request(template=template.name))]
        whole = await stub.Generate(request(template=template.name))
        for told in (events[-1].completed, whole):
            assert (told.template, told.template_revision) == (template.name, template.revision)


async def test_an_extractive_answer_is_not_kept_for_it_costs_less_than_asking(stub: Any) -> None:
    for _ in range(2):
        assert not (await stub.Generate(request())).HasField("cache")


OWN = "version: 7\n=== system ===\nBe brief.\n=== user ===\n$passages\n$question"


async def test_own_templates_stand_beside_and_instead_of_the_packaged_ones(tmp_path: Path) -> None:
    for name in ("acme-brief", "answer"):
        (tmp_path / f"{name}.txt").write_text(OWN)
    settings = GeneratorSettings(backends=("extractive",), templates_dir=tmp_path)
    async with open_application(settings) as application, serving(application) as channel:
        stub: Any = GeneratorServiceStub(channel)
        listed = (await stub.ListModels(pb.ListModelsRequest())).templates
        assert {it.name: it.version for it in listed} == {
            "acme-brief": 7,
            "answer": 7,
            "answer-full": 1,
        }
        answer = await stub.Generate(request(template="acme-brief"))
        assert answer.template == "acme-brief"
        assert answer.template_revision in {it.revision for it in listed}


async def test_a_template_that_is_malformed_ends_the_start_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "acme-brief.txt").write_text(OWN + " $unknown")
    settings = GeneratorSettings(backends=("extractive",), templates_dir=tmp_path)
    with pytest.raises(TemplateError, match="template acme-brief has a placeholder"):
        async with open_application(settings):
            pass
