"""Asking again in the way in which an answer came about, and what is different then."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from quintet.gateway.v1.explain_service_pb2 import AnswerRecord
from quintet.gateway.v1.gateway_service_pb2 import AskRequest, AskResponse, CachePolicy, Usage
from quintet_cli import cost
from quintet_cli.errors import CliError
from quintet_cli.explanation import short
from quintet_cli.terminal import one_line, seconds, shown, table


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was; "" stands for nothing."""

    what: str
    before: str
    now: str
    is_digest: bool = False


@dataclass(frozen=True, slots=True)
class PassageChange:
    """A passage's place before and now, 0 where it is not there, and its versions."""

    document_id: str
    chunk_index: int
    place_before: int
    place_now: int
    version_before: int
    version_now: int


@dataclass(frozen=True, slots=True)
class Timing:
    """What a hop took before and now, in seconds; None where it was not made."""

    hop: str
    before: float | None
    now: float | None


@dataclass(frozen=True, slots=True)
class Differences:
    """What a second asking has brought. `text_diff` has lines of `difflib.ndiff`; it is empty
    where the first answer's text is not recorded."""

    same_answer: bool
    text_diff: list[str]
    settings: list[Difference]
    passages: list[PassageChange]
    timings: list[Timing]
    cost: list[Difference]


def request_of(record: AnswerRecord, question: str) -> AskRequest:
    """Return the request that asks again: of the same settings, from what the database has
    now, and no kept answer.

    Raises `CliError` (usage) where the question is not recorded and not given.
    """
    request = AskRequest()
    request.CopyFrom(record.request)
    request.question = question or record.request.question
    if not request.question:
        raise CliError(
            "the gateway does not record questions", advice="give it with --question", usage=True
        )
    request.model = record.model or record.request.model
    request.cache = CachePolicy.CACHE_POLICY_NONE
    request.consistency.Clear()
    request.consistency.fully_consistent = True
    return request


def compared(record: AnswerRecord, response: AskResponse) -> Differences:
    """Return what is different about an answer that was asked for again."""
    digest = hashlib.sha256(response.answer.encode()).hexdigest() if response.answer else ""
    same = digest == record.answer_hash
    told_before = record.answer if not same else ""
    return Differences(
        same_answer=same,
        text_diff=_text_diff(told_before, response.answer) if told_before else [],
        settings=list(_settings(record, response)),
        passages=list(_passages(record, response)),
        timings=list(_timings(record, response)),
        cost=list(_cost(record, response)),
    )


def as_mapping(differences: Differences) -> Mapping[str, Any]:
    """Return the differences for scripts."""
    return asdict(differences)


def tell(
    out: Console, record: AnswerRecord, response: AskResponse, differences: Differences
) -> None:
    """Print what is different."""
    if differences.same_answer:
        out.print("the answer is the same", style="green")
    elif differences.text_diff:
        out.print("the answer is another one", style="yellow")
        for line in differences.text_diff:
            style = {"+": "green", "-": "red"}.get(line[0])
            out.print(one_line(line), style=style)
    else:
        out.print("the answer is another one; what it was is not recorded", style="yellow")
        out.print(shown(response.answer))
    for it in differences.settings:
        before, now = (short(value) if it.is_digest else value for value in (it.before, it.now))
        out.print(f"{it.what}: {before or 'none'} → {now or 'none'}", style="yellow")
    out.print()
    _print_passages(out, differences)
    out.print()
    _print_timings(out, record, differences)
    for it in differences.cost:
        out.print(f"{it.what}: {it.before} → {it.now}")


def _text_diff(before: str, now: str) -> list[str]:
    lines = difflib.ndiff(_sentences(before), _sentences(now))
    return [line for line in lines if not line.startswith("?")]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text)


_DIGESTS = ("model's revision", "template's revision", "prompt")


def _settings(record: AnswerRecord, response: AskResponse) -> Iterator[Difference]:
    pairs = {
        "model": (record.model, response.model),
        "model's revision": (record.model_revision, response.model_revision),
        "template": (record.template, response.template),
        "template's revision": (record.template_revision, response.template_revision),
        "prompt": (record.prompt_hash, response.prompt_hash),
        "degradations": (
            ", ".join(it.hop for it in record.degradations),
            ", ".join(it.hop for it in response.degradations),
        ),
    }
    for what, (before, now) in pairs.items():
        if before != now:
            yield Difference(what, before, now, is_digest=what in _DIGESTS)


def _passages(record: AnswerRecord, response: AskResponse) -> Iterator[PassageChange]:
    before = {(it.document_id, it.chunk_index): it for it in record.passages}
    now = {(it.hit.document_id, it.hit.chunk_index): it for it in response.passages}
    for document_id, chunk_index in dict.fromkeys([*before, *now]):
        was, is_now = before.get((document_id, chunk_index)), now.get((document_id, chunk_index))
        yield PassageChange(
            document_id,
            chunk_index,
            was.number if was else 0,
            is_now.number if is_now else 0,
            was.document_version if was else 0,
            is_now.hit.document_version if is_now else 0,
        )


def _timings(record: AnswerRecord, response: AskResponse) -> Iterator[Timing]:
    took: list[dict[str, float]] = []
    for trail in (record.trail, response.trail):
        hops: dict[str, float] = {}
        for hop in trail.hops:
            name = f"{hop.service}.{hop.method}"
            hops[name] = hops.get(name, 0.0) + hop.duration.ToNanoseconds() / 1e9
        hops["whole request"] = trail.total.ToNanoseconds() / 1e9
        took.append(hops)
    before, now = took
    names = [*dict.fromkeys([*before, *now])]
    names.sort(key=lambda name: name == "whole request")
    for name in names:
        yield Timing(name, before.get(name), now.get(name))


def _cost(record: AnswerRecord, response: AskResponse) -> Iterator[Difference]:
    # What a kept answer had taken is what it saved.
    spent = record.usage if record.usage.ByteSize() else record.cache.saved
    yield Difference("tokens", _tokens(spent), _tokens(response.usage))
    if record.bill.currency or response.bill.currency:
        yield Difference("cost", _bill(record.bill), _bill(response.bill))


def _tokens(usage: Usage) -> str:
    return f"{usage.prompt_tokens} + {usage.completion_tokens}"


def _bill(bill: Any) -> str:
    return cost.line(bill).removeprefix("cost ") or "none"


def _print_passages(out: Console, differences: Differences) -> None:
    rows = table("passage", ">before", ">now", "")
    for it in differences.passages:
        rows.add_row(
            f"{shown(it.document_id)} chunk {it.chunk_index}",
            f"{it.place_before or '–'}",
            f"{it.place_now or '–'}",
            _change(it),
            style=None if _change(it) == "same" else "yellow",
        )
    if rows.row_count:
        out.print(rows)


def _change(it: PassageChange) -> str:
    if not it.place_now:
        return "gone"
    if not it.place_before:
        return "new"
    if it.version_before != it.version_now:
        return f"version {it.version_before} → {it.version_now}"
    return "same" if it.place_before == it.place_now else "moved"


def _print_timings(out: Console, record: AnswerRecord, differences: Differences) -> None:
    rows = table("hop", ">before", ">now")
    for it in differences.timings:
        rows.add_row(it.hop, _took(it.before), _took(it.now))
    out.print(rows)
    if not record.trail.hops and not record.failure:
        out.print("before, it was a kept answer, or another caller's", style="dim")


def _took(value: float | None) -> str:
    return "–" if value is None else seconds(value)
