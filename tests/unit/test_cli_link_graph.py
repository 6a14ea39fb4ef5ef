"""A collection's links in the languages of other programs."""

from __future__ import annotations

from quintet.retriever.v1 import link_service_pb2 as pb
from quintet_cli.link_graph import dot, mermaid

LINKS = [
    pb.Link(source_id="a.md", target_id='b "x"', type=pb.LINK_TYPE_REFERENCES),
    pb.Link(source_id='b "x"', target="gone\n", type=pb.LINK_TYPE_EXPANDS_ON),
]


def test_mermaid_names_each_document_once_and_dots_what_dangles() -> None:
    assert mermaid(LINKS).splitlines() == [
        "flowchart LR",
        '  n0["a.md"] --> n1["b #34;x#34;"]',
        '  n1["b #34;x#34;"] -.->|expands on| n2["gone  ?"]',
    ]


def test_dot_escapes_names_and_dashes_what_dangles() -> None:
    assert dot(LINKS).splitlines() == [
        "digraph links {",
        '  "a.md" -> "b \\"x\\"" [label="references"];',
        '  "b \\"x\\"" -> "gone  ?" [label="expands on", style=dashed];',
        "}",
    ]
