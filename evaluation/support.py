"""Measures how well an answer's support tells supported sentences from others.

Sentences of ClapNQ's reference answers are held against three passages: the one that
the answer was written from among them (supported), three others that BM25 finds for the
same question (shuffled), and the right one again after a number or a name in the
sentence was exchanged for another of the corpus (altered).

    QUINTET_EVAL_DATA=... python -m evaluation.support
"""

from __future__ import annotations

import json
import os
import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.answer_quality import Bm25
from quintet_gateway.settings import Settings
from quintet_gateway.support import Evidence
from quintet_servicekit.sentences import sentence_spans

SEED = 1
LEAST_WORDS = 4
_NUMBER = re.compile(r"\d[\d,.]*")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}")


@dataclass(frozen=True)
class Figures:
    """`auc_*` are areas under the ROC curve against supported sentences; the others are
    shares at the shipped `threshold`."""

    sentences: int
    altered: int
    auc_shuffled: float
    auc_altered: float
    threshold: float
    supported_kept: float
    shuffled_flagged: float
    altered_flagged: float


def figures(data: Path) -> Figures:
    """Return the figures for the evaluation data in `data`."""
    corpus = _read(data / "clapnq" / "corpus.jsonl")
    texts = [it["text"] for it in corpus]
    at = {it["_id"]: index for index, it in enumerate(corpus)}
    index, chance = Bm25(texts), random.Random(SEED)
    supported, shuffled, altered = [], [], []
    for question in _read(data / "clapnq" / "queries.jsonl"):
        if question["is_impossible"]:
            continue
        gold = at[question["gold_doc"]]
        others = [it for it in index.best(question["text"], 4) if it != gold][:3]
        right = Evidence([texts[it] for it in (gold, *others[:2])])
        wrong = Evidence([texts[it] for it in others])
        answer = question["answers"][0]
        for start, end in sentence_spans(answer):
            sentence = answer[start:end]
            if len(sentence.split()) < LEAST_WORDS:
                continue
            supported.append(right.support(sentence).score)
            shuffled.append(wrong.support(sentence).score)
            other = _altered(sentence, texts, chance)
            if other is not None:
                altered.append(right.support(other).score)
    threshold = Settings().min_citation_support
    return Figures(
        len(supported),
        len(altered),
        area(supported, shuffled),
        area(supported, altered),
        threshold,
        _share(supported, threshold),
        1 - _share(shuffled, threshold),
        1 - _share(altered, threshold),
    )


def area(higher: Sequence[float], lower: Sequence[float]) -> float:
    """Return the area under the ROC curve: how often one of `higher` is above one of
    `lower`, ties counting half."""
    ordered = sorted(lower)
    wins = sum(bisect_left(ordered, it) + bisect_right(ordered, it) for it in higher)
    return wins / (2 * len(higher) * len(lower))


def _altered(sentence: str, texts: Sequence[str], chance: random.Random) -> str | None:
    """Return the sentence with another number or name in it; None if it has none."""
    for pattern in (_NUMBER, _NAME):
        places = list(pattern.finditer(sentence))
        if not places:
            continue
        place = chance.choice(places)
        while True:
            found = pattern.findall(chance.choice(texts))
            if found and (other := str(chance.choice(found))) != place[0]:
                return sentence[: place.start()] + other + sentence[place.end() :]
    return None


def _share(scores: Sequence[float], least: float) -> float:
    return sum(score >= least for score in scores) / len(scores)


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    print(json.dumps(asdict(figures(Path(os.environ["QUINTET_EVAL_DATA"]))), indent=2))
