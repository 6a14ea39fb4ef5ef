"""Who may share an answer that is being made: nobody for whom it would be too old, or not
what was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from support.asking import LIMITS, TEMPLATE

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import kept_answer_pb2 as kept_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.ask import Asker
from quintet_gateway.catalog import EmbeddingModel
from quintet_gateway.chain import Chain
from quintet_gateway.freshness import Freshness
from quintet_gateway.kept import Outdated, Served
from quintet_gateway.question import Question
from quintet_gateway.searching import Found, Query, QueryVector
from quintet_servicekit.cache import CacheSettings, Codec, Flights
from quintet_servicekit.consistency import Epoch, encode_token
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.epochs import EpochWatch

NAME = "notes"
BEFORE, AFTER = Epoch(3, 7), Epoch(3, 8)
MODEL = generator_pb.Model(name="m", revision="r")
MADE, NEAR = "made anew", "of a near question"


def found_at(epoch: Epoch, revision: str = "er") -> Found:
    hits = [retriever_pb.Hit(document_id=f"of {epoch.number}")]
    vector = QueryVector(b"\0" * 4, revision, 1)
    mode = retriever_pb.SEARCH_MODE_HYBRID
    token = encode_token(NAME, epoch)
    return Found(hits, mode, vector, b"", False, False, token, False, True)


class Near:
    """Finds a near question for every one that takes it."""

    def wanted(self, request: pb.AskRequest) -> bool:
        return request.cache == pb.CACHE_POLICY_SEMANTIC

    async def look_up(self, *_: Any) -> Served:
        kept = kept_pb.KeptAnswer(response=pb.AskResponse(answer=NEAR))
        return Served(kept, pb.AnswerCache(question=NEAR))

    def remember(self, *_: Any) -> None:
        """Nothing."""


class World:
    """What an asker stands among. `present` is the epoch that is known here; `found` what
    the cache finds outdated at a look-up; nothing is made before `go`."""

    def __init__(self) -> None:
        self.present: Epoch | None = BEFORE
        self.found: Found | None = None
        self.go = asyncio.Event()
        self.waiting = 0
        self.asked: list[Query] = []
        self.kept: list[str] = []
        self.revisions = ["er"]
        """Of the collection, as the catalog remembers it; the last is the present one."""
        watch = cast(EpochWatch, SimpleNamespace(known=lambda name: self.present))
        codec = Codec(pb.AskStreamResponse.SerializeToString, pb.AskStreamResponse.FromString)
        world = cast(Any, self)
        self.asker = Asker(
            world,
            world,
            world,
            world,
            world,
            world,
            Freshness(watch),
            world,
            cast(Any, Near()),
            Flights("l1", codec, CacheSettings()),
            world,
        )

    async def of(self, chain: Chain, request: pb.AskRequest) -> Question:
        need = Freshness(EpochWatch()).need(NAME, request.consistency)
        embedding = EmbeddingModel("e", self.revisions[0])
        return Question(request, MODEL, (), embedding, need, LIMITS, TEMPLATE)

    def forget(self, collection: str) -> None:
        del self.revisions[:-1]

    async def look_up(self, chain: Chain, question: Question) -> Outdated | None:
        return None if self.found is None else Outdated(self.found, None)

    def at_hand(self, question: Question) -> None:
        return None

    def compose(self, question: Question, *_: Any) -> str:
        return question.embedding.revision

    def keep(self, key: str, kept: str, seconds: float) -> None:
        self.kept.append(kept)

    async def vector(self, chain: Chain, query: Query) -> QueryVector:
        self.waiting += 1
        await self.go.wait()
        return QueryVector(b"\0" * 4, self.revisions[-1], 1)

    async def search(self, chain: Chain, query: Query, vector: QueryVector) -> Found:
        self.asked.append(query)
        return found_at(self.present or BEFORE)

    async def refined(self, chain: Chain, text: str, hits: Any, *_: Any) -> Any:
        return hits

    async def linked(self, *_: Any) -> tuple[()]:
        return ()

    async def events(
        self, chain: Chain, question: Question, hits: Any, **_: Any
    ) -> AsyncGenerator[pb.AskStreamResponse]:
        self.waiting += 1
        await self.go.wait()
        passages = [pb.Passage(hit=hit) for hit in hits]
        yield pb.AskStreamResponse(passages_found=pb.PassagesFound(passages=passages))
        yield pb.AskStreamResponse(text_delta=pb.TextDelta(text=MADE))
        completed = pb.Completed(model="m", model_revision="r", template_revision="t")
        yield pb.AskStreamResponse(completed=completed)

    @asynccontextmanager
    async def reserved(self, *_: Any, **__: Any) -> AsyncIterator[None]:
        yield None

    def ask(self, **fields: Any) -> asyncio.Task[pb.AskResponse]:
        # Else who has a token, and takes nothing stale, shares with nobody who has none.
        never = Duration()
        request = pb.AskRequest(collection=NAME, question="Who?", max_staleness=never, **fields)
        return asyncio.create_task(self.asker.whole(Chain(Deadline.after(60)), request))

    async def until(self, waiting: int) -> None:
        async with asyncio.timeout(5):
            while self.waiting < waiting:  # noqa: ASYNC110
                await asyncio.sleep(0)


def after(epoch: Epoch) -> retriever_pb.Consistency:
    return retriever_pb.Consistency(at_least_as_fresh=encode_token(NAME, epoch))


async def test_an_answer_from_hits_of_before_a_write_is_not_shared_with_who_asks_after_it() -> None:
    world = World()
    world.found, world.present = found_at(BEFORE), AFTER  # the news came with the hits
    first = world.ask()
    await world.until(1)
    world.found = found_at(AFTER)
    others = [world.ask(), world.ask(consistency=after(AFTER)), world.ask()]
    await world.until(2)
    world.go.set()
    assert (await first).consistency_token == encode_token(NAME, BEFORE)
    for other in others:
        answer = await other
        assert answer.consistency_token == encode_token(NAME, AFTER)
        assert [it.hit.document_id for it in answer.passages] == ["of 8"]
    assert world.waiting == 2


async def test_a_shared_answer_is_as_fresh_as_its_callers_knew_though_nobody_knows_any_more() -> (
    None
):
    world = World()
    world.present = AFTER
    first, second = world.ask(), world.ask(consistency=after(AFTER))
    await world.until(1)
    world.present = None
    world.go.set()
    await asyncio.gather(first, second)
    assert [it.consistency for it in world.asked] == [after(AFTER)]


async def test_a_near_questions_answer_is_not_shared_with_who_wants_ones_own() -> None:
    world = World()
    near = world.ask(cache=pb.CACHE_POLICY_SEMANTIC)
    await world.until(1)
    exact = world.ask(cache=pb.CACHE_POLICY_EXACT)
    await world.until(2)
    world.go.set()
    assert (await near).answer == NEAR
    own = await exact
    assert (own.answer, own.cache.question) == (MADE, "")
    assert own.cache.use.outcome == cache_pb.CACHE_OUTCOME_MISS


async def test_an_answer_is_kept_as_of_the_model_that_found_its_passages() -> None:
    """The embedder has been given another model of the name, and the collection was embedded
    with it, since this gateway last looked."""
    world = World()
    world.go.set()
    world.revisions = ["er", "newer"]
    await world.ask()
    assert world.kept == ["newer"]
