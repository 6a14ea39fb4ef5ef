"""Links through the gateway: read from notes, listed both ways, stated and suggested."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.evaluation import evaluation_set, needs_evaluation_data
from support.gateway import gateway_stub, new_collection, reason
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as gateway
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.retriever.v1 import link_service_pb2 as pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer

NOTES = {
    "index.md": "# Start\n\nThe [[Garden]] is tended. `[[nothing]]` is code.",
    "places/garden.md": "# The garden\n\nBees live in [the hive](hive.md#queen). See [[Later]].",
    "places/hive.md": "# The hive\n\nA queen and her bees live in the hive.",
}


@asynccontextmanager
async def linked(
    stack: TestStack, notes: dict[str, str], **fields: Any
) -> AsyncIterator[tuple[Any, Any, str]]:
    """Yield stubs of both services of the gateway, and a collection that holds `notes`."""
    documents = [gateway.Document(id=it, content=text, **fields) for it, text in notes.items()]
    async with (
        gateway_stub(stack.gateway) as stub,
        grpc.aio.insecure_channel(stack.gateway) as channel,
        new_collection(stub, documents) as collection,
    ):
        yield stub, LinkServiceStub(channel), collection


async def edges(links: Any, collection: str) -> list[pb.Link]:
    request = pb.ListLinksRequest(collection=collection, page_size=50)
    found: list[pb.Link] = []
    while True:
        page = await links.ListLinks(request)
        found += page.links
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_notes_are_linked_as_they_come_in_and_a_write_of_links_has_a_token(
    stack: TestStack,
) -> None:
    async with linked(stack, NOTES) as (stub, links, collection):
        found = await edges(links, collection)
        assert [(it.source_id, it.target_id) for it in found] == [
            ("index.md", "places/garden.md"),
            ("places/garden.md", ""),
            ("places/garden.md", "places/hive.md"),
        ]
        dangling = await links.ListDanglingLinks(pb.ListDanglingLinksRequest(collection=collection))
        assert [it.target for it in dangling.links] == ["Later"]
        seed = pb.RelatedRequest.Seed(document_id="index.md")
        related = await links.Related(pb.RelatedRequest(collection=collection, seeds=[seed]))
        assert {it.document_id: len(it.path) for it in related.documents} == {
            "places/garden.md": 1,
            "places/hive.md": 2,
        }
        made = await links.CreateLink(
            pb.CreateLinkRequest(
                collection=collection,
                source_id="places/hive.md",
                target_id="index.md",
                type=pb.LINK_TYPE_EXPANDS_ON,
            )
        )
        asked = gateway.AskRequest(collection=collection, question="Where do bees live?")
        asked.consistency.at_least_as_fresh = made.consistency_token
        assert (await stub.Ask(asked)).answer
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await links.CreateLink(
                pb.CreateLinkRequest(collection=collection, source_id="x", target_id="index.md")
            )
        assert reason(refused.value) == "DOCUMENT_NOT_FOUND"


async def test_plain_text_has_no_links(stack: TestStack) -> None:
    async with linked(stack, NOTES, format=tokenizer.TEXT_FORMAT_PLAIN) as (_, links, collection):
        assert not await edges(links, collection)


PAGE = (Path(__file__).parents[2] / "docs/links.md").read_text()
COMMANDS = re.findall(r"^\$ quintet (.+)$", PAGE, re.MULTILINE)


async def test_the_commands_of_the_page_on_links_work(stack: TestStack) -> None:
    assert len(COMMANDS) >= 10
    async with linked(stack, NOTES) as (_, _, collection):
        outputs = await asyncio.to_thread(_run_all, stack, collection)
    assert "The [[Garden]] is tended." in outputs["links list"]
    assert "dangling" in outputs["links tree"] and "places/hive.md" in outputs["links tree"]
    assert "Later ?" in outputs["links dangling"]
    assert "flowchart LR" in outputs["links list mermaid"]
    assert "digraph links" in outputs["links list dot"]
    assert "places/apiary.md" in outputs["documents rename"]


def _run_all(stack: TestStack, collection: str) -> dict[str, str]:
    """Return what the page's commands print, by their first words and format."""
    environment = {**os.environ, "QUINTET_STATE_DIR": str(stack.state_dir)}
    outputs: dict[str, str] = {}
    for line in COMMANDS:
        words = [collection if word == "notes" else word for word in shlex.split(line)]
        ran = subprocess.run(
            [sys.executable, "-m", "quintet_cli", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, line + ran.stdout + ran.stderr
        drawn = words[words.index("--format") + 1 :] if "--format" in words else []
        outputs.setdefault(" ".join([*words[:2], *drawn]), ran.stdout)
    return outputs


@needs_evaluation_data
async def test_the_links_of_a_real_wiki_are_those_that_its_own_tool_finds(
    stack: TestStack,
) -> None:
    notes, judged = _wiki_notes()
    expected = {(it["source"], it["resolved"]) for it in judged if it["resolved"]}
    async with linked(stack, notes) as (_, links, collection):
        found = await edges(links, collection)
    # The judgements are of wiki links alone; links by path are looked at below.
    wiki = {
        (it.source_id, it.target_id)
        for it in found
        if it.target_id and any(_is_wiki(notes[it.source_id], place) for place in it.occurrences)
    }
    assert wiki == expected, (wiki - expected, expected - wiki)
    dangling = {
        (it.source_id, it.target)
        for it in found
        if not it.target_id and _is_wiki(notes[it.source_id], it.occurrences[0])
    }
    assert dangling == {(it["source"], it["target_text"]) for it in judged if not it["resolved"]}
    by_path = {(it.source_id, it.target_id) for it in found if it.target_id} - wiki
    assert ("user/getting-started/navigation.md", "user/features/backlinking.md") in by_path


def _wiki_notes() -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the notes by id, and the judgements of their links."""
    folder = evaluation_set("notes-foam")
    root = folder / "notes"
    notes = {
        path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.md"))
    }
    return notes, [json.loads(it) for it in (folder / "links.jsonl").read_text().splitlines()]


def _is_wiki(content: str, place: pb.LinkOccurrence) -> bool:
    return content[place.start : place.end].lstrip("!").startswith("[[")
