"""Measures what reranking gains, and chooses the share of MaxSim in its score.

For each question the twenty passages of highest cosine are ordered anew by
`quintet_embedder.reranking`, with several shares of MaxSim; nDCG@10 is reported.

    QUINTET_EVAL_DATA=... python bench/rerank_quality.py [--questions 150]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from quintet_embedder import reranking
from quintet_embedder.checkpoint import read_checkpoint
from quintet_embedder.lanes import plan_lanes
from quintet_embedder.models import Purpose, TextStates
from quintet_embedder.settings import Settings, model_folder
from quintet_embedder.tokenization import ModelTokenizer

SETS = ("xquad32-dev", "clapnq", "cranfield")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CANDIDATES = 20
SEED = 7

Judgements = Mapping[str, Mapping[str, int]]


class Encoder:
    """Texts into states, with the service's own engine."""

    def __init__(self) -> None:
        settings = Settings()
        checkpoint = read_checkpoint(model_folder(settings))
        self._tokenizer = ModelTokenizer(checkpoint.tokenizer_file, checkpoint.max_tokens)
        lanes = plan_lanes(checkpoint, settings)
        (self._lane,) = (lane for lane in lanes if Purpose.RERANK in lane.purposes)
        self._lane.open()

    async def states(self, texts: Sequence[str]) -> list[TextStates]:
        """Return the states of each text, sorted by length on the way."""
        ids, _ = await self._tokenizer.encode(["text"] * len(texts), texts, truncate=True)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        found: list[TextStates | None] = [None] * len(ids)
        for start in range(0, len(order), 16):
            batch = order[start : start + 16]
            encoded = self._lane.encode_states([ids[index] for index in batch])
            for index, states in zip(batch, encoded, strict=True):
                found[index] = states
        return [states for states in found if states is not None]


def read_lines(path: Path) -> list[dict[str, str]]:
    """Read a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_judgements(folder: Path) -> Judgements:
    """Read relevance by query and document."""
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for path in sorted(folder.glob("qrels/*.tsv")):
        for line in path.read_text().splitlines()[1:]:
            query, document, grade = line.split("\t")
            judged[query][document] = int(grade)
    return judged


def ndcg(ranking: Sequence[str], judged: Mapping[str, int], depth: int = 10) -> float:
    """Return nDCG with linear gains, as trec_eval computes it."""

    def dcg(gains: Sequence[int]) -> float:
        return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:depth]))

    best = dcg(sorted((grade for grade in judged.values() if grade > 0), reverse=True))
    return dcg([max(0, judged.get(document, 0)) for document in ranking]) / best if best else 0.0


async def evaluate(encoder: Encoder, folder: Path, questions: int) -> dict[float, float]:
    """Return mean nDCG@10 by share of MaxSim."""
    corpus = [it for it in read_lines(folder / "corpus.jsonl") if it["text"].strip()]
    judged = read_judgements(folder)
    queries = [it for it in read_lines(folder / "queries.jsonl") if judged.get(it["_id"])]
    queries = random.Random(SEED).sample(queries, min(questions, len(queries)))
    passages = await encoder.states([f"{it['title']} {it['text']}".strip() for it in corpus])
    vectors = np.stack([passage.vector for passage in passages])
    scores: dict[float, list[float]] = {share: [] for share in SHARES}
    for query, asked in zip(
        queries, await encoder.states([it["text"] for it in queries]), strict=True
    ):
        nearest = np.argsort(-(vectors @ asked.vector), kind="stable")[:CANDIDATES]
        candidates = [passages[index] for index in nearest]
        late = np.array(reranking.max_sim_scores(asked, candidates, share=1.0))
        cosine = np.array(reranking.max_sim_scores(asked, candidates, share=0.0))
        for share in SHARES:
            order = np.argsort(-(share * late + (1 - share) * cosine), kind="stable")
            ranking = [corpus[nearest[place]]["_id"] for place in order]
            scores[share].append(ndcg(ranking, judged[query["_id"]]))
    return {share: float(np.mean(values)) for share, values in scores.items()}


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=150, help="questions of each set")
    arguments = parser.parse_args()
    encoder = Encoder()
    print(f"{'nDCG@10, share of MaxSim':<26}" + "".join(f"{share:>9}" for share in SHARES))
    for name in SETS:
        folder = Path(os.environ["QUINTET_EVAL_DATA"]) / name
        means = await evaluate(encoder, folder, arguments.questions)
        print(f"{name:<26}" + "".join(f"{means[share]:>9.4f}" for share in SHARES), flush=True)


if __name__ == "__main__":
    import asyncio

    asyncio.run(main())
