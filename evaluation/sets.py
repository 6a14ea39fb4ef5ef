"""The collections that are evaluated on, in BEIR's layout, and what others measured on them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Judgements = Mapping[str, Mapping[str, int]]
"""Grade of each relevant document, by the id of the query."""


@dataclass(frozen=True, slots=True)
class Published:
    """Figures of others; None where there is none."""

    who: str
    ndcg: float
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A set: its folder within the evaluation data, what it is, and figures of others by
    mode."""

    folder: str
    title: str
    published: Mapping[str, Published]


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, judged queries and their judgements; texts by id."""

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    judgements: Judgements


_BM25S = "bm25s 0.3.16, Snowball"
_MINILM = "all-MiniLM-L6-v2, exact"
_RRF = "RRF of these two, k 60"

SOURCES: Mapping[str, Source] = {
    "scifact": Source(
        "scifact-dev",
        "SciFact, BEIR's train split",
        {
            "lexical": Published(_BM25S, 0.6964, 0.9283),
            "dense": Published(_MINILM, 0.6602, 0.9324),
            "hybrid": Published(_RRF, 0.7170, 0.9516),
        },
    ),
    "cranfield": Source(
        "cranfield",
        "Cranfield 1400",
        {
            "lexical": Published(_BM25S, 0.365),
            "dense": Published(_MINILM, 0.375),
            "hybrid": Published(_RRF, 0.408),
        },
    ),
    "xquad": Source(
        "xquad32-dev",
        "XQuAD, English, 160 of the 240 paragraphs; the others' figures are of all 240",
        {
            "lexical": Published("BM25, MTEB", 0.9649, 0.9975),
            "dense": Published("all-MiniLM-L6-v2, MTEB", 0.9436, 1.0),
        },
    ),
    "clapnq": Source(
        "clapnq",
        "ClapNQ, answerable questions",
        {
            "lexical": Published(_BM25S, 0.945),
            "dense": Published(_MINILM, 0.984),
            "hybrid": Published(_RRF, 0.974),
        },
    ),
}


def load(folder: Path) -> Collection:
    """Read a set. A document is its title and its text, joined as MTEB joins them; empty
    ones, which no search can find, are left out, as are queries without a judgement."""
    documents = {
        line["_id"]: f"{line.get('title', '')} {line['text']}".strip()
        for line in _lines(folder / "corpus.jsonl")
    }
    judgements: dict[str, dict[str, int]] = {}
    (file,) = (folder / "qrels").glob("*.tsv")
    with file.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            judgements.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return Collection(
        documents={id_: text for id_, text in documents.items() if text},
        queries={
            line["_id"]: line["text"]
            for line in _lines(folder / "queries.jsonl")
            if line["_id"] in judgements
        },
        judgements=judgements,
    )


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
