"""Makes an answer from passages: pack, generate, cite."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.catalog import is_extractive
from quintet_gateway.chain import Chain
from quintet_gateway.citations import Citer
from quintet_gateway.clients import Services
from quintet_gateway.packing import pack
from quintet_gateway.question import Question
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.token_estimate import estimate_tokens


class Answerer:
    """Answers questions whose passages have been found."""

    def __init__(self, services: Services) -> None:
        self._services = services

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
        hits = await self._fitting(chain, question, hits)
        passages = [pb.Passage(number=i, hit=hit) for i, hit in enumerate(hits, start=1)]
        yield pb.AskStreamResponse(passages_found=pb.PassagesFound(passages=passages))

        citer = Citer([hit.text for hit in hits], question.limits.min_citation_support)
        generated = self._generated(chain, question, hits, replaceable=replaceable)
        async with aclosing(generated) as events:
            async for event in events:
                if event.HasField("text_delta"):
                    yield pb.AskStreamResponse(text_delta=pb.TextDelta(text=event.text_delta.text))
                    citations = citer.feed(event.text_delta.text)
                elif event.HasField("citation"):
                    citations = [event.citation]
                    citer.model_cites()
                else:
                    citations = citer.finish()
                    completed = event.completed
                for citation in citations:
                    yield pb.AskStreamResponse(citation=_citation(citation, hits))
        chain.complete(completed)
        usage = pb.Usage(
            prompt_tokens=completed.usage.prompt_tokens,
            completion_tokens=completed.usage.completion_tokens,
            estimated=completed.usage.estimated,
        )
        yield pb.AskStreamResponse(
            completed=pb.Completed(
                model=completed.model,
                model_revision=completed.revision,
                prompt_revision=completed.prompt_revision,
                finish_reason=completed.finish_reason,
                usage=usage,
            )
        )

    async def _generated(
        self,
        chain: Chain,
        question: Question,
        hits: Sequence[retriever_pb.Hit],
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
                    _prompt(question, model, hits),
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

    async def _fitting(
        self, chain: Chain, question: Question, hits: Sequence[retriever_pb.Hit]
    ) -> Sequence[retriever_pb.Hit]:
        """Return the hits for which the prompt has room, best first."""
        request, generator, limits = question.request, question.generator, question.limits
        texts = [request.question, *(hit.text for hit in hits)]
        question_tokens, *passage_tokens = await self._counts(chain, generator.tokenizer, texts)
        budget = limits.context_tokens
        if generator.context_tokens:
            answer_tokens = request.max_tokens or limits.default_answer_tokens
            taken = limits.prompt_overhead_tokens + question_tokens + answer_tokens
            budget = min(budget, generator.context_tokens - taken)
        return [hits[i] for i in pack(passage_tokens, budget)]

    async def _counts(self, chain: Chain, model: str, texts: Sequence[str]) -> Sequence[int]:
        """Return the number of tokens of each text, estimated if the tokenizer is away."""
        try:
            counted = await chain.unary(
                self._services.peer("tokenizer"),
                "Count",
                self._services.tokenizer.Count,
                tokenizer_pb.CountRequest(model=model, texts=texts),
                replaceable=True,
            )
        except ServiceError as error:
            _note_estimate(chain, error)
            return [estimate_tokens(text) for text in texts]
        if counted.estimated:
            _note_estimate(chain, _no_tokenizer())
        return counted.counts


def _note_estimate(chain: Chain, error: ServiceError) -> None:
    chain.degradations.pass_over(
        "tokenizer",
        error,
        pb.SUBSTITUTE_TOKEN_ESTIMATE,
        "tokens were estimated on the high side: fewer passages may have fitted",
    )


def _no_tokenizer() -> ServiceError:
    return ServiceError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "the tokenizer of the model failed",
        metadata={"dependency": "tokenizer"},
    )


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
    question: Question, model: generator_pb.Model, hits: Sequence[retriever_pb.Hit]
) -> generator_pb.GenerateRequest:
    request = question.request
    return generator_pb.GenerateRequest(
        model=model.name,
        question=request.question,
        passages=[generator_pb.Passage(title=hit.title, text=hit.text) for hit in hits],
        template=request.template,
        max_tokens=request.max_tokens,
        temperature=request.temperature if request.HasField("temperature") else None,
        seed=request.seed if request.HasField("seed") else None,
        no_cache=request.cache == pb.CACHE_POLICY_NONE,
    )


def _citation(citation: generator_pb.Citation, hits: Sequence[retriever_pb.Hit]) -> pb.Citation:
    hit = hits[citation.passage_index]
    return pb.Citation(
        passage=citation.passage_index + 1,
        document_id=hit.document_id,
        answer_start=citation.answer_start,
        answer_end=citation.answer_end,
        document_start=hit.start + citation.passage_start,
        document_end=hit.start + citation.passage_end,
        support=citation.support,
    )
