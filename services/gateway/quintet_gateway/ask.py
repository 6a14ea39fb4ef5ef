"""One question's way: embed, search, pack, generate, cite.

Passages are found for both Ask and Search; the answer is always made as a
stream, and Ask is what the stream leaves when it has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.catalog import Catalog
from quintet_gateway.chain import Chain
from quintet_gateway.citations import Citer
from quintet_gateway.clients import Services
from quintet_gateway.packing import pack
from quintet_servicekit.errors import Reason, ServiceError


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, and the tokens that embedding its query took."""

    hits: Sequence[retriever_pb.Hit]
    mode: retriever_pb.SearchMode.ValueType
    embedding_tokens: int


@dataclass(frozen=True, slots=True)
class AskLimits:
    """Bounds of a prompt; see the settings of the same names."""

    default_passages: int
    context_tokens: int
    prompt_overhead_tokens: int
    default_answer_tokens: int
    min_citation_support: float


class Asker:
    """Answers questions and finds passages."""

    def __init__(self, services: Services, catalog: Catalog, limits: AskLimits) -> None:
        self._services = services
        self._catalog = catalog
        self._limits = limits

    async def search(self, chain: Chain, request: pb.SearchRequest) -> Found:
        """Return the hits of a query, best first.

        Raises `ServiceError` as the embedder and the retriever do.
        """
        try:
            return await self._search(chain, request)
        except ServiceError as error:
            if error.reason is not Reason.MODEL_MISMATCH:
                raise
        # The collection was made anew since we last looked.
        self._catalog.forget(request.collection)
        return await self._search(chain, request)

    async def _search(self, chain: Chain, request: pb.SearchRequest) -> Found:
        model = await self._catalog.embedding_model(chain, request.collection)
        query = retriever_pb.SearchRequest(
            collection=request.collection,
            text=request.query,
            mode=request.mode,
            k=request.k,
            embedding_revision=model.revision,
        )
        if request.HasField("filter"):
            query.filter.CopyFrom(request.filter)
        tokens = 0
        if request.mode != retriever_pb.SEARCH_MODE_LEXICAL:
            embedded = await chain.unary(
                self._services.peer("embedder"),
                "Embed",
                self._services.embedder.Embed,
                embedder_pb.EmbedRequest(
                    model=model.name,
                    texts=[request.query],
                    input_type=embedder_pb.INPUT_TYPE_QUERY,
                ),
            )
            # The revision that made this vector, not the remembered one: the
            # embedder may have been given another model since.
            query.embedding_revision = embedded.revision
            query.vector = embedded.embeddings[0].vector
            tokens = embedded.embeddings[0].tokens
        found = await chain.unary(
            self._services.peer("retriever"), "Search", self._services.retriever.Search, query
        )
        return Found(found.hits, found.mode, tokens)

    async def stream(
        self, chain: Chain, request: pb.AskRequest
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        """Yield the events of an answer: passages, then text and citations, then the end.

        Raises `ServiceError` NO_PASSAGES when the search finds nothing, and as
        the services do.
        """
        generator = await self._catalog.generator(chain, request.model)
        search = pb.SearchRequest(
            collection=request.collection,
            query=request.question,
            k=request.passages or self._limits.default_passages,
            mode=request.mode,
        )
        if request.HasField("filter"):
            search.filter.CopyFrom(request.filter)
        found = await self.search(chain, search)
        hits = await self._fitting(chain, request, generator, found.hits)
        passages = [pb.Passage(number=i, hit=hit) for i, hit in enumerate(hits, start=1)]
        yield pb.AskStreamResponse(passages_found=pb.PassagesFound(passages=passages))

        citer = Citer([hit.text for hit in hits], self._limits.min_citation_support)
        prompt = _prompt(request, generator, hits)
        stub = self._services.generator
        peer = self._services.peer("generator")
        async with aclosing(
            chain.stream(peer, "GenerateStream", stub.GenerateStream, prompt)
        ) as events:
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
        chain.name_model(completed.model)
        yield pb.AskStreamResponse(
            completed=pb.Completed(
                model=completed.model,
                finish_reason=completed.finish_reason,
                usage=pb.Usage(
                    prompt_tokens=completed.usage.prompt_tokens,
                    completion_tokens=completed.usage.completion_tokens,
                    embedding_tokens=found.embedding_tokens,
                ),
                trail=chain.trail(),
            )
        )

    async def _fitting(
        self,
        chain: Chain,
        request: pb.AskRequest,
        generator: generator_pb.Model,
        hits: Sequence[retriever_pb.Hit],
    ) -> Sequence[retriever_pb.Hit]:
        """Return the hits for which the prompt has room, best first."""
        if not hits:
            raise ServiceError(
                Reason.NO_PASSAGES,
                "nothing in the collection matches the question",
                metadata={"collection": request.collection},
            )
        counted = await chain.unary(
            self._services.peer("tokenizer"),
            "Count",
            self._services.tokenizer.Count,
            tokenizer_pb.CountRequest(
                model=generator.tokenizer, texts=[request.question, *(hit.text for hit in hits)]
            ),
        )
        question_tokens, *passage_tokens = counted.counts
        budget = self._limits.context_tokens
        if generator.context_tokens:
            answer_tokens = request.max_tokens or self._limits.default_answer_tokens
            taken = self._limits.prompt_overhead_tokens + question_tokens + answer_tokens
            budget = min(budget, generator.context_tokens - taken)
        return [hits[i] for i in pack(passage_tokens, budget)]

    async def whole(self, chain: Chain, request: pb.AskRequest) -> pb.AskResponse:
        """Return an answer at once; raises as `stream` does."""
        response = pb.AskResponse()
        text: list[str] = []
        async with aclosing(self.stream(chain, request)) as events:
            async for event in events:
                kind = event.WhichOneof("event")
                if kind == "text_delta":
                    text.append(event.text_delta.text)
                elif kind == "citation":
                    response.citations.append(event.citation)
                elif kind == "passages_found":
                    response.passages.extend(event.passages_found.passages)
                else:
                    response.model = event.completed.model
                    response.finish_reason = event.completed.finish_reason
                    response.usage.CopyFrom(event.completed.usage)
                    response.trail.CopyFrom(event.completed.trail)
        response.answer = "".join(text)
        return response


def _prompt(
    request: pb.AskRequest, generator: generator_pb.Model, hits: Sequence[retriever_pb.Hit]
) -> generator_pb.GenerateRequest:
    prompt = generator_pb.GenerateRequest(
        model=generator.name,
        question=request.question,
        passages=[generator_pb.Passage(title=hit.title, text=hit.text) for hit in hits],
        template=request.template,
        max_tokens=request.max_tokens,
    )
    if request.HasField("temperature"):
        prompt.temperature = request.temperature
    if request.HasField("seed"):
        prompt.seed = request.seed
    return prompt


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
