"""Compares ways to cut documents: how much of what a query is after stands in the first
tokens that a prompt would hold.

Two kinds of queries, because no public collection has judged passages of Markdown. Headings
of linked notes: after the section below the heading. Questions on articles, each put
together from its paragraphs: after the paragraph that the question was written for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from markdown_it import MarkdownIt

from bench.run import NO_CACHES
from evaluation.sets import load
from evaluation.through_gateway import collection_of
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_local.supervisor import OPEN, running_stack

BUDGET = 400
"""Tokens of the best chunks that are looked at: what some three chunks have together."""
_LEAST_WORDS = 25
"""Words of a section whose heading is a query; shorter ones say little but their heading."""
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to cut: the documents' format, and characters of headings that are embedded."""

    name: str
    format: tokenizer_pb.TextFormat.ValueType
    heading_chars: int


STRATEGIES = (
    Strategy("paragraphs and sentences", tokenizer_pb.TEXT_FORMAT_PLAIN, 0),
    Strategy("headings and blocks", tokenizer_pb.TEXT_FORMAT_MARKDOWN, 0),
    Strategy("headings and blocks, headings embedded", tokenizer_pb.TEXT_FORMAT_MARKDOWN, 100),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query, and the place that it is after: characters `start` to `end` of a document."""

    query: str
    document: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Task:
    """Documents by id, and what is looked for in them."""

    name: str
    documents: Mapping[str, str]
    queries: Sequence[Wanted]


def sections(folder: Path) -> Task:
    """Return the notes of a folder, and the headings below their titles as queries."""
    documents = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.md"))
    }
    queries = [wanted for id_, text in documents.items() for wanted in _sections(id_, text)]
    return Task("headings of notes", documents, queries)


def _sections(id_: str, text: str) -> list[Wanted]:
    lines = text.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)]).tolist()
    tokens = MarkdownIt("commonmark").parse(text)
    heads = [(it, title) for it, title in pairwise(tokens) if _is_head(it)]
    found = []
    for at, (head, title) in enumerate(heads):
        after = (it.map[0] for it, _ in heads[at + 1 :] if it.map and it.tag <= head.tag)
        assert head.map is not None
        start, end = starts[head.map[1]], starts[next(after, len(lines))]
        if head.tag > "h1" and len(text[start:end].split()) >= _LEAST_WORDS:
            found.append(Wanted(title.content, id_, start, end))
    return found


def _is_head(token: Any) -> bool:
    return bool(token.type == "heading_open" and token.level == 0)


def articles(folder: Path) -> Task:
    """Return articles, each its title and its paragraphs, and questions on them."""
    documents: dict[str, str] = {}
    places: dict[str, tuple[str, int, int]] = {}
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        for paragraph in map(json.loads, lines):
            title = paragraph["title"]
            text = documents.setdefault(title, f"# {title}\n")
            start = len(text) + 1
            documents[title] = f"{text}\n{paragraph['text']}\n"
            places[paragraph["_id"]] = (title, start, start + len(paragraph["text"]))
    found = load(folder)
    queries = [
        Wanted(found.queries[query], *places[paragraph])
        for query, grades in found.judgements.items()
        for paragraph in grades
    ]
    return Task("questions on articles", documents, queries)


async def compare(tasks: Sequence[Task], folder: Path) -> dict[str, dict[str, float]]:
    """Return the mean share, 0 to 1, of what is looked for that stands in the first
    `BUDGET` tokens, by strategy and task."""
    shares: dict[str, dict[str, float]] = {}
    for strategy in STRATEGIES:
        environment = NO_CACHES | {"QUINTET_GATEWAY_HEADING_CHARS": str(strategy.heading_chars)}
        async with AsyncExitStack() as stack:
            running = running_stack(folder / str(len(shares)), environment=environment | OPEN)
            address = (await stack.enter_async_context(running)).gateway
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            shares[strategy.name] = {
                task.name: await share_found(GatewayServiceStub(channel), task, strategy)
                for task in tasks
            }
        print(f"{strategy.name}: {shares[strategy.name]}", flush=True)
    return shares


async def share_found(stub: Any, task: Task, strategy: Strategy) -> float:
    """Return the mean share of what a task looks for that is found in a new collection."""
    documents = (
        pb.Document(id=id_, content=text, format=strategy.format)
        for id_, text in task.documents.items()
    )
    waiting = iter(task.queries)
    shares: list[float] = []
    async with collection_of(stub, documents) as collection:

        async def searcher() -> None:
            for wanted in waiting:
                response = await stub.Search(
                    pb.SearchRequest(
                        collection=collection, query=wanted.query, k=20, fail_if_degraded=True
                    )
                )
                shares.append(share_of(wanted, response.hits))

        await asyncio.gather(*(searcher() for _ in range(_AT_ONCE)))
    return float(np.mean(shares))


def share_of(wanted: Wanted, hits: Sequence[Any]) -> float:
    """Return the share of the wanted characters that the first hits hold, which have
    `BUDGET` tokens together at most."""
    held = np.zeros(wanted.end - wanted.start, bool)
    left = BUDGET
    for hit in hits:
        left -= hit.tokens
        if left < 0:
            break
        if hit.document_id == wanted.document:
            first = max(0, hit.start - wanted.start)
            held[first : max(first, hit.end - wanted.start)] = True
    return float(held.mean())
