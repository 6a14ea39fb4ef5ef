"""Measures what the turns of a conversation do for a follow-up, and to what is none.

Of each two questions in a row on one of XQuAD's paragraphs that share names, the second
becomes a follow-up: its shared names are put as "it". BM25 looks for the paragraph by
the follow-up as it is, by what `standalone` makes of it after the first question, and by
the question as it was. The other way round, questions as they were are asked after a
question on another article: those that are added to were misunderstood.

    QUINTET_EVAL_DATA=... python -m evaluation.conversation
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.answer_quality import Bm25
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.conversation import standalone
from quintet_servicekit.words import WORD

FOUND_WITHIN = 5
_NAME = re.compile(r"(?<!^)\b[A-Z][\w'’]+")


def figures(data: Path) -> dict[str, Any]:
    """Return the figures for the evaluation data in `data`."""
    corpus = _lines(data / "xquad32-dev" / "corpus.jsonl")
    questions = _lines(data / "xquad32-dev" / "queries.jsonl")
    index = Bm25([f"{it['title']} {it['text']}" for it in corpus])
    at = {it["_id"]: place for place, it in enumerate(corpus)}

    def found(asked: Sequence[tuple[str, int]]) -> float:
        hits = [place in index.best(text, FOUND_WITHIN) for text, place in asked]
        return sum(hits) / len(hits)

    bare, resolved, whole = [], [], []
    for one, other in pairwise(questions):
        if one["gold_doc"] != other["gold_doc"]:
            continue
        follow_up = _with_pronoun(other["text"], frozenset(_NAME.findall(one["text"])))
        if follow_up is None:
            continue
        place, turn = at[other["gold_doc"]], _turn(one)
        bare.append((follow_up, place))
        resolved.append((standalone(follow_up, [turn]), place))
        whole.append((other["text"], place))
    far = len(questions) // 2
    unrelated = [
        standalone(it["text"], [_turn(questions[(number + far) % len(questions)])]) != it["text"]
        for number, it in enumerate(questions)
    ]
    return {
        "follow-ups": len(bare),
        "found as it is": found(bare),
        "found with its turns": found(resolved),
        "found by the whole question": found(whole),
        "added to": sum(a != b for (a, _), (b, _) in zip(bare, resolved, strict=True)) / len(bare),
        "whole questions": len(unrelated),
        "whole questions added to": sum(unrelated) / len(unrelated),
    }


def _with_pronoun(question: str, names: frozenset[str]) -> str | None:
    """Return the question with each run of words that holds a shared name as "it"; None
    if there is none."""
    words, put = question.split(), False
    kept: list[str] = []
    for word in words:
        if any(it in names for it in WORD.findall(word)):
            mark = word[-1] if word[-1] in "?,." else ""
            if kept and kept[-1].rstrip("?,.") == "it":
                kept[-1] = f"it{mark}"
            else:
                kept.append(f"it{mark}")
            put = True
        else:
            kept.append(word)
    return " ".join(kept) if put else None


def _turn(question: dict[str, Any]) -> pb.Turn:
    return pb.Turn(question=question["text"], answer=question["answers"][0])


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    print(json.dumps(figures(Path(os.environ["QUINTET_EVAL_DATA"])), indent=2))
