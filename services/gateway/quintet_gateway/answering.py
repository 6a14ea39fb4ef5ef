"""Makes an answer from what was found: choose the passages, generate, cite."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import routing_pb2 as routing_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.abstention import ABSTENTION, answerability
from quintet_gateway.answer_text import AnswerText, Told
from quintet_gateway.chain import Chain
from quintet_gateway.citations import Citer, Sentence
from quintet_gateway.clients import Services
from quintet_gateway.generators import is_extractive
from quintet_gateway.prompt_context import Context, Given
from quintet_gateway.question import Question
from quintet_gateway.reader import Reader
from quintet_gateway.remote_loads import RemoteLoads
from quintet_gateway.support import Evidence
from quintet_servicekit.errors import ServiceError


class Answerer:
    """Answers questions whose passages have been found."""

    def __init__(self, services: Services, reader: Reader) -> None:
        self._services = services
        self._reader = reader
        self._context = Context(services, reader)

    async def events(
        self,
        chain: Chain,
        question: Question,
        hits: Sequence[retriever_pb.Hit],
        *,
        replaceable: bool = False,
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        """Yield the events of an answer from `hits`, of which there is at least one:
        passages, then text and citations, then the end, which has what the generator
        tells of itself. `replaceable` is as in `Chain.stream`.

        Raises `ServiceError` as the tokenizer and the generator do.
        """
        routing = None
        if question.route is not None:
            model, routing = question.route.chosen(question.text, hits)
            question = question.given_to(model)
            chain.model = model.name
        given = await self._context.chosen(chain, question, hits)
        passages = [it.message(number) for number, it in enumerate(given, start=1)]
        yield pb.AskStreamResponse(passages_found=pb.PassagesFound(passages=passages))

        limits = question.limits
        evidence = Evidence(
            [it.text.text for it in given], [it.title for it in given], self._reader.sentences
        )
        abstention = _judged(question, hits, evidence)
        if abstention is not None and abstention.abstained:
            for told in _abstained(question, abstention, routing):
                yield told
            return
        loads = RemoteLoads() if limits.remove_loads else None
        text = AnswerText(
            Citer(evidence, limits.min_citation_support),
            loads,
            grounded_only=question.request.grounded_only,
        )
        said = False
        generated = self._generated(chain, question, given, replaceable=replaceable)
        async with aclosing(generated) as events:
            async for event in events:
                if event.HasField("text_delta"):
                    pieces = text.feed(event.text_delta.text)
                elif event.HasField("citation"):
                    pieces = text.cite(event.citation)
                else:
                    pieces = text.finish()
                    completed = event.completed
                for it in pieces:
                    said = said or (isinstance(it, str) and not it.isspace())
                    yield _event(it, given)
        if not said:
            # No sentence was found, or all were dropped: what is left to say is that the
            # documents don't.
            yield pb.AskStreamResponse(text_delta=pb.TextDelta(text=ABSTENTION))
            abstention = abstention or pb.Abstention(threshold=question.abstain_below)
            abstention.abstained = True
        usage = pb.Usage(
            prompt_tokens=completed.usage.prompt_tokens,
            completion_tokens=completed.usage.completion_tokens,
            estimated=completed.usage.estimated,
            cached_prompt_tokens=completed.usage.cached_prompt_tokens,
        )
        yield pb.AskStreamResponse(
            completed=pb.Completed(
                model=completed.model,
                model_revision=completed.revision,
                prompt_revision=completed.prompt_revision,
                finish_reason=completed.finish_reason,
                usage=usage,
                dropped_sentences=text.dropped,
                removed_loads=loads.removed if loads else 0,
                prompt_hash=_prompt_hash(question, given),
                abstention=abstention,
                template=question.template.name,
                template_revision=completed.template_revision or completed.prompt_revision,
                routing=routing,
            )
        )

    async def _generated(
        self,
        chain: Chain,
        question: Question,
        given: Sequence[Given],
        *,
        replaceable: bool,
    ) -> AsyncGenerator[generator_pb.GenerateStreamResponse]:
        """Yield the generator's events: of the model that is wanted or, if that does not
        begin to answer, of the first other one that does.

        Raises as the wanted one where none does.
        """
        stub, peer = self._services.generator, self._services.peer("generator")
        models = (question.generator, *question.substitutes)
        failure: ServiceError | None = None
        for number, model in enumerate(models, start=1):
            began = False
            try:
                stream = chain.stream(
                    peer,
                    "GenerateStream",
                    stub.GenerateStream,
                    _prompt(question, model, given),
                    model=model.name,
                    replaceable=replaceable or number < len(models),
                )
                async with aclosing(stream) as events:
                    async for event in events:
                        if not began and failure is not None:
                            _note_other_model(chain, question, model, failure)
                        began = True
                        yield event
                return
            except ServiceError as error:
                failure = failure or error
                # What keeps the service itself from answering keeps all its models.
                of_the_service = error.metadata.get("dependency") == peer.name
                if began:
                    raise
                if of_the_service or not chain.degradations.may_replace(failure):
                    raise failure from error
        assert failure is not None
        raise failure


def _note_other_model(
    chain: Chain, question: Question, model: generator_pb.Model, failure: ServiceError
) -> None:
    wanted = question.generator.name
    if is_extractive(model):
        substitute = pb.SUBSTITUTE_EXTRACTIVE_ANSWER
        note = f"sentences of the passages stand for an answer of {wanted}"
    else:
        substitute = pb.SUBSTITUTE_OTHER_MODEL
        note = f"{model.name} answered instead of {wanted}"
    chain.degradations.pass_over("generator", failure, substitute, note)


def _prompt(
    question: Question, model: generator_pb.Model, given: Sequence[Given]
) -> generator_pb.GenerateRequest:
    request = question.request
    return generator_pb.GenerateRequest(
        model=model.name,
        question=question.text,
        passages=_passages(given),
        template=question.template.name,
        max_tokens=request.max_tokens,
        temperature=request.temperature if request.HasField("temperature") else None,
        seed=request.seed if request.HasField("seed") else None,
        no_cache=request.cache == pb.CACHE_POLICY_NONE,
    )


def _passages(given: Sequence[Given]) -> list[generator_pb.Passage]:
    return [generator_pb.Passage(title=it.title, text=it.text.text) for it in given]


def _prompt_hash(question: Question, given: Sequence[Given]) -> str:
    """Return a digest of what a prompt says, whatever model is to read it."""
    said = generator_pb.GenerateRequest(
        question=question.text, passages=_passages(given), template=question.template.name
    )
    return hashlib.sha256(said.SerializeToString(deterministic=True)).hexdigest()


def _judged(
    question: Question, hits: Sequence[retriever_pb.Hit], evidence: Evidence
) -> pb.Abstention | None:
    """Return whether the answer is that the documents don't say; None where that cannot
    be judged."""
    if evidence.is_empty:
        return pb.Abstention(abstained=True, threshold=question.abstain_below)
    likely = answerability(question.text, hits, evidence, question.embedding.name)
    if likely is None:
        return None
    return pb.Abstention(
        abstained=likely < question.abstain_below,
        answerability=likely,
        threshold=question.abstain_below,
    )


def _abstained(
    question: Question, abstention: pb.Abstention, routing: routing_pb.Routing | None
) -> tuple[pb.AskStreamResponse, pb.AskStreamResponse]:
    """Return the events of the answer that the documents don't say."""
    model = question.generator
    completed = pb.Completed(
        model=model.name,
        model_revision=model.revision,
        prompt_revision=model.prompt_revision,
        finish_reason=generator_pb.FINISH_REASON_STOP,
        usage=pb.Usage(),
        abstention=abstention,
        template=question.template.name,
        template_revision=question.template.revision,
        routing=routing,
    )
    return (
        pb.AskStreamResponse(text_delta=pb.TextDelta(text=ABSTENTION)),
        pb.AskStreamResponse(completed=completed),
    )


def _event(told: Told, given: Sequence[Given]) -> pb.AskStreamResponse:
    if isinstance(told, str):
        return pb.AskStreamResponse(text_delta=pb.TextDelta(text=told))
    if isinstance(told, Sentence):
        sentence = pb.Sentence(
            answer_start=told.start,
            answer_end=told.end,
            support=told.support,
            supported=told.supported,
            passages=sorted({it.passage_index + 1 for it in told.citations}),
        )
        return pb.AskStreamResponse(sentence=sentence)
    return pb.AskStreamResponse(citation=given[told.passage_index].citation(told))
