"""What following links finds, and how often suggested links are links that people made.

    python -m evaluation.links [FOLDER]

Two kinds of queries on linked notes. The first are the sentences in which links stand, with
and without the words of the link: after the document that the link leads to. They favour
following links, since the sentence itself is in the collection. The second are headings:
after the section below, wherever it is. They have nothing to do with links.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.run import NO_CACHES
from evaluation.chunking import Wanted, sections
from evaluation.through_gateway import collection_of
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_local.supervisor import OPEN, running_stack

PLANS = ((3, 0), (3, 2), (5, 0), (5, 1), (5, 2), (6, 0), (7, 0), (5, 3), (8, 0))
"""Passages that are searched for, and further ones that are found through links."""
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
_LEAST_WORDS = 5
"""Words that a sentence has besides its link to be a query."""
_MARKUP = re.compile(r"!?\[\[(?P<wiki>[^\]]+)\]\]|!?\[(?P<text>[^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_DEFINITION = re.compile(r"^\[[^\]]+\]: .*$", re.MULTILINE)

Passages = Sequence[Any]
"""Hits of one query."""


async def found_by(
    stub: Any, collection: str, queries: Iterable[str]
) -> list[dict[tuple[int, int], Passages]]:
    """Return what each plan finds for each query."""
    found = []
    for query in queries:
        by_plan: dict[tuple[int, int], Passages] = {}
        for k, linked in PLANS:
            request = pb.SearchRequest(
                collection=collection, query=query, k=k, linked_passages=linked
            )
            request.fail_if_degraded = True
            response = await stub.Search(request)
            by_plan[k, linked] = [*response.hits, *(it.hit for it in response.linked)]
        found.append(by_plan)
    return found


def means(
    found: Sequence[Mapping[tuple[int, int], Passages]], score: Callable[[int, Passages], float]
) -> dict[str, tuple[float, float]]:
    """Return by plan the mean score, and the mean number of tokens of what was found."""
    return {
        f"{k} + {linked}": (
            float(np.mean([score(i, it[k, linked]) for i, it in enumerate(found)])),
            float(np.mean([sum(hit.tokens for hit in it[k, linked]) for it in found])),
        )
        for k, linked in PLANS
    }


def share_of(wanted: Wanted, passages: Passages) -> float:
    """Return the share of the wanted characters that the passages hold."""
    held = np.zeros(wanted.end - wanted.start, bool)
    for hit in passages:
        if hit.document_id == wanted.document:
            first = max(0, hit.start - wanted.start)
            held[first : max(first, hit.end - wanted.start)] = True
    return float(held.mean())


def sentence_queries(links: Iterable[links_pb.Link], *, named: bool) -> list[tuple[str, str]]:
    """Return sentences with links, and the documents that these lead to; what the links say
    is in the sentences only if `named`."""
    queries: dict[str, str] = {}
    for link in links:
        if not link.target_id or not link.occurrences:
            continue
        sentence = link.occurrences[0].sentence
        if rest := unlinked_rest(sentence):
            queries.setdefault(unlinked(sentence) if named else rest, link.target_id)
    return list(queries.items())


def unlinked_rest(sentence: str) -> str:
    """Return a sentence without what its links say; nothing if that is too short to be a
    query."""
    rest = " ".join(_MARKUP.sub(" ", sentence).split())
    return rest if len(re.findall(r"\w+", rest)) >= _LEAST_WORDS else ""


def unlinked(text: str) -> str:
    """Return a text with what its links say in their place."""

    def said(match: re.Match[str]) -> str:
        if match["wiki"] is None:
            return match["text"]
        target, _, alias = match["wiki"].partition("|")
        return alias or target

    return _DEFINITION.sub("", _MARKUP.sub(said, text))


async def all_links(stub: Any, collection: str) -> list[links_pb.Link]:
    """Return the links of a collection."""
    request = links_pb.ListLinksRequest(collection=collection, page_size=200)
    found: list[links_pb.Link] = []
    while True:
        page = await stub.ListLinks(request)
        found += page.links
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def suggestions(
    stub: Any, collection: str, documents: Iterable[str]
) -> dict[frozenset[str], float]:
    """Return the confidence of each pair that is suggested; the greater of both ways."""
    found: dict[frozenset[str], float] = {}
    for document in documents:
        request = links_pb.SuggestLinksRequest(
            collection=collection, document_id=document, limit=50, min_confidence=0.0
        )
        for it in (await stub.SuggestLinks(request)).suggestions:
            pair = frozenset((document, it.document_id))
            found[pair] = max(found.get(pair, 0.0), it.confidence)
    return found


def markdown(notes: Mapping[str, str]) -> Iterable[pb.Document]:
    """Return the notes as documents."""
    for id_, text in notes.items():
        yield pb.Document(id=id_, content=text, format=tokenizer_pb.TEXT_FORMAT_MARKDOWN)


async def measure(folder: Path, state: Path) -> None:
    """Print both measurements."""
    task = sections(folder)
    async with (
        running_stack(state, environment=NO_CACHES | OPEN) as stack,
        grpc.aio.insecure_channel(stack.gateway) as channel,
    ):
        stub, links = GatewayServiceStub(channel), LinkServiceStub(channel)
        async with collection_of(stub, markdown(task.documents)) as collection:
            written = await all_links(links, collection)
            for named in (True, False):
                queries = sentence_queries(written, named=named)
                found = await found_by(stub, collection, [query for query, _ in queries])

                def arrives(
                    i: int, passages: Passages, queries: Sequence[tuple[str, str]] = queries
                ) -> float:
                    return float(any(it.document_id == queries[i][1] for it in passages))

                name = "with the link's words" if named else "without"
                print(f"sentences {name}, {len(queries)}: the linked document is found")
                _show(means(found, arrives))
            found = await found_by(stub, collection, [it.query for it in task.queries])
            print(f"headings, {len(task.queries)}: share of the section")
            _show(means(found, lambda i, passages: share_of(task.queries[i], passages)))

        bare = {id_: unlinked(text) for id_, text in task.documents.items()}
        async with collection_of(stub, markdown(bare)) as collection:
            suggested = await suggestions(links, collection, bare)
    pairs = {frozenset((it.source_id, it.target_id)) for it in written if it.target_id}
    print(f"suggestions: {len(pairs)} pairs are linked")
    for least in THRESHOLDS:
        made = {pair for pair, confidence in suggested.items() if confidence >= least}
        right = len(made & pairs)
        print(
            f"  {least:.2f}: {len(made):4} pairs, precision {right / max(1, len(made)):.3f},"
            f" recall {right / len(pairs):.3f}"
        )


def _show(by_plan: Mapping[str, tuple[float, float]]) -> None:
    for plan, (mean, tokens) in by_plan.items():
        print(f"  {plan}: {mean:.3f} ({tokens:.0f} tokens)", flush=True)


def main() -> int:
    """Measure on a folder of notes; return the exit status."""
    given = sys.argv[1:] or [str(Path(os.environ["QUINTET_EVAL_DATA"]) / "notes-foam" / "notes")]
    with tempfile.TemporaryDirectory(prefix="quintet-links-") as state:
        asyncio.run(measure(Path(given[0]), Path(state)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
