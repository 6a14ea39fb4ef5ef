"""One question's way: a kept answer, or search, generate, cite and keep.

The answer is always made as a stream, and Ask is what the stream leaves when it has
ended. Equal questions that are asked at once are answered by one stream.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from opentelemetry import trace

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.admission.admission import Admission
from quintet_gateway.answering import Answerer
from quintet_gateway.catalog import OUTDATED, Catalog
from quintet_gateway.chain import Chain
from quintet_gateway.degradation import out_of_time
from quintet_gateway.events import Collector, events_of
from quintet_gateway.expansion import LinkExpander, mark
from quintet_gateway.freshness import Freshness
from quintet_gateway.generators import is_extractive
from quintet_gateway.kept import Entry, KeptAnswers, Outdated, Served
from quintet_gateway.near import NearQuestions
from quintet_gateway.question import Question, Questions
from quintet_gateway.refiner import Refiner
from quintet_gateway.searching import Found, QueryVector, Searcher
from quintet_servicekit import attributes
from quintet_servicekit.cache import Flights, key_of
from quintet_servicekit.cache.use import CacheUse, note_use
from quintet_servicekit.cache_service import use_message
from quintet_servicekit.consistency import Epoch, decode_token, encode_token
from quintet_servicekit.errors import Reason, ServiceError

SEMANTIC_STEP = "semantic look-up"


class Asker:
    """Answers questions."""

    def __init__(
        self,
        catalog: Catalog,
        questions: Questions,
        searcher: Searcher,
        refiner: Refiner,
        expander: LinkExpander,
        answerer: Answerer,
        freshness: Freshness,
        kept: KeptAnswers,
        near: NearQuestions,
        flights: Flights[pb.AskStreamResponse],
        admission: Admission,
    ) -> None:
        self._catalog = catalog
        self._questions = questions
        self._searcher = searcher
        self._refiner = refiner
        self._expander = expander
        self._answerer = answerer
        self._freshness = freshness
        self._kept = kept
        self._near = near
        self._flights = flights
        self._admission = admission

    async def whole(self, chain: Chain, request: pb.AskRequest) -> pb.AskResponse:
        """Return an answer at once; raises as `stream` does."""
        question = await self._questions.of(chain, request)
        looked = await self._look_up(chain, question)
        if isinstance(looked, Served):
            return _response(question, looked, chain)
        collector = Collector()
        async with aclosing(self._new(chain, question, looked)) as events:
            async for event in events:
                collector.add(event)
        return collector.response

    async def stream(
        self, chain: Chain, request: pb.AskRequest
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        """Yield the events of an answer: passages, then text and citations, then the end.

        Raises `ServiceError` NO_PASSAGES when the search finds nothing, and as the
        services do where nothing can be served instead.
        """
        question = await self._questions.of(chain, request)
        looked = await self._look_up(chain, question)
        if isinstance(looked, Served):
            for event in events_of(_response(question, looked, chain)):
                yield event
            return
        async with aclosing(self._new(chain, question, looked)) as events:
            async for event in events:
                yield event

    async def _look_up(self, chain: Chain, question: Question) -> Served | Outdated | None:
        if not question.may_be_kept:
            return None
        return await self._kept.look_up(chain, question)

    async def _new(
        self, chain: Chain, question: Question, outdated: Outdated | None
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        """Yield the events of an answer that is not kept, together with all who wait for
        the same."""
        epoch = self._shared_at(question, outdated)
        if epoch is None:
            async with aclosing(self._work(chain, question, outdated)) as events:
                async for event in events:
                    yield event
            return
        key = self._flight(question, epoch)
        question = replace(question, need=replace(question.need, promised=epoch))
        leads = False

        def work() -> AsyncGenerator[pb.AskStreamResponse]:
            nonlocal leads
            leads = True
            return self._work(chain, question, outdated)

        async with aclosing(self._flights.join(key, work)) as events:
            async for event in events:
                yield event if leads else _as_shared(event, question, chain)

    def _shared_at(self, question: Question, outdated: Outdated | None) -> Epoch | None:
        """Return the epoch at or after which an answer will be made; None for a question
        whose answer callers cannot share."""
        known = self._freshness.known(question.collection)
        if not question.may_be_kept or question.need.present or known is None:
            return None
        if outdated is not None:
            # It is made from these hits, whatever was written since.
            return decode_token(question.collection, outdated.found.token)
        return max(known, question.need.epoch or known)

    def _flight(self, question: Question, epoch: Epoch) -> str:
        """Return the key under which callers share one stream.

        Who asks after a later write is known asks under another key, as does who wants
        another failure or staleness passed over, or no near question's answer.
        """
        return key_of(
            question.key,
            epoch.collection,
            epoch.number,
            question.request.fail_if_degraded,
            str(question.max_staleness_seconds),
            self._near.wanted(question.request),
        )

    async def _work(
        self, chain: Chain, question: Question, outdated: Outdated | None
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        served = None if outdated is not None else self._kept.at_hand(question)
        if served is not None:
            for event in events_of(_response(question, served, chain)):
                yield event
            return
        most = question.most(chain.meter, chain.left())
        async with self._admission.reserved(
            question.most_tokens, chain.meter, most=most, or_cheaply=True
        ) as refused:
            if refused is not None:
                question = _cheaply(chain, question, refused)
            async with aclosing(self._made(chain, question, outdated)) as events:
                async for event in events:
                    yield event

    async def _made(
        self, chain: Chain, question: Question, outdated: Outdated | None
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        began = time.perf_counter()
        if outdated is None:
            standing = None
            made = await self._find(chain, question)
            if isinstance(made, Served):
                for event in events_of(_response(question, made, chain)):
                    yield event
                return
            question, found = made
        else:
            found, standing = outdated.found, outdated.standing
        if not found.hits:
            unembedded = chain.degradations.behind(pb.SUBSTITUTE_LEXICAL_SEARCH)
            if unembedded is not None:
                # Its words are nowhere; whether its meaning is, nobody has looked.
                raise unembedded
            self._keep(chain, question, found, None, began)
            raise _nothing_found(question)
        collector = Collector()
        async with aclosing(self._answered(chain, question, found, standing)) as events:
            async for event in events:
                collector.add(event)
                if event.HasField("completed"):
                    self._keep(chain, question, found, collector.response, began)
                yield event

    async def _answered(
        self, chain: Chain, question: Question, found: Found, standing: Entry | None
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        """Yield the events of an answer from what was found; of the one from before that
        is still `standing`, if the generator's models but for the extractive one fail."""
        if standing is not None:
            question = replace(
                question,
                substitutes=[it for it in question.substitutes if not is_extractive(it)],
            )
        held: list[pb.AskStreamResponse] = []
        hits = await self._refiner.refined(
            chain, question.text, found.hits, question.request.refinement, question.passages
        )
        linked = await self._expander.linked(chain, question.links(), found.vector, hits)
        hits = [*hits, *(it.hit for it in linked)]
        made = self._answerer.events(chain, question, hits, replaceable=standing is not None)
        try:
            async with aclosing(made) as events:
                async for event in events:
                    mark(event.passages_found.passages, linked)
                    # The passages of an answer that may yet be replaced are not told.
                    if standing is not None and event.HasField("passages_found"):
                        held.append(event)
                        continue
                    while held:
                        yield held.pop()
                    standing = None
                    if event.HasField("completed"):
                        _finish(event.completed, question, found, chain)
                    yield event
        except ServiceError as error:
            if standing is None:
                raise
            served = self._kept.stale(chain, standing, "generator", error)
            for event in events_of(_response(question, served, chain)):
                yield event

    async def _find(self, chain: Chain, question: Question) -> Served | tuple[Question, Found]:
        """Return a near question's answer, or what the question finds, with the question,
        whose collection may turn out to have been made anew."""
        try:
            return await self._near_or_found(chain, question)
        except ServiceError as error:
            if error.reason not in OUTDATED:
                raise
        return await self._near_or_found(chain, await self._looked_at_anew(chain, question))

    async def _looked_at_anew(self, chain: Chain, question: Question) -> Question:
        """Return the question with the embedding model that its collection has now."""
        self._catalog.forget(question.collection)
        anew = await self._questions.of(chain, question.request)
        return replace(question, embedding=anew.embedding)

    async def _near_or_found(
        self, chain: Chain, question: Question
    ) -> Served | tuple[Question, Found]:
        query = question.query(self._freshness.demand(question.collection, question.need))
        vector = await self._searcher.vector(chain, query)
        if vector and vector.revision != question.embedding.revision:
            # Its key, and its scope, are not those of an answer that this vector finds.
            question = await self._looked_at_anew(chain, question)
        if vector and question.may_be_kept and self._near.wanted(question.request):
            served = await self._near_answer(chain, question, vector)
            if served is not None:
                return served
        return question, await self._searcher.search(chain, query, vector)

    async def _near_answer(
        self, chain: Chain, question: Question, vector: QueryVector
    ) -> Served | None:
        if chain.is_short_after("Embed"):
            chain.degradations.pass_over(
                SEMANTIC_STEP,
                out_of_time(SEMANTIC_STEP),
                pb.SUBSTITUTE_STEP_SKIPPED,
                "kept answers to near questions were not looked for",
            )
            return None
        return await self._near.look_up(chain, question, vector)

    def _keep(
        self,
        chain: Chain,
        question: Question,
        found: Found,
        response: pb.AskResponse | None,
        began: float,
    ) -> None:
        if not question.may_be_kept or chain.degradations.messages:
            return
        if response is not None and not question.made_by(response):
            # Another model serves than the one that the key names.
            self._catalog.forget_generators()
            return
        kept = self._kept.compose(question, found, response)
        self._kept.keep(question.key, kept, time.perf_counter() - began)
        if found.vector and response is not None:
            self._near.remember(question, found.vector)


def _response(question: Question, served: Served, chain: Chain) -> pb.AskResponse:
    if served.kept.no_passages:
        raise _nothing_found(question)
    # Parsed for this look-up alone, so no copy is needed.
    response = served.kept.response
    response.ClearField("usage")
    response.cache.CopyFrom(served.about)
    response.resolved_question = question.resolved
    response.consistency_token = encode_token(question.collection, served.epoch)
    response.trail.CopyFrom(chain.trail())
    response.degradations.extend(chain.degradations.messages)
    chain.meter.spared(response.bill)
    response.bill.CopyFrom(chain.meter.bill())
    return response


def _finish(completed: pb.Completed, question: Question, found: Found, chain: Chain) -> None:
    """Add what the generator's end does not know."""
    completed.usage.embedding_tokens = found.vector.tokens if found.vector else 0
    completed.trail.CopyFrom(chain.trail())
    completed.bill.CopyFrom(chain.meter.bill())
    completed.degradations.extend(chain.degradations.messages)
    completed.consistency_token = found.token
    completed.resolved_question = question.resolved
    use = CacheUse("l1", "miss") if question.may_be_kept else CacheUse("l1", "bypass", lookups=0)
    completed.cache.use.CopyFrom(use_message(use))
    note_use(use)


def _as_shared(
    event: pb.AskStreamResponse, question: Question, chain: Chain
) -> pb.AskStreamResponse:
    """Return a leader's event as one who joined it sees it."""
    if not event.HasField("completed"):
        return event
    mine = pb.AskStreamResponse()
    mine.CopyFrom(event)
    completed = mine.completed
    if completed.cache.use.outcome == cache_pb.CACHE_OUTCOME_MISS:
        use = CacheUse("l1", "shared")
        completed.cache.use.CopyFrom(use_message(use))
        note_use(use)
        completed.cache.saved.CopyFrom(completed.usage)
        completed.ClearField("usage")
    chain.meter.spared(completed.bill)
    completed.bill.CopyFrom(chain.meter.bill())
    completed.resolved_question = question.resolved
    if completed.degradations:
        trace.get_current_span().set_attribute(attributes.DEGRADED, True)
    trail = chain.trail()
    trail.left_out.extend(completed.trail.left_out)
    completed.trail.CopyFrom(trail)
    return mine


def _cheaply(chain: Chain, question: Question, refused: ServiceError) -> Question:
    """Return a question that sentences of the passages answer. Raises what `refused` the
    dear way where there is no other, or the request wants none."""
    models = (question.generator, *question.substitutes)
    cheap = next(filter(is_extractive, models), None)
    if cheap is None:
        raise refused
    if cheap is not question.generator:
        chain.degradations.pass_over(
            "budget",
            refused,
            pb.SUBSTITUTE_EXTRACTIVE_ANSWER,
            f"the budget is spent: sentences of the passages stand for an answer of"
            f" {question.generator.name}",
        )
        chain.model = cheap.name
    return replace(question, generator=cheap, substitutes=[], route=None)


def _nothing_found(question: Question) -> ServiceError:
    return ServiceError(
        Reason.NO_PASSAGES,
        "nothing in the collection matches the question",
        metadata={"collection": question.collection},
    )
