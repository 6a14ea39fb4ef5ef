"""Every command against a gateway that plays back answers: for people and for scripts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.struct_pb2 import Struct
from support.command_line import Quintet
from support.recorded_gateway import RecordedGateway, created

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever
from quintet_local import traces
from quintet_servicekit.consistency import Epoch, encode_token
from quintet_servicekit.errors import Reason, ServiceError, Violation

TRACE_ID = "0123456789abcdef0123456789abcdef"


def _metadata(**values: Any) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _hit(document_id: str, text: str, start: int) -> retriever.Hit:
    return retriever.Hit(
        document_id=document_id,
        title=f"Title of {document_id}",
        text=text,
        start=start,
        end=start + len(text),
        score=0.5,
        scores=retriever.Scores(dense=0.75, dense_rank=1),
    )


def _duration(milliseconds: int) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(milliseconds)
    return duration


TRAIL = pb.Trail(
    hops=[
        pb.Hop(service="embedder", method="Embed", start=_duration(1), duration=_duration(20),
               model="mini"),
        pb.Hop(service="retriever", method="Search", start=_duration(22), duration=_duration(8)),
        pb.Hop(service="generator", method="GenerateStream", start=_duration(31),
               duration=_duration(60), first_message=_duration(30), model="extractive"),
    ],
    total=_duration(100),
    trace_id=TRACE_ID,
)  # fmt: skip

FIRST, SECOND = "Nonlocal rebinds names.", "It needs an enclosing function."
ANSWER = [
    pb.AskStreamResponse(
        passages_found=pb.PassagesFound(
            passages=[
                pb.Passage(number=1, hit=_hit("nonlocal", f"Intro. {FIRST}", 100)),
                pb.Passage(number=2, hit=_hit("scopes", SECOND, 0)),
            ]
        )
    ),
    pb.AskStreamResponse(text_delta=pb.TextDelta(text=FIRST)),
    pb.AskStreamResponse(
        citation=pb.Citation(passage=1, document_id="nonlocal", answer_start=0,
                             answer_end=len(FIRST), document_start=107, document_end=130, support=1)
    ),
    # As a model that doesn't know its sources: the citation comes one piece late.
    pb.AskStreamResponse(text_delta=pb.TextDelta(text=f" {SECOND}")),
    pb.AskStreamResponse(text_delta=pb.TextDelta(text=" Then")),
    pb.AskStreamResponse(
        citation=pb.Citation(passage=2, document_id="scopes", answer_start=24,
                             answer_end=24 + len(SECOND), document_start=0,
                             document_end=len(SECOND), support=0.9)
    ),
    pb.AskStreamResponse(text_delta=pb.TextDelta(text=" more.")),
    pb.AskStreamResponse(
        completed=pb.Completed(
            model="extractive", usage=pb.Usage(prompt_tokens=200, completion_tokens=9), trail=TRAIL
        )
    ),
]  # fmt: skip


KEPT = pb.AnswerCache(
    use=cache_pb.CacheUse(
        tier="l1-semantic",
        outcome=cache_pb.CACHE_OUTCOME_HIT,
        store=cache_pb.CACHE_STORE_MEMORY,
        age=duration_pb2.Duration(seconds=200),
        saved=_duration(2_310),
    ),
    question="Why\n not?",
    similarity=0.97,
    saved=pb.Usage(prompt_tokens=200, completion_tokens=9),
)


DEGRADATION = pb.Degradation(
    hop="retriever",
    cause=error_reason_pb2.ERROR_REASON_CIRCUIT_OPEN,
    substitute=pb.SUBSTITUTE_STALE_ANSWER,
    age=_duration(200_000),
    note="from before",
)


def _kept(cache: pb.AnswerCache) -> list[pb.AskStreamResponse]:
    """The events of an answer that was kept: no hops, no tokens."""
    completed = pb.Completed(
        model="extractive",
        trail=pb.Trail(total=_duration(1), trace_id=TRACE_ID),
        usage=pb.Usage(),
        cache=cache,
        consistency_token="token",
        model_revision="m1",
        prompt_revision="p1",
    )
    return [*ANSWER[:-1], pb.AskStreamResponse(completed=completed)]


class TestAsk:
    def test_a_chat_sends_the_turns_with_each_further_question(
        self, quintet: Quintet, gateway: RecordedGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        monkeypatch.setattr("sys.stdin", io.StringIO("\nAnd why?\nSince when?\n"))
        ran = quintet("ask", "What is nonlocal?", "--chat", "--grounded-only")
        assert ran.status == 0, ran.err
        first, second, third = gateway.asked("AskStream")
        assert (first.question, len(first.turns), first.grounded_only) == (
            "What is nonlocal?",
            0,
            True,
        )
        answer = f"{FIRST} {SECOND} Then more."
        assert [(it.question, it.answer) for it in third.turns] == [
            ("What is nonlocal?", answer),
            ("And why?", answer),
        ]
        assert (second.question, third.question) == ("And why?", "Since when?")

    def test_what_is_found_is_refined_as_the_options_say(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        gateway.replies["Search"] = pb.SearchResponse()
        steps = ("rerank", "collapse=0.7", "diverse=0.6", "per-document=2", "merge")
        options = [it for step in steps for it in ("--refine", step)]
        for command in ("ask", "search"):
            assert quintet(command, "What is nonlocal?", *options).status == 0
        refinement = pb.Refinement(
            rerank=True,
            collapse_similarity=0.7,
            mmr_lambda=0.6,
            max_per_document=2,
            merge_neighbours=True,
        )
        [asked], [searched] = gateway.asked("AskStream"), gateway.asked("Search")
        assert asked.refinement == searched.refinement == refinement
        assert quintet("search", "What is nonlocal?").status == 0
        assert not gateway.asked("Search")[-1].HasField("refinement")

    @pytest.mark.parametrize(
        "step", ["", "sort", "rerank=1", "diverse", "diverse=2", "collapse=nan", "per-document=0"]
    )
    def test_a_step_that_is_none_is_not_sent(
        self, quintet: Quintet, gateway: RecordedGateway, step: str
    ) -> None:
        ran = quintet("search", "What is nonlocal?", "--refine", step)
        assert (ran.status, gateway.requests) == (2, [])
        assert "is no step of a refinement" in ran.err

    def test_faults_are_asked_for_in_the_calls_metadata(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        first, second = "embedder/*;delay=1s", "generator/*;abort=UNAVAILABLE;percent=5"
        ran = quintet("ask", "What is nonlocal?", "--fault", first, "--fault", second)
        assert ran.status == 0, ran.err
        assert gateway.metadata[-1]["quintet-fault"] == f"{first},{second}"
        assert quintet("ask", "What is nonlocal?").status == 0
        assert "quintet-fault" not in gateway.metadata[-1]

    def test_a_fault_that_breaks_its_syntax_is_not_sent(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        ran = quintet("ask", "What is nonlocal?", "--fault", "embedder/*")
        assert (ran.status, gateway.requests) == (2, [])
        assert "must have a delay or an abort" in ran.err

    def test_an_answer_is_marked_and_followed_by_its_sources(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        ran = quintet("ask", "What is nonlocal?")
        assert ran.status == 0, ran.err
        lines = ran.out.splitlines()
        assert lines[0] == f"{FIRST} [1] {SECOND} [2] Then more."
        assert "[1] nonlocal · Title of nonlocal · characters 107-130" in lines
        assert f"    “{FIRST}”" in lines
        assert "[2] scopes · Title of scopes · characters 0-31" in lines
        assert any(TRACE_ID in line and "200 prompt + 9 answer tokens" in line for line in lines)
        assert "\x1b" not in ran.out
        assert ran.err == ""

    def test_the_options_reach_the_gateway(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        quintet(
            *("ask", "why", "-c", "books", "--passages", "3", "--model", "m"),
            *("--filter", "year=2024", "--mode", "lexical", "--timeout", "7"),
        )
        [request] = gateway.asked("AskStream")
        assert (request.collection, request.question) == ("books", "why")
        assert (request.passages, request.model) == (3, "m")
        assert request.mode == retriever.SEARCH_MODE_LEXICAL
        assert request.filter.equals.key == "year"
        assert request.filter.equals.value.number_value == 2024
        [deadline] = gateway.deadlines
        assert deadline is not None
        assert 5 < deadline < 8

    @pytest.mark.parametrize(
        ("option", "policy"),
        [
            ("default", pb.CACHE_POLICY_UNSPECIFIED),
            ("none", pb.CACHE_POLICY_NONE),
            ("exact", pb.CACHE_POLICY_EXACT),
            ("semantic", pb.CACHE_POLICY_SEMANTIC),
        ],
    )
    def test_which_kept_answers_will_do_reaches_the_gateway(
        self, quintet: Quintet, gateway: RecordedGateway, option: str, policy: int
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        assert quintet("ask", "why", "--cache", option).status == 0
        [request] = gateway.asked("AskStream")
        assert request.cache == policy
        assert not request.HasField("consistency")

    def test_how_fresh_the_answer_must_be_reaches_the_gateway(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        quintet("ask", "why", "--fresh")
        quintet("ask", "why", "--after", "token")
        fresh, after = gateway.asked("AskStream")
        assert fresh.consistency.fully_consistent
        assert after.consistency.at_least_as_fresh == "token"

    def test_what_may_be_served_instead_reaches_the_gateway(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        quintet("ask", "why")
        quintet("ask", "why", "--fail-if-degraded", "--max-staleness", "1.5")
        default, strict = gateway.asked("AskStream")
        assert not default.fail_if_degraded
        assert not default.HasField("max_staleness")
        assert strict.fail_if_degraded
        assert strict.max_staleness.ToMilliseconds() == 1500

    def test_what_was_served_instead_is_told_and_a_hops_failure_too(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        completed = pb.Completed(degradations=[DEGRADATION])
        completed.trail.hops.add(
            service="retriever",
            method="Search",
            failure=error_reason_pb2.ERROR_REASON_CIRCUIT_OPEN,
        )
        events = [*ANSWER[:-1], pb.AskStreamResponse(completed=completed)]
        gateway.replies["AskStream"] = events
        out = quintet("ask", "why", "--waterfall").out
        assert "DEGRADED: from before (retriever: CIRCUIT_OPEN, 3 min old)" in out.splitlines()
        [hop] = [line for line in out.splitlines() if line.startswith("retriever.Search")]
        assert hop.endswith("CIRCUIT_OPEN")

    def test_a_kept_answer_is_told_as_such_and_without_hops_why_there_are_none(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = _kept(KEPT)
        lines = quintet("ask", "why", "--waterfall").out.splitlines()
        assert "kept 3 min ago, still holds · saved 2.31 s and 209 tokens" in lines
        assert "answer to: Why not? (similarity 0.97)" in lines
        assert any(line.startswith("extractive · no tokens · ") for line in lines)
        why = "no hops: the answer was kept (l1-semantic, memory), so no service was asked"
        assert lines[-1] == why

    def test_json_tells_the_cache_the_token_and_the_revisions(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = _kept(KEPT)
        [answer] = quintet("ask", "why", "--json").lines
        assert answer["cache"]["use"]["outcome"] == "CACHE_OUTCOME_HIT"
        assert answer["cache"]["use"]["age"] == "200s"
        assert answer["cache"]["saved"]["prompt_tokens"] == 200
        assert answer["consistency_token"] == "token"
        assert (answer["model_revision"], answer["prompt_revision"]) == ("m1", "p1")
        assert answer["usage"]["estimated"] is False

    def test_json_is_one_object_in_the_form_of_the_contract(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        ran = quintet("ask", "why", "--json")
        [answer] = ran.lines
        assert answer["answer"] == f"{FIRST} {SECOND} Then more."
        assert [citation["document_id"] for citation in answer["citations"]] == [
            "nonlocal",
            "scopes",
        ]
        assert answer["trail"]["trace_id"] == TRACE_ID
        assert (ran.status, ran.err) == (0, "")

    def test_json_may_stand_before_the_command(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        assert quintet("--json", "ask", "why").lines[0]["model"] == "extractive"

    def test_a_waterfall_tells_each_hop(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["AskStream"] = list(ANSWER)
        lines = quintet("ask", "why", "--waterfall").out.splitlines()
        [embed] = [line for line in lines if line.startswith("embedder.Embed")]
        assert embed.split()[:6] == ["embedder.Embed", "mini", "1", "ms", "20", "ms"]
        [whole] = [line for line in lines if line.startswith("whole request")]
        assert whole.split()[-2:] == ["100", "ms"]

    def test_an_answer_without_sources_says_so(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = [e for e in ANSWER if not e.HasField("citation")]
        ran = quintet("ask", "why")
        assert "No source is cited" in ran.out
        assert ran.status == 0

    def test_control_characters_of_an_answer_do_not_reach_the_terminal(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        evil = pb.AskStreamResponse(text_delta=pb.TextDelta(text="a\x1b]0;owned\x07b"))
        gateway.replies["AskStream"] = [ANSWER[0], evil, ANSWER[-1]]
        assert "\x1b" not in quintet("ask", "why").out

    def test_an_error_in_mid_answer_leaves_what_came_and_ends_with_1(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        broken = ServiceError(
            Reason.DEPENDENCY_UNAVAILABLE, "gone", metadata={"dependency": "generator"}
        )
        gateway.replies["AskStream"] = [*ANSWER[:2], broken]
        ran = quintet("ask", "why")
        assert ran.status == 1
        assert ran.out.splitlines()[0] == FIRST
        assert "[DEPENDENCY_UNAVAILABLE]; see which service is away: quintet status" in ran.err

    def test_a_stream_that_ends_early_is_no_answer(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["AskStream"] = ANSWER[:2]
        ran = quintet("ask", "why", "--json")
        assert (ran.status, ran.out) == (1, "")
        assert "before it was complete" in ran.error["message"]


ERRORS = [
    (
        ServiceError(Reason.COLLECTION_NOT_FOUND, 'there is no collection "x"'),
        "quintet ingest PATH --collection NAME",
    ),
    (ServiceError(Reason.NO_PASSAGES, "nothing matches"), "so there is no answer"),
    (ServiceError(Reason.MODEL_NOT_FOUND, "no model"), "quintet status"),
    (ServiceError(Reason.DEADLINE_EXCEEDED, "too late"), "--timeout SECONDS"),
    (ServiceError(Reason.OVERLOADED, "full"), "try again"),
    (
        ServiceError(
            Reason.RATE_LIMITED,
            "the limit is reached",
            metadata={"limit": "key requests/60s"},
            retry_after=2.1,
        ),
        "try again in 3 s; the limit is key requests/60s",
    ),
    (ServiceError(Reason.CIRCUIT_OPEN, "not called"), "quintet status"),
    (ServiceError(Reason.NOT_READY, "starting"), "quintet status"),
    (
        ServiceError(Reason.INTERNAL, "internal error", metadata={"trace_id": TRACE_ID}),
        TRACE_ID,
    ),
]


class TestErrors:
    @pytest.mark.parametrize(("error", "advice"), ERRORS, ids=lambda value: str(value)[:20])
    def test_one_line_tells_the_reason_and_what_to_do_next(
        self, quintet: Quintet, gateway: RecordedGateway, error: ServiceError, advice: str
    ) -> None:
        gateway.replies["AskStream"] = error
        ran = quintet("ask", "why")
        assert ran.status == 1
        assert ran.out.strip() == ""
        [line] = ran.err.splitlines()
        assert line.startswith(f"error: {error.message} [{error.reason}]")
        assert advice in line

    @pytest.mark.parametrize(("error", "advice"), ERRORS, ids=lambda value: str(value)[:20])
    def test_scripts_get_it_as_json(
        self, quintet: Quintet, gateway: RecordedGateway, error: ServiceError, advice: str
    ) -> None:
        gateway.replies["AskStream"] = error
        ran = quintet("ask", "why", "--json")
        assert (ran.status, ran.out) == (1, "")
        assert ran.error["reason"] == error.reason
        assert ran.error["metadata"] == error.metadata
        assert advice in ran.error["advice"]

    def test_every_fault_of_a_request_is_named(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["Search"] = ServiceError(
            Reason.INVALID_FIELD,
            "query must not be empty",
            violations=[Violation("query", "must not be empty"), Violation("k", "is too large")],
        )
        ran = quintet("search", "")
        assert "query must not be empty; k is too large [INVALID_FIELD]" in ran.err

    def test_a_token_of_another_collection_is_told_with_where_to_find_the_right_one(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        field = "consistency.at_least_as_fresh"
        gateway.replies["Search"] = ServiceError(
            Reason.INVALID_FIELD, "no such", violations=[Violation(field, "is of another")]
        )
        ran = quintet("search", "x", "--after", "token")
        assert "take the token that a write to this very collection told" in ran.err

    def test_a_gateway_that_is_away_asks_whether_the_stack_runs(self, quintet: Quintet) -> None:
        ran = quintet("search", "x", "--address", "127.0.0.1:1")
        assert ran.status == 1
        assert "is the stack running? Start it with: quintet up" in ran.err

    def test_without_an_address_and_a_stack_both_ways_are_told(
        self, quintet: Quintet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("QUINTET_ADDRESS")
        ran = quintet("status")
        assert ran.status == 1
        assert "no stack runs in .quintet" in ran.err
        assert "quintet up" in ran.err
        assert "--address" in ran.err

    def test_the_address_of_a_running_stack_is_found_in_its_folder(
        self, quintet: Quintet, gateway: RecordedGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("QUINTET_ADDRESS")
        Path("elsewhere").mkdir()
        stack = {"pid": 1, "endpoints": {"gateway": {"grpc": gateway.address}}, "pids": {}}
        Path("elsewhere/stack.json").write_text(json.dumps(stack))
        gateway.replies["GetStatus"] = pb.GetStatusResponse()
        assert quintet("status", "--state-dir", "elsewhere").status == 0
        monkeypatch.setenv("QUINTET_STATE_DIR", "elsewhere")
        gateway.replies["GetStatus"] = pb.GetStatusResponse()
        assert quintet("status").status == 0

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"endpoints": {}}'])
    def test_a_damaged_stack_file_is_told(
        self, quintet: Quintet, monkeypatch: pytest.MonkeyPatch, content: str
    ) -> None:
        monkeypatch.delenv("QUINTET_ADDRESS")
        Path(".quintet").mkdir()
        Path(".quintet/stack.json").write_text(content)
        ran = quintet("status", "--json")
        assert ran.status == 1
        assert ran.error["reason"] == "NO_ADDRESS"

    def test_the_option_wins_over_the_environment(
        self, quintet: Quintet, gateway: RecordedGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUINTET_ADDRESS", "127.0.0.1:1")
        gateway.replies["GetStatus"] = pb.GetStatusResponse()
        assert quintet("status", "--address", gateway.address).status == 0
        assert quintet("--address", gateway.address, "status").status == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            ("nonsense",),
            ("ask",),
            ("ask", "why", "--nonsense"),
            ("ask", "why", "--mode", "psychic"),
            ("ask", "why", "--passages", "51"),
            ("ask", "why", "--filter", "nonsense"),
            ("ask", "why", "--timeout", "0"),
            ("search", "x", "-k", "201"),
            ("ingest", "no/such/path"),
            ("trace", "xyz"),
            ("documents", "-c", "mine", "delete", "a"),
            ("collections", "delete", "mine"),
            ("ask", "why", "--fresh", "--after", "token"),
            ("ask", "why", "--after", ""),
            ("ask", "why", "--cache", "sometimes"),
            ("search", "x", "--fresh", "--after", "token"),
            ("cache",),
            ("cache", "-c", "mine", "stats"),
            ("cache", "explain"),
            ("cache", "purge"),
            ("cache", "purge", "--question", "why", "--document", "a"),
            ("cache", "purge", "--document", "a", "--passages", "3"),
            ("cache", "purge", "--collection-all"),
            ("cache", "purge", "--everything"),
            ("cache", "purge", "--everything", "-c", "mine", "--yes"),
        ],
        ids=" ".join,
    )
    def test_a_wrong_command_line_ends_with_2_and_calls_nobody(
        self, quintet: Quintet, gateway: RecordedGateway, arguments: tuple[str, ...]
    ) -> None:
        ran = quintet(*arguments)
        assert ran.status == 2
        assert ran.out == ""
        [line] = ran.err.splitlines()
        assert line.startswith("error: ")
        as_json = quintet(*arguments, "--json")
        assert as_json.status == 2
        assert as_json.error["reason"] == "USAGE"
        assert gateway.requests == []

    def test_a_wrong_timeout_in_the_environment_is_told(
        self, quintet: Quintet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUINTET_TIMEOUT", "soon")
        ran = quintet("status")
        assert ran.status == 2
        assert "QUINTET_TIMEOUT must be a number of seconds" in ran.err


class TestSearch:
    def test_hits_are_told_with_place_score_and_text(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["Search"] = pb.SearchResponse(
            hits=[_hit("a.md", "some\n text", 5)], trail=TRAIL
        )
        ran = quintet("search", "text", "-k", "3", "--mode", "dense", "--waterfall")
        lines = ran.out.splitlines()
        assert lines[0] == (
            " 1. a.md · Title of a.md · characters 5-15 · score 0.5000 (cosine 0.750)"
        )
        assert lines[1] == "    some text"
        assert any(line.startswith("retriever.Search") for line in lines)
        [request] = gateway.asked("Search")
        assert (request.collection, request.k) == ("default", 3)
        assert request.mode == retriever.SEARCH_MODE_DENSE

    def test_how_fresh_the_hits_must_be_reaches_the_gateway(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["Search"] = pb.SearchResponse(consistency_token="now")
        quintet("search", "text", "--fresh")
        [found] = quintet("search", "text", "--after", "token", "--json").lines
        fresh, after = gateway.asked("Search")
        assert fresh.consistency.fully_consistent
        assert after.consistency.at_least_as_fresh == "token"
        assert found["consistency_token"] == "now"

    def test_json_has_the_hits(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["Search"] = pb.SearchResponse(hits=[_hit("a.md", "text", 5)])
        [found] = quintet("search", "text", "--json").lines
        assert found["hits"][0]["document_id"] == "a.md"

    def test_what_was_served_instead_is_told_and_may_be_forbidden(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["Search"] = pb.SearchResponse(degradations=[DEGRADATION])
        out = quintet("search", "text", "--fail-if-degraded").out
        assert out.startswith("DEGRADED: from before (retriever: CIRCUIT_OPEN, 3 min old)")
        assert gateway.asked("Search")[0].fail_if_degraded

    def test_no_hits_are_told_as_such(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["Search"] = pb.SearchResponse()
        ran = quintet("search", "text")
        assert (ran.status, ran.out) == (0, "nothing in default matches\n")


def _document(document_id: str) -> retriever.Document:
    return retriever.Document(
        id=document_id,
        title="A title",
        content="The whole\ncontent.",
        version=2,
        chunk_count=4,
        content_length=18,
        update_time=timestamp_pb2.Timestamp(seconds=1_700_000_000),
        metadata=_metadata(type="markdown", size=18),
    )


class TestDocuments:
    def test_all_pages_are_listed(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["ListDocuments"] = [
            pb.ListDocumentsResponse(documents=[_document("a.md")], next_page_token="more"),
            pb.ListDocumentsResponse(documents=[_document("b.md")]),
        ]
        ran = quintet("documents", "-c", "books", "--filter", "type=markdown")
        lines = [line.split() for line in ran.out.splitlines()]
        assert lines[0] == ["id", "title", "chunks", "characters", "version", "updated"]
        assert lines[1] == ["a.md", "A", "title", "4", "18", "2", "2023-11-14", "22:13:20Z"]
        assert lines[2][0] == "b.md"
        first, second = gateway.asked("ListDocuments")
        assert (first.collection, first.page_token) == ("books", "")
        assert first.filter.equals.value.string_value == "markdown"
        assert second.page_token == "more"

    def test_json_is_one_document_a_line(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["ListDocuments"] = pb.ListDocumentsResponse(
            documents=[_document("a.md"), _document("b.md")]
        )
        assert [line["id"] for line in quintet("documents", "--json").lines] == ["a.md", "b.md"]

    def test_an_empty_collection_is_told(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["ListDocuments"] = pb.ListDocumentsResponse()
        assert quintet("documents").out == "no documents in default\n"

    def test_one_is_shown_with_metadata_and_content(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["GetDocument"] = pb.GetDocumentResponse(document=_document("a.md"))
        ran = quintet("documents", "show", "a.md", "-c", "books")
        assert "metadata.type  markdown" in ran.out
        assert any(line.split() == ["metadata.size", "18"] for line in ran.out.splitlines())
        assert ran.out.endswith("The whole\ncontent.\n")
        [request] = gateway.asked("GetDocument")
        assert (request.collection, request.id, request.include_content) == ("books", "a.md", True)
        assert quintet("documents", "show", "a.md", "--json").lines[0]["version"] == "2"

    def test_one_is_deleted(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["DeleteDocument"] = pb.DeleteDocumentResponse(deleted_chunks=4)
        ran = quintet("documents", "delete", "a.md", "-c", "books")
        assert ran.out == "deleted a.md, 4 chunks\n"
        [request] = gateway.asked("DeleteDocument")
        assert (request.collection, request.id) == ("books", "a.md")

    def test_a_deletion_tells_its_token_and_what_it_is_good_for(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["DeleteDocument"] = pb.DeleteDocumentResponse(
            deleted_chunks=4, consistency_token="after"
        )
        ran = quintet("documents", "delete", "a.md", "-c", "books")
        told = "to ask from this write on: quintet ask … -c books --after after"
        assert ran.out.splitlines()[1] == told
        assert quintet("documents", "delete", "a.md", "--json").lines == [
            {"deleted_chunks": 4, "consistency_token": "after"}
        ]

    def test_one_that_is_not_there_ends_with_1(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["DeleteDocument"] = ServiceError(Reason.DOCUMENT_NOT_FOUND, "no such")
        ran = quintet("documents", "delete", "a.md")
        assert ran.status == 1
        assert "quintet documents --collection NAME" in ran.err


class TestCollections:
    def test_all_pages_are_listed(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        def page(name: str, token: str) -> pb.ListCollectionsResponse:
            collection = retriever.Collection(
                name=name, document_count=79, chunk_count=900, embedding_model="mini"
            )
            return pb.ListCollectionsResponse(collections=[collection], next_page_token=token)

        gateway.replies["ListCollections"] = [page("a", "more"), page("b", "")]
        lines = [line.split() for line in quintet("collections").out.splitlines()]
        assert lines[1][:4] == ["a", "79", "900", "mini"]
        assert lines[2][0] == "b"
        gateway.replies["ListCollections"] = page("a", "")
        assert quintet("collections", "--json").lines[0]["document_count"] == "79"

    def test_none_are_told_with_how_to_make_one(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["ListCollections"] = pb.ListCollectionsResponse()
        assert "quintet ingest PATH" in quintet("collections").out

    def test_one_is_deleted_after_a_yes(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        gateway.replies["DeleteCollection"] = pb.DeleteCollectionResponse(
            deleted_documents=79, consistency_token="gone"
        )
        assert quintet("collections", "delete", "a", "--yes").out == "deleted a, 79 documents\n"
        [request] = gateway.asked("DeleteCollection")
        assert request.name == "a"
        ran = quintet("collections", "delete", "a", "--yes", "--json")
        assert ran.lines == [{"deleted_documents": "79", "consistency_token": "gone"}]

    def test_one_is_embedded_anew_with_its_overlap_and_the_way_back(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["ReembedCollection"] = [
            pb.ReembedCollectionResponse(copied=pb.Copied(documents=3, total=3)),
            pb.ReembedCollectionResponse(compared=pb.Compared(overlap=0.87, searches=3)),
            pb.ReembedCollectionResponse(
                switched=pb.Switched(consistency_token="new", beside="a-next")
            ),
        ]
        told = quintet("collections", "reembed", "a", "--model", "mini", "--switch").out
        assert "87% of the nearest documents are the same, in 3 searches" in told
        assert "quintet collections reembed a --beside a-next --model" in told
        assert "--after new" in told
        [request] = gateway.asked("ReembedCollection")
        assert (request.collection, request.embedding_model, request.switch) == ("a", "mini", True)
        lines = quintet("collections", "reembed", "a", "--json").lines
        assert [next(iter(line)) for line in lines] == ["copied", "compared", "switched"]


class TestStatus:
    def test_it_ends_with_0_when_all_are_serving(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["GetStatus"] = pb.GetStatusResponse(
            services=[
                pb.ServiceStatus(
                    service="embedder", state=pb.SERVICE_STATE_SERVING, models=["mini", "other"]
                )
            ]
        )
        ran = quintet("status")
        assert ran.status == 0
        lines = [line.split() for line in ran.out.splitlines()]
        assert ["embedder", "serving", "mini,", "other"] in lines
        assert ["gateway", "serving"] in lines

    def test_a_breaker_that_is_not_closed_tells_since_when_and_what_it_refused(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        serving = pb.SERVICE_STATE_SERVING
        closed = pb.Breaker(state=pb.BREAKER_STATE_CLOSED)
        half_open = pb.Breaker(
            state=pb.BREAKER_STATE_HALF_OPEN,
            in_state=duration_pb2.Duration(seconds=12),
            rejections=40,
        )
        gateway.replies["GetStatus"] = pb.GetStatusResponse(
            services=[
                pb.ServiceStatus(service="embedder", state=serving, breaker=closed, models=["m"]),
                pb.ServiceStatus(service="retriever", state=serving, breaker=half_open),
            ]
        )
        out = quintet("status").out
        assert ["embedder", "serving", "closed", "m"] in [line.split() for line in out.splitlines()]
        assert "half-open for 12 s, 40 calls refused" in out

    @pytest.mark.parametrize(
        ("state", "told"),
        [
            (pb.SERVICE_STATE_NOT_SERVING, "not serving"),
            (pb.SERVICE_STATE_UNREACHABLE, "unreachable"),
        ],
    )
    def test_it_ends_with_1_when_one_is_not(
        self, quintet: Quintet, gateway: RecordedGateway, state: Any, told: str
    ) -> None:
        response = pb.GetStatusResponse(
            services=[
                pb.ServiceStatus(service="embedder", state=pb.SERVICE_STATE_SERVING),
                pb.ServiceStatus(service="retriever", state=state),
            ]
        )
        gateway.replies["GetStatus"] = response
        ran = quintet("status")
        assert ran.status == 1
        assert told in ran.out
        as_json = quintet("status", "--json")
        assert as_json.status == 1
        assert as_json.lines[0]["services"][0]["state"] == "SERVICE_STATE_SERVING"
        assert as_json.err == ""


class TestIngest:
    @pytest.fixture(autouse=True)
    def collection(self, gateway: RecordedGateway) -> None:
        gateway.replies["GetCollection"] = pb.GetCollectionResponse()

    def test_files_are_sent_with_title_and_metadata_and_summed_up(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        Path("docs/sub").mkdir(parents=True)
        Path("docs/b.md").write_text("# B\n\ntext")
        Path("docs/sub/a.html").write_text("<title>A</title>text")
        ran = quintet("ingest", "docs", "-c", "books")
        assert ran.status == 0, ran.err
        lines = ran.out.splitlines()
        assert lines[:2] == ["created: docs/b.md", "created: docs/sub/a.html"]
        assert lines[2].startswith(
            "2 of 2 documents: 2 created, 0 replaced, 0 unchanged, 0 failed, 2 chunks, 6 tokens, "
        )
        first, second = gateway.asked("Ingest")
        assert (first.collection, first.document.id, first.document.title) == ("books", "b.md", "B")
        assert first.document.metadata["type"] == "markdown"
        assert first.document.metadata["size"] == 9
        assert (second.document.id, second.document.content) == ("sub/a.html", "text")
        assert gateway.asked("CreateCollection") == []

    def test_a_collection_that_is_not_there_is_made(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        gateway.replies["GetCollection"] = ServiceError(Reason.COLLECTION_NOT_FOUND, "none")
        gateway.replies["CreateCollection"] = pb.CreateCollectionResponse()
        Path("a.md").write_text("text")
        assert quintet("ingest", "a.md", "-c", "new").status == 0
        [request] = gateway.asked("CreateCollection")
        assert (request.name, request.embedding_model) == ("new", "")

    def test_each_outcome_is_counted(self, quintet: Quintet, gateway: RecordedGateway) -> None:
        outcomes = [
            pb.INGEST_OUTCOME_CREATED,
            pb.INGEST_OUTCOME_REPLACED,
            pb.INGEST_OUTCOME_UNCHANGED,
        ]

        def acknowledge(index: int, request: pb.IngestRequest) -> pb.IngestResponse:
            response = created(index, request)
            response.ingested.outcome = outcomes[index]
            return response

        gateway.acknowledge = acknowledge
        for name in "abc":
            Path(f"{name}.md").write_text("text")
        lines = quintet("ingest", ".", "--json").lines
        assert [line["outcome"] for line in lines[:-1]] == ["created", "replaced", "unchanged"]
        summary = lines[-1]
        assert summary.pop("seconds") >= 0
        assert summary == {
            **{"event": "summary", "documents": 3, "created": 1, "replaced": 1, "unchanged": 1},
            **{"failed": 0, "chunks": 3, "tokens": 9, "consistency_token": ""},
        }

    def test_the_newest_token_of_all_is_told_in_whatever_order_they_come(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        tokens = [encode_token("books", Epoch(7, number)) for number in (4, 6, 5)]

        def acknowledge(index: int, request: pb.IngestRequest) -> pb.IngestResponse:
            response = created(index, request)
            response.ingested.consistency_token = tokens[index]
            return response

        gateway.acknowledge = acknowledge
        for name in "abc":
            Path(f"{name}.md").write_text("text")
        *documents, summary = quintet("ingest", ".", "-c", "books", "--json").lines
        assert [line["consistency_token"] for line in documents] == tokens
        assert summary["consistency_token"] == tokens[1]
        told = f"to ask from this write on: quintet ask … -c books --after {tokens[1]}"
        assert quintet("ingest", ".", "-c", "books").out.splitlines()[-1] == told

    def test_each_failure_is_named_and_the_others_are_brought_in(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        Path("a-good.md").write_text("text")
        Path("b-latin.txt").write_bytes(b"caf\xe9")
        Path("c-empty.md").touch()
        with Path("d-huge.txt").open("wb") as file:
            file.truncate(50_000_000)
        Path("e-refused.md").write_text("refuse me")
        Path("f-gone.md").symlink_to("nowhere")
        Path("g-good.md").write_text("text")

        def acknowledge(index: int, request: pb.IngestRequest) -> pb.IngestResponse:
            if request.document.content != "refuse me":
                return created(index, request)
            refused = pb.Refused(code=3, reason=2, message="far too long")  # type: ignore[arg-type]
            return pb.IngestResponse(index=index, document_id=request.document.id, refused=refused)

        gateway.acknowledge = acknowledge
        ran = quintet("ingest", ".")
        assert ran.status == 1
        assert sorted(ran.err.splitlines()) == [
            "failed: b-latin.txt: not UTF-8: byte 0xe9 at offset 3",
            "failed: c-empty.md: empty",
            "failed: d-huge.txt: too large: 50,000,000 bytes, and at most 15,728,640 are accepted",
            "failed: e-refused.md: far too long [INPUT_TOO_LONG]",
            "failed: f-gone.md: no such file or directory",
        ]
        assert "2 of 7 documents: 2 created, 0 replaced, 0 unchanged, 5 failed" in ran.out
        failed = [line for line in quintet("ingest", ".", "--json").lines if line.get("reason")]
        assert {line["reason"] for line in failed} == {"UNREADABLE", "INPUT_TOO_LONG"}

    def test_a_stream_that_breaks_keeps_what_was_acknowledged(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        def acknowledge(index: int, request: pb.IngestRequest) -> pb.IngestResponse | ServiceError:
            if index == 2:
                return ServiceError(Reason.INTERNAL, "broken")
            return created(index, request)

        gateway.acknowledge = acknowledge
        for number in range(5):
            Path(f"{number}.md").write_text("text")
        ran = quintet("ingest", ".")
        assert ran.status == 1
        assert "2 of 5 documents: 2 created" in ran.out
        assert "error: broken [INTERNAL]" in ran.err

    def test_a_stream_that_a_stopping_gateway_ends_is_continued_in_another(
        self, quintet: Quintet, gateway: RecordedGateway
    ) -> None:
        def acknowledge(index: int, request: pb.IngestRequest) -> pb.IngestResponse | ServiceError:
            if index == 2:
                return ServiceError(Reason.NOT_READY, "the service is stopping")
            return created(index, request)

        gateway.acknowledge = acknowledge
        for number in range(5):
            Path(f"{number}.md").write_text("text")
        ran = quintet("ingest", ".")
        assert ran.status == 0
        assert "5 of 5 documents: 5 created" in ran.out

    def test_a_folder_with_nothing_to_read_is_told(self, quintet: Quintet) -> None:
        ran = quintet("ingest", ".")
        assert ran.status == 1
        assert "nothing to read in ." in ran.err


class TestTrace:
    def test_an_unknown_trace_is_told(
        self, quintet: Quintet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("quintet_cli.commands.trace.PATIENCE", 0.1)
        ran = quintet("trace", TRACE_ID)
        assert ran.status == 1
        assert f"no trace {TRACE_ID}" in ran.err

    def test_a_trace_is_written_for_jaeger(
        self, quintet: Quintet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("quintet_cli.commands.trace.SETTLED", 0.1)
        folder = Path(".quintet/traces")
        folder.mkdir(parents=True)
        span = traces.Span(
            TRACE_ID, "0123456789abcdef", "", "gateway", "Ask", "server", 1_000_000, 2_000_000
        )
        traces.TraceStore(folder, most=10).add([span])
        ran = quintet("trace", TRACE_ID.upper(), "--out", "t.json")
        assert ran.out.startswith("wrote 1 spans to t.json")
        [written] = json.loads(Path("t.json").read_text())["data"]
        assert written["traceID"] == TRACE_ID
        [told] = quintet("trace", TRACE_ID, "--json").lines
        assert told == {"trace_id": TRACE_ID, "file": f"trace-{TRACE_ID}.json", "spans": 1}
        [printed] = quintet("trace", TRACE_ID, "--out", "-").lines
        assert printed["data"] == [written]

    def test_a_file_that_cannot_be_written_is_told(
        self, quintet: Quintet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("quintet_cli.commands.trace.SETTLED", 0.1)
        folder = Path(".quintet/traces")
        folder.mkdir(parents=True)
        span = traces.Span(TRACE_ID, "0123456789abcdef", "", "gateway", "Ask", "server", 1, 2)
        traces.TraceStore(folder, most=10).add([span])
        ran = quintet("trace", TRACE_ID, "--out", "no/such/t.json")
        assert ran.status == 1
        assert "no/such/t.json cannot be written: No such file or directory" in ran.err
