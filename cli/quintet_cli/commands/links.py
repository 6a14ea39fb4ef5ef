"""`quintet links`: what links where, what dangles, what could be linked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rich.text import Text
from rich.tree import Tree

from quintet.retriever.v1 import link_service_pb2 as pb
from quintet_cli import link_graph, render
from quintet_cli.arguments import GraphFormat, LinkTypeChoice
from quintet_cli.connection import Gateway, connected
from quintet_cli.link_graph import type_name
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, one_line, print_json, shown, table

PAGE = 500
MAX_BRANCHES = 50
"""Most links of one document in a tree."""


def list_all(
    settings: Settings, *, collection: str, document_id: str, form: GraphFormat | None
) -> None:
    """Print the links from and to a document, or all; as a graph in `form`."""
    request = pb.ListLinksRequest(collection=collection, document_id=document_id, page_size=PAGE)

    async def run(gateway: Gateway) -> None:
        if form is not None:
            drawn = link_graph.mermaid if form is GraphFormat.MERMAID else link_graph.dot
            links = [link async for link in _pages(gateway, "ListLinks", request)]
            console().print(drawn(links), soft_wrap=True)
            return
        await _print_links(settings, _pages(gateway, "ListLinks", request), "no links")

    _run(settings, run)


def dangling(settings: Settings, *, collection: str) -> None:
    """Print the links that lead to no document."""
    request = pb.ListDanglingLinksRequest(collection=collection, page_size=PAGE)

    async def run(gateway: Gateway) -> None:
        links = _pages(gateway, "ListDanglingLinks", request)
        await _print_links(settings, links, "no link dangles")

    _run(settings, run)


def tree(settings: Settings, *, collection: str, document_id: str, depth: int) -> None:
    """Print the documents that a document leads to, step by step, each once."""

    async def run(gateway: Gateway) -> None:
        seen = {document_id}
        root = Tree(Text(shown(document_id), style="bold"))
        level = [(document_id, root)]
        for _ in range(depth):
            below = []
            for name, branch in level:
                request = pb.ListLinksRequest(
                    collection=collection,
                    document_id=name,
                    direction=pb.LINK_DIRECTION_FROM,
                    page_size=MAX_BRANCHES,
                )
                page = await gateway.unary("ListLinks", gateway.links.ListLinks, request)
                for link in page.links:
                    again = link.target_id in seen
                    twig = branch.add(_branch(link, again=again))
                    if link.target_id and not again:
                        seen.add(link.target_id)
                        below.append((link.target_id, twig))
                if page.next_page_token:
                    branch.add(Text("… and more", style="dim"))
            level = below
        console().print(root)

    _run(settings, run)


def related(settings: Settings, *, collection: str, document_id: str, limit: int) -> None:
    """Print the neighbourhood of a document, the nearest first, with the way to each."""
    request = pb.RelatedRequest(
        collection=collection, seeds=[pb.RelatedRequest.Seed(document_id=document_id)], limit=limit
    )

    async def run(gateway: Gateway) -> None:
        response = await gateway.unary("Related", gateway.links.Related, request)
        if settings.json:
            print_json(as_json(response))
            return
        rows = table(">score", "id", "by way of")
        for it in response.documents:
            rows.add_row(
                f"{it.score:.3f}", shown(it.document_id), " / ".join(map(_sentence, it.path))
            )
        console().print(rows if rows.row_count else f"nothing is linked with {shown(document_id)}")

    _run(settings, run)


def suggest(settings: Settings, *, collection: str, document_id: str, limit: int) -> None:
    """Print documents to link to, the most confident first."""
    request = pb.SuggestLinksRequest(collection=collection, document_id=document_id, limit=limit)

    async def run(gateway: Gateway) -> None:
        response = await gateway.unary("SuggestLinks", gateway.links.SuggestLinks, request)
        if settings.json:
            print_json(as_json(response))
            return
        rows = table(">confidence", "id", "title", "its passage")
        for it in response.suggestions:
            passage = render.excerpt(it.target_text, 120)
            rows.add_row(f"{it.confidence:.2f}", shown(it.document_id), shown(it.title), passage)
        console().print(rows if rows.row_count else "no suggestions")

    _run(settings, run)


def add(
    settings: Settings,
    source: str,
    target: str,
    *,
    collection: str,
    link_type: LinkTypeChoice,
    note: str,
) -> None:
    """State a link from one document to another."""
    request = pb.CreateLinkRequest(
        collection=collection,
        source_id=source,
        target_id=target,
        type=pb.LinkType.Value(link_type.contract),
        note=note,
    )
    _write(settings, "CreateLink", request, f"{source} {link_type} {target}")


def remove(
    settings: Settings, source: str, target: str, *, collection: str, link_type: LinkTypeChoice
) -> None:
    """Delete a link that was stated or accepted."""
    request = pb.DeleteLinkRequest(
        collection=collection,
        source_id=source,
        target_id=target,
        type=pb.LinkType.Value(link_type.contract),
    )
    _write(settings, "DeleteLink", request, f"removed: {source} {link_type} {target}")


def accept(
    settings: Settings, source: str, target: str, *, collection: str, link_type: LinkTypeChoice
) -> None:
    """Make a link of a suggestion."""
    request = pb.AcceptSuggestionRequest(
        collection=collection,
        source_id=source,
        target_id=target,
        type=pb.LinkType.Value(link_type.contract),
    )
    _write(settings, "AcceptSuggestion", request, f"{source} {link_type} {target}")


def dismiss(settings: Settings, source: str, target: str, *, collection: str) -> None:
    """See to it that a suggestion is not made again."""
    request = pb.DismissSuggestionRequest(collection=collection, source_id=source, target_id=target)
    _write(settings, "DismissSuggestion", request, f"dismissed: {source} to {target}")


def rename(settings: Settings, old: str, new: str, *, collection: str) -> None:
    """Give a document another id; links by its old names still lead to it."""
    request = pb.RenameDocumentRequest(collection=collection, id=old, new_id=new)
    _write(settings, "RenameDocument", request, f"{old} is {new} now")


def _write(settings: Settings, method: str, request: Any, done: str) -> None:
    async def run(gateway: Gateway) -> None:
        response = await gateway.unary(method, getattr(gateway.links, method), request)
        if settings.json:
            print_json(as_json(response))
        else:
            out = console()
            out.print(shown(done))
            render.token(out, request.collection, response.consistency_token)

    _run(settings, run)


def _run(settings: Settings, work: Callable[[Gateway], Awaitable[None]]) -> None:
    async def run() -> None:
        async with connected(settings) as gateway:
            await work(gateway)

    asyncio.run(run())


async def _pages(
    gateway: Gateway, method: str, request: pb.ListLinksRequest | pb.ListDanglingLinksRequest
) -> AsyncIterator[pb.Link]:
    while True:
        page: Any = await gateway.unary(method, getattr(gateway.links, method), request)
        for link in page.links:
            yield link
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def _print_links(settings: Settings, links: AsyncIterator[pb.Link], none: str) -> None:
    rows = table("from", "", "to", "where it stands")
    async for link in links:
        if settings.json:
            print_json(as_json(link))
        else:
            target = shown(link.target_id or f"{link.target} ?")
            rows.add_row(shown(link.source_id), type_name(link), target, _sentence(link))
    if not settings.json:
        console().print(rows if rows.row_count else none)


def _branch(link: pb.Link, *, again: bool) -> Text:
    branch = Text(shown(link.target_id or f"{link.target} ?"))
    if not link.target_id:
        branch.append("  dangling", style="yellow")
    if type_name(link) != "references":
        branch.append(f"  {type_name(link)}", style="cyan")
    if again:
        branch.append("  see above", style="dim")
    return branch


def _sentence(link: pb.Link) -> str:
    if link.occurrences:
        return render.excerpt(link.occurrences[0].sentence, 120)
    return one_line(link.note) or type_name(link)
