"""Kept answers: which requests, under which key, and who shares one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from quintet_generator import wire
from quintet_generator.completion_cache import CompletionCache
from quintet_generator.models import (
    Citation,
    Completed,
    Completion,
    Event,
    Finished,
    FinishReason,
    ModelInfo,
    Passage,
    Query,
    TextDelta,
    TokenLogprob,
)
from quintet_servicekit.cache import CacheSettings
from quintet_servicekit.cache.use import CacheUse

QUERY = Query("", "Why?", (Passage("T", "So."), Passage("", "Thus.")), "answer", 16)
MODEL = ModelInfo("m", "r", "scripted", 0, "", "p")
CITATION = Citation(1, 0, 3, 2, 5, 0.75)
FINISHED = Finished(FinishReason.LENGTH, 7, 2, True, (TokenLogprob("So", -0.5),))
EVENTS: list[Event] = [TextDelta("So"), CITATION, TextDelta("."), FINISHED]
WHOLE = Completion("So.", (CITATION,), FINISHED)


class Model:
    """Answers with `EVENTS`; before the second it waits for `go`, then fails if told to."""

    def __init__(self, *, error: Exception | None = None, waits: bool = False) -> None:
        self.began = 0
        self.closed = 0
        self.go = asyncio.Event()
        if not waits:
            self.go.set()
        self._error = error

    async def __call__(self) -> AsyncGenerator[Event]:
        self.began += 1
        try:
            yield EVENTS[0]
            await self.go.wait()
            if self._error:
                raise self._error
            for event in EVENTS[1:]:
                yield event
        finally:
            self.closed += 1


def cache() -> CompletionCache:
    settings = CacheSettings(memory_bytes=2**20)
    return CompletionCache(wire.COMPLETIONS, wire.EVENTS, settings, None, schema=wire.SCHEMA)


async def ask(
    kept: CompletionCache,
    model: Model,
    query: Query = QUERY,
    info: ModelInfo = MODEL,
    *,
    keep: bool = True,
) -> tuple[list[str], CacheUse | None]:
    """Return the pieces of text and what the cache did; the answer must be whole."""
    async with aclosing(kept.stream(query, info, model, keep=keep)) as events:
        told = [event async for event in events]
    completed = told[-1]
    assert isinstance(completed, Completed)
    assert (completed.model, completed.finished) == (info, FINISHED)
    assert [it for it in told if isinstance(it, Citation)] == [CITATION]
    pieces = [it.text for it in told if isinstance(it, TextDelta)]
    assert "".join(pieces) == "So."
    return pieces, completed.cache


def test_an_answers_binary_form_is_read_back_whole() -> None:
    assert wire.decode_completion(wire.encode_completion(WHOLE)) == WHOLE
    empty = Completion("", (), Finished(FinishReason.STOP, 3, 0))
    assert wire.decode_completion(wire.encode_completion(empty)) == empty
    assert [wire.decode_event(wire.encode_event(it)) for it in EVENTS] == EVENTS


@pytest.mark.parametrize("raw", [b"", b"\xff\xff", b"no answer"])
def test_what_is_no_answer_or_event_is_refused(raw: bytes) -> None:
    for decode in (wire.decode_completion, wire.decode_event):
        with pytest.raises(Exception):  # noqa: B017 - of whatever kind
            decode(raw)


async def test_a_kept_answer_is_the_computed_one_in_one_piece() -> None:
    kept, model = cache(), Model()
    pieces, use = await ask(kept, model)
    assert pieces == ["So", "."]
    assert use is not None and (use.outcome, use.saved_seconds) == ("miss", None)
    pieces, use = await ask(kept, model)
    assert pieces == ["So."]
    assert use is not None and (use.outcome, use.store) == ("hit", "memory")
    assert use.age_seconds is not None and use.saved_seconds is not None
    assert (model.began, model.closed) == (1, 1)


OTHERS: dict[str, dict[str, Any]] = {
    "question": {"question": "Why not?"},
    "passage": {"passages": (Passage("T", "So"), Passage("", "Thus."))},
    "title": {"passages": (Passage("U", "So."), Passage("", "Thus."))},
    "order": {"passages": (Passage("", "Thus."), Passage("T", "So."))},
    "fewer passages": {"passages": (Passage("T", "So."),)},
    "template": {"template": "other"},
    "template's revision": {"template_revision": "other"},
    "max_tokens": {"max_tokens": 17},
    "temperature": {"temperature": 0.5, "seed": 0},
    "stop": {"stop": (".",)},
    "json_schema": {"json_schema": "{}"},
    "logprobs": {"logprobs": True},
}


@pytest.mark.parametrize("name", OTHERS)
async def test_a_request_that_differs_in_anything_finds_nothing(name: str) -> None:
    kept, model = cache(), Model()
    await ask(kept, model)
    other = replace(QUERY, **OTHERS[name])
    await ask(kept, model, other)
    await ask(kept, model, other)
    assert model.began == 2


@pytest.mark.parametrize(
    "other",
    [
        replace(MODEL, name="other"),
        replace(MODEL, revision="other"),
    ],
)
async def test_another_model_or_revision_finds_nothing(other: ModelInfo) -> None:
    kept, model = cache(), Model()
    await ask(kept, model)
    await ask(kept, model, info=other)
    assert model.began == 2


async def test_a_change_of_another_template_leaves_an_answer_where_it_is() -> None:
    kept, model = cache(), Model()
    await ask(kept, model)
    await ask(kept, model, info=replace(MODEL, prompt_revision="other"))
    assert model.began == 1


async def test_a_seed_makes_no_difference_without_chance_and_one_with_it() -> None:
    kept, model = cache(), Model()
    for seed in (None, 1, 2):
        await ask(kept, model, replace(QUERY, seed=seed))
    assert model.began == 1
    for seed in (1, 2, 1):
        await ask(kept, model, replace(QUERY, temperature=0.5, seed=seed))
    assert model.began == 3


@pytest.mark.parametrize("query", [replace(QUERY, temperature=0.5), replace(QUERY, no_cache=True)])
async def test_chance_and_who_forbids_it_are_computed_each_time_and_not_shared(
    query: Query,
) -> None:
    kept, model = cache(), Model()
    uses = await asyncio.gather(*(ask(kept, model, query) for _ in range(3)))
    assert {use.outcome for _, use in uses if use} == {"bypass"}
    assert model.began == 3
    assert kept.stats().entries == 0


async def test_who_forbids_it_is_not_served_a_kept_answer() -> None:
    kept, model = cache(), Model()
    await ask(kept, model)
    await ask(kept, model, replace(QUERY, no_cache=True))
    assert model.began == 2


async def test_a_thousand_equal_requests_at_once_run_the_model_once() -> None:
    kept, model = cache(), Model(waits=True)
    asking = [asyncio.create_task(ask(kept, model)) for _ in range(1_000)]
    await asyncio.sleep(0.01)
    model.go.set()
    outcomes = [use.outcome for _, use in await asyncio.gather(*asking) if use]
    assert (outcomes.count("miss"), outcomes.count("shared")) == (1, 999)
    assert model.began == 1
    assert (kept.stats().misses, kept.stats().shared) == (1, 999)


async def test_who_follows_gets_the_pieces_that_were_before_it_and_those_to_come() -> None:
    kept, model = cache(), Model(waits=True)
    first = asyncio.create_task(ask(kept, model))
    await asyncio.sleep(0.01)
    async with aclosing(kept.stream(QUERY, MODEL, model, keep=True)) as events:
        assert await anext(events) == TextDelta("So")
        model.go.set()
        assert [it async for it in events][1] == TextDelta(".")
    await first


async def test_the_first_one_to_ask_may_leave_while_others_follow() -> None:
    kept, model = cache(), Model(waits=True)
    first, second = (asyncio.create_task(ask(kept, model)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait({first})
    assert not model.closed
    model.go.set()
    assert (await second)[0] == ["So", "."]
    assert model.began == 1


async def test_when_all_have_left_the_work_ends_and_nothing_is_kept() -> None:
    kept, model = cache(), Model(waits=True)
    for _ in range(2):
        asking = [asyncio.create_task(ask(kept, model)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert model.closed == model.began
    assert model.began == 2
    assert kept.stats().entries == 0


async def test_a_failure_is_told_to_all_and_not_kept() -> None:
    kept, model = cache(), Model(error=ValueError("broken"), waits=True)
    asking = [asyncio.create_task(ask(kept, model)) for _ in range(3)]
    await asyncio.sleep(0.01)
    model.go.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(it) for it in results] == ["broken"] * 3
    assert kept.stats().entries == 0
    await ask(kept, Model())


async def test_what_is_not_worth_keeping_is_shared_but_not_kept() -> None:
    kept, model = cache(), Model(waits=True)
    asking = [asyncio.create_task(ask(kept, model, keep=False)) for _ in range(3)]
    await asyncio.sleep(0.01)
    model.go.set()
    uses = [use and use.outcome for _, use in await asyncio.gather(*asking)]
    assert uses == [None, "shared", "shared"]
    await ask(kept, model, keep=False)
    assert model.began == 2
    assert kept.stats().entries == 0


async def test_a_purge_drops_the_answers() -> None:
    kept, model = cache(), Model()
    await ask(kept, model)
    assert await kept.purge() == 1
    await ask(kept, model)
    assert model.began == 2
