"""Ask questions, in all ways that there are, and hand the answers to the journal."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass

import grpc

from chaos.documents import Question
from chaos.invariants import Answer, Call, Consistency
from chaos.journal import Journal, nothing_there
from chaos.ledger import Ledger
from chaos.replicas import RETRIEVER, Replicas
from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_servicekit.errors import from_rpc_error

READ_SECONDS = 8.0
"""Deadline of a read: what is frozen, for three seconds at most, may go on with it."""
_CONSISTENCIES: dict[Consistency, int] = {
    "minimize_latency": 5,
    "at_least_as_fresh": 3,
    "fully_consistent": 2,
}
_AFTER_FAILURE = 0.2
"""Pause after a failed call, so that a process that is away does not use up a run."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """Hits that the retriever gave, to be asked whether they still stand."""

    state: bytes
    passages: tuple[tuple[str, str], ...]


class Reader:
    """Asks one question after the other. `vectors`: those of the questions, by text;
    `earlier`: by collection and question, what any reader was given by the retriever."""

    def __init__(
        self,
        replicas: Replicas,
        journal: Journal,
        vectors: dict[str, bytes],
        earlier: dict[tuple[Ledger, Question], Earlier],
        rng: random.Random,
    ) -> None:
        self._replicas = replicas
        self._journal = journal
        self._vectors = vectors
        self._earlier = earlier
        self._rng = rng
        self._by_tenant: dict[str, Replicas] = {}

    async def read(self, ledger: Ledger, question: Question) -> None:
        """Ask a question in some way."""
        rng = self._rng
        consistency, token = self._consistency(ledger)
        way = rng.choices(
            (self._ask, self._ask_stream, self._search, self._search_retriever), (10, 5, 3, 3)
        )[0]
        replica = rng.choice(sorted(self._replicas.gateways))
        await self._answered(ledger, question, consistency, token, way, replica)

    async def read_at_once(self, ledger: Ledger, question: Question, number: int) -> None:
        """Ask a question several times at once, through one gateway."""
        replica = self._rng.choice(sorted(self._replicas.gateways))
        way = self._rng.choice((self._ask, self._ask_stream))
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                read = self._answered(ledger, question, "minimize_latency", "", way, replica)
                group.create_task(read)

    async def read_after_write(
        self, ledger: Ledger, question: Question, by: str, token: str
    ) -> None:
        """Ask about what was just written: the one who wrote it as fast as can be, or
        anyone with the write's token."""
        replica = self._rng.choice(sorted(self._replicas.gateways))
        consistency: Consistency = "minimize_latency" if by == replica else "at_least_as_fresh"
        way = self._rng.choice((self._ask, self._ask_stream))
        await self._answered(ledger, question, consistency, token, way, replica)

    def _of(self, ledger: Ledger) -> Replicas:
        tenant = ledger.tenant
        if tenant not in self._by_tenant:
            self._by_tenant[tenant] = self._replicas.of(tenant)
        return self._by_tenant[tenant]

    def _consistency(self, ledger: Ledger) -> tuple[Consistency, str]:
        (chosen,) = self._rng.choices(list(_CONSISTENCIES), list(_CONSISTENCIES.values()))
        # Mostly the token of the last write, sometimes of any.
        last = self._rng.random() < 0.6
        return chosen, ledger.tokens[-1] if last else self._rng.choice(ledger.tokens)

    async def _answered(
        self,
        ledger: Ledger,
        question: Question,
        consistency: Consistency,
        token: str,
        way: Callable[[Ledger, Call, retriever_pb.Consistency], Awaitable[Answer]],
        replica: str,
    ) -> None:
        began = time.monotonic()
        if consistency == "at_least_as_fresh":
            wanted = retriever_pb.Consistency(at_least_as_fresh=token)
            least = least_kept = ledger.learn(token)
        elif consistency == "fully_consistent":
            wanted = retriever_pb.Consistency(fully_consistent=True)
            least = least_kept = ledger.latest
        else:
            wanted = retriever_pb.Consistency(minimize_latency=True)
            least, least_kept = ledger.acknowledged(), ledger.told(replica, began)
        rpc = _RPCS[way.__name__]
        replica = RETRIEVER if way == self._search_retriever else replica
        call = Call(question, rpc, replica, consistency, began, least, least_kept)
        try:
            answer = await way(ledger, call, wanted)
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure, service="quintet")
            ended = time.monotonic()
            there = nothing_there(error)
            if there is None:
                self._journal.fail(f"{rpc} of the {replica}", error, began, ended)
                await asyncio.sleep(_AFTER_FAILURE)
                return
            # An error does not tell whether it was kept; that of a collection never is.
            answer = Answer(call, ended, None, there, kept=there == "nothing")
        self._journal.take(ledger, answer)

    async def _ask(
        self, ledger: Ledger, call: Call, consistency: retriever_pb.Consistency
    ) -> Answer:
        stub = self._of(ledger).gateways[call.replica]
        request = ask_request(ledger, call.question, consistency)
        response = await stub.Ask(request, timeout=READ_SECONDS)
        return answer_of(ledger, call, response)

    async def _ask_stream(
        self, ledger: Ledger, call: Call, consistency: retriever_pb.Consistency
    ) -> Answer:
        stub = self._of(ledger).gateways[call.replica]
        request = ask_request(ledger, call.question, consistency)
        events = stub.AskStream(request, timeout=READ_SECONDS)
        return answer_of(ledger, call, await collected(events))

    async def _search(
        self, ledger: Ledger, call: Call, consistency: retriever_pb.Consistency
    ) -> Answer:
        stub = self._of(ledger).gateways[call.replica]
        request = search_request(ledger, call.question, consistency)
        return hits_of(ledger, call, await stub.Search(request, timeout=READ_SECONDS))

    async def _search_retriever(
        self, ledger: Ledger, call: Call, consistency: retriever_pb.Consistency
    ) -> Answer:
        question = call.question
        key = (ledger, question)
        earlier = self._earlier.get(key)
        lexical = question.mode == retriever_pb.SEARCH_MODE_LEXICAL
        request = retriever_pb.SearchRequest(
            collection=ledger.name,
            text=question.text,
            vector=b"" if lexical else self._vectors[question.text],
            k=question.k,
            filter=question.filter,
            mode=question.mode,
            consistency=consistency,
            known_state=earlier.state if earlier else b"",
        )
        response = await self._of(ledger).retriever.Search(request, timeout=READ_SECONDS)
        outcome = _outcome(response.cache)
        passages = _passages(response.hits)
        if response.unchanged:
            assert earlier is not None
            outcome, passages = "known state unchanged", earlier.passages
        self._earlier[key] = Earlier(response.state, passages)
        return Answer(
            call,
            time.monotonic(),
            ledger.learn(response.consistency_token),
            outcome,
            kept=False,
            passages=passages,
        )


_RPCS = {
    "_ask": "Ask",
    "_ask_stream": "AskStream",
    "_search": "Search",
    "_search_retriever": "retriever's Search",
}

_KEPT = (cache_pb.CACHE_OUTCOME_HIT, cache_pb.CACHE_OUTCOME_SHARED)


def ask_request(
    ledger: Ledger, question: Question, consistency: retriever_pb.Consistency | None = None
) -> pb.AskRequest:
    """Return what asks a question of a collection."""
    return pb.AskRequest(
        collection=ledger.name,
        question=question.text,
        passages=question.k,
        filter=question.filter,
        mode=question.mode,
        consistency=consistency,
        cache=pb.CACHE_POLICY_SEMANTIC if question.near else pb.CACHE_POLICY_UNSPECIFIED,
    )


def search_request(
    ledger: Ledger, question: Question, consistency: retriever_pb.Consistency | None = None
) -> pb.SearchRequest:
    """Return what searches a collection for a question's passages."""
    return pb.SearchRequest(
        collection=ledger.name,
        query=question.text,
        k=question.k,
        filter=question.filter,
        mode=question.mode,
        consistency=consistency,
    )


async def collected(events: AsyncIterable[pb.AskStreamResponse]) -> pb.AskResponse:
    """Return a stream's events as the response that Ask would have given."""
    response = pb.AskResponse()
    async for event in events:
        kind = event.WhichOneof("event")
        if kind == "passages_found":
            response.passages.extend(event.passages_found.passages)
        elif kind == "text_delta":
            response.answer += event.text_delta.text
        elif kind == "citation":
            response.citations.append(event.citation)
        else:
            response.cache.CopyFrom(event.completed.cache)
            response.trail.CopyFrom(event.completed.trail)
            response.consistency_token = event.completed.consistency_token
            response.degradations.extend(event.completed.degradations)
    return response


def hits_of(ledger: Ledger, call: Call, response: pb.SearchResponse) -> Answer:
    """Return what a search found, to be judged."""
    uses = [hop.cache for hop in response.trail.hops if hop.method == "Search"]
    return Answer(
        call,
        time.monotonic(),
        ledger.learn(response.consistency_token),
        _outcome(uses[0]) if uses else "search",
        kept=False,
        passages=_passages(response.hits),
        trace_id=response.trail.trace_id,
    )


def answer_of(ledger: Ledger, call: Call, response: pb.AskResponse) -> Answer:
    """Return an answer, to be judged."""
    use = response.cache.use
    return Answer(
        call,
        time.monotonic(),
        ledger.learn(response.consistency_token),
        _outcome(use),
        kept=use.outcome in _KEPT,
        stale=response.cache.possibly_stale,
        passages=_passages(passage.hit for passage in response.passages),
        text=response.answer,
        citations=tuple(response.citations),
        age=use.age.ToTimedelta().total_seconds(),
        trace_id=response.trail.trace_id,
    )


def _passages(hits: Iterable[retriever_pb.Hit]) -> tuple[tuple[str, str], ...]:
    return tuple((hit.document_id, hit.text) for hit in hits)


def _outcome(use: cache_pb.CacheUse) -> str:
    outcome = cache_pb.CacheOutcome.Name(use.outcome).removeprefix("CACHE_OUTCOME_").lower()
    store = cache_pb.CacheStore.Name(use.store).removeprefix("CACHE_STORE_").lower()
    where = "" if store == "unspecified" else f", {store}"
    return f"{use.tier or 'no cache'} {outcome}{where}"


async def vectors_of(replicas: Replicas, questions: Iterable[Question]) -> dict[str, bytes]:
    """Return the vectors of questions, packed, by their texts."""
    texts = sorted({question.text for question in questions})
    request = embedder_pb.EmbedRequest(texts=texts, input_type=embedder_pb.INPUT_TYPE_QUERY)
    response = await replicas.embedder.Embed(request)
    return {
        text: embedding.vector for text, embedding in zip(texts, response.embeddings, strict=True)
    }
