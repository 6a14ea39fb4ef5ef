"""`quintet cache` against a gateway that plays back answers: for people and for scripts."""

from __future__ import annotations

import pytest
from google.protobuf import duration_pb2
from support.command_line import Quintet
from support.recorded_gateway import RecordedGateway

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever
from quintet_servicekit.errors import Reason, ServiceError

STATS = pb.GetCacheStatsResponse(
    services=[
        pb.ServiceCaches(
            service="embedder",
            reachable=True,
            redis_available=True,
            tiers=[
                cache_pb.TierStats(
                    tier="l2",
                    hits=90,
                    misses=8,
                    stale=1,
                    shared=1,
                    errors=2,
                    entries=7,
                    bytes=3 * 2**19,
                    max_bytes=64 * 2**20,
                )
            ],
        ),
        pb.ServiceCaches(
            service="gateway",
            reachable=True,
            tiers=[cache_pb.TierStats(tier="l1", max_bytes=2**26)],
        ),
    ]
)


class TestStats:
    def test_each_tiers_use_and_content_are_told(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["GetCacheStats"] = STATS
        ran = quintet("cache", "stats")
        assert [" ".join(line.split()) for line in ran.out.splitlines()] == [
            "service tier hits misses hit rate stale shared errors",
            "embedder l2 90 8 90.0% 1 1 2",
            "gateway l1 0 0 – 0 0 0",
            "",
            "service tier entries memory Redis",
            "embedder l2 7 1.5 of 64 MiB yes",
            "gateway l1 0 0.0 of 64 MiB no",
        ]
        assert (ran.status, ran.err) == (0, "")

    def test_a_service_that_did_not_answer_is_named_with_what_to_do_next(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["GetCacheStats"] = pb.GetCacheStatsResponse(
            services=[*STATS.services, pb.ServiceCaches(service="retriever")]
        )
        last = quintet("cache", "stats").out.splitlines()[-1]
        assert last == "retriever did not answer and is left out; see: quintet status"

    def test_json_is_in_the_form_of_the_contract(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["GetCacheStats"] = STATS
        [stats] = quintet("--json", "cache", "stats").lines
        assert stats["services"][0]["tiers"][0]["hits"] == "90"
        assert stats["services"][1]["redis_available"] is False


EXPLAINED = pb.ExplainCacheResponse(
    cache=pb.AnswerCache(
        use=cache_pb.CacheUse(
            tier="l1",
            outcome=cache_pb.CACHE_OUTCOME_REVALIDATED,
            store=cache_pb.CACHE_STORE_REDIS,
            age=duration_pb2.Duration(seconds=7_200),
            saved=duration_pb2.Duration(seconds=2),
        ),
        saved=pb.Usage(prompt_tokens=200, completion_tokens=9, estimated=True),
    ),
    explanation="It is kept, and two writes since do not concern it.",
    key="0f",
    answer_epoch=41,
    collection_epoch=43,
    document_ids=["a.md", "b.md"],
)


class TestExplain:
    def test_the_explanation_comes_first_and_then_the_facts(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["ExplainCache"] = EXPLAINED
        first, blank, *facts = quintet("cache", "explain", "why").out.splitlines()
        assert (first, blank) == (EXPLAINED.explanation, "")
        assert [" ".join(line.split()) for line in facts] == [
            "outcome revalidated",
            "tier l1",
            "store Redis",
            "age 2 h",
            "would save 2.00 s and about 209 tokens",
            "epoch kept at 41, collection 43",
            "documents a.md, b.md",
            "key 0f",
        ]

    def test_it_explains_the_very_question_that_ask_would_ask(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["ExplainCache"] = EXPLAINED
        gateway.replies["AskStream"] = pb.AskStreamResponse(completed=pb.Completed())
        options = (
            *("why", "-c", "books", "--passages", "3", "--model", "m", "--filter", "year=2024"),
            *("--mode", "dense", "--cache", "semantic", "--after", "token"),
            *("--template", "t", "--grounded-only"),
        )
        assert quintet("ask", *options).status == 0
        [explained] = quintet("cache", "explain", *options, "--json").lines
        assert explained["answer_epoch"] == "41"
        [asked] = gateway.asked("AskStream")
        [request] = gateway.asked("ExplainCache")
        assert request.request == asked
        assert asked.mode == retriever.SEARCH_MODE_DENSE


class TestPurge:
    def test_a_questions_answer_is_dropped(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["PurgeCache"] = pb.PurgeCacheResponse(dropped=2)
        options = ("-c", "books", "--passages", "3", "--template", "t", "--grounded-only")
        ran = quintet("cache", "purge", "--question", "why", *options)
        assert (ran.status, ran.out) == (0, "dropped 2 results\n")
        [request] = gateway.asked("PurgeCache")
        asked = request.question
        assert (asked.question, asked.collection, asked.passages) == ("why", "books", 3)
        assert (asked.template, asked.grounded_only) == ("t", True)

    def test_a_question_of_which_nothing_was_kept_is_told_as_such(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["PurgeCache"] = pb.PurgeCacheResponse()
        ran = quintet("cache", "purge", "--question", "why")
        assert ran.out.startswith("nothing was kept of it; give the options")

    def test_a_documents_purge_tells_its_token(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["PurgeCache"] = pb.PurgeCacheResponse(consistency_token="token")
        ran = quintet("cache", "purge", "--document", "a.md")
        assert ran.out.splitlines() == [
            "nothing kept that rests on a.md is served any more",
            "to ask from this write on: quintet ask … -c default --after token",
        ]
        [request] = gateway.asked("PurgeCache")
        assert request.document == pb.PurgeCacheRequest.DocumentName(
            collection="default", id="a.md"
        )

    def test_a_collection_is_purged_after_a_yes(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["PurgeCache"] = pb.PurgeCacheResponse(consistency_token="token")
        ran = quintet("cache", "purge", "--collection-all", "-c", "books", "--yes")
        assert ran.out.splitlines()[0] == "nothing kept of books is served any more"
        [request] = gateway.asked("PurgeCache")
        assert request.collection == "books"

    def test_everything_is_purged_after_a_yes(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["PurgeCache"] = pb.PurgeCacheResponse(dropped=1234)
        assert quintet("cache", "purge", "--everything", "-y").out == "dropped 1234 results\n"
        [purged] = quintet("cache", "purge", "--everything", "-y", "--json").lines
        assert purged == {"dropped": "1234", "consistency_token": ""}
        assert all(request.everything for request in gateway.asked("PurgeCache"))

    @pytest.mark.parametrize(
        "arguments",
        [("stats",), ("explain", "why"), ("purge", "--document", "a.md")],
        ids=" ".join,
    )
    def test_a_gateway_without_caches_is_told_with_what_to_do_next(
        self, quintet: Quintet, gateway: RecordedGateway, arguments: tuple[str, ...]
    ) -> None:
        for method in ("GetCacheStats", "ExplainCache", "PurgeCache"):
            gateway.replies[method] = ServiceError(Reason.UNIMPLEMENTED, "no such method")
        ran = quintet("cache", *arguments, "--json")
        assert (ran.status, ran.out) == (1, "")
        assert "different versions" in ran.error["advice"]
