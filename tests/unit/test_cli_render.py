from __future__ import annotations

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from quintet.cache.v1.cache_service_pb2 import CacheOutcome, CacheUse
from quintet.gateway.v1.gateway_service_pb2 import (
    AnswerCache,
    AskResponse,
    AskStreamResponse,
    Citation,
    Hop,
    Passage,
    TextDelta,
    Trail,
    Usage,
)
from quintet.retriever.v1.retriever_service_pb2 import Hit
from quintet_cli import render


def _console(width: int = 200) -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(file=stream, width=width)


def _milliseconds(value: int) -> Duration:
    return Duration(nanos=value * 1_000_000)


def _bars(*hops: Hop, total: int) -> list[str]:
    stream, out = _console()
    render.waterfall(out, Trail(hops=hops, total=_milliseconds(total)))
    return [line.rpartition("ms  ")[2].rstrip() for line in stream.getvalue().splitlines()[1:-1]]


def test_bars_stand_where_and_are_as_long_as_the_hops() -> None:
    bars = _bars(
        Hop(service="a", start=_milliseconds(0), duration=_milliseconds(50)),
        Hop(service="b", start=_milliseconds(50), duration=_milliseconds(50)),
        Hop(service="c", start=_milliseconds(99), duration=_milliseconds(0)),
        total=100,
    )
    assert bars == ["━" * 16, " " * 16 + "━" * 16, " " * 31 + "━"]


def test_the_wait_for_a_streams_first_message_is_light() -> None:
    [bar] = _bars(
        Hop(
            service="a",
            start=_milliseconds(0),
            duration=_milliseconds(100),
            first_message=_milliseconds(75),
        ),
        total=100,
    )
    assert bar == "─" * 24 + "━" * 8


def test_a_hop_that_outlasts_the_request_stays_within_the_width() -> None:
    [bar] = _bars(Hop(start=_milliseconds(90), duration=_milliseconds(900)), total=100)
    assert len(bar) == render.BAR_COLUMNS


def test_a_trail_without_hops_is_told() -> None:
    assert _bars(total=0) == []


def test_each_hops_cache_is_told_beside_its_bar() -> None:
    hit = CacheUse(tier="l3", outcome=CacheOutcome.CACHE_OUTCOME_HIT, lookups=1, hits=1)
    trail = Trail(
        hops=[
            Hop(service="embedder", method="Embed", duration=_milliseconds(1)),
            Hop(service="retriever", method="Search", duration=_milliseconds(1), cache=hit),
        ],
        total=_milliseconds(2),
    )
    stream, out = _console()
    render.waterfall(out, trail)
    head, embed, search, _ = (line.split() for line in stream.getvalue().splitlines())
    assert head == ["hop", "model", "start", "took", "cache"]
    assert set(embed[-1]) == {"━"}
    assert search[-3:] == ["l3", "hit", "1/1"]


def test_in_a_narrow_terminal_bars_and_models_give_way_to_hops_and_caches() -> None:
    use = CacheUse(tier="l2", outcome=CacheOutcome.CACHE_OUTCOME_REVALIDATED, lookups=1)
    hop = Hop(service="generator", method="GenerateStream", model="a-long-name", cache=use)
    stream, out = _console(80)
    render.waterfall(out, Trail(hops=[hop], total=_milliseconds(2)))
    _, line, _ = stream.getvalue().splitlines()
    assert line.startswith("generator.GenerateStream")
    assert line.rstrip().endswith("l2 revalidated 0/1")


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (CacheOutcome.CACHE_OUTCOME_HIT, "the answer was kept (l1), so no service was asked"),
        (CacheOutcome.CACHE_OUTCOME_SHARED, "the trail of the caller whose answer was shared"),
        (CacheOutcome.CACHE_OUTCOME_MISS, "the gateway tells none"),
    ],
)
def test_an_answer_without_hops_tells_why(outcome: CacheOutcome.ValueType, why: str) -> None:
    stream, out = _console()
    cache = AnswerCache(use=CacheUse(tier="l1", outcome=outcome))
    render.waterfall(out, Trail(total=_milliseconds(1)), cache)
    assert stream.getvalue().splitlines()[-1].endswith(why)


def test_the_footer_of_an_answer_of_its_own_is_one_line() -> None:
    stream, out = _console()
    usage = Usage(prompt_tokens=200, completion_tokens=9, estimated=True)
    miss = AnswerCache(use=CacheUse(tier="l1", outcome=CacheOutcome.CACHE_OUTCOME_MISS))
    render.footer(out, AskResponse(model="m", usage=usage, cache=miss), 1.5)
    assert stream.getvalue() == "m · about 200 prompt + 9 answer tokens · 1.50 s\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("short\n text", "short text"),
        ("x" * 20, "x" * 20),
        ("one two three four five", "one two three four…"),
    ],
)
def test_an_excerpt_is_one_line_cut_at_a_word(text: str, told: str) -> None:
    assert render.excerpt(text, 20) == told


def test_an_excerpt_of_one_long_word_is_cut_within_it() -> None:
    assert render.excerpt("x" * 50, 20) == "x" * 19 + "…"


def test_a_citation_of_text_that_was_printed_long_ago_leaves_no_mark() -> None:
    stream, out = _console()
    printer = render.AnswerPrinter(out)
    for text in ("One. ", "Two. ", "Three."):
        printer(AskStreamResponse(text_delta=TextDelta(text=text)))
    printer(AskStreamResponse(citation=Citation(passage=1, answer_end=4)))
    printer(AskStreamResponse(citation=Citation(passage=2, answer_end=16)))
    printer(AskStreamResponse(citation=Citation(passage=2, answer_start=5, answer_end=16)))
    printer.close()
    assert stream.getvalue() == "One. Two. Three. [2]\n"


def test_each_cited_stretch_is_listed_once_with_its_text() -> None:
    hit = Hit(document_id="d", text="0123456789", start=100, end=110)
    response = AskResponse(
        passages=[Passage(number=1, hit=hit)],
        citations=[
            Citation(passage=1, document_id="d", document_start=105, document_end=108),
            Citation(passage=1, document_id="d", document_start=102, document_end=104),
            Citation(passage=1, document_id="d", document_start=105, document_end=108),
        ],
    )
    stream, out = _console()
    render.sources(out, response)
    assert [line.strip() for line in stream.getvalue().splitlines()] == [
        "Sources",
        "[1] d · characters 102-104",
        "“23”",
        "[1] d · characters 105-108",
        "“567”",
    ]
