"""Measures whether easy questions are told from hard ones, and what routing them would gain.

A question is easy if the extractive answer holds it: of XQuAD, a reference answer; of those
of ClapNQ that have one, with a token F1 of at least .4. The figures are of the half of the
questions that the weights were not fitted to. The larger model answers a seeded sample
of XQuAD's, because it is slow.

    QUINTET_EVAL_DATA=... python -m evaluation.routing [--sample 60] [--model NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.answer_quality import contains, token_f1
from evaluation.answers import CALLS, Row, ingested_as, is_held_out, lines, mean
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_local.supervisor import OPEN, running_stack

SETS = {"xquad": "xquad32-dev", "clapnq": "clapnq"}
THRESHOLDS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
LEAST_F1 = 0.4
SEED = 20
POLICY = {"routing": {"easy": "extractive", "hard": "extractive"}}
"""Tells of each question how easy it is, and gives all to the extractive model."""


@dataclass(frozen=True)
class Judged:
    """A question, how easy it seemed, and whether the extractive answer was right."""

    question: Row
    ease: float
    right: bool


def area(judged: Sequence[Judged]) -> float:
    """Return the area under ROC: how often of an easy and a hard question, drawn at random,
    the easy one seemed easier."""
    easy = [it.ease for it in judged if it.right]
    hard = [it.ease for it in judged if not it.right]
    wins = sum((a > b) + (a == b) / 2 for a in easy for b in hard)
    return wins / (len(easy) * len(hard))


def curve(judged: Sequence[Judged]) -> list[Row]:
    """Return by threshold the share of questions that are hard, and the share of the
    extractive answer's failures among them: what a perfect model could mend."""
    wrong = [it for it in judged if not it.right]
    return [
        {
            "threshold": threshold,
            "hard": mean(it.ease < threshold for it in judged),
            "failures among the hard": mean(it.ease < threshold for it in wrong),
            "right among the easy": mean(
                [it.right for it in judged if it.ease >= threshold] or [False]
            ),
        }
        for threshold in THRESHOLDS
    ]


def mixed(judged: Sequence[Judged], by_model: Sequence[bool], seconds: float) -> list[Row]:
    """Return by threshold what is right if the hard questions are the model's."""
    return [
        {
            "threshold": threshold,
            "model asked": mean(it.ease < threshold for it in judged),
            "right": mean(
                it.right if it.ease >= threshold else by
                for it, by in zip(judged, by_model, strict=True)
            ),
            "model seconds": seconds * mean(it.ease < threshold for it in judged),
        }
        for threshold in (0.0, *THRESHOLDS, 1.01)
    ]


def is_right(name: str, question: Row, answer: str) -> bool:
    """Whether an answer is right, as the set tells."""
    if name == "xquad":
        return contains(answer, question["answers"])
    return max(token_f1(answer, it) for it in question["answers"]) >= LEAST_F1


async def _asked(stub: Any, request: pb.AskRequest) -> pb.AskResponse:
    request.abstain_below = 0
    request.cache = pb.CACHE_POLICY_NONE
    response = await stub.Ask(request)
    assert isinstance(response, pb.AskResponse)
    return response


async def judged(stub: Any, data: Path, name: str) -> list[Judged]:
    """Bring a set in and return its held-out questions that have an answer."""
    await ingested_as(stub, f"routing-{name}", lines(data / SETS[name] / "corpus.jsonl"))
    gate = asyncio.Semaphore(CALLS)

    async def judge(question: Row) -> Judged:
        request = pb.AskRequest(collection=f"routing-{name}", question=question["text"])
        async with gate:
            response = await _asked(stub, request)
        return Judged(question, response.routing.ease, is_right(name, question, response.answer))

    questions = lines(data / SETS[name] / "queries.jsonl")
    wanted = [it for it in questions if it["answers"] and is_held_out(it["_id"])]
    return await asyncio.gather(*(judge(it) for it in wanted))


async def by_model(stub: Any, model: str, some: Sequence[Judged]) -> tuple[list[bool], float]:
    """Return whether a model answers each question of XQuAD right, and its seconds each."""
    right, began = [], time.perf_counter()
    for it in some:
        request = pb.AskRequest(
            collection="routing-xquad", question=it.question["text"], model=model, max_tokens=64
        )
        response = await _asked(stub, request)
        right.append(is_right("xquad", it.question, response.answer))
    return right, (time.perf_counter() - began) / len(some)


async def main() -> None:
    """Print the figures of a stack of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=60, help="questions for the model; 0: none")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the larger model")
    arguments = parser.parse_args()
    data = Path(os.environ["QUINTET_EVAL_DATA"])
    settings = {"QUINTET_GATEWAY_LIMITS__POLICY": json.dumps(POLICY)}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            running_stack(Path(folder) / "state", environment=OPEN | settings) as stack,
            grpc.aio.insecure_channel(stack.gateway) as channel,
        ):
            stub = GatewayServiceStub(channel)
            found = {name: await judged(stub, data, name) for name in SETS}
            for name, its in found.items():
                told = {
                    "questions": len(its),
                    "right": mean(it.right for it in its),
                    "area": area(its),
                    "curve": curve(its),
                }
                print(name, json.dumps(told, indent=2), flush=True)
            if arguments.sample:
                some = random.Random(SEED).sample(found["xquad"], arguments.sample)
                right, seconds = await by_model(stub, arguments.model, some)
                print(arguments.model, json.dumps(mixed(some, right, seconds), indent=2))


if __name__ == "__main__":
    asyncio.run(main())
