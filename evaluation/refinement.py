"""Measures what refinements do to what a hybrid search finds, through the gateway.

QUINTET_EVAL_DATA=... python -m evaluation.refinement [SET...] [--queries 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.run import NO_CACHES
from evaluation.scoring import Scores, difference, score
from evaluation.sets import SOURCES, Collection, load
from evaluation.support import area
from evaluation.through_gateway import ingested
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_gateway.diversity import Similarity
from quintet_gateway.near_duplicates import similarity as shingle_similarity
from quintet_local.supervisor import OPEN, running_stack

SETS = ("xquad", "clapnq", "cranfield")
REFINEMENTS: Mapping[str, pb.Refinement | None] = {
    "as found": None,
    "reranked": pb.Refinement(rerank=True, candidates=20),
    "MMR, .9": pb.Refinement(mmr_lambda=0.9, candidates=20),
    "MMR, .7": pb.Refinement(mmr_lambda=0.7, candidates=20),
    "MMR, .5": pb.Refinement(mmr_lambda=0.5, candidates=20),
}
SEED = 7
MOST_DOCUMENTS = 600
"""Documents of a larger set that are brought in: those judged for the queries, and others
drawn by chance."""


def cut(found: Collection, queries: int) -> Collection:
    """Return a set of so many queries, drawn by chance, and `MOST_DOCUMENTS` documents."""
    chance = random.Random(SEED)
    names = chance.sample(sorted(found.queries), min(queries, len(found.queries)))
    judged = {it for name in names for it in found.judgements[name] if it in found.documents}
    others = sorted(set(found.documents) - judged)
    chance.shuffle(others)
    kept = judged.union(others[: max(0, MOST_DOCUMENTS - len(judged))])
    return Collection(
        documents={id_: text for id_, text in found.documents.items() if id_ in kept},
        queries={name: found.queries[name] for name in names},
        judgements={name: found.judgements[name] for name in names},
    )


async def refined(
    stub: Any, collection: str, found: Collection, refinement: pb.Refinement | None
) -> tuple[Scores, Sequence[float], float]:
    """Return the scores of ten hits a query, each search's milliseconds in the gateway,
    and the mean similarity of the first five hits to the nearest one before them."""
    run, milliseconds, repeated = {}, [], []
    for query, text in found.queries.items():
        request = pb.SearchRequest(
            collection=collection, query=text, refinement=refinement, fail_if_degraded=True
        )
        response = await stub.Search(request)
        milliseconds.append(response.trail.total.ToNanoseconds() / 1e6)
        run[query] = {hit.document_id: 10.0 - rank for rank, hit in enumerate(response.hits)}
        alike = Similarity([hit.text for hit in response.hits])
        repeated += [
            max(alike.between(it, before) for before in range(it))
            for it in range(1, min(5, len(response.hits)))
        ]
    return score(found.judgements, run), milliseconds, float(np.mean(repeated))


async def evaluate(names: Sequence[str], data: Path, queries: int) -> None:
    """Print a line for each set and refinement."""
    with tempfile.TemporaryDirectory(prefix="quintet-evaluation-") as folder:
        async with (
            running_stack(Path(folder) / "state", environment=NO_CACHES | OPEN) as stack,
            grpc.aio.insecure_channel(stack.gateway) as channel,
        ):
            stub = GatewayServiceStub(channel)
            for name in names:
                found = cut(load(data / SOURCES[name].folder), queries)
                async with ingested(stub, found.documents) as collection:
                    print(f"{name}: {len(found.documents)} documents, {len(found.queries)} queries")
                    plain: Scores | None = None
                    for title, refinement in REFINEMENTS.items():
                        scores, took, alike = await refined(stub, collection, found, refinement)
                        plain = plain or scores
                        exceeds = difference(scores, plain)
                        print(
                            f"{title:>9}: nDCG@10 {scores.means['ndcg@10']:.4f} "
                            f"({exceeds.mean:+.4f}, {exceeds.low:+.4f} to {exceeds.high:+.4f}), "
                            f"MRR {scores.means['mrr']:.4f}, p50 {np.median(took):.0f} ms, "
                            f"p95 {np.quantile(took, 0.95):.0f} ms, likeness {alike:.3f}",
                            flush=True,
                        )


def similarities(data: Path) -> Mapping[str, float]:
    """Return how well each similarity tells paragraphs of one article from others: the area
    under its ROC curve over all pairs of XQuAD's paragraphs."""
    with (data / SOURCES["xquad"].folder / "corpus.jsonl").open(encoding="utf-8") as file:
        corpus = [json.loads(line) for line in file]
    texts = [it["text"] for it in corpus]
    words = Similarity(texts)
    found: dict[str, tuple[list[float], list[float]]] = {"words": ([], []), "shingles": ([], [])}
    for one, other in combinations(range(len(corpus)), 2):
        apart = corpus[one]["title"] != corpus[other]["title"]
        found["words"][apart].append(words.between(one, other))
        found["shingles"][apart].append(shingle_similarity(texts[one], texts[other]))
    return {name: area(same, apart) for name, (same, apart) in found.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    data = Path(os.environ["QUINTET_EVAL_DATA"])
    print(f"area under the ROC curve: {similarities(data)}", flush=True)
    asyncio.run(evaluate(options.names or SETS, data, options.queries))


if __name__ == "__main__":
    main()
