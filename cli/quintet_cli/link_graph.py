"""A collection's links as a graph for other programs: Mermaid or Graphviz's DOT."""

from __future__ import annotations

import json
from collections.abc import Iterable

from quintet.retriever.v1.link_service_pb2 import Link, LinkType


def type_name(link: Link) -> str:
    """Return what a link says of its target: "expands on"."""
    return LinkType.Name(link.type).removeprefix("LINK_TYPE_").lower().replace("_", " ")


def mermaid(links: Iterable[Link]) -> str:
    """Return a flowchart, to be shown by whatever shows Mermaid. Dangling links are dotted."""
    numbers: dict[str, str] = {}
    lines = []
    for link in links:
        ends = []
        for name in (link.source_id, link.target_id or f"{link.target} ?"):
            node = numbers.setdefault(name, f"n{len(numbers)}")
            ends.append(f'{node}["{_mermaid_text(name)}"]')
        arrow = "-->" if link.target_id else "-.->"
        label = "" if type_name(link) == "references" else f"|{type_name(link)}|"
        lines.append(f"  {ends[0]} {arrow}{label} {ends[1]}")
    return "\n".join(["flowchart LR", *lines])


def dot(links: Iterable[Link]) -> str:
    """Return a directed graph in Graphviz's language. Dangling links are dashed."""
    lines = []
    for link in links:
        target = link.target_id or f"{link.target} ?"
        style = "" if link.target_id else ", style=dashed"
        label = json.dumps(type_name(link))
        ends = f"{_dot_text(link.source_id)} -> {_dot_text(target)}"
        lines.append(f"  {ends} [label={label}{style}];")
    return "\n".join(["digraph links {", *lines, "}"])


def _mermaid_text(text: str) -> str:
    escaped = (f"#{ord(letter)};" if letter in '"#<>[]`&\\' else letter for letter in text)
    return "".join(it if it.isprintable() else " " for it in escaped)


def _dot_text(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
