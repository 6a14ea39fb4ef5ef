"""The record of an answer as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from quintet.gateway.v1.explain_service_pb2 import AnswerRecord, RecordedPassage
from quintet.gateway.v1.gateway_service_pb2 import BreakerState, Hop, LeftOutReason
from quintet.gateway.v1.routing_pb2 import Routing
from quintet.retriever.v1.retriever_service_pb2 import SearchMode
from quintet_cli import cache_use, cost, degradation, render
from quintet_cli.terminal import day, one_line, seconds, shown, table

SHORT_HASH = 12
"""Digits of a digest that are shown: enough to tell two apart."""


def tell(out: Console, record: AnswerRecord) -> None:
    """Print an answer's record: facts, hops, passages, scores, what was not as asked for."""
    rows = table("", "")
    rows.show_header = False
    for name, value in _facts(record):
        if value:
            rows.add_row(name, value)
    out.print(rows)
    out.print()
    render.waterfall(out, record.trail, record.cache)
    if record.trail.hops:
        out.print()
        _print_hops(out, record)
    if record.passages:
        out.print()
        _print_passages(out, record)
    _print_left_out(out, record)
    degradation.tell(out, record.degradations)
    if record.truncated:
        out.print("the record had more details than one may have, and lacks some", style="yellow")


def _facts(record: AnswerRecord) -> Iterator[tuple[str, str]]:
    request = record.request
    yield "answer", record.answer_id
    yield "asked", f"{day(record.asked_at)}{' as a stream' if record.streamed else ''}"
    yield "by key", shown(record.key)
    yield "of", shown(request.collection)
    yield "question", one_line(request.question)
    yield "understood as", one_line(record.resolved_question)
    yield "outcome", _outcome(record)
    if record.answer:
        yield "said", render.excerpt(record.answer)
    yield "search", _search(record)
    yield "embedding", _model(record.embedding_model, record.embedding_revision)
    yield "model", _model(record.model, record.model_revision)
    if record.model:
        yield "routed", _routing(record.routing) if record.HasField("routing") else ""
        # Records of before there were revisions of each have that of all.
        revision = record.template_revision or record.prompt_revision
        yield "template", _model(request.template or "answer", revision)
        yield "prompt", short(record.prompt_hash)
    yield "scores", "; ".join(_scores(record))
    yield "tokens", cache_use.tokens(record.usage) if record.usage.ByteSize() else ""
    yield "cost", cost.line(record.bill).removeprefix("cost ")
    yield "trace", record.trail.trace_id


def _routing(routing: Routing) -> str:
    sign, kind = ("≥", "easy") if routing.easy else ("<", "hard")
    told = ", ".join(f"{it.name} {it.value:.2f} → {it.weight:+.2f}" for it in routing.features)
    why = told or "a question that cannot be judged"
    return f"{kind}: {routing.ease:.2f} {sign} {routing.threshold:.2f} ({why})"


def _outcome(record: AnswerRecord) -> str:
    if failure := degradation.reason(record.failure):
        return f"failed: {failure}{f' ({shown(record.failed_at)})' if record.failed_at else ''}"
    words = ["answered"]
    if record.abstention.abstained:
        words = ["the documents don't say"]
    if origin := cache_use.origin(record.cache):
        words.append(origin.plain)
    return " · ".join(words)


def _search(record: AnswerRecord) -> str:
    request = record.request
    mode = SearchMode.Name(request.mode).removeprefix("SEARCH_MODE_").lower()
    told = [mode, f"{request.passages} passages at most"]
    if request.HasField("filter"):
        told.append("filtered")
    if request.linked_passages:
        told.append(f"and {request.linked_passages} through links")
    return ", ".join(told)


def _scores(record: AnswerRecord) -> Iterator[str]:
    limits = record.thresholds
    if record.HasField("abstention"):
        judged, below = record.abstention.answerability, limits.abstain_below
        yield f"answerability {judged:.2f} (at least {below:.2f} wanted)"
    if record.sentences:
        supported = sum(it.supported for it in record.sentences)
        least = min(it.support for it in record.sentences)
        yield (
            f"{supported} of {len(record.sentences)} sentences supported, the least "
            f"{least:.2f} (at least {limits.min_citation_support:.2f} wanted)"
        )
    if record.cache.similarity:
        yield (
            f"similarity {record.cache.similarity:.2f} to the kept question "
            f"(at least {limits.semantic_similarity:.2f} wanted)"
        )


def _print_hops(out: Console, record: AnswerRecord) -> None:
    rows = table("hop", ">budget", ">took", ">left for the rest", "breaker")
    for hop in record.trail.hops:
        rows.add_row(
            f"{hop.service}.{hop.method}",
            _seconds(hop.budget),
            _seconds(hop.duration),
            _seconds(hop.left),
            _breaker(hop),
            style="yellow" if hop.failure else None,
        )
    out.print(rows)


def _print_passages(out: Console, record: AnswerRecord) -> None:
    rows = table(">", "document", ">version", ">chunk", ">score", ">cosine", ">words", ">cited")
    for it in record.passages:
        rows.add_row(
            f"{it.number}",
            shown(it.document_id),
            f"{it.document_version}",
            chunks(it),
            f"{it.score:.3f}",
            f"{it.scores.dense:.3f}" if it.scores.HasField("dense") else "–",
            f"{it.scores.lexical:.3f}" if it.scores.HasField("lexical") else "–",
            f"{it.citations}" if it.citations else "–",
        )
    out.print(rows)


def _print_left_out(out: Console, record: AnswerRecord) -> None:
    for it in record.trail.left_out:
        why = LeftOutReason.Name(it.reason).removeprefix("LEFT_OUT_REASON_").lower()
        same = f" of {shown(it.same_as_document_id)}" if it.same_as_document_id else ""
        line = f"left out: {shown(it.document_id)} chunk {it.chunk_index}"
        out.print(f"{line} ({why.replace('_', ' ')}{same})", style="dim")


def chunks(passage: RecordedPassage) -> str:
    """Return the chunks of a passage: "3", or "3+4" of one that was merged."""
    return "+".join(map(str, [passage.chunk_index, *passage.merged_chunks]))


def _model(name: str, revision: str) -> str:
    return f"{shown(name)} @ {short(revision)}" if revision else shown(name)


def short(digest: str) -> str:
    """Return the beginning of a digest."""
    return shown(digest)[:SHORT_HASH]


def _seconds(duration: Duration) -> str:
    return seconds(duration.ToNanoseconds() / 1e9)


def _breaker(hop: Hop) -> str:
    if not hop.breaker:
        return ""
    return BreakerState.Name(hop.breaker).removeprefix("BREAKER_STATE_").lower().replace("_", "-")
